"""Fit a morphable model to landmarks: the front door."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.fitting.pose import refine_pose, scaled_orthographic
from facenb.fitting.problem import Points, check
from facenb.fitting.solve import Blocks, Problem, State, choose, evaluate, solve
from facenb.imaging.camera import WeakPerspective
from facenb.morphable.model import Embedding, MorphableModel

ROUNDS = 7  # Liu et al. 2018: "converges in at most 7 rounds"
# Prior strengths are the variance in mm^2 of a landmark about where the model can put it, per coordinate: with noise
# of that variance and coefficients N(0, 1) the fit is the most probable face. 2 mm is what two annotators differ by
# on a face of ordinary size (about 3 % of the distance between the eyes).
PRIOR = 4.0
# Images of 68 points solved at once: what a core's cache holds; enough to fill a GPU.
CHUNK = {"cpu": 512, "cuda": 16384}


@dataclass(frozen=True)
class Fit:
    """Camera and coefficients of N images of S subjects."""

    identity: Float[Tensor, "subjects identity"]
    expression: Float[Tensor, "images expression"]
    camera: WeakPerspective
    subject: Int[Tensor, " images"]  # row of `identity`; rows are in the order of the sorted subject labels
    error: Float[Tensor, " images"]  # root mean square distance of the landmarks, pixels, by weight
    objective: Float[Tensor, " rounds_and_start"]  # total over all subjects in mm^2: at the start and after each round
    unit: Float[Tensor, " images"]  # pixels per mm in which an image's residuals were measured
    labels: Int[Tensor, " subjects"]  # the caller's subject number of each row of `identity`


def fit(
    model: MorphableModel,
    landmarks: Float[Tensor, "images landmarks 2"],
    subject: Int[Tensor, " images"] | None = None,
    weights: Float[Tensor, "images landmarks"] | None = None,
    embedding: Embedding | None = None,
    rounds: int = ROUNDS,
    identity_prior: float | int = PRIOR,
    expression_prior: float | int = PRIOR,
    slide_contour: bool = True,
) -> Fit:
    """Camera, expression and shared identity that explain the landmarks (Liu et al. 2018, Eq. 6-7), most probable face.

    Minimises, over all images i of a subject and landmarks j,
    `sum_ij w_ij |u_ij - u_hat_ij|^2 / unit_i^2 + identity_prior |a|^2 + sum_i expression_prior |e_i|^2`
    with `u_hat = f P R (mean + A a + E e) + t`. `unit` is the scale f of the mean face in that image, held fixed, so
    that residuals are in mm and a picture of any size gives the same answer. The prior is ours: the paper writes none.

    `landmarks` in pixels (v down). `subject`: images with the same number share an identity; None: each image is its
    own subject. `weights` multiply squared residuals; a landmark of weight 0 is not there and may be NaN. `embedding`:
    what the landmarks are on the model's surface; None: the model's 68, whose jaw line then slides with the pose where
    the model has contour lines. At most `rounds` rounds of joint Gauss-Newton steps (see facenb.fitting.solve).
    Raises LandmarkError, naming the image, for landmarks that are not finite, of the wrong count, or no face;
    ValueError for a negative prior.
    """
    if not (identity_prior >= 0 and expression_prior >= 0 and rounds >= 0):
        raise ValueError(
            f"identity_prior {identity_prior}, expression_prior {expression_prior} or rounds {rounds} is negative"
        )
    points = Points.of(model, embedding, slide_contour).to(landmarks.device, landmarks.dtype)
    landmarks, weights, row, labels = check(points, landmarks, subject, weights)
    blocks = Blocks.of(points, weights)
    size = CHUNK.get(row.device.type, CHUNK["cuda"]) * 68 // len(points.mean)
    chunks = list(_chunks(row, len(labels), size))
    parts = _in_parallel(
        lambda some: _fit_chunk(
            points, blocks, landmarks[some], row[some], weights[some], rounds, identity_prior, expression_prior
        ),
        chunks,
    )
    order = torch.argsort(torch.cat(chunks))
    history = torch.zeros(max(len(part[-1]) for part in parts), dtype=torch.float64)
    for part in parts:
        total = torch.tensor(part[-1], dtype=torch.float64)
        history += torch.cat([total, total[-1:].expand(len(history) - len(total))])
    identity, rotation, scale, shift, expression, error, unit = (
        torch.cat([part[k] for part in parts]) for k in range(7)
    )
    camera = WeakPerspective(rotation[order], scale[order], shift[order])
    return Fit(identity, expression[order], camera, row, error[order], history, unit[order], labels)


def _chunks(row: Tensor, subjects: int, size: int) -> Iterator[Tensor]:
    """Indices of images, whole subjects together, subjects in order, about `size` images at a time."""
    order = torch.argsort(row, stable=True)
    ends = torch.bincount(row, minlength=subjects).cumsum(0).tolist()
    start = last = 0
    for end in ends:
        if end - start > size and last > start:
            yield order[start:last]
            start = last
        last = end
    yield order[start:]


def _in_parallel(work, chunks: list[Tensor]) -> list:
    """Work on the chunks, on a CPU one a core: small matrices gain more from that than from threads inside each."""
    threads = torch.get_num_threads()
    if chunks[0].is_cuda or threads == 1 or len(chunks) == 1:
        return [work(chunk) for chunk in chunks]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, chunks))
    finally:
        torch.set_num_threads(threads)


def _fit_chunk(points, blocks, landmarks, row, weights, rounds, identity_prior, expression_prior) -> tuple:
    """Fit whole subjects; returns identity, rotation, scale, translation, expression, error, unit and the history."""
    subject = row - row.min()
    flip = landmarks.new_tensor([1.0, -1.0])  # pixels count v down
    observed, middle, unit, camera = _start(points, landmarks * flip, weights)
    problem = Problem(
        points, observed, weights[:, points.landmark], subject, float(identity_prior), float(expression_prior), blocks
    )
    expression = observed.new_zeros(len(observed), len(points.expression))
    identity = observed.new_zeros(int(subject.max()) + 1, len(points.identity))
    state = State(*camera, expression, identity)
    state, history = solve(problem, state, rounds)
    chosen = choose(problem, state)
    _, residual, _ = evaluate(problem, state, chosen)
    mean_square = (chosen * residual.square().sum(-1)).sum(1) / chosen.sum(1)
    translation = (state.shift * unit[:, None] + middle) * flip
    return (
        state.identity, state.rotation, state.scale * unit, translation, state.expression,
        mean_square.sqrt() * unit, unit, history,
    )  # fmt: skip


def _start(points: Points, observed: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple]:
    """The camera that sees the mean face best, and observations (of each point) in mm by that camera's scale.

    Returns observations, the pixel position that became their origin (N, 2), pixels per mm (N,), and the camera.
    """
    share = (weights / weights.sum(1, keepdim=True))[..., None]
    middle = (share * observed).sum(1, keepdim=True)
    size = (share * (observed - middle).square()).sum((1, 2)).sqrt()
    mean = points.mean[: points.landmarks]
    pixels = size / (mean - mean.mean(0)).square().sum(1).mean().sqrt()  # good to a factor of two
    observed = (observed - middle) / pixels[:, None, None]
    rotation, scale, shift = scaled_orthographic(mean[None], observed, weights)
    rotation, scale, shift, _ = refine_pose(mean[None], observed, weights, rotation, scale, shift)
    observed, weights = observed[:, points.landmark], weights[:, points.landmark]
    for _ in range(2 if points.candidates else 0):
        chosen = weights * points.silhouette(points.mean @ rotation.mT, rotation)
        rotation, scale, shift, _ = refine_pose(points.mean[None], observed, chosen, rotation, scale, shift)
    camera = rotation, torch.ones_like(scale), shift / scale[:, None]
    return observed / scale[:, None, None], middle[:, 0], pixels * scale, camera


def fit_stream(model: MorphableModel, batches: Iterable[dict], **options) -> Iterator[Fit]:
    """Fit batch after batch, each a dictionary of `landmarks` and, if any, `subject` and `weights`; never all at once.

    A subject's images must lie in one batch. Memory is that of one batch.
    """
    for batch in batches:
        yield fit(model, **batch, **options)
