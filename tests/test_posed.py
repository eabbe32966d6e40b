"""Flat coefficients as a face in a picture, against the camera's own projection and brute force."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facenb.fitting.posed import (
    PosedModel,
    camera_of,
    leading,
    mirrored_move,
    move_camera,
    own_layout,
    pose_of,
    turned,
    whitening,
    yaw_of,
)
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.morphable.alignment import Similarity
from facenb.morphable.layouts import LUO19
from facenb.morphable.model import Embedding, MorphableModel


def random_model(identity=5, expression=3, vertices=30, seed=0) -> MorphableModel:
    g = torch.Generator().manual_seed(seed)
    return MorphableModel(
        "random",
        40 * torch.randn(vertices, 3, generator=g),
        torch.tensor([[0, 1, 2]]),
        torch.randn(identity, vertices, 3, generator=g),
        torch.randn(expression, vertices, 3, generator=g),
        Embedding.at(range(4)),
    )


def random_camera(count, seed=0) -> WeakPerspective:
    g = torch.Generator().manual_seed(seed)
    angles = torch.rand(count, 3, generator=g) - 0.5
    return WeakPerspective(
        euler_to_matrix(angles), 0.3 + torch.rand(count, generator=g), 60 * torch.rand(count, 2, generator=g)
    )


def random_moves(count, seed=0) -> Similarity:
    g = torch.Generator().manual_seed(seed)
    turn = torch.rand(count, generator=g, dtype=torch.float64) - 0.5
    rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).unflatten(1, (2, 2))
    return Similarity(
        0.5 + torch.rand(count, generator=g, dtype=torch.float64),
        rotation,
        20 * torch.rand(count, 2, generator=g, dtype=torch.float64),
    )


@pytest.fixture
def flat():
    camera, g = random_camera(6), torch.Generator().manual_seed(1)
    return torch.cat([pose_of(camera), torch.randn(6, 8, generator=g)], 1)


def test_places_points_where_the_camera_does(flat):
    model, camera = random_model(), random_camera(6)
    expected = camera.project(model.shape(flat[:, 12:17], flat[:, 17:]))
    found = PosedModel(model, own_layout(model), *whitening(flat))(flat)
    torch.testing.assert_close(found[..., :2], expected[..., :2])
    torch.testing.assert_close(found[..., 2], expected[..., 2] * camera.scale[:, None])  # depth in pixels


def test_points_of_an_embedding_are_those_of_the_mesh(flat):
    model = random_model()
    some = PosedModel(model, own_layout(model), *whitening(flat), model.landmarks)(flat)
    torch.testing.assert_close(some, PosedModel(model, own_layout(model), *whitening(flat))(flat)[:, :4])


def test_camera_comes_back():
    camera = random_camera(9)
    back = camera_of(pose_of(camera))
    for name in ("rotation", "scale", "translation"):
        torch.testing.assert_close(getattr(back, name), getattr(camera, name), atol=1e-5, rtol=1e-5)


@given(yaw=st.floats(-1.5, 1.5), pitch=st.floats(-1, 1), roll=st.floats(-3, 3))
@settings(max_examples=30, deadline=None)
def test_yaw_comes_back(yaw, pitch, roll):
    camera = WeakPerspective(euler_to_matrix(torch.tensor([[yaw, pitch, roll]])), torch.ones(1), torch.zeros(1, 2))
    assert float(yaw_of(pose_of(camera))) == pytest.approx(yaw, abs=2e-3)


def test_moved_camera_sees_the_moved_picture():
    camera, move, points = random_camera(5), random_moves(5), 50 * torch.randn(5, 12, 3)
    seen = move_camera(camera, move).project(points)[..., :2]
    torch.testing.assert_close(seen, move.apply(camera.project(points)[..., :2]), atol=1e-3, rtol=1e-4)


def test_mirrored_crop_of_the_mirrored_picture():
    """Mirror a photo's points, crop: the same as cropping, then mirroring."""
    move, points, width = random_moves(5), 100 * torch.rand(5, 7, 2), torch.tensor([90.0, 100, 110, 120, 130])
    cropped = move.apply(points)
    cropped[..., 0] = 64 - cropped[..., 0]
    points[..., 0] = width[:, None] - points[..., 0]
    torch.testing.assert_close(mirrored_move(move, width, 64).apply(points), cropped, atol=1e-4, rtol=1e-5)


def test_whitened_has_mean_zero_and_deviation_one_and_comes_back(flat):
    face = PosedModel(random_model(), own_layout(random_model()), *whitening(flat))
    white = face.whiten(flat)
    torch.testing.assert_close(white.mean(0), torch.zeros(20), atol=1e-4, rtol=0)
    varied = torch.arange(20) != 11  # t_z is always 0
    torch.testing.assert_close(white.std(0, correction=0)[varied], torch.ones(19), atol=1e-4, rtol=0)
    assert not white[:, 11].any()
    torch.testing.assert_close(face.flat(white), flat, atol=1e-4, rtol=1e-4)


def test_leading_components_of_an_orthogonal_basis_are_its_longest():
    model = random_model()
    basis = torch.zeros(5, 30, 3)
    basis[torch.arange(5), torch.arange(5), 0] = torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0])
    model = MorphableModel("m", model.mean, model.triangles, basis, model.expression_basis, model.landmarks)
    reduced, turn, _ = leading(model, 3, 2)
    torch.testing.assert_close(reduced.identity_basis.flatten(1).norm(dim=1), torch.tensor([5.0, 4.0, 3.0]))
    assert turn.abs().argmax(0).tolist() == [1, 3, 4]


def test_a_turned_model_has_the_combined_components():
    model, g = random_model(), torch.Generator().manual_seed(2)
    identity, expression = torch.randn(5, 2, generator=g), torch.randn(3, 1, generator=g)
    basis = turned(model, identity, expression).identity_basis
    expected = sum(identity[k, 1] * model.identity_basis[k] for k in range(5))
    torch.testing.assert_close(basis[1], expected)


def test_all_components_turned_are_the_same_face():
    model, codes = random_model(), torch.randn(4, 5)
    reduced, turn, _ = leading(model, 5, 3)
    torch.testing.assert_close(reduced.shape(codes @ turn), model.shape(codes), atol=1e-3, rtol=1e-4)


def test_luo19_is_the_layout_of_a_model_of_its_size_only():
    assert own_layout(random_model(40, 10)).parts == LUO19.parts
    PosedModel(random_model(40, 10), LUO19, *torch.zeros(2, 62))
    with pytest.raises(ValueError, match="not the layout of random"):
        PosedModel(random_model(), LUO19, *torch.zeros(2, 62))
