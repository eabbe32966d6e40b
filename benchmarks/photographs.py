"""Do photographs of SynthFace's people look like people? Released networks answer; needs the mirror's assets.

`python benchmarks/photographs.py` prints the share of faces that MediaPipe finds, how well MobileFaceNet tells the
people apart, how near the landmarks of 3DDFA-V2 and MediaPipe are to the true ones, and photographs a second.
`--sheet docs/people.png` draws 64 people instead, from the front, at three quarters and in profile.
"""

import argparse
import time

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import normalize

from facenb.assets import asset
from facenb.imaging.lighting import ambient, directional
from facenb.networks.onnx_network import IMAGENET, OnnxNetwork
from facenb.networks.tddfa_v2 import TDDFA, crop, square_box
from facenb.photos.crops import crop_faces, five_of_68
from facenb.photos.landmarks import detect, to_68
from facenb.synthface import photographs
from facenb.synthface.people import SynthFace
from facenb.synthface.photographs import Photographs, concatenate, photograph

FIRST = 1000  # subject from which the people are taken
PARTS = {
    "jaw": slice(0, 17),
    "brows": slice(17, 27),
    "nose": slice(27, 36),
    "eyes": slice(36, 48),
    "mouth": slice(48, 68),
}


def verification(photos: Photographs) -> float:
    """Return the area under the ROC curve of all pairs, by the cosine of MobileFaceNet's features."""
    network = OnnxNetwork(asset("mobilefacenet") / "MobileFaceNet.onnx", *IMAGENET)
    crops = crop_faces(photos.image, five_of_68(photos.landmarks), (112, 112))
    features = normalize(network(crops.float() / 255), dim=-1)
    row, column = torch.triu_indices(len(features), len(features), 1)
    score, same = (features @ features.T)[row, column], (photos.subject[row] == photos.subject[column])
    below = torch.searchsorted(score[~same].sort().values, score[same])
    return below.double().mean().item() / int((~same).sum())


def by_3ddfa(photos: Photographs) -> torch.Tensor:
    """Return 3DDFA-V2's landmarks (photos, 68, 2) in pixels; each face is cut out by the true landmarks' box."""
    method, boxes = TDDFA.load(asset("3ddfa-v2")), square_box(photos.landmarks)
    with torch.no_grad():
        predicted = [
            method.landmarks(method(crop(image, box[None])), box[None])
            for image, box in zip(photos.image, boxes, strict=True)
        ]
    return torch.cat(predicted)[..., :2]


def by_mediapipe(photos: Photographs) -> torch.Tensor:
    """Return the points of MediaPipe's mesh nearest to the 68 landmarks (photos, 68, 2), NaN where no face is found."""
    found = [detect(image) for image in photos.image]
    return torch.stack([to_68(faces[0]) if len(faces) else torch.full((68, 2), torch.nan) for faces in found])


def describe(method: str, predicted: torch.Tensor, photos: Photographs) -> str:
    """Return mean distances to the true landmarks by part, in % of sqrt(width x height) of the true ones' box."""
    extent = (photos.landmarks.amax(1) - photos.landmarks.amin(1)).prod(-1).sqrt()
    errors = 100 * (predicted - photos.landmarks).norm(dim=-1) / extent[:, None]
    errors = errors[errors.isfinite().all(1)]
    named = ", ".join(f"{name} {errors[:, part].mean():.2f}" for name, part in PARTS.items())
    return f"{method} on {len(errors)}: NME {errors.mean():.2f} %, without jaw {errors[:, 17:].mean():.2f} % ({named})"


def draw_sheet(synth: SynthFace, path: str, people: int = 64, columns: int = 4, side: int = 108) -> None:
    """Write a picture of people at rest, each seen from three sides, before a plain wall."""
    lamp = torch.tensor([[0.45, 0.45, 1.0]]), torch.tensor([[0.72, 0.70, 0.68]])
    light = (ambient(torch.tensor([[0.42, 0.42, 0.43]])) + directional(*lamp))[0]
    wall = torch.full((side, side, 3), 0.75)
    size, texels = (side, side), photographs._texels((side, side), 2, 185.0)
    tiles = []
    for k in range(people):
        person, scenes = photographs._Person(synth, k, texels), []
        for yaw, shift in ((0.0, 0.5), (40.0, 1.3), (85.0, 2.1)):  # to the right: the back of the head is seen
            scene = photographs._Scene(synth, person, 0, size, 0.0, False)
            scene.angles = torch.tensor([np.radians(yaw), 0.0, 0.0], dtype=torch.float32)
            scene.framing, scene.light, scene.background = np.array([1.2, shift, 0.6, 0.5]), light, wall
            scenes.append(scene)
        shots = photographs._expose(synth, scenes, texels, size, "weak", 2, 0.0, 185.0)
        tiles.append(torch.cat(list(shots.image), 1))
    sheet = torch.cat([torch.cat(tiles[k : k + columns], 1) for k in range(0, people, columns)])
    image = Image.fromarray((255 * sheet).round().byte().numpy())
    image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=250, help="with two photographs each")
    parser.add_argument("--sheet", help="PNG to draw people on")
    arguments = parser.parse_args()
    people, synth = arguments.people, SynthFace(0)
    if arguments.sheet:
        draw_sheet(synth, arguments.sheet)
        return
    photos = concatenate([photograph(synth, [k, k], [0, 1], (224, 224), 40.0) for k in range(FIRST, FIRST + people)])
    found = sum(len(detect(image)) > 0 for image in photos.image)
    print(f"MediaPipe finds {found} of {len(photos)} photographs (224 pixels, yaw to 40 degrees)")
    print(f"MobileFaceNet: AUC {verification(photos):.3f} over all pairs")
    few = photograph(synth, list(range(FIRST, FIRST + 200)), [0] * 200, (224, 224), 40.0)
    print(describe("3DDFA-V2", by_3ddfa(few), few))
    print(describe("MediaPipe", by_mediapipe(few), few))
    subjects, pictures = [k for k in range(6) for _ in range(12)], list(range(12)) * 6
    photograph(synth, subjects, pictures, (64, 64))
    wall, processor = time.perf_counter(), time.process_time()
    photograph(synth, subjects, pictures, (64, 64))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    print(f"photographs at 64 pixels: {72 / wall:.0f} a second; {1000 * processor / 72:.1f} ms of processor each")


if __name__ == "__main__":
    main()
