"""Fit a morphable model to landmarks of one image, or of many images of the same people."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.fitting.errors import PointErrors, turned, upright
from facenb.fitting.pose import refine_pose, scaled_orthographic
from facenb.fitting.problem import Points, Problem, State, check
from facenb.fitting.solve import DirectStep, SharedStep, Step, solve
from facenb.imaging.camera import WeakPerspective
from facenb.morphable.model import Embedding, MorphableModel

ROUNDS = 7  # Liu et al. 2018: "converges in at most 7 rounds"
# A prior strength is the variance (mm^2, per coordinate) of a landmark around its true position. With noise of this
# variance and coefficients N(0, 1), the fit is the most probable face. Two annotators differ by about 2 mm (3 % of the
# distance between the eyes).
PRIOR = 4.0
FEW = 8  # images up to which forming the matrices is faster than conjugate gradients
# Number of images (of 68 points) solved at once. On a CPU they fit into a core's cache; on a GPU they use all of it.
CHUNK = {"cpu": 512, "cuda": 16384}
FORMED = 4  # the direct step needs this many times more memory per image


@dataclass(frozen=True)
class Fit:
    """The camera and coefficients of N images of S subjects."""

    identity: Float[Tensor, "subjects identity"]
    expression: Float[Tensor, "images expression"]
    camera: WeakPerspective
    subject: Int[Tensor, " images"]  # row of `identity`; rows are in the order of the sorted subject labels
    error: Float[Tensor, " images"]  # weighted root mean square distance of the landmarks, pixels
    objective: Float[Tensor, " rounds_and_start"]  # total over all subjects in mm^2: at the start and after each round
    unit: Float[Tensor, " images"]  # pixels per mm, which converts an image's residuals to mm


def fit(
    model: MorphableModel,
    landmarks: Float[Tensor, "images landmarks 2"],
    subject: Int[Tensor, " images"] | None = None,
    weights: Float[Tensor, "images landmarks"] | None = None,
    *,
    contour: str,
    embedding: Embedding | None = None,
    rounds: int = ROUNDS,
    identity_prior: float | int = PRIOR,
    expression_prior: float | int = PRIOR,
    errors: PointErrors | None = None,
) -> Fit:
    """Return the camera, expression and shared identity of the most probable face (Liu et al. 2018, Eq. 6-7).

    Minimises, over all images i of a subject and landmarks j,
    `sum_ij w_ij |u_ij - u_hat_ij|^2 / unit_i^2 + identity_prior |a|^2 + sum_i expression_prior |e_i|^2`
    with `u_hat = f P R (mean + A a + E e) + t`. `unit` is the scale f of the mean face in that image. It is held fixed.
    So residuals are in mm, and the image size does not change the result. We add the prior; the paper has none.
    With `errors`, the residuals are those of the points after removing the bias, in units of the points' covariance for
    the image's yaw. Then the identity's prior is the standard normal and the
    expression's is that of `errors`. The arguments for priors are not used.

    `landmarks` are in pixels (v down). `contour` states what landmarks 0 to 16 mark. "fixed": the same points of the
    head in every pose, visible or hidden, as in AFLW2000-3D, 300W-LP and the output of any 3D method. "sliding": the
    visible outline of the face, as a person marks it in a photo (300-W, LFW annotations). Then the model points slide
    along contour lines as the pose changes. Their residuals count linearly above 4 mm (Huber).
    Images with the same number in `subject` share an identity; None means that each image is its own subject. `weights`
    multiply squared residuals. A landmark of weight 0 is ignored and may be NaN. `embedding` gives the landmarks on the
    model's surface; None means the model's 68. Runs at most `rounds` joint Gauss-Newton steps (facenb.fitting.solve).
    The objective never rises. Raise LandmarkError with the image's number if landmarks are not finite, have the wrong
    count or do not form a face. Raise ValueError for a negative prior, or if the model has no sliding contour.
    """
    if not (identity_prior >= 0 and expression_prior >= 0):
        raise ValueError(f"identity_prior {identity_prior} or expression_prior {expression_prior} is negative")
    points = Points.of(model, embedding, contour).to(landmarks.device, landmarks.dtype)
    landmarks, weights, row = check(points, landmarks, subject, weights)
    priors = float(identity_prior), float(expression_prior)
    if errors is not None:
        priors = (1.0, errors.expression_prior.to(landmarks))
    whole = Problem(points, landmarks, weights, row, int(row.max()) + 1, *priors)
    size = CHUNK.get(row.device.type, CHUNK["cuda"]) * 68 // points.landmarks
    if len(row) <= FEW or points.candidates or errors is not None or not bool((weights == 1).all()):
        step, size = DirectStep(points), max(1, size // FORMED)
    else:
        step = SharedStep(points)
    chunks, threads = list(_chunks(row, size)), torch.get_num_threads()
    workers = 1 if row.is_cuda else min(threads, len(chunks))
    work = partial(_fit_chunk, whole, errors, rounds, step)
    torch.set_num_threads(1)  # each worker takes one chunk at a time, on one core, which suits small matrices
    try:
        if workers == 1:  # a pool would cost one image a fifth of its time
            results = list(map(work, chunks))
        else:
            with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
                results = list(pool.map(work, chunks))
    finally:
        torch.set_num_threads(threads)  # threads started later use the number that was set last
    states, error, units, histories = zip(*results, strict=True)
    order = torch.argsort(torch.cat(chunks))
    rotation, scale, shift, expression, identity = (torch.cat(field) for field in zip(*states, strict=True))
    camera = WeakPerspective(rotation[order], scale[order], shift[order])
    error, unit = torch.cat(error)[order], torch.cat(units)[order]
    longest = max(map(len, histories))
    objective = torch.tensor([past + past[-1:] * (longest - len(past)) for past in histories], dtype=torch.float64)
    return Fit(identity, expression[order], camera, row, error, objective.sum(0), unit)


def _fit_chunk(
    whole: Problem, errors: PointErrors | None, rounds: int, step: Step, images: Tensor
) -> tuple[State, Tensor, Tensor, list[float]]:
    """Fit all images of some subjects, given in pixels. Return state and error in pixels, unit, and objectives."""
    subject, weights = whole.subject[images] - whole.subject[images].min(), whole.weights[images]
    flip = weights.new_tensor([1.0, -1.0])  # in pixels v points down
    observed, middle, unit, camera = _start(whole.points, whole.observed[images] * flip, weights)
    subjects = int(subject.max()) + 1
    problem = replace(whole, observed=observed, weights=weights, subject=subject, subjects=subjects)
    if errors is not None:
        turn = upright(camera[0])
        camera = turned(camera, turn)
        bias, root = errors.of(camera[0])
        problem = replace(problem, observed=observed @ turn[:, :2, :2].mT - bias, root=root)
    expression = observed.new_zeros(len(observed), len(whole.points.expression))
    identity = observed.new_zeros(subjects, len(whole.points.identity))
    state, last, history = solve(problem, State(*camera, expression, identity), rounds, step)
    if errors is not None:
        state = State(*turned(state[:3], turn.mT), *state[3:])
    mean_square = (weights * last.residual.square().sum(-1)).sum(1) / weights.sum(1)
    shift = (state.shift * unit[:, None] + middle) * flip
    return state._replace(scale=state.scale * unit, shift=shift), mean_square.sqrt() * unit, unit, history


def _chunks(row: Tensor, size: int) -> Iterator[Tensor]:
    """Yield indices of about `size` images at a time. All images of a subject are in the same chunk."""
    order = torch.argsort(row, stable=True)
    ends = torch.bincount(row).cumsum(0).tolist()
    start = last = 0
    for end in ends:
        if end - start > size and last > start:
            yield order[start:last]
            start = last
        last = end
    yield order[start:]


def _start(points: Points, observed: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple]:
    """Find the camera that fits the mean face best to landmarks (N, L, 2) in pixels, y up. Its scale defines the mm.

    Return the observations in mm; their origin (N, 2) in pixels; pixels per mm (N,); and the camera in mm.
    """
    share = (weights / weights.sum(1, keepdim=True))[..., None]
    middle = (share * observed).sum(1, keepdim=True)
    size = (share * (observed - middle).square()).sum((1, 2)).sqrt()
    mean = points.mean[: points.landmarks]
    pixels = size / (mean - mean.mean(0)).square().sum(1).mean().sqrt()  # correct to a factor of two
    observed = (observed - middle) / pixels[:, None, None]
    camera = refine_pose(mean[None], observed, weights, scaled_orthographic(mean[None], observed, weights))
    for _ in range(2 if points.candidates else 0):
        visible = points.mean[points.on_outline(points.mean @ camera[0].mT, camera[0])]
        camera = refine_pose(visible, observed, weights, camera)
    rotation, scale, shift = camera
    camera = rotation, torch.ones_like(scale), shift / scale[:, None]
    return observed / scale[:, None, None], middle[:, 0], pixels * scale, camera
