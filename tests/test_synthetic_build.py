"""The linear model built from SynthFace: aligned, whitened, falling residual, and blind to part of the truth."""

import pytest
import torch

from facenb.errors import ModelFileError
from facenb.imaging.camera import euler_to_matrix
from facenb.morphable import MorphableModel
from facenb.morphable.alignment import align
from facenb.morphable.synthetic import MODEL, SynthFace, build_model, load_or_build, residual_by_components
from facenb.morphable.synthetic.build import principal_components, procrustes


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return build_model(people=90, components=60, albedo_components=10)


def moved(points: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    turn = euler_to_matrix(0.3 * torch.randn(len(points), 3))
    return points @ turn.transpose(1, 2) + 20 * torch.randn(len(points), 1, 3)


def test_procrustes_brings_moved_heads_together():
    heads = SynthFace(0).neutrals(list(range(8)))
    still, _ = procrustes(heads)
    shaken, _ = procrustes(moved(heads))
    spread = [(x - x.mean(0)).norm(dim=-1).mean() for x in (still, shaken, heads)]
    assert spread[1] == pytest.approx(float(spread[0]), rel=0.02)
    assert spread[0] <= spread[2] + 1e-4


def test_components_are_those_of_a_known_gaussian():
    torch.manual_seed(1)
    directions = torch.linalg.qr(torch.randn(30, 2)).Q.T.reshape(2, 10, 3)
    rows = 5 + torch.randn(500, 2) @ (torch.tensor([[3.0], [1.0]]) * directions.flatten(1))
    mean, basis = principal_components(rows.reshape(-1, 10, 3), 2)
    torch.testing.assert_close(mean, torch.full((10, 3), 5.0), atol=0.2, rtol=0)
    lengths = basis.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([3.0, 1.0]), rtol=0.1, atol=0)
    assert (basis[0].flatten() @ directions[0].flatten()).abs() > 0.99 * lengths[0]


def test_identity_is_whitened(model):
    heads = align(SynthFace(0, MODEL).neutrals(list(range(90))), model.mean[None], scale=False)
    identity, _ = model.project(heads, neutral=True)
    torch.testing.assert_close(identity.mean(0), torch.zeros(60), atol=0.05, rtol=0)
    torch.testing.assert_close(identity.var(0), torch.ones(60), atol=0.05, rtol=0)
    explained = model.explained_variance()
    assert explained[9] > 0.7 and (explained.diff() > 0).all()


def test_the_truth_is_outside_the_model(model):
    residual = residual_by_components(model, (5, 20, 60), people=12)
    assert residual.mean[0] > residual.mean[1] > residual.mean[2] > 0.1  # mm
    assert residual.mean[0] < 3


def test_expressions_are_mean_differences(model):
    synth = SynthFace(0, MODEL)
    assert model.expression_names == synth.expression_names
    opened = model.shape(None, torch.eye(len(model.expression_names))[:1])
    points = model.landmarks.of(opened)[0]
    assert points[62, 1] - points[66, 1] > 25


def test_it_is_the_same_every_time_and_survives_a_file(model, tmp_path):
    small = build_model(people=20, components=5, albedo_components=3)
    again = build_model(people=20, components=5, albedo_components=3)
    torch.testing.assert_close(small.identity_basis, again.identity_basis, atol=1e-4, rtol=0)
    back = MorphableModel.load(small.save(tmp_path / "m.safetensors"))
    torch.testing.assert_close(back.mean, small.mean)
    assert back.contour.shape == (17, small.contour.shape[1])
    assert back.uv_triangles.shape == back.triangles.shape


def test_the_kept_model_is_used_and_a_damaged_one_replaced(tmp_path):
    first = load_or_build(tmp_path, people=45, components=4)
    (file,) = tmp_path.iterdir()
    before = file.stat().st_mtime_ns
    again = load_or_build(tmp_path, people=45, components=4)
    assert file.stat().st_mtime_ns == before
    torch.testing.assert_close(again.mean, first.mean)
    file.write_bytes(b"half a file")
    with pytest.raises(ModelFileError):
        MorphableModel.load(file)
    torch.testing.assert_close(load_or_build(tmp_path, people=45, components=4).mean, first.mean)
    assert list(tmp_path.iterdir()) == [file]


def test_too_few_people_are_refused():
    with pytest.raises(ValueError, match="20 people"):
        build_model(people=20, components=20)
