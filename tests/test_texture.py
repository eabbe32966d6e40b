"""UV textures against per-vertex colours, planes in closed form, finite differences and the other backend."""

from dataclasses import replace

import pytest
import torch
import trimesh
from helpers import tensors
from test_render import RADIUS, lamp

from facenb.imaging.camera import Perspective, WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import irradiance
from facenb.imaging.render import render
from facenb.imaging.texture import Texture, slopes

backends = pytest.mark.parametrize("backend", ["torch", "numba"])
F64 = torch.float64


def draws(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def cameras(batch=1, size=64):
    angles = torch.tensor([[0.4, -0.2, 0.1]], dtype=F64).expand(batch, 3)
    middle = torch.full((batch, 2), size / 2, dtype=F64)
    scale = torch.full((batch,), size / 200, dtype=F64)
    far = torch.tensor([[4.0, -3.0, -500.0]], dtype=F64).expand(batch, 3)
    rotation = euler_to_matrix(angles)
    return {
        "weak": WeakPerspective(rotation, scale, middle),
        "perspective": Perspective(rotation, far, 500 * scale, middle),
    }


def split_sphere():
    """A sphere whose left half lies upright in the atlas and whose right half is turned and mirrored beside it.

    Returns vertices, triangles, uv, uv triangles, and the x and y (in radii) that each texel of a 64 x 96 atlas shows.
    """
    vertices, triangles = tensors(trimesh.creation.uv_sphere(radius=RADIUS, count=[16, 32]), F64)
    x, y = vertices[:, 0] / RADIUS, vertices[:, 1] / RADIUS
    left = torch.stack([0.23 + 0.2 * x, 0.5 + 0.45 * y], 1)
    right = torch.stack([0.75 + 0.2 * y, 0.5 - 0.45 * x], 1)
    half = (x[triangles].mean(1) > 0).long()[:, None]
    v, u = torch.meshgrid(1 - (torch.arange(64) + 0.5) / 64, (torch.arange(96) + 0.5) / 96, indexing="ij")
    on_left = torch.stack([(u - 0.23) / 0.2, (v - 0.5) / 0.45], -1)
    on_right = torch.stack([(0.5 - v) / 0.45, (u - 0.75) / 0.2], -1)
    place = torch.where((u < 0.49)[..., None], on_left, on_right).to(F64)
    return vertices[None], triangles, torch.cat([left, right]), triangles + half * len(vertices), place


def affine_colour(place):
    matrix = torch.tensor([[0.3, 0.1, -0.2], [-0.1, 0.25, 0.15]], dtype=F64)
    return 0.5 + place @ matrix


@backends
@pytest.mark.parametrize("kind", ["weak", "perspective"])
def test_a_texture_affine_in_position_is_vertex_colour_across_seams(kind, backend):
    vertices, triangles, uv, uv_triangles, place = split_sphere()
    colours = affine_colour(vertices[..., :2] / RADIUS)
    texture = Texture(affine_colour(place)[None], uv, uv_triangles)
    camera, tint = cameras()[kind], draws(1, vertices.shape[1], 3)
    for light in (None, lamp()):
        expected = render(vertices, triangles, colours, camera, (64, 64), light, backend=backend).image
        textured = render(vertices, triangles, texture, camera, (64, 64), light, backend=backend).image
        if light is None:
            torch.testing.assert_close(textured, expected, atol=1e-6, rtol=0)
        else:  # Gouraud interpolates the product, a texture multiplies the interpolated light
            torch.testing.assert_close(textured, expected, atol=0.01, rtol=0)
    white = replace(texture, image=torch.ones_like(texture.image), tint=tint)
    expected = render(vertices, triangles, tint, camera, (64, 64), lamp(), backend=backend).image
    textured = render(vertices, triangles, white, camera, (64, 64), lamp(), backend=backend).image
    torch.testing.assert_close(textured, expected, atol=1e-6, rtol=0)


def textured_sphere(batch, dtype):
    vertices, triangles, uv, uv_triangles, place = split_sphere()
    vertices = vertices + draws(batch, *vertices.shape[1:], seed=1)
    bumps = 2 * torch.sin(7 * place[..., 0]) * torch.cos(5 * place[..., 1])
    image = torch.sigmoid(torch.sin(draws(batch, 1, 1, 3) * 9 * place.sum(-1)[..., None]))
    texture = Texture(image.to(dtype), uv.to(dtype), uv_triangles, draws(1, vertices.shape[1], 3).to(dtype))
    return vertices.to(dtype), triangles, texture, bumps[None].to(dtype)


@pytest.mark.parametrize("kind", ["weak", "perspective"])
@pytest.mark.parametrize("relief", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_backends_agree(dtype, relief, kind):
    vertices, triangles, texture, bumps = textured_sphere(3, dtype)
    texture = replace(texture, relief=bumps if relief else None)
    camera = cameras(3)[kind]
    camera = type(camera)(**{name: value.to(dtype) for name, value in vars(camera).items()})
    a, b = (
        render(vertices, triangles, texture, camera, (64, 64), lamp().to(dtype), backend=k) for k in ("torch", "numba")
    )
    assert a.mask.float().mean() > 0.3
    torch.testing.assert_close(a.image, b.image, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["torch", "numba"])
@pytest.mark.parametrize("kind", ["weak", "perspective"])
def test_gradients_by_finite_differences(kind, backend):
    """With relief, at fixed coverage."""
    vertices, triangles, texture, bumps = textured_sphere(1, F64)
    values = {
        "image": texture.image,
        "tint": texture.tint,
        "relief": bumps,
        "vertices": vertices,
        "light": lamp(),
    }
    weight = draws(1, 64, 64, 3, seed=3) - 0.5

    def draw(*inputs):
        p = dict(zip(values, inputs, strict=True))
        dressed = replace(texture, image=p["image"], tint=p["tint"], relief=p["relief"])
        seen = render(p["vertices"], triangles, dressed, cameras()[kind], (64, 64), p["light"], backend=backend)
        return (seen.image * weight).sum()

    inputs = [value.requires_grad_() for value in values.values()]
    assert all(gradient.abs().max() > 1e-3 for gradient in torch.autograd.grad(draw(*inputs), inputs))
    assert torch.autograd.gradcheck(draw, inputs, eps=1e-6, rtol=1e-4, atol=1e-6, fast_mode=True)


def plane(mirrored=False, stretch=1.0):
    """A square of 100 mm (its width times `stretch`) with a texture of 200 mm, mirrored or not."""
    vertices = torch.tensor([[[-50.0, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]]], dtype=F64)
    uv = vertices[0, :, :2] / 200 + 0.5
    if mirrored:
        uv[:, 0] = 1 - uv[:, 0]
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    return vertices * torch.tensor([stretch, 1, 1]), triangles, uv


@backends
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("stretch", [1.0, 2.0])
def test_relief_of_a_ramp_tilts_the_normal_in_closed_form(backend, mirrored, stretch):
    """A displacement that rises by 0.3 to the right and by 0.2 upwards, on a plane that may be stretched."""
    vertices, triangles, uv = plane(mirrored, stretch)
    v, u = torch.meshgrid(1 - (torch.arange(40) + 0.5) / 40, (torch.arange(80) + 0.5) / 80, indexing="ij")
    ramp = 200 * ((-0.3 if mirrored else 0.3) * u + 0.2 * v).to(F64)
    texture = Texture(torch.ones(1, 2, 2, 3, dtype=F64), uv, triangles, relief=ramp[None])
    camera = WeakPerspective(torch.eye(3, dtype=F64)[None], torch.ones(1).double(), torch.full((1, 2), 10.0).double())
    seen = render(vertices, triangles, texture, camera, (20, 20), lamp(), backend=backend)
    normal = torch.nn.functional.normalize(torch.tensor([[-0.3 / stretch, -0.2, 1.0]], dtype=F64), dim=1)
    expected = irradiance(normal[None], lamp())[0].expand_as(seen.image)
    torch.testing.assert_close(seen.image, expected, atol=1e-6, rtol=0)
    assert (seen.normals == torch.tensor([0.0, 0, 1])).all(), "the geometry stays smooth"


def test_slopes_of_a_plane_are_its_two_derivatives():
    v, u = torch.meshgrid(1 - (torch.arange(8) + 0.5) / 8, (torch.arange(12) + 0.5) / 12, indexing="ij")
    inner = slopes((3 * u - 2 * v)[None])[0, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.tensor([3.0, -2.0]).expand_as(inner))


def test_a_reduced_texture_holds_block_means():
    image, relief = draws(2, 6, 8, 3), draws(1, 4, 4)
    texture = Texture(image, draws(3, 2), torch.tensor([[0, 1, 2]]), relief=relief).reduced(2)
    torch.testing.assert_close(texture.image, image.view(2, 3, 2, 4, 2, 3).mean((2, 4)))
    torch.testing.assert_close(texture.relief, relief.view(1, 2, 2, 2, 2).mean((2, 4)))


def test_a_shared_image_equals_one_for_each():
    vertices, triangles, texture, bumps = textured_sphere(1, F64)
    vertices, camera = vertices + draws(3, 1, 3), cameras(3)["weak"]
    shared = replace(texture, relief=bumps)
    each = replace(shared, image=texture.image.repeat(3, 1, 1, 1), relief=bumps.repeat(3, 1, 1))
    a, b = (render(vertices, triangles, t, camera, (64, 64), lamp()).image for t in (shared, each))
    assert torch.equal(a, b)


def test_a_mesh_is_hidden_in_one_image_by_vertices_that_are_not_finite():
    vertices, triangles, texture, _ = textured_sphere(1, F64)
    hat = vertices * 0.4 + torch.tensor([0.0, 60, 60])
    both = torch.cat([vertices, hat], 1).repeat(2, 1, 1)
    both[1, vertices.shape[1] :] = torch.nan
    faces, tint = torch.cat([triangles, triangles + vertices.shape[1]]), texture.tint.repeat(1, 2, 1)
    whole = replace(texture, triangles=torch.cat([texture.triangles] * 2), tint=tint)
    seen = render(both, faces, whole, cameras(2)["weak"], (64, 64), lamp()).image
    bare = render(vertices, triangles, texture, cameras()["weak"], (64, 64), lamp()).image
    torch.testing.assert_close(seen[1:], bare)
    assert not torch.allclose(seen[:1], bare)


def test_a_texture_of_another_mesh_is_refused():
    vertices, triangles, texture, _ = textured_sphere(1, F64)
    with pytest.raises(ValueError, match="texture has 59 triangles"):
        render(vertices, triangles, replace(texture, triangles=texture.triangles[:59]), cameras()["weak"], (8, 8))
    with pytest.raises(ValueError, match="only 3 vertices"):
        replace(texture, uv=texture.uv[:3])
