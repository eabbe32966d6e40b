"""Subdivision against trimesh, parts cut out of a model, one texture coordinate a vertex."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from test_deca import model

from facenb.morphable.mesh import Subdivision, cut, landmark_vertices, vertex_uv
from facenb.morphable.model import Embedding, Joints


def test_subdivision_is_that_of_trimesh():
    ball = trimesh.creation.icosphere(1)
    vertices, triangles = torch.tensor(ball.vertices, dtype=torch.float32), torch.tensor(ball.faces)
    fine = Subdivision.of(triangles, len(vertices))
    own = fine.at(vertices).numpy()
    expected, faces = trimesh.remesh.subdivide(ball.vertices, ball.faces)

    def corners(points, triangles):
        return sorted(map(tuple, np.sort(np.round(points[triangles], 5).reshape(len(triangles), -1), 1).tolist()))

    assert len(own) == len(expected)
    assert corners(own, fine.triangles.numpy()) == corners(np.float32(expected), faces)


def test_old_vertices_stay_and_four_triangles_follow_each():
    triangles = torch.tensor([[0, 1, 2], [2, 1, 3]])
    fine, vertices = Subdivision.of(triangles, 4), torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fine.at(vertices)[:, :4], vertices)
    points = fine.at(vertices)[0]

    def areas(points, triangles):
        a, b, c = points[triangles].unbind(1)
        return torch.linalg.cross(b - a, c - a).norm(dim=-1)

    torch.testing.assert_close(areas(points, fine.triangles).view(2, 4).sum(1), areas(points, triangles))


def test_turns_the_same_way_round():
    triangles = torch.tensor([[0, 1, 2]])
    points = Subdivision.of(triangles, 3).at(torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]))
    a, b, c = points[Subdivision.of(triangles, 3).triangles].unbind(1)
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).all()


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
