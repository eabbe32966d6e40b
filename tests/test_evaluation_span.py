"""The best of a span on a scan: shapes of the span are found on points they do not share, and nothing gets worse."""

from dataclasses import replace

import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from facenb.evaluation.scan import ScanToMesh
from facenb.evaluation.span import fit_surface
from facenb.morphable.model import Embedding, MorphableModel

GENERATOR = 0


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    """An egg with smooth bumps for identities and expressions; 68 of its vertices in front are the landmarks."""
    mesh = trimesh.creation.icosphere(subdivisions=4)
    ball = torch.tensor(mesh.vertices, dtype=torch.float32)
    mean = ball * torch.tensor([70.0, 95.0, 80.0])
    waves = [(2.0, 0.3), (3.0, 1.1), (4.0, 2.0), (5.0, 0.7), (2.5, 2.9)]
    bumps = torch.stack([ball * (f * ball @ torch.tensor([1.0, 0.6, 0.3]) + p).sin()[:, None] for f, p in waves])
    front = (ball[:, 2] > 0.3).nonzero()[:, 0]
    chosen = front[torch.linspace(0, len(front) - 1, 68).long()]
    triangles = torch.tensor(mesh.faces)
    return MorphableModel("egg", mean, triangles, 5 * bumps[:3], 4 * bumps[3:], Embedding.at(chosen.tolist()))


def points_on(vertices: torch.Tensor, triangles: torch.Tensor, count: int = 3000) -> torch.Tensor:
    mesh = trimesh.Trimesh(vertices.double().numpy(), triangles.numpy(), process=False)
    found = torch.tensor(trimesh.sample.sample_surface(mesh, count, seed=GENERATOR)[0], dtype=torch.float32)
    return found[found[:, 2] > 0]


def placed(points: torch.Tensor, size: float) -> torch.Tensor:
    turn = torch.from_numpy(Rotation.from_euler("xyz", [10, -20, 5], degrees=True).as_matrix()).float()
    return size * points @ turn.T + torch.tensor([30.0, -10.0, 200.0])


@pytest.fixture(scope="module")
def truth(model):
    shape = model.shape(torch.tensor([[1.5, -1.0, 0.8]]), torch.tensor([[0.7, -1.2]]))[0]
    return shape, points_on(shape, model.triangles)


@pytest.mark.parametrize(("size", "scale"), [(1.0, False), (1.0, True), (1.3, True)])
def test_a_shape_of_the_span_is_found_wherever_it_lies(model, truth, size, scale):
    shape, points = truth
    aim, marks = placed(points, size), placed(model.landmarks.of(shape), size)
    found = fit_surface(model, aim, marks, scale=scale)
    away = ScanToMesh(found.vertices, model.triangles).closest(aim)[0]
    assert away.mean() < 0.02 and away.max() < 0.3  # mm
    assert found.distance == pytest.approx(float(away.mean()), abs=2e-3)
    front = shape[:, 2] > 0  # where the points lie
    torch.testing.assert_close(found.vertices[front], placed(shape, size)[front], atol=1.0, rtol=0)


def test_a_size_that_may_not_change_is_kept(model, truth):
    shape, points = truth
    found = fit_surface(model, placed(points, 1.3), placed(model.landmarks.of(shape), 1.3), scale=False)
    assert float(found.placement.scale) == 1.0


def test_without_expressions_they_stay_at_zero_and_the_fit_is_worse(model, truth):
    shape, points = truth
    marks = model.landmarks.of(shape)
    whole, neutral = (fit_surface(model, points, marks, neutral=neutral) for neutral in (False, True))
    assert not neutral.expression.any() and len(neutral.expression) == 2
    assert neutral.distance > whole.distance + 0.1


def test_it_is_never_further_away_than_the_mean_face_where_the_landmarks_put_it(model):
    noise = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    points = 90 * torch.nn.functional.normalize(noise, dim=1) + 20 * noise  # no face at all
    found = fit_surface(model, points, model.landmarks.of(model.mean))
    start = ScanToMesh(model.mean, model.triangles).closest(points)[0].mean()
    assert found.distance <= found.distances[0] == pytest.approx(float(start), abs=1e-3)


def test_points_far_off_the_face_pull_less_than_by_their_square(model, truth, monkeypatch):
    shape, points = truth
    hair = points[points[:, 1] > 60] + torch.tensor([0.0, 40.0, 0.0])

    def away() -> float:
        found = fit_surface(model, torch.cat([points, hair]), model.landmarks.of(shape))
        return float(ScanToMesh(found.vertices, model.triangles).closest(points)[0].median())

    held = away()
    monkeypatch.setattr("facenb.evaluation.span.ROBUST", 1e9)
    assert held < 0.8 * away()


def test_components_that_are_alike_or_empty_do_no_harm(model, truth):
    shape, points = truth
    basis = torch.cat([model.identity_basis, model.identity_basis[:1], torch.zeros_like(model.identity_basis[:1])])
    found = fit_surface(replace(model, identity_basis=basis), points, model.landmarks.of(shape))
    assert found.distance < 0.05


class TestBadInput:
    def test_points_in_metres(self, model, truth):
        with pytest.raises(ValueError, match="the scan is not in mm"):
            fit_surface(model, truth[1] / 1000, model.landmarks.of(model.mean) / 1000)
