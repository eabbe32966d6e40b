"""Subdivision against trimesh, parts cut out of a model, one texture coordinate a vertex."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree
from test_deca import model

from facenb.morphable.mesh import Subdivision, cut, landmark_vertices, vertex_uv
from facenb.morphable.model import Embedding, Joints


def test_subdivision_is_that_of_trimesh_after_the_old_vertices_and_triangle_by_triangle():
    ball = trimesh.creation.icosphere(1)
    vertices, triangles = torch.tensor(ball.vertices, dtype=torch.float32), torch.tensor(ball.faces)
    fine = Subdivision.of(triangles, len(vertices))
    points = fine.at(vertices[None])[0]
    assert torch.equal(points[: len(vertices)], vertices)
    expected, faces = trimesh.remesh.subdivide(ball.vertices, ball.faces)

    def centres_and_normals(points, triangles):
        mesh = trimesh.Trimesh(points, triangles, process=False)
        return np.concatenate([mesh.triangles_center, mesh.face_normals], 1)

    ours, theirs = centres_and_normals(points.numpy(), fine.triangles.numpy()), centres_and_normals(expected, faces)
    assert len(points) == len(expected) and len(ours) == len(theirs)
    distance, partner = cKDTree(theirs).query(ours)
    assert distance.max() < 1e-5 and len(set(partner)) == len(theirs)
    fours = ours[:, :3].reshape(-1, 4, 3).mean(1)  # each old triangle becomes four, next to each other
    np.testing.assert_allclose(fours, ball.triangles_center, atol=1e-6)


def test_a_part_has_the_shape_of_the_whole():
    whole = model()
    kept = torch.tensor([5, 0, 1, 2])
    regressor = torch.zeros(2, 6)
    regressor[1, 2] = 1.0
    whole = replace(whole, joints=Joints(("global", "jaw"), (-1, 0), regressor, torch.rand(6, 2)))
    part = cut(whole, kept)
    identity, pose = torch.randn(2, 5), 0.3 * torch.randn(2, 2, 3)
    expected = whole.shape(identity, None, pose)[:, [0, 1, 2, 5]]
    torch.testing.assert_close(part.shape(identity, None, pose), expected)
    torch.testing.assert_close(part.landmarks.of(part.mean), whole.landmarks.of(whole.mean))
    torch.testing.assert_close(part.albedo(torch.ones(1, 3)), whole.albedo(torch.ones(1, 3))[:, [0, 1, 2, 5]])


@pytest.mark.parametrize(
    ("change", "words"),
    [({"landmarks": Embedding.at([4])}, "landmarks"), ({}, "joints")],
    ids=["landmarks", "joints"],
)
def test_a_part_must_keep_what_landmarks_and_joints_hang_on(change, words):
    with pytest.raises(ValueError, match=words):
        cut(replace(model(), **change), torch.tensor([0, 1, 2]))


def test_landmark_vertices_are_all_that_landmarks_need():
    assert landmark_vertices(replace(model(), landmarks=Embedding.at([4, 1]), joints=None)).tolist() == [1, 4]


def test_a_seam_gives_a_vertex_its_first_texel():
    uv = torch.rand(7, 2, generator=torch.Generator().manual_seed(0))
    toy = replace(
        model(),
        triangles=torch.tensor([[0, 1, 2], [3, 4, 5], [2, 1, 0]]),
        uv=uv,
        uv_triangles=torch.tensor([[0, 1, 2], [3, 4, 5], [6, 1, 0]]),
    )
    assert torch.equal(vertex_uv(toy), uv[:6])


def test_no_texture_coordinates():
    with pytest.raises(ValueError, match="no texture coordinates"):
        vertex_uv(model())
