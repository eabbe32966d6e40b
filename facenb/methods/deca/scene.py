"""Make a scene (face, camera, light) from a coefficient vector in DECA's layout, and render it.

The vector follows the conventions of the released weights. Poses are axis angles. The camera (s, x, y) maps a point of
the posed head, in metres, to s (point + (x, y)) in an image from -1 to 1, y up. The light has the order of
`lighting.from_deca`. The albedo is the model's, one colour per vertex.
"""

from dataclasses import dataclass

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
from facenb.morphable.model import MorphableModel, Tensors
from facenb.networks.deca import check_jaw
from facenb.networks.detail import DetailDecoder, LinearDecoder

METRE = 1000.0  # mm
EDGED = ("brows", "eyelids", "lips", "nose", "left_eye", "right_eye", "mouth_inside", "ears", "scalp")
BORDER = 3  # displacements fade out over this number of edges from the face's border


def posed(model: MorphableModel, layout: Layout, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch vertices 3"]:
    """Return the vertices with expression, jaw pose and head pose, mm, on the camera's axes.

    Raise ValueError for a model without a jaw.
    """
    check_jaw(model)
    parts = layout.split(flat)
    turns = {"global": parts["global_pose"], "jaw": parts["jaw_pose"]}
    unturned = torch.zeros_like(parts["jaw_pose"])
    pose = torch.stack([turns.get(name, unturned) for name in model.joints.names], 1)
    return model.shape(parts["identity"], parts["expression"], pose)


def neutral(
    model: MorphableModel, layout: Layout, flat: Float[Tensor, "batch all"]
) -> Float[Tensor, "batch vertices 3"]:
    """Return the vertices with zero expression and pose, mm, as the NoW benchmark requires."""
    return model.shape(layout.split(flat)["identity"])


def camera_of(layout: Layout, flat: Float[Tensor, "batch all"], size: tuple[int, int]) -> WeakPerspective:
    """Return the camera for an image of `size` (height, width). Its shorter side spans -1 to 1 about the centre."""
    scale, shift = layout.split(flat)["camera"].split([1, 2], 1)
    half, centre = min(size) / 2, flat.new_tensor([size[1] / 2, size[0] / 2])
    position = centre + half * scale * shift * flat.new_tensor([1.0, -1.0])
    return WeakPerspective(torch.eye(3).to(flat).expand(len(flat), 3, 3), half * scale[:, 0] / METRE, position)


def landmarks_of(
    model: MorphableModel, layout: Layout, flat: Float[Tensor, "batch all"], size: tuple[int, int]
) -> Float[Tensor, "batch 68 2"]:
    """Return the landmarks in pixels. `model` may be cut to `mesh.landmark_vertices`."""
    return camera_of(layout, flat, size).project(model.landmarks.of(posed(model, layout, flat)))[..., :2]


@dataclass(frozen=True)
class Stage(Tensors):
    """A model and the finer mesh on which its details are rendered."""

    model: MorphableModel
    layout: Layout
    fine: Subdivision
    uv: Float[Tensor, "fine 2"]
    skin: Bool[Tensor, " triangles"]  # of the coarse mesh
    even: Bool[Tensor, " triangles"]  # skin away from colour edges: an edge one pixel off looks like relief
    share: Float[Tensor, " fine"]  # factor of the displacement: 1 on the face, 0 at its border and outside

    @classmethod
    def of(cls, model: MorphableModel, layout: Layout) -> "Stage":
        """Return the stage of a model. Raise ValueError if it has no texture coordinates (see `read_flame`).

        Displacements act on the region `face` if the model has one, as SynthFace does. FLAME has none: there they act
        on the whole head with the eyes, and fade out only at the openings of the neck and the mouth.
        """
        fine, skin = Subdivision.of(model.triangles, len(model.mean)), model.skin
        corners = torch.bincount(fine.triangles.flatten(), minlength=len(model.mean) + len(fine.edges))
        rim = fine.edges[corners[len(model.mean) :] < 6].flatten()  # ends of edges that belong to one triangle only
        even = skin.clone()
        for name in EDGED:
            even[model.regions.get(name, [])] = False
        even[rim] = False
        skins = (mask[model.triangles].all(1) for mask in (skin, even))
        face = torch.zeros_like(skin)
        face[model.regions.get("face", slice(None))] = True
        share = torch.zeros(len(face), device=face.device)
        for _ in range(BORDER):  # each round removes the vertices that have a neighbour outside
            face = face.index_fill(0, fine.edges[~face[fine.edges].all(1)].flatten(), False).index_fill(0, rim, False)
            share += face / BORDER
        return cls(model, layout, fine, _fine_uv(model, fine), *skins, fine.at(share[:, None])[:, 0])

    def coarse(self, flat: Float[Tensor, "batch all"], size: tuple[int, int]) -> Rendering:
        """Return the rendering of the smooth face, differentiable."""
        parts, camera, light = self._scene(flat, size)
        vertices = posed(self.model, self.layout, flat)
        return render(vertices, self.model.triangles, self.model.albedo(parts["albedo"]), camera, size, light)

    def detailed(
        self, flat: Float[Tensor, "batch all"], displacement: Float[Tensor, "batch fine"], size: tuple[int, int]
    ) -> Rendering:
        """Return the rendering with displacements (mm, at the fine mesh's vertices), differentiable in both.

        Shading uses the smooth normals plus the change that the displacement makes to the fine mesh's normals. The
        fine mesh keeps the facets of the coarse one, so its normals alone would show a relief without displacement.
        """
        parts, camera, light = self._scene(flat, size)
        vertices, triangles = posed(self.model, self.layout, flat), self.fine.triangles
        moved, plain = self.relief(vertices, displacement), self.fine.at(vertices)
        coarse_normals = vertex_normals(vertices, self.model.triangles)
        smooth = normalize(self.fine.at(coarse_normals), dim=-1)
        normals = normalize(smooth + vertex_normals(moved, triangles) - vertex_normals(plain, triangles), dim=-1)
        albedo, relit = self.model.albedo(parts["albedo"]), irradiance(normals, light) - irradiance(smooth, light)
        colour = self.fine.at(albedo * irradiance(coarse_normals, light)) + self.fine.at(albedo) * relit
        fragments = rasterize(camera.project(moved), triangles, size)
        return Rendering(interpolate(fragments, colour, triangles), fragments, normals, triangles)

    def relief(
        self, vertices: Float[Tensor, "batch vertices 3"], displacement: Float[Tensor, "batch fine"]
    ) -> Float[Tensor, "batch fine 3"]:
        """Return the vertices of the fine mesh, moved along the smooth normals by `displacement` (mm)."""
        normals = self.fine.at(vertex_normals(vertices, self.model.triangles))
        return self.fine.at(vertices) + displacement[..., None] * normalize(normals, dim=-1)

    def displacement(
        self, decoder: DetailDecoder | LinearDecoder, maps: Float[Tensor, "batch rows columns"]
    ) -> Float[Tensor, "batch fine"]:
        """Return displacement maps at the fine mesh's vertices, mm. They fade out at the border of the face."""
        return self.share * decoder.at(maps, self.uv)

    def skin_mask(self, rendering: Rendering, even: bool = False) -> Bool[Tensor, "batch height width"]:
        """Return which pixels of a rendering, coarse or detailed, show skin. `even`: skin away from edges of colour."""
        triangle = rendering.fragments.triangle
        coarse = triangle if len(rendering.triangles) == len(self.skin) else triangle // 4  # 4 fine ones each, in order
        return (triangle >= 0) & (self.even if even else self.skin)[coarse.clamp_min(0)]

    def _scene(self, flat: Tensor, size: tuple[int, int]) -> tuple[dict[str, Tensor], WeakPerspective, Tensor]:
        parts = self.layout.split(flat)
        return parts, camera_of(self.layout, flat, size), from_deca(parts["light"].unflatten(1, (9, 3)))


def _fine_uv(model: MorphableModel, fine: Subdivision) -> Float[Tensor, "fine 2"]:
    """Return one texture coordinate for each vertex of the fine mesh.

    At a seam, both ends of an edge must take their coordinates from the same triangle. Otherwise the edge's midpoint
    would lie between the two sides of the seam, in the middle of the texture.
    """
    uv = fine.at(vertex_uv(model))
    if model.uv_triangles is None:
        return uv
    split = Subdivision.of(model.uv_triangles, len(model.uv))  # its triangles have the same order as the fine mesh's
    texel = torch.full((len(uv),), len(model.uv) + len(split.edges)).to(split.triangles)
    texel.scatter_reduce_(0, fine.triangles.flatten(), split.triangles.flatten(), "amin")
    return split.at(model.uv)[texel]


def window_of(model: MorphableModel) -> tuple[float, float, float, float]:
    """Return the part of the texture (left, bottom, right, top) that a mesh uses, symmetric about the middle."""
    uv, margin = vertex_uv(model), 0.01
    half = float((uv[:, 0] - 0.5).abs().max()) + margin
    low, high = float(uv[:, 1].min()) - margin, float(uv[:, 1].max()) + margin
    return (0.5 - half, low, 0.5 + half, high)
