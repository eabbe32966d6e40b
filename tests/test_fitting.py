"""Fitting against scipy's joint least squares, known truth, invariances, and its own parts taken one at a time."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import truncated
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.errors import LandmarkError
from facenb.evaluation.landmarks import by_yaw, fitted_landmarks, nme
from facenb.fitting import fit, fitter, scaled_orthographic
from facenb.fitting.errors import PointErrors
from facenb.imaging.camera import WeakPerspective, euler_to_matrix, matrix_to_euler
from facenb.morphable.formats.ict import read_ict
from facenb.morphable.formats.surrey import read_surrey
from facenb.morphable.model import Embedding, MorphableModel

IDENTITY, EXPRESSION = 8, 4
fixed = partial(fit, contour="fixed")
LINE = torch.linspace(math.radians(60), math.radians(-20), 24, dtype=torch.float64)  # candidates, front to back


def ellipsoid(around: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Points of a head-sized ellipsoid: `around` the viewing axis from +x, `up` from its rim towards the viewer."""
    return torch.stack([70 * around.cos() * up.cos(), 95 * around.sin() * up.cos(), 80 * up.sin()], -1)


def jaw_angles() -> torch.Tensor:
    """Direction of the 17 jaw-line landmarks, from the image's left over the chin to its right."""
    return torch.linspace(-math.pi, 0, 17, dtype=torch.float64)


def bumps(points: torch.Tensor, count: int, size: float, generator: torch.Generator) -> torch.Tensor:
    """Smooth random displacement fields (count, points, 3), in mm."""
    centres = 70 * torch.randn(20, 3, generator=generator, dtype=torch.float64)
    kernel = torch.exp(-torch.cdist(points, centres).square() / (2 * 45**2))
    return size * torch.einsum("pc,bck->bpk", kernel, torch.randn(count, 20, 3, generator=generator).double())


def make_model(dtype=torch.float64, contour: bool = False) -> MorphableModel:
    """68 landmarks and the lines of the jaw on an ellipsoid, with random smooth bases."""
    generator = torch.Generator().manual_seed(5)
    inner_around = 2 * math.pi * torch.rand(51, generator=generator).double()
    inner_up = 0.5 + 0.9 * torch.rand(51, generator=generator).double()
    jaw = jaw_angles()
    inner = ellipsoid(inner_around, inner_up)
    inner[:, 2] += 15 * torch.randn(51, generator=generator).double()  # nose and sockets
    points = torch.cat([ellipsoid(jaw, torch.zeros(17).double()), inner])
    lines = ellipsoid(jaw[:, None].expand(17, len(LINE)), LINE.expand(17, -1)).flatten(0, 1)
    vertices = torch.cat([points, lines])
    return MorphableModel(
        "ellipsoid",
        vertices.to(dtype),
        torch.tensor([[0, 1, 2]]),
        bumps(vertices, IDENTITY, 3.0, generator).to(dtype),
        bumps(vertices, EXPRESSION, 2.0, generator).to(dtype),
        Embedding.at(torch.arange(68)),
        contour=68 + torch.arange(17 * len(LINE)).view(17, -1) if contour else None,
    )


@pytest.fixture(scope="module")
def model() -> MorphableModel:
    return make_model()


def make_images(model, counts, seed=0, noise=0.0, yaw=1.0):
    """Landmarks of subjects with `counts` pictures each, and the truth; `yaw` limit in radians, noise in mm."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape):
        return 2 * torch.rand(*shape, generator=generator).double() - 1

    subject = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    images = len(subject)
    identity = torch.randn(len(counts), IDENTITY, generator=generator).double()
    expression = torch.randn(images, EXPRESSION, generator=generator).double()
    angles = uniform(images, 3) * torch.tensor([yaw, 0.4, 0.5], dtype=torch.float64)
    scale = 0.4 + 2 * torch.rand(images, generator=generator).double()
    camera = WeakPerspective(euler_to_matrix(angles), scale, 200 + 50 * uniform(images, 2))
    seen = camera.project(model.landmarks.of(model.shape(identity[subject], expression)))[..., :2]
    seen = seen + noise * scale[:, None, None] * torch.randn(seen.shape, generator=generator).double()
    return seen, subject, identity, expression, camera


def degrees_apart(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.rad2deg(torch.as_tensor(Rotation.from_matrix((a.mT @ b).numpy()).magnitude()))


def joint_residuals(model, seen, subject, weights, unit, priors):
    """The objective of `fit`, written anew with numpy: residuals over all parameters at once."""
    mean = model.mean[:68].numpy()
    shape_basis, move_basis = model.identity_basis[:, :68].numpy(), model.expression_basis[:, :68].numpy()
    images, subjects = len(seen), int(subject.max()) + 1

    def residuals(parameters):
        identity = parameters[: subjects * IDENTITY].reshape(subjects, IDENTITY)
        own = parameters[subjects * IDENTITY :].reshape(images, 6 + EXPRESSION)
        shape = mean + np.einsum("na,apk->npk", identity[subject], shape_basis)
        shape = shape + np.einsum("ne,epk->npk", own[:, 6:], move_basis)
        turned = np.einsum("nkl,npl->npk", Rotation.from_rotvec(own[:, :3]).as_matrix(), shape)
        u = np.exp(own[:, 3, None]) * turned[..., 0] + own[:, 4, None]
        v = -np.exp(own[:, 3, None]) * turned[..., 1] + own[:, 5, None]
        data = np.sqrt(weights)[..., None] * (np.stack([u, v], -1) - seen) / unit[:, None, None]
        return np.concatenate(
            [data.ravel(), math.sqrt(priors[0]) * identity.ravel(), math.sqrt(priors[1]) * own[:, 6:].ravel()]
        )

    return residuals


def packed(found, identity, expression) -> np.ndarray:
    """Camera and coefficients as the flat vector that `joint_residuals` takes."""
    camera = found.camera
    turn = Rotation.from_matrix(camera.rotation.numpy()).as_rotvec()
    own = np.concatenate([turn, camera.scale.log()[:, None], camera.translation, expression], 1)
    return np.concatenate([np.ravel(identity), own.ravel()])


@pytest.mark.parametrize("counts", [[1], [3], [2, 1]])
@pytest.mark.parametrize("priors", [(4.0, 4.0), (0.3, 1.0)])
def test_the_objective_ends_within_one_percent_of_scipy(model, counts, priors):
    seen, subject, *_ = make_images(model, counts, seed=len(counts), noise=2.0)
    weights = 0.2 + torch.rand(seen.shape[:2], generator=torch.Generator().manual_seed(1)).double()
    found = fixed(model, seen, subject, weights, rounds=7, identity_prior=priors[0], expression_prior=priors[1])
    start = fixed(model, seen, subject, weights, rounds=0)
    residuals = joint_residuals(model, *(x.numpy() for x in (seen, subject, weights, found.unit)), priors)
    ours = np.square(residuals(packed(found, found.identity, found.expression))).sum()
    assert ours == pytest.approx(float(found.objective[-1]), rel=1e-6)  # the oracle measures the same thing
    joint = least_squares(residuals, packed(start, start.identity, start.expression), method="trf", xtol=1e-12)
    assert ours <= 1.01 * 2 * joint.cost
    assert len(found.objective) <= 8


def test_a_step_that_would_not_help_is_tried_shorter(model):
    """On landmarks 20 mm off some full steps overshoot; the fit must still end where scipy finds nothing better."""
    seen, *_ = make_images(model, [1] * 12, seed=4, noise=20.0, yaw=1.5)
    overshot = 0
    for image in seen[:, None]:
        found = fixed(model, image, rounds=40)
        history = found.objective
        assert (history.diff() <= 0).all()
        if (history.diff() == 0).any():
            overshot += 1
            numbers = (x.numpy() for x in (image, torch.zeros(1, dtype=torch.int64), torch.ones(1, 68), found.unit))
            residuals = joint_residuals(model, *numbers, (4.0, 4.0))
            joint = least_squares(residuals, packed(found, found.identity, found.expression))
            assert float(history[-1]) <= 1.01 * 2 * joint.cost
    assert overshot > 0


@pytest.mark.parametrize("yaw", [0.3, math.pi / 2])
def test_truth_is_recovered_without_noise(model, yaw):
    seen, subject, identity, expression, camera = make_images(model, [4, 3, 6], seed=3, yaw=yaw)
    found = fixed(model, seen, subject, identity_prior=1e-6, expression_prior=1e-6)
    assert degrees_apart(found.camera.rotation, camera.rotation).max() < 0.1
    torch.testing.assert_close(found.camera.scale, camera.scale, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.identity, identity, rtol=0, atol=0.02)
    torch.testing.assert_close(found.expression, expression, rtol=0, atol=0.05)
    assert found.error.max() < 0.01


@pytest.mark.parametrize("angle", [-90, -60, 0, 60, 90])
def test_a_profile_converges_with_its_far_half_unseen(model, angle):
    rotation = euler_to_matrix(torch.tensor([[math.radians(angle), 0.1, -0.2]], dtype=torch.float64))
    camera = WeakPerspective(rotation, torch.ones(1).double(), torch.full((1, 2), 50.0).double())
    identity, expression = (0.5 * torch.ones(1, n).double() for n in (IDENTITY, EXPRESSION))
    points = model.landmarks.of(model.shape(identity, expression))
    weights = ((points @ rotation.mT)[..., 2] > -20).double()
    seen = camera.project(points)[..., :2]
    seen = torch.where(weights[..., None] > 0, seen, torch.full_like(seen, torch.nan))
    found = fixed(model, seen, weights=weights, identity_prior=1e-4, expression_prior=1e-4)
    assert degrees_apart(found.camera.rotation, rotation).max() < 3
    assert found.error.max() < 0.1


def test_closed_form_camera_is_exact_for_exact_points(model):
    points = model.mean[:68]
    seen, _, _, _, camera = make_images(model, [1] * 20, yaw=math.pi / 2)
    seen = camera.project(points.expand(20, -1, -1))[..., :2]
    up = seen * torch.tensor([1.0, -1.0])
    rotation, scale, shift = scaled_orthographic(points[None], up, torch.ones(20, 68).double())
    assert degrees_apart(rotation, camera.rotation).max() < 0.01
    torch.testing.assert_close(scale, camera.scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(shift * torch.tensor([1.0, -1.0]), camera.translation, rtol=0, atol=1e-2)


def test_identity_error_falls_as_images_are_added(model):
    errors = []
    for count in (1, 2, 5, 20):
        seen, subject, identity, *_ = make_images(model, [count] * 30, seed=9, noise=3.0)
        found = fixed(model, seen, subject, identity_prior=9.0, expression_prior=9.0)
        errors.append(float((found.identity - identity).square().mean().sqrt()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


@settings(max_examples=15, deadline=None)
@given(
    factor=st.floats(0.02, 50),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
    roll=st.floats(-3, 3),
    seed=st.integers(0, 1000),
)
def test_moving_scaling_and_turning_the_picture_changes_only_the_camera(model, factor, shift, roll, seed):
    seen, subject, *_ = make_images(model, [2, 1], seed=seed, noise=1.0)
    before = fixed(model, seen, subject)
    turn = torch.tensor([[math.cos(roll), -math.sin(roll)], [math.sin(roll), math.cos(roll)]], dtype=torch.float64)
    up = seen * torch.tensor([1.0, -1.0])
    moved = factor * (up @ turn.T) * torch.tensor([1.0, -1.0]) + torch.tensor(shift, dtype=torch.float64)
    after = fixed(model, moved, subject)
    torch.testing.assert_close(after.identity, before.identity, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.expression, before.expression, rtol=0, atol=1e-4)
    torch.testing.assert_close(after.camera.scale, factor * before.camera.scale, rtol=1e-4, atol=0)
    turned = torch.eye(3).double()
    turned[:2, :2] = turn
    torch.testing.assert_close(after.camera.rotation, turned @ before.camera.rotation, rtol=0, atol=1e-4)


def test_an_image_given_twice_counts_as_weight_two(model):
    seen, *_ = make_images(model, [2], noise=2.0)
    zero = torch.zeros(4, dtype=torch.int64)
    twice = fixed(model, seen.repeat(2, 1, 1), zero)
    double = fixed(model, seen, zero[:2], 2 * torch.ones(2, 68).double(), expression_prior=8.0)
    torch.testing.assert_close(twice.identity, double.identity, rtol=0, atol=1e-3)
    torch.testing.assert_close(twice.expression[:2], double.expression, rtol=0, atol=1e-3)


def test_ragged_subjects_together_and_in_any_order_equal_each_by_itself(model, monkeypatch):
    monkeypatch.setitem(fitter.CHUNK, "cpu", 6)  # chunks end inside the list
    counts = [1, 7, 2, 4, 1, 3]
    seen, subject, *_ = make_images(model, counts, noise=1.5)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(0))
    seen, subject = seen[order], subject[order]
    before = seen.clone()
    together = fixed(model, seen, 10 * subject + 3)
    assert torch.equal(seen, before)
    for k, count in enumerate(counts):
        own = None if count == 1 else torch.zeros(count, dtype=torch.int64)  # None: every image is a subject
        alone = fixed(model, seen[subject == k], own)
        torch.testing.assert_close(together.identity[k : k + 1], alone.identity, rtol=0, atol=2e-3)
        torch.testing.assert_close(together.expression[subject == k], alone.expression, rtol=0, atol=2e-3)
        torch.testing.assert_close(together.error[subject == k], alone.error, rtol=1e-3, atol=0)
        torch.testing.assert_close(together.camera.rotation[subject == k], alone.camera.rotation, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_a_prior_components_that_move_no_landmark_stay_at_zero(dtype):
    """The paper writes no prior; then the normal matrix may lack rank, which must not end in an error."""
    model = make_model(dtype)
    dead = torch.zeros_like(model.expression_basis[:1])
    model = replace(model, expression_basis=torch.cat([model.expression_basis, dead]))
    seen, subject, *_ = make_images(make_model(), [6, 5], noise=1.0)
    found = fixed(model, seen.to(dtype), subject, identity_prior=0, expression_prior=0)
    assert found.expression[:, -1].abs().max() < 1e-6
    assert found.identity.isfinite().all() and (found.error / found.camera.scale).max() < 2


def test_weight_zero_is_a_landmark_left_out(model):
    seen, subject, *_ = make_images(model, [3], noise=1.0)
    kept = torch.arange(68) % 3 > 0
    weights = kept.double().expand(3, -1).contiguous()
    hidden = torch.where(kept[:, None], seen, torch.full_like(seen, torch.nan))
    weighted = fixed(model, hidden, subject, weights)
    fewer = fixed(model, seen[:, kept], subject, embedding=Embedding.at(torch.arange(68)[kept]))
    torch.testing.assert_close(weighted.unit, fewer.unit, rtol=1e-4, atol=0)
    torch.testing.assert_close(weighted.identity, fewer.identity, rtol=0, atol=1e-3)
    torch.testing.assert_close(weighted.error, fewer.error, rtol=1e-3, atol=0)


def test_conjugate_gradients_to_the_end_agree_with_the_formed_matrices(model, monkeypatch):
    monkeypatch.setattr("facenb.fitting.solve.FORCING", 1e-20)
    monkeypatch.setattr("facenb.fitting.solve.GAIN", 0)
    seen, subject, *_ = make_images(model, [4, 2, 5], noise=2.0)
    assert len(seen) > fitter.FEW
    fast = fixed(model, seen, subject)
    weights = torch.full((11, 68), 3.0).double()
    general = fixed(model, seen, subject, weights, identity_prior=12.0, expression_prior=12.0)
    torch.testing.assert_close(general.identity, fast.identity, rtol=0, atol=1e-6)
    torch.testing.assert_close(general.expression, fast.expression, rtol=0, atol=1e-6)
    torch.testing.assert_close(general.objective, 3 * fast.objective, rtol=1e-6, atol=0)


def test_float32_agrees_with_float64(model):
    seen, subject, *_ = make_images(model, [5, 1, 9], noise=2.0)
    exact, single = fixed(model, seen, subject), fixed(make_model(torch.float32), seen.float(), subject)
    assert single.identity.dtype == torch.float32
    assert float(single.objective[-1]) == pytest.approx(float(exact.objective[-1]), rel=1e-4)
    torch.testing.assert_close(single.identity.double(), exact.identity, rtol=0, atol=0.01)
    assert degrees_apart(single.camera.rotation.double(), exact.camera.rotation).max() < 0.05


def test_any_points_of_the_surface_can_be_landmarks(model):
    generator = torch.Generator().manual_seed(2)
    corners = torch.randint(0, 68, (478, 3), generator=generator)
    shares = torch.rand(478, 3, generator=generator)
    surface = Embedding(corners, shares / shares.sum(1, keepdim=True))
    _, subject, identity, expression, camera = make_images(model, [3, 2])
    seen = camera.project(surface.of(model.shape(identity[subject], expression)))[..., :2]
    found = fixed(model, seen, subject, embedding=surface, identity_prior=1e-4, expression_prior=1e-4)
    assert degrees_apart(found.camera.rotation, camera.rotation).max() < 0.1
    assert found.error.max() < 0.01


def outline_landmarks(model, identity, expression, camera):
    """What an annotator marks: on the side turned away the outermost point of a line, by brute force in pixels."""
    shape = model.shape(identity, expression)
    seen = camera.project(shape)[..., :2]
    landmarks = seen[:, :68].clone()
    for image in range(len(seen)):
        middle = torch.zeros(1, 1, 3).double()
        for jaw, angle in enumerate(jaw_angles()):
            outward = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)])
            one = WeakPerspective(*(x[image : image + 1] for x in (camera.rotation, camera.scale, camera.translation)))
            if float((one.rotation[0] @ outward)[2]) >= 0:
                continue
            roll = matrix_to_euler(one.rotation)[0, 2]
            direction = torch.stack([(angle + roll).cos(), -(angle + roll).sin()])  # v runs down
            line = seen[image, 68 + jaw * len(LINE) : 68 + (jaw + 1) * len(LINE)]
            landmarks[image, jaw] = line[((line - one.project(middle)[0, :, :2]) @ direction).argmax()]
    return landmarks


def test_sliding_the_contour_helps_on_a_turned_head():
    model = make_model(contour=True)
    angles = torch.tensor([[0.8, 0.0, 0.3], [-0.7, 0.1, -0.2], [0.5, 0.2, 0.0]], dtype=torch.float64)
    scale, at = torch.tensor([1.0, 0.7, 2.0]).double(), torch.full((3, 2), 120.0).double()
    camera = WeakPerspective(euler_to_matrix(angles), scale, at)
    generator = torch.Generator().manual_seed(11)
    identity = torch.randn(1, IDENTITY, generator=generator).double()
    expression = torch.randn(3, EXPRESSION, generator=generator).double()
    seen = outline_landmarks(model, identity.expand(3, -1), expression, camera)
    options = {"subject": torch.zeros(3, dtype=torch.int64), "identity_prior": 0.1, "expression_prior": 0.1}
    slid, held = fit(model, seen, contour="sliding", **options), fixed(model, seen, **options)
    wrong = [float((found.identity - identity).norm()) for found in (slid, held)]
    turn = [float(degrees_apart(found.camera.rotation, camera.rotation).max()) for found in (slid, held)]
    assert turn[0] < 2.0 and turn[0] < 0.2 * turn[1]
    assert wrong[0] < 0.2 * wrong[1]
    assert slid.error.max() < 0.25 * held.error.max()


@settings(max_examples=25, deadline=None)
@given(
    contour=st.sampled_from(["fixed", "sliding"]), noise=st.floats(0, 40), seed=st.integers(0, 1000), few=st.booleans()
)
def test_the_objective_never_rises(contour, noise, seed, few):
    """Also not where the landmarks are of the other kind of contour, or hardly a face; nor for many images at once."""
    model = make_model(contour=True)
    seen, subject, *_ = make_images(model, [2, 1] if few else [1] * 12, seed=seed, noise=noise, yaw=1.5)
    result = fit(model, seen, subject, contour=contour, rounds=20)
    assert (result.objective.diff() <= 0).all()
    assert result.identity.isfinite().all()


@pytest.mark.parametrize("name", ["ict-facekit", "surrey"])
def test_the_labels_of_aflw2000_are_fitted_without_extreme_coefficients(name, real_asset):
    """Its labels are fixed points of a head. eos fits the Surrey model to profiles with an NME of 1.9 %."""
    read, file = {"ict-facekit": (read_ict, "ict_face_head_11248.npz"), "surrey": (read_surrey, "sfm_shape_3448.bin")}[
        name
    ]
    model, data = read(real_asset(name) / file), read_aflw2000(real_asset("aflw2000-3d"))
    samples = [data[index] for index in range(0, len(data), 8)]
    landmarks, yaw = torch.stack([s.landmarks for s in samples]), torch.tensor([s.yaw for s in samples])
    for contour in ("fixed", "sliding"):
        result = fit(model, landmarks, contour=contour)
        single = [fit(model, landmarks[k, None], contour=contour) for k in (0, 40, 80, 120)]
        assert all((x.objective.diff() <= 0).all() for x in (result, *single))
        assert result.identity.abs().max() < 5.5 and result.expression.abs().max() < 5.5
        if contour == "fixed":
            assert by_yaw(nme(fitted_landmarks(model, result), landmarks), yaw).bins[2] < 0.022


@pytest.mark.parametrize("spoil", ["contour", "embedding", "model"])
def test_a_contour_that_cannot_slide_is_refused(spoil):
    model = make_model(contour=spoil != "model")
    seen, *_ = make_images(model, [1])
    options = {"embedding": model.landmarks} if spoil == "embedding" else {}
    with pytest.raises(ValueError, match="contour"):
        fit(model, seen, contour="outline" if spoil == "contour" else "sliding", **options)


def fit_spoilt(change):
    """Fit three images after a change of landmarks, subjects or weights; without the tests' own check of shapes."""
    model = make_model()
    seen, subject, *_ = make_images(model, [3])
    arrays = {"landmarks": seen, "subject": subject, "weights": torch.ones(3, 68).double()}
    change(arrays)
    return getattr(fit, "__wrapped__", fit)(model, **arrays, contour="fixed")


@pytest.mark.parametrize(
    ("name", "where", "value"),
    [
        ("landmarks", (1, 5), torch.nan),
        ("landmarks", (1, 5, 0), torch.inf),
        ("landmarks", 1, 7.0),
        ("landmarks", 1, torch.arange(68)[:, None] * torch.tensor([1.0, 2.0]).double()),
        ("weights", 1, 0.0),
        ("weights", (1, 3), -1.0),
    ],
    ids=["nan", "infinite", "alike", "line", "unseen", "negative"],
)
def test_an_image_that_cannot_be_fitted_is_named(name, where, value):
    with pytest.raises(LandmarkError, match="image 1 has"):
        fit_spoilt(lambda arrays: arrays[name].__setitem__(where, value))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: {"landmarks": x["landmarks"][:, :67], "weights": None}, r"\(3, 67, 2\).*68"),
        (lambda x: {"landmarks": x["landmarks"][:0], "subject": x["subject"][:0], "weights": None}, "no images"),
        (lambda x: {"subject": x["subject"][:2]}, r"\(2,\).*3 images"),
    ],
    ids=["count", "empty", "subject"],
)
def test_arrays_that_do_not_belong_together_are_refused(change, message):
    with pytest.raises(LandmarkError, match=message):
        fit_spoilt(lambda arrays: arrays.update(change(arrays)))


def test_a_negative_prior_is_refused(model):
    with pytest.raises(ValueError, match="identity_prior -1"):
        fixed(model, make_images(model, [1])[0], identity_prior=-1)


def test_a_model_without_components_is_the_limit_of_a_strong_prior(model):
    landmarks = 3 * model.landmarks.of(model.shape(torch.ones(2, IDENTITY).double()))[..., :2]
    bare = fixed(truncated(model, 0, 0), landmarks)
    held = fixed(model, landmarks, identity_prior=1e9, expression_prior=1e9)
    assert bare.identity.shape == (2, 0) and bare.expression.shape == (2, 0)
    assert torch.allclose(bare.camera.rotation, held.camera.rotation, atol=1e-5)
    assert torch.allclose(bare.error, held.error, rtol=1e-5)
    assert held.identity.abs().max() < 1e-3 and held.expression.abs().max() < 1e-3


class TestPointErrors:
    """Points with a bias and correlated errors, of which the fit is told."""

    def errors(self, bias=0.0, rank=4, variance=1.0, spread=3.0):
        """The same errors in all three bins of yaw."""
        generator = torch.Generator().manual_seed(2)
        loading = spread * torch.randn(136, rank, generator=generator).double()
        return PointErrors(
            torch.arange(68),
            torch.tensor([-20.0, 20.0]),
            bias * torch.randn(3, 136, generator=generator).double(),
            loading.expand(3, -1, -1),
            torch.full((3, 136), variance).double(),
            torch.ones(EXPRESSION),
        )

    def observed(self, model, errors, camera, identity, expression, subject, seed=0):
        """Landmarks with these errors, along the axes of the upright face, written anew."""
        generator = torch.Generator().manual_seed(seed)
        clean = camera.project(model.landmarks.of(model.shape(identity[subject], expression)))[..., :2]
        common = torch.randn(len(clean), errors.loading.shape[2], generator=generator).double()
        noise = common @ errors.loading[0].T + torch.randn(len(clean), 136, generator=generator).double()
        bins = (camera.rotation[:, 0, 2].atan2(camera.rotation[:, 2, 2]).rad2deg()[:, None] > errors.edges).sum(1)
        x, y = (errors.bias[bins] + noise).unflatten(1, (2, 68)).unbind(1)
        up = camera.rotation[:, :2, 1] / camera.rotation[:, :2, 1].norm(dim=1, keepdim=True)
        right = torch.stack([up[:, 1], -up[:, 0]], 1)
        moved = x[..., None] * right[:, None] + y[..., None] * up[:, None]
        return clean + camera.scale[:, None, None] * moved * torch.tensor([1.0, -1.0])

    def test_independent_errors_are_the_usual_prior(self, model):
        """Noise of 9 mm^2 without correlation: the fit with a prior strength of 9, its objective divided by 9."""
        seen, subject, *_ = make_images(model, [2, 3], seed=6, noise=3.0)
        usual = fixed(model, seen, subject, identity_prior=9.0, expression_prior=9.0)
        other = fixed(model, seen, subject, errors=self.errors(spread=0.0, variance=9.0))
        torch.testing.assert_close(other.identity, usual.identity, atol=1e-3, rtol=0)
        torch.testing.assert_close(other.camera.rotation, usual.camera.rotation, atol=1e-4, rtol=0)
        torch.testing.assert_close(other.camera.translation, usual.camera.translation, atol=0.01, rtol=0)
        assert float(other.objective[-1]) == pytest.approx(float(usual.objective[-1]) / 9, rel=1e-4)

    def test_known_correlation_and_bias_give_a_better_identity(self, model):
        _, subject, identity, expression, camera = make_images(model, [1] * 60, seed=8, yaw=0.6)
        errors = self.errors(bias=2.0)
        seen = self.observed(model, errors, camera, identity, expression, subject)
        of = {
            name: float((fixed(model, seen, **options).identity - identity).square().mean())
            for name, options in {
                "told": {"errors": errors},
                "without bias": {"errors": replace(errors, bias=0 * errors.bias)},
                "independent": {"identity_prior": 41.0, "expression_prior": 41.0},  # 1 + 4 x 9 + 4 mm^2, all counted
            }.items()
        }
        assert of["told"] < 0.8 * min(of["without bias"], of["independent"])

    def test_a_turned_image_gives_the_turned_camera(self, model):
        """The errors turn with the face."""
        _, subject, identity, expression, camera = make_images(model, [1] * 4, seed=8, yaw=0.6)
        errors = self.errors(bias=2.0)
        seen = self.observed(model, errors, camera, identity, expression, subject)
        turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]]).double()
        plain, turned = (fixed(model, points, errors=errors) for points in (seen, seen @ turn.T))
        torch.testing.assert_close(turned.identity, plain.identity, atol=2e-3, rtol=0)
        torch.testing.assert_close(turned.camera.translation, plain.camera.translation @ turn.T, atol=0.05, rtol=0)

    def test_the_shipped_estimate_is_the_same_on_both_sides_of_the_face(self):
        shipped = PointErrors.load()
        covariance = shipped.loading @ shipped.loading.mT + torch.diag_embed(shipped.variance)
        assert torch.equal(shipped.edges, -shipped.edges.flip(0)) and (shipped.expression_prior > 0).all()
        x, y = shipped.bias.unflatten(1, (2, -1)).unbind(1)
        assert x.sum(1).add(x.sum(1).flip(0)).abs().max() < 1e-2 and y.sum(1).sub(y.sum(1).flip(0)).abs().max() < 1e-2
        traces = covariance.diagonal(dim1=1, dim2=2).sum(1)
        torch.testing.assert_close(traces, traces.flip(0), rtol=1e-3, atol=0)
        unit = shipped.roots @ covariance @ shipped.roots.mT
        torch.testing.assert_close(unit, torch.eye(unit.shape[1]).expand_as(unit), atol=2e-2, rtol=0)
