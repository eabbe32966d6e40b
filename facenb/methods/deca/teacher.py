"""A teacher taught by pictures alone: analysis by synthesis (DECA: Feng et al. 2021, Sections 4.1 and 4.2).

First the landmarks, then the picture itself through the renderer, then the details. Each batch holds pairs: rows k and
n + k are two pictures of one person. Shape consistency: the losses are taken twice, the second time with the partner's
identity coefficients. Detail consistency: every second pair has its detail codes swapped.
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
from facenb.networks.precision import full_precision
from facenb.photos.crops import five_of_68, sample_faces


@dataclass(frozen=True)
class Weights:
    """What counts how much. Landmarks are in parts of the picture's side, colours in [0, 1], displacements in mm."""

    landmarks: float = 10.0  # a landmark one per cent of the side away costs what a colour 0.1 away does
    parts: float = 30.0  # without it a network learns where the head is, and no mouth opens
    eyes: float = 5.0
    photometric: float = 1.0
    identity: float = 0.2  # the paper's; where there is a recogniser
    prior_identity: float = 5e-2  # about what the landmarks' own scatter makes of a normal prior
    prior_albedo: float = 4e-3
    prior_expression: float = 5e-2  # and of the jaw: it bends the face as an expression does
    consistency: float = 1.0  # of all of these with the partner's identity; 0: not asked for
    symmetry: float = 1e-2
    regularisation: float = 4e-3
    moving: float = 2e-2  # the same of what differs between two pictures of a person: most of it is noise


def swap(layout: Layout, flat: Float[Tensor, "batch all"], part: str = "identity") -> Float[Tensor, "batch all"]:
    """The same vectors, each with its partner's `part`. ValueError for an odd number: they must be pairs."""
    parts = layout.split(flat)
    return layout.join({**parts, part: partner(parts[part])})


def partner(values: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
    """Each row's partner's values: rows k and n + k of 2 n are a pair. ValueError for an odd number."""
    if len(values) % 2:
        raise ValueError(f"{len(values)} rows are no pairs; give as many partners as pictures")
    return values.roll(len(values) // 2, 0)


class Recogniser:
    """What a recognition network says of pictures, cropped by their landmarks as it was taught; differentiable.

    `network` takes RGB in [-1, 1] of `size` (height, width) and gives features; it is not trained.
    """

    def __init__(self, network: nn.Module, size: tuple[int, int]):
        self.network, self.size = network, size

    def __call__(
        self, images: Float[Tensor, "batch height width 3"], landmarks: Float[Tensor, "batch 68 2"]
    ) -> Float[Tensor, "batch features"]:
        """Features of pictures in [0, 1]."""
        return self.network(2 * sample_faces(images, five_of_68(landmarks).detach(), self.size) - 1)


class CoarseLoss:
    """The coarse network's loss, for `facenb.training.train`; `render=False` leaves out all that needs the renderer.

    `shrink`: pictures are drawn, and compared, so many times smaller.
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
        self.shrink = shrink
        self.points = cut(stage.model, landmark_vertices(stage.model))  # all that landmarks need

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Networks that it asks and does not train."""
        return {} if self.recogniser is None else {"recogniser": self.recogniser.network}

    def __call__(self, network: Deca, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted sum as "loss", and its parts as they are. Only the network itself may run in 16 bits."""
        flat = network(batch["image"]).float()
        with full_precision(flat):
            return self._of(flat, batch)

    def _of(self, flat: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        parts = self._parts(flat, batch)
        weights = {name: getattr(self.weights, name) for name in parts}
        total = sum(weights[name] * value for name, value in parts.items())
        if self.weights.consistency:
            again = self._parts(swap(self.stage.layout, flat), batch)
            consistency = sum(weights[name] * value for name, value in again.items())
            total = total + self.weights.consistency * consistency
            parts = {"consistency": consistency, **parts}
        split = self.stage.layout.split(flat)
        bent = torch.cat([split["expression"], 5 * split["jaw_pose"]], 1)
        priors = (
            self.weights.prior_identity * losses.prior_loss(split["identity"])
            + self.weights.prior_albedo * losses.prior_loss(split["albedo"])
            + self.weights.prior_expression * losses.prior_loss(bent)
        )
        return {"loss": total + priors, "priors": priors, **parts}

    def _parts(self, flat: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        size, layout = tuple(batch["image"].shape[2:]), self.stage.layout
        seen = batch["landmarks"] / min(size)
        own = landmarks_of(self.points, layout, flat, size) / min(size)
        parts = {"landmarks": losses.landmark_loss(own, seen), "parts": losses.parts_loss(own, seen),
                 "eyes": losses.eye_closure_loss(own, seen)}  # fmt: skip
        if not self.render:
            return parts
        small = functional.avg_pool2d(batch["image"], self.shrink) if self.shrink > 1 else batch["image"]
        picture = to_picture(small)
        drawn = self.stage.coarse(flat, tuple(small.shape[2:]))
        parts["photometric"] = losses.photometric_loss(drawn.image, picture, self.stage.skin_mask(drawn))
        if self.recogniser is not None and self.weights.identity:
            over = torch.where(drawn.mask[..., None], drawn.image, picture)
            landmarks = batch["landmarks"] / self.shrink
            with torch.no_grad():
                known = self.recogniser(picture, landmarks)
            parts["identity"] = losses.identity_loss(self.recogniser(over, landmarks), known)
        return parts


class DetailLoss:
    """The loss of the detail code and its decoder; the coarse network is not trained any more.

    It says the expression; where face, camera and light are is its word, too, but for pictures that bring a "vector" of
    their own, where that is better known. `window`: of `local_photometric_loss`, pixels, on even skin; 0 for the
    paper's photometric loss on all skin.
    """

    def __init__(self, stage: Stage, weights: Weights = Weights(), window: int = 11):
        self.stage, self.weights, self.window = stage, weights, window
        self.modules: dict[str, nn.Module] = {}  # networks that it asks and does not train: none

    def __call__(self, network: Deca, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weighted sum as "loss", and its parts as they are. Only the networks themselves may run in 16 bits."""
        images = batch["image"]
        with torch.no_grad():
            flat = network(images).float()
        code = network.detail_code(images)
        swapped = (torch.arange(len(code), device=code.device) % (len(code) // 2) % 2 == 1)[:, None]
        maps = network.displacement(flat, torch.where(swapped, partner(code), code)).float()
        with full_precision(maps):
            return self._of(network, maps, batch.get("vector", flat), images)

    def _of(self, network: Deca, maps: Tensor, place: Tensor, images: Tensor) -> dict[str, Tensor]:
        drawn = self.stage.detailed(place, self.stage.displacement(network.decoder, maps), tuple(images.shape[2:]))
        seen = drawn.image, to_picture(images), self.stage.skin_mask(drawn, even=bool(self.window))
        parts = {
            "photometric": losses.local_photometric_loss(*seen, self.window)
            if self.window
            else losses.photometric_loss(*seen),
            "moving": (maps - partner(maps)).abs().mean(),
            "symmetry": losses.symmetry_loss(maps),
            "regularisation": losses.regularisation_loss(maps),
        }
        return {"loss": sum(getattr(self.weights, name) * value for name, value in parts.items()), **parts}


def to_picture(images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width 3"]:
    """A network's pictures in [-1, 1] as the renderer's in [0, 1]."""
    return (images.permute(0, 2, 3, 1) + 1) / 2


def train_only(network: Deca, detail: bool) -> Deca:
    """Let only the detail's parts (or only the coarse network) ask for gradients."""
    network.coarse.requires_grad_(not detail)
    network.fine.requires_grad_(detail)
    network.decoder.requires_grad_(detail)
    return network


@torch.no_grad()
def start_detail(network: Deca, images: Float[Tensor, "pictures 3 height width"]) -> Deca:
    """Let the detail network begin with the coarse one's features, and its codes with spread 1 over `images`; ours.

    Codes that are all alike at first teach the decoder one map for everybody, and afterwards no code has a say. A
    number of the code that is the same for all `images` is only centred. ValueError for fewer than two pictures.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} pictures have no spread; give two or more")
    network.eval()
    network.fine.encoder.load_state_dict(network.coarse.encoder.state_dict())
    codes = torch.cat([network.detail_code(some) for some in images.split(64)])
    spread = codes.std(0, correction=0)
    larger = torch.where(spread > 1e-4 * spread.max().clamp_min(1e-6), 1 / spread, 1.0)
    last = network.fine.layers[-1]
    last.weight.mul_(larger[:, None])
    last.bias.copy_((last.bias - codes.mean(0)) * larger)
    return network


def training_name(
    name: str, network: Deca, loss: CoarseLoss | DetailLoss, pictures: PicturePairs, settings: training.Settings
) -> str:
    """`name` and a digest of network, loss, pictures and settings, as `training.training_name` makes it."""
    options = {key: value for key, value in vars(loss).items() if isinstance(value, int | float | str)}
    facts = {"network": network.config, "settings": settings.as_dict(), "card": pictures.faces.card,
             "loss": [type(loss).__name__, asdict(loss.weights), options],
             "rows": pictures.faces.rows.tolist(), "varied": pictures.varied,
             "vectors": None if pictures.vectors is None else pictures.vectors.tolist()}  # fmt: skip
    return training.training_name(name, facts, {"network": network, **loss.modules})
