"""Closest points on a mesh: against closed forms and trimesh; to the surface, not to its vertices."""

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from facenb.evaluation.scan import ScanToMesh


def scan_to_mesh(points, vertices, triangles) -> torch.Tensor:
    return ScanToMesh(vertices, triangles).closest(points)[0]


def box() -> tuple[torch.Tensor, torch.Tensor]:
    mesh = trimesh.creation.box((20.0, 30.0, 40.0))
    return torch.from_numpy(np.array(mesh.vertices)), torch.from_numpy(np.array(mesh.faces))


def test_to_the_surface_and_not_to_vertices():
    """A point over the middle of a large triangle is 3 mm away, though every vertex is 30 or more."""
    vertices = torch.tensor([[0.0, 0.0, 0.0], [90.0, 0.0, 0.0], [0.0, 90.0, 0.0]])
    point = torch.tensor([[30.0, 30.0, 3.0]])
    distances, closest, triangle = ScanToMesh(vertices, torch.tensor([[0, 1, 2]])).closest(point)
    assert distances.tolist() == pytest.approx([3.0])
    assert closest[0].tolist() == pytest.approx([30.0, 30.0, 0.0]) and triangle.tolist() == [0]
    assert float((vertices - point).norm(dim=1).min()) > 40


def test_inside_a_box_and_outside_of_face_edge_and_corner():
    points = torch.tensor([[0.0, 0, 0], [9, 0, 0], [13, 0, 0], [13, 19, 0], [12, 17, 21]])
    expected = [10, 1, 3, 5, 3]  # 3-4-5; and 2-2-1 from the corner (10, 15, 20)
    assert scan_to_mesh(points, *box()).tolist() == pytest.approx(expected)


def test_against_trimesh():
    """trimesh's closest point of each triangle, the nearest of all triangles taken here."""
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=80)
    points = np.random.default_rng(1).normal(size=(60, 3)) * 70
    every = [trimesh.triangles.closest_point(mesh.triangles, np.tile(point, (len(mesh.faces), 1))) for point in points]
    away = [np.linalg.norm(places - point, axis=1) for places, point in zip(every, points, strict=True)]
    surface = ScanToMesh(torch.tensor(mesh.vertices), torch.tensor(mesh.faces))
    distances, closest, _ = surface.closest(torch.from_numpy(points))
    np.testing.assert_allclose(distances, [one.min() for one in away], atol=1e-8)
    nearest = [places[one.argmin()] for places, one in zip(every, away, strict=True)]
    np.testing.assert_allclose(closest, nearest, atol=1e-8)


def test_the_closest_place_is_on_the_triangle_named():
    vertices, triangles = box()
    points = torch.from_numpy(np.random.default_rng(2).normal(size=(100, 3)) * 30)
    surface = ScanToMesh(vertices, triangles)
    _, closest, triangle = surface.closest(points)
    off = ((closest - vertices[triangles[triangle, 0]]) * surface.normals()[triangle]).sum(1)
    assert off.abs().max() < 1e-9


def test_normals_point_outward():
    vertices, triangles = box()
    normals = ScanToMesh(vertices, triangles).normals()
    assert ((vertices[triangles].mean(1) * normals).sum(1) > 0).all()
    torch.testing.assert_close(normals.norm(dim=1), torch.ones(len(triangles)).double())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_order_of_vertices_and_triangles_does_not_matter(seed):
    vertices, triangles = box()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(vertices), generator=generator)
    place = torch.argsort(order)
    shuffled = place[triangles][torch.randperm(len(triangles), generator=generator)]
    points = 30 * torch.randn(50, 3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(
        scan_to_mesh(points, vertices[order], shuffled), scan_to_mesh(points, vertices, triangles)
    )


def test_float32_and_gradients_come_in_and_float64_goes_out():
    vertices, triangles = box()
    points = torch.randn(5, 3, requires_grad=True)
    found = scan_to_mesh(points, vertices.float().requires_grad_(), triangles.int())
    assert found.dtype == torch.float64 and not found.requires_grad


def test_a_triangle_without_area_is_the_segment_that_it_is():
    vertices = torch.tensor([[0.0, 0, 0], [10, 0, 0], [5, 0, 0]])
    assert scan_to_mesh(torch.tensor([[5.0, 4, 3]]), vertices, torch.tensor([[0, 1, 2]])).tolist() == pytest.approx([5])


def test_no_points():
    assert len(scan_to_mesh(torch.zeros(0, 3), *box())) == 0


class TestBadInput:
    def test_a_mesh_without_triangles(self):
        with pytest.raises(ValueError, match="no triangles"):
            ScanToMesh(torch.zeros(4, 3), torch.zeros(0, 3, dtype=torch.int64))

    @pytest.mark.parametrize("corner", [-1, 8])
    def test_triangles_of_another_mesh(self, corner):
        vertices, triangles = box()
        triangles[3, 1] = corner
        with pytest.raises(ValueError, match=f"uses vertex {corner}, but the mesh has 8"):
            ScanToMesh(vertices, triangles)

    def test_a_vertex_that_is_not_finite(self):
        vertices, triangles = box()
        vertices[5, 2] = torch.nan
        with pytest.raises(ValueError, match="vertex 5 of the mesh is not finite"):
            ScanToMesh(vertices, triangles)

    def test_a_point_that_is_not_finite(self):
        points = torch.zeros(4, 3)
        points[2, 0] = torch.inf
        with pytest.raises(ValueError, match="point 2 is not finite"):
            scan_to_mesh(points, *box())
