"""Training of a teacher from images alone: analysis by synthesis (DECA: Feng et al. 2021, Sections 4.1 and 4.2).

Training has three stages: landmarks, then colours through the renderer, then details. Each batch holds pairs: rows k
and n + k are two images of one person. Shape consistency: the losses of landmarks are computed a second time with the
partner's identity coefficients; for the losses of colours, every second pair exchanges its identities. Detail
consistency: every second pair has its detail codes swapped.
"""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from facenb import training
from facenb.losses import deca as losses
from facenb.methods.deca.pictures import PicturePairs
from facenb.methods.deca.scene import Stage, landmarks_of
from facenb.morphable.layouts import Layout
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.networks.deca import Deca
from facenb.photos.crops import five_of_68, resample, to_template


@dataclass(frozen=True)
class Weights:
    """Weights of the losses. Landmarks are in units of the image's side, colours in [0, 1], displacements in mm."""

    landmarks: float = 10.0  # an error of 1 % of the side costs as much as an error of 0.1 in colour
    parts: float = 30.0  # without it the network learns the position of the head only, and no mouth opens
    eyes: float = 5.0
    photometric: float = 2.0
    identity: float = 0.4  # twice the paper's, since a face is drawn once, not twice; used if there is a recogniser
    prior_identity: float = 5e-2  # about what a normal prior would weigh at this landmark noise
    prior_albedo: float = 4e-3
    prior_expression: float = 5e-2  # also for the jaw pose, since it changes the face like an expression
    consistency: float = 1.0  # of the losses of landmarks with the partner's identity; 0: off
    # Of the displacement map. Together they charge 2e-5 for true wrinkles, which lower the photometric loss by 7e-5.
    symmetry: float = 1e-3
    regularisation: float = 5e-4
    moving: float = 2e-3  # of the difference between a pair's maps; most of this difference is noise

    def sum(self, parts: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of losses by name."""
        return sum(getattr(self, name) * value for name, value in parts.items())


def swap(layout: Layout, flat: Float[Tensor, "batch all"]) -> Float[Tensor, "batch all"]:
    """Return the vectors, each with its partner's identity."""
    parts = layout.split(flat)
    return layout.join(parts | {"identity": partner(parts["identity"])})


def partner(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Return the values of each row's partner: rows k and n + k of 2 n are a pair."""
    return values.unflatten(0, (2, -1)).flip(0).flatten(0, 1)


def every_second(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Return the values, exchanged within every second pair."""
    number = torch.arange(len(values), device=values.device) % (len(values) // 2)
    return torch.where((number % 2 == 1)[:, None], partner(values), values)


@dataclass(frozen=True)
class Recogniser:
    """The features of a recognition network for images, cropped by their landmarks; differentiable."""

    network: nn.Module  # RGB crops in [-1, 1] to features; not trained
    size: tuple[int, int]  # of the crops (height, width)

    def __call__(
        self, images: Float[Tensor, "batch height width 3"], landmarks: Float[Tensor, "batch 68 2"]
    ) -> Float[Tensor, "batch features"]:
        """Return the features of images in [0, 1]."""
        onto = to_template(five_of_68(landmarks).detach(), self.size)
        return self.network(2 * resample(images, onto, self.size) - 1)


class CoarseLoss:
    """The loss of the coarse network, for `facenb.training.train`. `render=False` uses landmarks and priors only.

    Images are rendered and compared at 1 / `shrink` of their size.
    """

    def __init__(
        self,
        stage: Stage,
        weights: Weights = Weights(),
        render: bool = True,
        recogniser: Recogniser | None = None,
        shrink: int = 1,
    ):
        self.stage, self.weights, self.render, self.recogniser = stage, weights, render, recogniser
        self.shrink, self.points = shrink, cut(stage.model, landmark_vertices(stage.model))

    def __call__(self, network: Deca, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted sum as "loss", and its parts. Only the network may run in 16 bits.

        The batch holds pairs: "image" (batch, 3, height, width) in [-1, 1], "landmarks" (batch, 68, 2) in pixels, and
        "bare" (batch, height, width): 1 where colours count.
        """
        flat = network(batch["image"]).float()
        with torch.autocast(flat.device.type, enabled=False):
            return self._weighted(flat, batch)

    def _weighted(self, flat: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        layout = self.stage.layout
        parts = self._points(flat, batch)
        if self.render:
            identity = every_second(layout.split(flat)["identity"])
            parts |= self._colours(layout.join(layout.split(flat) | {"identity": identity}), batch)
        total = self.weights.sum(parts)
        if self.weights.consistency:
            consistency = self.weights.sum(self._points(swap(layout, flat), batch))
            total = total + self.weights.consistency * consistency
            parts = {"consistency": consistency, **parts}
        split = layout.split(flat)
        bent = torch.cat([split["expression"], 5 * split["jaw_pose"]], 1)
        priors = (
            self.weights.prior_identity * losses.prior_loss(split["identity"])
            + self.weights.prior_albedo * losses.prior_loss(split["albedo"])
            + self.weights.prior_expression * losses.prior_loss(bent)
        )
        return {"loss": total + priors, "priors": priors, **parts}

    def _points(self, flat: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        size, layout = tuple(batch["image"].shape[2:]), self.stage.layout
        target = batch["landmarks"] / min(size)
        predicted = landmarks_of(self.points, layout, flat, size) / min(size)
        return {
            "landmarks": losses.landmark_loss(predicted, target),
            "parts": losses.parts_loss(predicted, target),
            "eyes": losses.eye_closure_loss(predicted, target),
        }

    def _colours(self, flat: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        picture = to_picture(functional.avg_pool2d(batch["image"], self.shrink))
        drawn = self.stage.coarse(flat, tuple(picture.shape[1:3]))
        bare = functional.avg_pool2d(batch["bare"].float(), self.shrink) == 1
        parts = {"photometric": losses.photometric_loss(drawn.image, picture, self.stage.skin_mask(drawn) & bare)}
        if self.recogniser is not None and self.weights.identity:
            pasted = torch.where(drawn.mask[..., None], drawn.image, picture)
            landmarks = batch["landmarks"] / self.shrink
            with torch.no_grad():
                features = self.recogniser(picture, landmarks)
            parts["identity"] = losses.identity_loss(self.recogniser(pasted, landmarks), features)
        return parts


class DetailLoss:
    """The loss of the detail code and its decoder. The coarse network is no longer trained.

    The coarse network predicts the expression for the decoder. It also predicts the coefficients for rendering, unless
    the batch holds better ones as "vector". Colours are compared by `local_photometric_loss` on skin away from edges.
    """

    def __init__(self, stage: Stage, weights: Weights = Weights()):
        self.stage, self.weights = stage, weights

    def __call__(self, network: Deca, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted sum as "loss", and its parts. Only the networks may run in 16 bits."""
        images = batch["image"]
        with torch.no_grad():
            flat = network(images).float()
        maps = network.displacement(flat, every_second(network.detail_code(images))).float()
        with torch.autocast(maps.device.type, enabled=False):
            return self._of(network, maps, batch.get("vector", flat), batch)

    def _of(self, network: Deca, maps: Tensor, flat: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        images = batch["image"]
        drawn = self.stage.detailed(flat, self.stage.displacement(network.decoder, maps), tuple(images.shape[2:]))
        mask = self.stage.skin_mask(drawn, even=True) & (batch["bare"] == 1)
        parts = {
            "photometric": losses.local_photometric_loss(drawn.image, to_picture(images), mask),
            "moving": (maps - partner(maps)).abs().mean(),
            "symmetry": losses.symmetry_loss(maps),
            "regularisation": losses.regularisation_loss(maps),
        }
        return {"loss": self.weights.sum(parts), **parts}


def to_picture(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width 3"]:
    """Convert images from the network's range and layout, [-1, 1], to the renderer's, [0, 1]."""
    return (images.permute(0, 2, 3, 1) + 1) / 2


def train_only(network: Deca, *modules: str) -> Deca:
    """Let only these modules be trained, and return the network."""
    network.requires_grad_(False)
    for module in modules:
        network.get_submodule(module).requires_grad_(True)
    return network


@torch.no_grad()
def start_detail(network: Deca, images: Float[Tensor, "pictures 3 height width"]) -> Deca:
    """Copy the coarse network's encoder to the detail network, and normalise its codes over `images`.

    The codes then have mean 0 and standard deviation 1. The paper does not have this step. If all codes are alike at
    first, the decoder learns one map for everybody and ignores the code. A component of the code that is equal for all
    images is centred, but not scaled.
    """
    network.eval()
    network.fine.encoder.load_state_dict(network.coarse.encoder.state_dict())
    codes = torch.cat([network.detail_code(batch) for batch in images.split(64)])
    spread = codes.std(0, correction=0)
    factor = torch.where(spread > 1e-4 * spread.max().clamp_min(1e-6), 1 / spread, 1.0)
    last = network.fine.layers[-1]
    last.weight.mul_(factor[:, None])
    last.bias.copy_((last.bias - codes.mean(0)) * factor)
    return network


def training_name(
    name: str, network: Deca, loss: CoarseLoss | DetailLoss, pictures: PicturePairs, settings: training.Settings
) -> str:
    """Return `name` with a digest of network, loss, images and settings (see `training.training_name`)."""
    options = {key: value for key, value in vars(loss).items() if isinstance(value, int | float | str)}
    facts = {
        "network": network.config,
        "settings": settings.as_dict(),
        "trained": [name for name, value in network.named_parameters() if value.requires_grad],
        "card": pictures.faces.card,
        "loss": [type(loss).__name__, asdict(loss.weights), options],
        "rows": pictures.faces.rows.tolist(),
        "varied": pictures.varied,
        "vectors": None if pictures.vectors is None else pictures.vectors.tolist(),
    }
    recogniser = getattr(loss, "recogniser", None)
    frozen = {"recogniser": recogniser.network} if recogniser else {}
    return training.training_name(name, facts, {"network": network, **frozen})
