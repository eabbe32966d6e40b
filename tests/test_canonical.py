"""MediaPipe's points on a model's surface: known bends, and the mean face itself."""

import pytest
import torch
import trimesh
from helpers import tensors

from facenb.errors import AssetError
from facenb.fitting import fit
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.photos.canonical import mediapipe_embedding, read_canonical, register
from facenb.photos.landmarks import IBUG68


@pytest.fixture
def embedding(ict, real_asset):
    return mediapipe_embedding(ict)


def test_a_bent_copy_finds_back_onto_the_surface():
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=80)
    vertices, triangles = tensors(sphere)
    source, faces = tensors(trimesh.creation.icosphere(subdivisions=2, radius=1))
    chosen = list(range(0, 40, 3))
    bent = 30 * source * torch.tensor([1.0, 1.15, 0.9]) + 5
    moved = register(bent, faces, vertices, triangles, chosen, 80 * source[chosen]).of(vertices)
    assert (moved.norm(dim=1) - 80).abs().max() < 1.5
    assert (moved - 80 * source).norm(dim=1).mean() < 4


def test_points_of_the_same_name_agree_with_the_models_landmarks(ict, embedding):
    assert len(embedding) == 468
    away = (embedding.of(ict.mean)[list(IBUG68)] - ict.landmarks.of(ict.mean)).norm(dim=1)
    assert away[17:].max() < 1.0  # mm
    assert away[:17].max() < 25  # jaw line: not the same places


def test_the_embedding_is_symmetric_and_smooth(ict, embedding, real_asset):
    source, triangles = read_canonical(real_asset("mediapipe") / "canonical_face_model.obj")
    points = embedding.of(ict.mean)
    partner = torch.cdist(source * torch.tensor([-1.0, 1.0, 1.0]), source).argmin(1)
    assert (points * torch.tensor([-1.0, 1.0, 1.0]) - points[partner]).norm(dim=1).max() < 3
    edges = torch.cat([triangles[:, [0, 1]], triangles[:, [1, 2]]])
    ratio = (points[edges[:, 0]] - points[edges[:, 1]]).norm(dim=1) / (source[edges[:, 0]] - source[edges[:, 1]]).norm(
        dim=1
    )
    assert ratio.quantile(0.98) < 3 and ratio.median() == pytest.approx(1, abs=0.25)


def test_the_mean_face_fits_its_own_points(ict, embedding):
    camera = WeakPerspective(
        euler_to_matrix(torch.tensor([[0.3, 0.1, -0.2]])), torch.tensor([1.7]), torch.tensor([[200.0, 220.0]])
    )
    points = camera.project(embedding.of(ict.mean)[None])[..., :2]
    found = fit(ict, points, contour="fixed", embedding=embedding)
    assert found.error.max() < 0.05  # pixels
    assert found.identity.abs().max() < 0.02 and found.expression.abs().max() < 0.05
    torch.testing.assert_close(found.camera.rotation, camera.rotation, atol=1e-3, rtol=0)


def test_another_mesh_is_refused(tmp_path):
    (tmp_path / "a.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(AssetError, match=r"a\.obj .*Expected 468 vertices, got 3"):
        read_canonical(tmp_path / "a.obj")
    with pytest.raises(AssetError, match=r"none\.obj"):
        read_canonical(tmp_path / "none.obj")
