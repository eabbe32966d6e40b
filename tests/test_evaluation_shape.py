"""Shape errors against displacements that are known, and the best of a span against a plain minimiser."""

import math
from dataclasses import replace

import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from facenb.errors import LandmarkError
from facenb.evaluation.shape import best_in_span, check_millimetres, crop, shape_errors
from facenb.morphable.alignment import similarity
from facenb.morphable.model import Embedding, MorphableModel
from facenb.synthface import course_model

VERTICES = 400


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def turned(faces: torch.Tensor, scale: float = 1.0, seed: int = 3) -> torch.Tensor:
    """The faces under turns and shifts of their own."""
    turn = torch.from_numpy(Rotation.random(len(faces), random_state=seed).as_matrix()).float()
    return scale * faces @ turn.transpose(1, 2) + 30 * draw(len(faces), 1, 3, seed=seed)


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    """A cloud as wide as a head, whose first 68 vertices are the landmarks; 30 is at its middle."""
    mean = 60 * draw(VERTICES, 3)
    mean[30] = 0.0
    landmarks = Embedding.at(range(68))
    triangles = torch.zeros(1, 3, dtype=torch.int64)
    return MorphableModel(
        "cloud", mean, triangles, 3 * draw(5, VERTICES, 3, seed=1), draw(2, VERTICES, 3, seed=2), landmarks
    )


@pytest.fixture(scope="module")
def faces(model) -> torch.Tensor:
    return model.shape(*(draw(3, count, seed=7) for count in (5, 2)))


def test_the_error_of_a_known_displacement_is_its_length(model, faces):
    moved = faces.clone()
    moved[:, 68::2] += torch.tensor([0.0, 3.0, 4.0])  # 5 mm, on vertices that take no part in the alignment
    errors = shape_errors(moved, faces, model)
    inside = crop(faces, model)
    share = inside[:, 68::2].sum(1) / inside.sum(1)
    torch.testing.assert_close(errors.mean, 5 * share, atol=1e-4, rtol=0)
    torch.testing.assert_close(errors.rms, 5 * share.sqrt(), atol=1e-4, rtol=0)


def test_only_vertices_within_the_radius_of_the_true_nose_tip_count(model, faces):
    distance = (faces - faces[:, 30:31]).norm(dim=-1)
    errors = shape_errors(faces + 1.0, faces, model, align=False)
    assert torch.equal(errors.per_vertex.isnan(), distance > 95)
    assert (distance > 95).any() and (distance < 95).any()
    torch.testing.assert_close(
        errors.per_vertex[distance <= 95], torch.tensor(math.sqrt(3)).expand((distance <= 95).sum())
    )


@pytest.fixture(scope="module")
def synthface() -> MorphableModel:
    return course_model()


@pytest.fixture(scope="module")
def heads(synthface) -> torch.Tensor:
    return synthface.shape(draw(2, 80, seed=1), 0.2 * draw(2, 29, seed=2).abs())


class TestSkin:
    """SynthFace's eyeballs and mouth lie within the crop, but only its skin counts."""

    @staticmethod
    def spoilt(heads: torch.Tensor, model: MorphableModel) -> torch.Tensor:
        """The heads with everything but the skin 7 mm away."""
        return torch.where(model.skin[:, None], heads, heads + torch.tensor([0.0, 0.0, 7.0]))

    def test_the_error_is_that_of_the_skin_vertices_one_by_one(self, synthface, heads):
        predicted = turned(heads.flip(0), 1.2)
        errors = shape_errors(predicted, heads, synthface)
        marks = [synthface.landmarks.of(shapes).double() for shapes in (predicted, heads)]
        moved = similarity(*marks).apply(predicted.double())
        for face, (prediction, truth) in enumerate(zip(moved, heads.double(), strict=True)):
            counted = [
                float((prediction[k] - truth[k]).norm())
                for k in synthface.regions["skin"].tolist()
                if float((truth[k] - marks[1][face, 30]).norm()) <= 95
            ]
            assert float(errors.mean[face]) == pytest.approx(sum(counted) / len(counted), rel=1e-5)
            assert float(errors.rms[face]) == pytest.approx(math.hypot(*counted) / len(counted) ** 0.5, rel=1e-5)

    def test_an_eyeball_that_moves_is_no_error(self, synthface, heads):
        mean = synthface.mean[None]
        plain, again = (
            shape_errors(mean.expand(2, -1, -1), x, synthface) for x in (heads, self.spoilt(heads, synthface))
        )
        assert torch.equal(plain.per_vertex.nan_to_num(), again.per_vertex.nan_to_num())
        moved = shape_errors(self.spoilt(heads, synthface), heads, synthface)
        assert moved.rms.max() < 1e-3 and crop(heads, synthface).sum(1).min() > 1500

    def test_the_best_of_the_span_is_that_of_the_skin(self, synthface, heads):
        truth = self.spoilt(heads[:1], synthface)
        best = best_in_span(synthface, truth)
        assert float(shape_errors(best, heads[:1], synthface, align=False).rms) < 1e-3


def test_how_the_prediction_lies_changes_nothing(model, faces):
    predicted = faces + draw(3, VERTICES, 3, seed=9)
    plain = shape_errors(predicted, faces, model)
    again = shape_errors(turned(predicted, 1.7), faces, model)
    torch.testing.assert_close(again.per_vertex, plain.per_vertex, atol=1e-3, rtol=0, equal_nan=True)


def test_without_alignment_a_shift_is_an_error(model, faces):
    moved = faces + torch.tensor([2.0, 0.0, 0.0])
    torch.testing.assert_close(shape_errors(moved, faces, model, align=False).mean, torch.full((3,), 2.0))


def test_one_truth_serves_all_predictions(model, faces):
    predicted = faces[:1] + draw(3, VERTICES, 3, seed=9)
    one, many = (shape_errors(predicted, truth, model) for truth in (faces[:1], faces[:1].repeat(3, 1, 1)))
    torch.testing.assert_close(one.mean, many.mean)


def test_the_map_is_the_mean_over_faces_that_have_the_vertex(model, faces):
    errors = shape_errors(faces + draw(3, VERTICES, 3), faces, model)
    seen = ~errors.per_vertex.isnan()
    vertex = int(((seen.sum(0) > 0) & (seen.sum(0) < 3)).nonzero()[0])
    assert errors.map()[vertex] == pytest.approx(float(errors.per_vertex[seen[:, vertex], vertex].mean()))
    assert torch.equal(errors.map().isnan(), ~seen.any(0))


@pytest.mark.parametrize(("width", "height"), [(20, 5), (20, 20), (160, 240), (550, 700), (600, 1900)])
def test_parts_of_faces_and_whole_bodies_are_in_mm(width, height):
    """Rectangles: an eye, a nose, a head, head and shoulders, a body; none of them in metres or micrometres."""
    flat = torch.cartesian_prod(torch.linspace(0, width, 20), torch.linspace(0, height, 20), torch.tensor([500.0]))
    check_millimetres("it", flat)
    for factor in (0.001, 1000.0):
        with pytest.raises(ValueError, match="it is not in mm"):
            check_millimetres("it", factor * flat)


class TestBadInput:
    def test_a_prediction_that_is_not_finite_has_no_error(self, model, faces):
        broken = faces.clone()
        broken[1, 68 + int(crop(faces, model)[1, 68:].nonzero()[0])] = math.nan  # in the crop, and no landmark
        errors = shape_errors(broken, faces, model)
        assert errors.mean.isnan().tolist() == errors.rms.isnan().tolist() == [False, True, False]

    @pytest.mark.parametrize(("factor", "spread"), [(0.001, "0.1"), (1000.0, "1"), (math.nan, "nan")])
    def test_a_truth_in_another_unit_or_not_finite(self, model, faces, factor, spread):
        for function in (shape_errors, lambda _, truth, __: best_in_span(model, truth)):
            with pytest.raises(ValueError, match=f"the shape is not in mm: its spread about the mean is {spread}"):
                function(faces, factor * faces, model)

    def test_a_prediction_in_another_unit_where_its_size_counts(self, model, faces):
        with pytest.raises(ValueError, match="the predicted shape is not in mm"):
            shape_errors(faces / 1000, faces, model, align=False)

    def test_landmarks_all_alike(self, model, faces):
        flat = faces.clone()
        flat[1, :68] = 0.0
        with pytest.raises(LandmarkError, match="points 1 of 3"):
            shape_errors(flat, faces, model)


def rms_within(shape: torch.Tensor, truth: torch.Tensor, model: MorphableModel) -> torch.Tensor:
    return shape_errors(shape, truth, model, align=False).rms


class TestBestInSpan:
    def test_a_face_of_the_span_is_found_wherever_it_lies(self, model, faces):
        truth = turned(faces, 1.4)
        best = best_in_span(model, truth)
        torch.testing.assert_close(best, truth, atol=1e-3, rtol=0)

    def test_without_expressions_the_face_comes_from_the_identities_alone(self, model, faces):
        neutral = model.shape(draw(3, 5, seed=7))
        assert rms_within(best_in_span(model, neutral, neutral=True), neutral, model).max() < 1e-3
        assert rms_within(best_in_span(model, faces, neutral=True), faces, model).min() > 0.1

    def test_a_minimiser_that_knows_nothing_of_the_problem_finds_no_better(self, model, faces):
        truth = turned(faces + 4 * draw(3, VERTICES, 3, seed=8))[:1]
        inside = crop(truth, model)[0].numpy()
        aim, mean = truth[0].double().numpy()[inside], model.mean.double().numpy()[inside]
        basis = torch.cat([model.identity_basis, model.expression_basis]).double().numpy()[:, inside]
        first = similarity(model.mean[None], truth)

        def residual(x):
            shape = mean + (x[:7, None, None] * basis).sum(0)
            return (math.exp(x[13]) * shape @ Rotation.from_rotvec(x[7:10]).as_matrix().T + x[10:13] - aim).ravel()

        start = [0.0] * 7 + Rotation.from_matrix(first.rotation[0].numpy()).as_rotvec().tolist() + [0.0] * 4
        lowest = math.sqrt(2 * least_squares(residual, start, xtol=1e-12, ftol=1e-12).cost / inside.sum())
        best = best_in_span(model, truth)
        assert float(rms_within(best, truth, model)[0]) == pytest.approx(lowest, rel=1e-4)

    def test_only_the_crop_is_fitted(self, model, faces):
        outside = ~crop(faces, model)[..., None]
        spoilt = faces + 50 * outside * draw(3, VERTICES, 3).abs()
        spoilt = torch.where(crop(spoilt, model)[..., None] & outside, 3 * faces, spoilt)
        assert rms_within(best_in_span(model, spoilt), spoilt, model).max() < 1e-3

    def test_components_that_are_alike_or_empty_do_no_harm(self, model, faces):
        basis = torch.cat([model.identity_basis, model.identity_basis[:1], torch.zeros_like(model.identity_basis[:1])])
        double = replace(model, identity_basis=basis)
        truth = faces + draw(3, VERTICES, 3, seed=8)
        torch.testing.assert_close(best_in_span(double, truth), best_in_span(model, truth), atol=1e-3, rtol=0)

    def test_no_vertex_near_the_nose_tip(self, model, faces):
        far = Embedding(torch.tensor([[0, 1, 2]] * 31), torch.full((31, 3), 30.0))  # far outside the mesh
        with pytest.raises(ValueError, match="no vertex of the skin lies within 95.0 mm"):
            crop(faces, replace(model, landmarks=far))
