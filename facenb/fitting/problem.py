"""The fitting problem in the form the solver works on: millimetres, y up, one row of weights an image."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import LandmarkError
from facenb.morphable.model import Embedding, MorphableModel

JAW = 17  # landmarks 0 to 16 of the 68 lie on the outline of the face
LEAST = 4  # landmarks that fix a weak perspective camera


@dataclass(frozen=True)
class Points:
    """The part of a model that landmarks touch: the points' mean and bases, and which landmark each point answers.

    Without sliding, point j is landmark j. With sliding, the 17 jaw-line landmarks have a number of candidate points
    besides, and per image all but one of a landmark's points carry no weight.
    """

    mean: Float[Tensor, "points 3"]  # mm
    identity: Float[Tensor, "identity coordinates"]  # coordinates = 3 points, mm per standard deviation
    expression: Float[Tensor, "expression coordinates"]
    landmark: Int[Tensor, " points"]  # which landmark a point may stand for
    landmarks: int  # how many
    candidates: int  # of a jaw-line landmark; 0: nothing slides
    outward: Float[Tensor, "17 2"] | None = None  # from the middle of the face to the jaw line, on the model's x, y

    @classmethod
    def of(cls, model: MorphableModel, embedding: Embedding | None, slide: bool) -> "Points":
        """Gather the points of a model; only its own 68 landmarks can slide."""
        chosen = (model.landmarks if embedding is None else embedding).to(model.device)
        count = len(chosen)
        own = torch.arange(count)
        slide = slide and embedding is None and model.contour is not None and count == 68
        outward = None
        if slide:
            lines = model.contour.shape[1]
            extra = Embedding.at(model.contour.flatten().cpu())
            at = chosen.of(model.mean)[:, :2]
            outward = torch.nn.functional.normalize(at[:JAW] - at[JAW:].mean(0), dim=1)
            own = torch.cat([own, torch.arange(JAW).repeat_interleave(lines)])
            chosen = Embedding(
                torch.cat([chosen.vertices, extra.vertices.to(model.device)]),
                torch.cat([chosen.weights, extra.weights.to(model.device)]),
            )
        return cls(
            chosen.of(model.mean),
            chosen.of(model.identity_basis).flatten(1),
            chosen.of(model.expression_basis).flatten(1),
            own.to(model.device),
            count,
            model.contour.shape[1] if slide else 0,
            outward,
        )

    def to(self, device, dtype) -> "Points":
        outward = None if self.outward is None else self.outward.to(device, dtype)
        bases = (part.to(device, dtype) for part in (self.mean, self.identity, self.expression))
        return Points(*bases, self.landmark.to(device), self.landmarks, self.candidates, outward)

    def silhouette(
        self, positions: Float[Tensor, "images points 3"], rotation: Float[Tensor, "images 3 3"]
    ) -> Bool[Tensor, "images points"]:
        """Which point stands for each landmark: on the side turned away, the outline; elsewhere the landmark itself.

        `positions` on camera axes. A jaw-line landmark is on the side turned away when the direction from the middle
        of the face to it points away from the viewer. There the annotator marks the outline: of the landmark's
        candidates we take the one that lies farthest out in that direction, turned with the head's roll (Zhu et al.
        2015). The nearest candidate to the observed landmark would fit better, but a face that is too wide would find
        its landmarks inside itself and feel no pull.
        """
        stay = torch.ones(len(positions), self.landmarks, dtype=torch.bool, device=positions.device)
        if not self.candidates:
            return stay
        away = rotation[:, 2, :2] @ self.outward.T < 0  # (N, 17)
        up = torch.nn.functional.normalize(rotation[:, :2, 1], dim=1)  # where the head's y axis points in the image
        right = torch.stack([up[:, 1], -up[:, 0]], 1)
        out = self.outward[:, :1] * right[:, None] + self.outward[:, 1:] * up[:, None]  # (N, 17, 2)
        lines = positions[:, self.landmarks :, :2].unflatten(1, (JAW, self.candidates))
        farthest = (lines * out[:, :, None]).sum(-1).argmax(2)  # (N, 17)
        slid = torch.nn.functional.one_hot(farthest, self.candidates).bool() & away[..., None]
        stay[:, :JAW] = ~away
        return torch.cat([stay, slid.flatten(1)], 1)


def check(
    points: Points, landmarks: Tensor, subject: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Landmarks with NaN where unseen set to 0, weights, and each image's row of the identity table with its label.

    Raises LandmarkError naming the first image that cannot be fitted and why.
    """
    if landmarks.dim() != 3 or landmarks.shape[2] != 2 or landmarks.shape[1] != points.landmarks:
        raise LandmarkError(
            f"landmarks have shape {tuple(landmarks.shape)}, but the model's embedding needs "
            f"(images, {points.landmarks}, 2): (u, v) in pixels of {points.landmarks} points"
        )
    count = len(landmarks)
    if count == 0:
        raise LandmarkError("there are no images: landmarks have length 0; give at least one image")
    if weights is None:
        weights = torch.ones_like(landmarks[..., 0])
    if weights.shape != landmarks.shape[:2]:
        raise LandmarkError(f"weights have shape {tuple(weights.shape)}, landmarks {tuple(landmarks.shape)}: one each")
    weights = weights.to(landmarks)
    _refuse(~(weights.isfinite() & (weights >= 0)).all(1), "a negative or not finite weight; weights are >= 0")
    seen = weights > 0
    _refuse(
        (seen & ~landmarks.isfinite().all(-1)).any(1),
        "a landmark that is NaN or infinite but has weight; set its weight to 0 or leave the image out",
    )
    landmarks = torch.where(seen[..., None], landmarks, torch.zeros_like(landmarks))
    _refuse(seen.sum(1) < LEAST, f"fewer than {LEAST} landmarks with weight, which fix no camera; leave it out")
    _refuse(_flat(landmarks, seen), "landmarks all alike or on one line, which is no face; leave it out")
    if subject is None:
        return landmarks, weights, *([torch.arange(count, device=landmarks.device)] * 2)
    if subject.shape != (count,):
        raise LandmarkError(
            f"subject has shape {tuple(subject.shape)}, but there are {count} images: one subject an image"
        )
    labels, row = torch.unique(subject.to(landmarks.device), return_inverse=True)
    return landmarks, weights, row, labels


def _flat(landmarks: Tensor, seen: Tensor) -> Tensor:
    """Whether the seen landmarks of an image span less than a thousandth of their length across it."""
    share = seen.double()[..., None] / seen.sum(1).clamp(min=1)[:, None, None]
    centred = landmarks.double() - (share * landmarks).sum(1, keepdim=True)
    spread = torch.linalg.eigvalsh((share * centred).mT @ centred)
    size = landmarks.abs().amax((1, 2)).double().clamp(min=1e-30)
    return (spread[:, 0] <= 1e-6 * spread[:, 1]) | (spread[:, 1] <= 1e-12 * size.square())


def _refuse(bad: Tensor, why: str) -> None:
    if bad.any():
        others = int(bad.sum()) - 1
        more = f" (and {others} more)" if others else ""
        raise LandmarkError(f"image {int(bad.nonzero()[0])}{more} has {why}")
