"""A flat vector of DECA's layout as a scene: face, camera and light, and the picture of it.

Conventions of the vector are the released weights': pose as axis angles, the camera (s, x, y) maps a point of the posed
head, in metres, to s (point + shift) on a picture from -1 to 1, y up; light in the order of `lighting.from_deca`. The
albedo is one of the model's own, at its vertices.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

from facenb.imaging.camera import WeakPerspective
from facenb.imaging.lighting import from_deca, irradiance
from facenb.imaging.raster import interpolate, rasterize
from facenb.imaging.render import Rendering, render, vertex_normals
from facenb.morphable.layouts import Layout
from facenb.morphable.mesh import Subdivision, vertex_uv
from facenb.morphable.model import MorphableModel
from facenb.networks.deca import WITH_JAW
from facenb.networks.detail import DetailDecoder, LinearDecoder

METRE = 1000.0  # mm
EDGED = ("brows", "eyelids", "lips", "nose", "left_eye", "right_eye", "mouth_inside", "ears", "scalp")
BORDER = 3  # edges over which displacements fade out towards the border of the face


def posed(model: MorphableModel, layout: Layout, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch vertices 3"]:
    """Vertices in mm on the camera's axes: with expression, the jaw and the head turned.

    Raises ValueError for a model without a jaw, or a vector that has not this layout.
    """
    parts = layout.split(flat)
    if model.joints is None or not {"global", "jaw"} <= set(model.joints.names):
        raise ValueError(f"{model.name} has no joints global and jaw to pose; {WITH_JAW}")
    pose = flat.new_zeros(len(flat), len(model.joints.names), 3)
    turned = {"global": parts["global_pose"], "jaw": parts["jaw_pose"]}
    pose = torch.stack([turned.get(name, pose[:, k]) for k, name in enumerate(model.joints.names)], 1)
    return model.shape(parts["identity"], parts["expression"], pose)


def neutral(
    model: MorphableModel, layout: Layout, flat: Float[Tensor, "batch all"]
) -> Float[Tensor, "batch vertices 3"]:
    """The person at rest, mm: expression and pose are zero, as NoW asks."""
    return model.shape(layout.split(flat)["identity"])


def camera_of(layout: Layout, flat: Float[Tensor, "batch all"], size: tuple[int, int]) -> WeakPerspective:
    """The camera for a picture of (height, width): -1 to 1 is its shorter side, about its middle."""
    scale, shift = layout.split(flat)["camera"].split([1, 2], 1)
    half = min(size) / 2
    middle = flat.new_tensor([size[1] / 2, size[0] / 2])
    away = half * scale * shift * flat.new_tensor([1.0, -1.0])
    return WeakPerspective(torch.eye(3).to(flat).expand(len(flat), 3, 3), half * scale[:, 0] / METRE, middle + away)


def landmarks_of(
    model: MorphableModel, layout: Layout, flat: Float[Tensor, "batch all"], size: tuple[int, int]
) -> Float[Tensor, "batch 68 2"]:
    """The landmarks' places in pixels; `model` may be cut to `mesh.landmark_vertices`."""
    return camera_of(layout, flat, size).project(model.landmarks.of(posed(model, layout, flat)))[..., :2]


@dataclass(frozen=True)
class Stage:
    """A model and the finer mesh its details are drawn on."""

    model: MorphableModel
    layout: Layout
    fine: Subdivision
    uv: Float[Tensor, "fine 2"]
    skin: Bool[Tensor, " triangles"]  # of the coarse mesh
    even: Bool[Tensor, " triangles"]  # skin without drawn edges, which a pixel of misplacement turns into relief
    share: Float[Tensor, " fine"]  # of a displacement that a vertex takes: 1 on the face, 0 at its border and beyond

    @classmethod
    def of(cls, model: MorphableModel, layout: Layout) -> "Stage":
        """ValueError for a model without texture coordinates (FLAME's are in a file of their own: `read_flame`).

        Displacements reach the region `face` where the model names one, as SynthFace's does. FLAME's names none: there
        they reach the whole head and the eyes, and fade out at the neck's and the mouth's opening only.
        """
        fine, device = Subdivision.of(model.triangles, len(model.mean)), model.mean.device
        skin = torch.ones(len(model.mean), dtype=torch.bool, device=device)
        if "skin" in model.regions:
            skin = torch.zeros_like(skin)
            skin[model.regions["skin"]] = True
        corners = torch.bincount(fine.triangles.flatten(), minlength=len(model.mean) + len(fine.edges))
        rim = fine.edges[corners[len(model.mean) :] < 6].flatten()  # where the mesh was cut: edges of one triangle
        even = skin.clone()
        for name in EDGED:
            even[model.regions.get(name, [])] = False
        even[rim] = False
        skins = (mask[model.triangles].all(1) for mask in (skin, even))
        face = torch.zeros_like(skin)
        face[model.regions.get("face", slice(None))] = True
        share = torch.zeros(len(face), device=device)
        for _ in range(BORDER):  # each time the vertices that have a neighbour outside are lost
            face = face.index_fill(0, fine.edges[~face[fine.edges].all(1)].flatten(), False).index_fill(0, rim, False)
            share += face / BORDER
        return cls(model, layout, fine, _fine_uv(model, fine), *skins, fine.at(share[:, None])[:, 0])

    def to(self, device) -> "Stage":
        """The same on another device."""
        return replace(
            self,
            model=self.model.to(device),
            fine=self.fine.to(device),
            uv=self.uv.to(device),
            skin=self.skin.to(device),
            even=self.even.to(device),
            share=self.share.to(device),
        )

    def coarse(self, flat: Float[Tensor, "batch all"], size: tuple[int, int]) -> Rendering:
        """The picture of the smooth face, differentiable."""
        parts, camera, light = self._scene(flat, size)
        vertices = posed(self.model, self.layout, flat)
        return render(vertices, self.model.triangles, self.model.albedo(parts["albedo"]), camera, size, light)

    def detailed(
        self, flat: Float[Tensor, "batch all"], displacement: Float[Tensor, "batch fine"], size: tuple[int, int]
    ) -> Rendering:
        """The picture with displacements (mm, at the fine mesh's vertices), differentiable in both.

        Shaded as the smooth face, and by what the displacement changes in the fine mesh's normals: a mesh made finer
        keeps its facets, and their own normals would be a relief that nobody displaced.
        """
        parts, camera, light = self._scene(flat, size)
        vertices, triangles = posed(self.model, self.layout, flat), self.fine.triangles
        moved, plain = self.relief(vertices, displacement), self.fine.at(vertices)
        own = vertex_normals(vertices, self.model.triangles)
        smooth = normalize(self.fine.at(own), dim=-1)
        normals = smooth + vertex_normals(moved, triangles) - vertex_normals(plain, triangles)
        normals = normalize(normals, dim=-1)
        albedo, relit = self.model.albedo(parts["albedo"]), irradiance(normals, light) - irradiance(smooth, light)
        colour = self.fine.at(albedo * irradiance(own, light)) + self.fine.at(albedo) * relit
        fragments = rasterize(camera.project(moved), triangles, size)
        return Rendering(interpolate(fragments, colour, triangles), fragments, normals, triangles)

    def relief(
        self, vertices: Float[Tensor, "batch vertices 3"], displacement: Float[Tensor, "batch fine"]
    ) -> Float[Tensor, "batch fine 3"]:
        """The fine mesh of a face, moved along the smooth normals by `displacement` mm."""
        normals = self.fine.at(vertex_normals(vertices, self.model.triangles))
        return self.fine.at(vertices) + displacement[..., None] * normalize(normals, dim=-1)

    def displacement(
        self, decoder: DetailDecoder | LinearDecoder, maps: Float[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch fine"]:
        """Displacement maps at the fine mesh's vertices, mm, fading out at the border of the face."""
        return self.share * decoder.at(maps, self.uv)

    def skin_mask(self, rendering: Rendering, even: bool = False) -> Bool[Tensor, "batch height width"]:
        """Which pixels of a picture of the smooth or of the fine face show skin (or `even` skin only)."""
        triangle = rendering.fragments.triangle
        coarse = triangle if len(rendering.triangles) == len(self.skin) else triangle // 4  # four of each, in order
        return (triangle >= 0) & (self.even if even else self.skin)[coarse.clamp_min(0)]

    def _scene(self, flat: Tensor, size: tuple[int, int]) -> tuple[dict[str, Tensor], WeakPerspective, Tensor]:
        parts = self.layout.split(flat)
        return parts, camera_of(self.layout, flat, size), from_deca(parts["light"].unflatten(1, (9, 3)))


def _fine_uv(model: MorphableModel, fine: Subdivision) -> Float[Tensor, "fine 2"]:
    """One texture coordinate a vertex of the fine mesh.

    At a seam the middle of an edge lies between the places that one triangle gives its ends: between those of two
    sides of the seam it would lie in the middle of the texture.
    """
    uv = fine.at(vertex_uv(model))
    if model.uv_triangles is None:
        return uv
    split = Subdivision.of(model.uv_triangles, len(model.uv))  # its triangles come in the same order
    texel = torch.full((len(uv),), len(model.uv) + len(split.edges)).to(split.triangles)
    texel.scatter_reduce_(0, fine.triangles.flatten(), split.triangles.flatten(), "amin")
    return split.at(model.uv)[texel]


def window_of(model: MorphableModel, margin: float = 0.01) -> tuple[float, float, float, float]:
    """The part of the texture (left, bottom, right, top) that a mesh uses, symmetric about the middle."""
    uv = vertex_uv(model)
    half = float((uv[:, 0] - 0.5).abs().max()) + margin
    low, high = float(uv[:, 1].min()) - margin, float(uv[:, 1].max()) + margin
    return (0.5 - half, low, 0.5 + half, high)
