"""Do SynthFace's people look like people? Distances, folds, eyeballs, tongues and the residual of the linear model.

`python benchmarks/people.py [--people 1000]` prints a table (needs the asset ict-facekit).
"""

import argparse
import runpy
from pathlib import Path

import igl
import numpy as np
import torch

from facenb.assets import asset
from facenb.imaging.render import vertex_normals
from facenb.morphable.formats.ict import read_ict
from facenb.morphable.model import Embedding
from facenb.synthface.atlas import fit_sphere
from facenb.synthface.expressions import EXPRESSIONS
from facenb.synthface.heads import COMPONENTS, load_heads
from facenb.synthface.model import course_model, residual_by_components
from facenb.synthface.people import SynthFace

measure = runpy.run_path(str(Path(__file__).parents[1] / "bake/landmarks.py"))["measure"]
DISTANCES = {
    "face height": (27, 8),
    "face width": (1, 15),
    "jaw width": (4, 12),
    "outer eye corners": (36, 45),
    "inner eye corners": (39, 42),
    "nose length": (27, 33),
    "nose width": (31, 35),
    "mouth width": (48, 54),
    "lips height": (51, 57),
    "chin height": (57, 8),
}
MOODS = (  # open and closed mouths, closed eyes
    {},
    {"mouthSmileLeft": 1.0, "mouthSmileRight": 1.0, "eyeSquintLeft": 0.4, "eyeSquintRight": 0.4},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0},
    {"eyeBlinkLeft": 0.5, "eyeBlinkRight": 0.5, "mouthPucker": 1.0},
    {"jawOpen": 1.0, "eyeWideLeft": 1.0, "eyeWideRight": 1.0},
    {"mouthFrownLeft": 1.0, "mouthFrownRight": 1.0, "browDownLeft": 1.0, "browDownRight": 1.0},
)
SAMPLES = np.array(
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.5, 0.5, 0), (0, 0.5, 0.5), (0.5, 0, 0.5), (1 / 3, 1 / 3, 1 / 3)]
)
CLOSED = [k for k, mood in enumerate(MOODS) if "jawOpen" not in mood]


def distances(landmarks: torch.Tensor) -> np.ndarray:
    """Return the ten distances (people, 10) in mm."""
    pairs = torch.tensor(list(DISTANCES.values()))
    return (landmarks[:, pairs[:, 0]] - landmarks[:, pairs[:, 1]]).norm(dim=-1).numpy()


def folded(head: torch.Tensor, reference: torch.Tensor, triangles: torch.Tensor) -> int:
    """Return how many triangles turn away from the normal that the smooth surface has at their vertices."""

    def against(vertices):
        corners = vertices[triangles]
        face = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        return (face * vertex_normals(vertices[None], triangles)[0][triangles].mean(1)).sum(1) < 0

    return int((against(head) & ~against(reference)).sum())


def poking(head: np.ndarray) -> float:
    """Return the deepest that the skin around the eyes lies below the surface of an eyeball, mm.

    A ray that leaves a point of the skin straight away from the middle of an eyeball meets the ball only if the point
    lies inside. The points are vertices, middles of edges and centres of triangles; the edges of the lids that roll in
    behind their front edge are left out, as nobody sees them.
    """
    heads, deepest = load_heads(), 0.0
    hidden = heads.part("socket")
    for _ in range(2):  # rings of vertices from the lining of the socket to the front edge of the lid
        hidden = np.unique(heads.triangles[np.isin(heads.triangles, hidden).any(1)])
    skin = np.setdiff1d(heads.part("skin"), hidden)
    corners = head[heads.triangles[np.isin(heads.triangles, skin).all(1)]]
    points = np.unique(np.einsum("sk,tkx->tsx", SAMPLES, corners).reshape(-1, 3).round(6), axis=0)
    for eye in np.split(heads.part("eye"), 2):
        ball, middle = heads.triangles[np.isin(heads.triangles, eye).all(1)], fit_sphere(head[eye])[0]
        for point in points[(np.linalg.norm(points - middle, axis=1) < 20) & (points[:, 2] > middle[2])]:
            hits = igl.ray_mesh_intersect(point, point - middle, head, ball)
            if len(hits):
                deepest = max(deepest, float(hits[0][1] * np.linalg.norm(point - middle)))
    return deepest


def tongue_seen(head: np.ndarray) -> bool:
    """Return whether a ray from the front meets the tongue before skin or teeth."""
    heads = load_heads()
    names = np.array(COMPONENTS)[heads.component]
    others = heads.triangles[np.isin(names[heads.triangles[:, 0]], ("skin", "mouth", "upper_teeth", "lower_teeth"))]
    tongue = head[names == "tongue"]
    sources = tongue + (0.0, 0.0, 0.05)
    rays = np.repeat([[0.0, 0.0, 1.0]], len(sources), 0)
    hits = igl.ray_mesh_intersect
    return any(len(hits(s, d, head, others)) == 0 for s, d in zip(sources, rays, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=1000, help="whose distances are compared")
    people = parser.parse_args().people
    synth, model = SynthFace(0), read_ict(asset("ict-facekit") / "ict_face_head_11248.npz")
    vertices, weights, _ = measure(model, as_300w=False)  # the same points on both
    points = Embedding(torch.from_numpy(vertices), torch.from_numpy(weights).float())
    ours = distances(points.of(synth.neutrals(list(range(people)))))
    identity, _ = model.sample(people, torch.Generator().manual_seed(0), expression=False)
    theirs = distances(model.landmarks.of(model.shape(identity)))
    print(f"{'mm':20s} {'ours':>14s} {'ICT-FaceKit':>14s}  offset/sd  spread")
    for k, name in enumerate(DISTANCES):
        a, b = ours[:, k], theirs[:, k]
        print(
            f"{name:20s} {a.mean():7.1f} ± {a.std():4.1f} {b.mean():7.1f} ± {b.std():4.1f}"
            f"  {(a.mean() - b.mean()) / b.std():8.2f} {a.std() / b.std():8.2f}"
        )
    skin = torch.from_numpy(load_heads().part("skin"))
    triangles = synth.triangles[torch.isin(synth.triangles, skin).all(1)]
    folds, deepest, tongues = [], [], []
    rows = torch.zeros(len(MOODS), len(EXPRESSIONS))
    for k, mood in enumerate(MOODS):
        for name, value in mood.items():
            rows[k, EXPRESSIONS.index(name)] = value
    for index in range(40):
        subject = synth.subject(index)
        shapes = synth.shape(subject, rows)
        folds.append([folded(shape, synth.mean, triangles) for shape in shapes])
        deepest.append([poking(shape.double().numpy()) for shape in shapes])
        if index < 10:
            tongues.append([tongue_seen(shape.double().numpy()) for shape in shapes[CLOSED]])
    print(
        f"new folds of skin ({len(triangles)} triangles), mean and most by mood:", np.mean(folds, 0), np.max(folds, 0)
    )
    print(
        "deepest lid in an eyeball, mm, mean and most by mood:",
        np.mean(deepest, 0).round(3),
        np.max(deepest, 0).round(3),
    )
    print("tongue seen with a closed mouth, people of 10 by mood:", np.sum(tongues, 0))
    residual = residual_by_components(course_model())
    print("residual of unseen people, mm:", dict(zip(residual.components, np.round(residual.mean, 2), strict=True)))


if __name__ == "__main__":
    main()
