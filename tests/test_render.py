"""The renderer against spheres in closed form, finite differences and its own other backend."""

import math

import pytest
import torch
import trimesh
from helpers import tensors

from facenb.imaging.camera import Perspective, WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional, irradiance
from facenb.imaging.render import render, vertex_normals, visibility

backends = pytest.mark.parametrize("backend", ["torch", "numba"])
RADIUS = 80.0


def sphere(rings=60, radius=RADIUS, dtype=torch.float64):
    vertices, triangles = tensors(trimesh.creation.uv_sphere(radius=radius, count=[rings, 2 * rings]), dtype)
    return vertices[None], triangles


def weak(batch=1, yaw=0.0, scale=0.5, centre=50.0, dtype=torch.float64):
    angles = torch.tensor([[yaw, 0.0, 0.0]], dtype=dtype).expand(batch, 3)
    shift = torch.full((batch, 2), centre, dtype=dtype)
    return WeakPerspective(euler_to_matrix(angles), torch.full((batch,), scale, dtype=dtype), shift)


def perspective(distance=500.0, focal=250.0, centre=50.0):
    position = torch.tensor([[0.0, 0.0, -distance]], dtype=torch.float64)
    return Perspective(
        torch.eye(3).double()[None], position, torch.tensor([focal]).double(), torch.full((1, 2), centre).double()
    )


def lamp():
    white = torch.tensor([[0.6, 0.5, 0.4]], dtype=torch.float64)
    return ambient(white / 3) + directional(torch.tensor([[1.0, 2.0, 2.0]], dtype=torch.float64), white)


def rays(size, camera):
    """Where the ray of each pixel of a square image first meets the sphere: point on the camera's axes; mask."""
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    if not camera.is_perspective:
        x, y = (u - camera.translation[0, 0]) / camera.scale, -(v - camera.translation[0, 1]) / camera.scale
        z = (RADIUS**2 - x**2 - y**2).clamp(min=0).sqrt()
        return torch.stack([x, y, z], -1), x**2 + y**2 < (RADIUS - 3) ** 2
    ray = torch.stack([(u - camera.principal[0, 0]), -(v - camera.principal[0, 1]), -camera.focal.expand_as(u)], -1)
    ray = ray / ray.norm(dim=-1, keepdim=True)
    along = ray @ camera.position[0]  # |t ray - centre|^2 = R^2, the centre being at `position`
    root = along**2 - (camera.position[0] @ camera.position[0] - RADIUS**2)
    return ray * (along - root.clamp(min=0).sqrt())[..., None] - camera.position[0], root > 900


@backends
@pytest.mark.parametrize("camera", [weak(), perspective()], ids=["weak", "perspective"])
def test_a_sphere_in_closed_form(camera, backend):
    """Depth, normals and Lambert shading of every pixel but the rim, to what 7,000 flat triangles allow."""
    vertices, triangles = sphere()
    albedo = torch.tensor([0.8, 0.6, 0.4], dtype=torch.float64).expand(1, vertices.shape[1], 3)
    seen = render(vertices, triangles, albedo, camera, (100, 100), lamp(), backend=backend)
    point, inner = rays(100, camera)
    assert inner.sum() > 4000
    assert seen.mask[0][inner].all()
    depth = -point[..., 2] - (camera.position[0, 2] if camera.is_perspective else 0)
    normals = point / RADIUS
    assert (seen.depth[0] - depth)[inner].abs().max() < 0.6  # mm; the facets' sagitta, seen at up to 75 degrees
    assert (seen.normals[0] * normals).sum(-1)[inner].min() > math.cos(math.radians(1))
    colour = albedo[0, 0] * irradiance(normals[None], lamp())[0]
    assert (seen.image[0] - colour)[inner].abs().max() < 0.005


@pytest.mark.parametrize("background", [None, "colour", "each", "picture"])
def test_background(background):
    vertices, triangles = sphere(12)
    behind = {
        None: None,
        "colour": torch.tensor([0.1, 0.2, 0.3]),
        "each": torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]),
        "picture": torch.rand(2, 40, 50, 3, generator=torch.Generator().manual_seed(0)),
    }[background]
    white = torch.ones(1, vertices.shape[1], 3).double()
    seen = render(vertices, triangles, white, weak(2, scale=0.2, centre=20.0), (40, 50), background=behind)
    assert seen.image.shape == (2, 40, 50, 3) and 0 < seen.mask.float().mean() < 1
    expected = torch.zeros(3) if behind is None else behind[:, None, None] if background == "each" else behind
    expected = torch.broadcast_to(expected, seen.image.shape).double()
    assert torch.equal(seen.image[~seen.mask], expected[~seen.mask])
    torch.testing.assert_close(seen.image[seen.mask], torch.ones_like(seen.image[seen.mask]))
    assert (seen.normals[~seen.mask] == 0).all()


@backends
def test_normals_are_weighted_by_area(backend):
    """Against trimesh; a vertex without a triangle has none."""
    mesh = trimesh.creation.torus(60, 25)
    vertices, faces = tensors(mesh, torch.float64)
    expected = trimesh.geometry.weighted_vertex_normals(
        len(mesh.vertices), mesh.faces, mesh.face_normals, mesh.area_faces[:, None].repeat(3, 1)
    )
    normals = vertex_normals(torch.cat([vertices, torch.ones(1, 3)])[None], faces, backend)[0]
    torch.testing.assert_close(normals[:-1], torch.tensor(expected), atol=1e-9, rtol=0)
    assert (normals[-1] == 0).all()


@backends
def test_gradient_of_normals(backend):
    vertices, triangles = sphere(5)
    vertices = vertices.repeat(2, 1, 1) + torch.randn(2, vertices.shape[1], 3).double()
    assert torch.autograd.gradcheck(lambda v: vertex_normals(v, triangles, backend), vertices.requires_grad_())


def test_backends_draw_the_same_picture():
    vertices, triangles = sphere(30, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    albedo = torch.rand(3, vertices.shape[1], 3, generator=generator)
    a, b = (
        render(vertices, triangles, albedo, weak(3, 0.3, dtype=torch.float32), (70, 90), lamp().float(), backend=k)
        for k in ("torch", "numba")
    )
    assert torch.equal(a.fragments.triangle, b.fragments.triangle)
    torch.testing.assert_close(a.image, b.image, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.normals, b.normals, atol=1e-5, rtol=0)


@backends
@pytest.mark.parametrize("kind", ["weak", "perspective"])
def test_gradients_of_vertices_albedo_light_and_camera(kind, backend):
    vertices, triangles = sphere(8)
    generator = torch.Generator().manual_seed(1)
    size, f64 = (24, 24), torch.float64
    angles = torch.tensor([[0.2, -0.1, 0.3]], dtype=f64)
    lens = torch.tensor([0.13 if kind == "weak" else 60.0], dtype=f64), torch.tensor([[12.3, 11.8]], dtype=f64)
    place = () if kind == "weak" else (torch.tensor([[3.0, -2.0, -450.0]], dtype=f64),)
    albedo = torch.rand(1, vertices.shape[1], 3, generator=generator, dtype=f64)
    weight = torch.randn(1, *size, 3, generator=generator, dtype=f64)
    covered = []

    def draw(vertices, albedo, light, angles, *camera):
        """`camera`: where a perspective one stands; scale or focal length; shift or principal point."""
        kind_of = WeakPerspective if kind == "weak" else Perspective
        seen = render(
            vertices, triangles, albedo, kind_of(euler_to_matrix(angles), *camera), size, light, backend=backend
        )
        covered.append(seen.fragments.triangle)
        assert torch.equal(covered[0], covered[-1])
        return (seen.image * weight).sum() + seen.normals.sum()

    inputs = [value.requires_grad_() for value in (vertices, albedo, lamp(), angles, *place, *lens)]
    assert all(gradient.abs().max() > 1e-3 for gradient in torch.autograd.grad(draw(*inputs), inputs))
    assert torch.autograd.gradcheck(draw, inputs, eps=1e-6, rtol=1e-4, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("camera", [weak(), perspective()], ids=["weak", "perspective"])
def test_half_a_sphere_is_seen(camera):
    vertices, triangles = sphere()
    normals = vertices / RADIUS
    view = (-vertices - camera.position) if camera.is_perspective else torch.tensor([0.0, 0, 1]).double()
    angle = (normals * torch.nn.functional.normalize(view, dim=-1)).sum(-1).acos().rad2deg()
    seen = visibility(vertices, triangles, camera, vertices)
    assert seen[angle < 85].all()
    assert not seen[angle > 100].any()  # between them: a pixel of the depth buffer at the rim
    strict = visibility(vertices, triangles, camera, vertices, normals)
    assert torch.equal(strict, seen & (angle < 90))


def test_what_hides_behind_something_is_not_seen():
    """A small ball in front of a wall: points of the wall, and points off the picture."""
    ball, triangles = sphere(20, radius=20.0)
    wall = torch.tensor([[[-99.0, -99, -50], [99, -99, -50], [99, 99, -50], [-99, 99, -50]]]).double()
    start = ball.shape[1]
    both = torch.cat([ball, wall], 1)
    triangles = torch.cat([triangles, torch.tensor([[0, 1, 2], [0, 2, 3]]) + start])
    points = torch.tensor([[[0.0, 0, -50], [30, 0, -50], [0, 0, 20], [0, 0, -20], [90, 0, -50]]]).double()
    camera = weak(2, yaw=0.0)
    seen = visibility(both, triangles, camera, points)
    assert seen.tolist() == [[False, True, True, False, True]] * 2
    assert (
        visibility(both, triangles, camera, points, size=(100, 80)).tolist() == [[False, True, True, False, False]] * 2
    )
    turned = weak(1, yaw=math.pi)
    assert visibility(both, triangles, turned, points).tolist() == [[True, True, False, False, True]]


def test_visibility_of_points_that_are_none():
    vertices, triangles = sphere(10)
    points = torch.tensor([[[math.nan, 0, 80], [0, 0, math.inf], [0, 0, 80.0]]]).double()
    assert visibility(vertices, triangles, weak(), points).tolist() == [[False, False, True]]
    broken = vertices.clone()
    broken[0, 5] = math.nan
    assert visibility(broken, triangles, weak(), points).tolist() == [[False, False, True]]
    behind = torch.tensor([[[0.0, 0, 600]]]).double()
    assert visibility(vertices, triangles, perspective(), behind).tolist() == [[False]]
