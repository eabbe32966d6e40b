"""The network of Luo et al. 2019: it maps an image to the flat coefficients of the face in it."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.fitting.posed import PosedModel, turned, whitening
from facenb.methods.luo19.targets import Reduction
from facenb.morphable.layouts import Layout
from facenb.morphable.model import Embedding, MorphableModel
from facenb.networks.resnet import ResNet
from facenb.networks.sphereface import SphereFace
from facenb.networks.weights import Saved, fixed_image

ENCODERS = {encoder.__name__: encoder for encoder in (SphereFace, ResNet)}


class Siamese(Saved, nn.Module):
    """Map images to features and whitened coefficients of `layout`. Both images of a pair go through it.

    It holds all that its outputs need to become a face: the whitening, and the matrices that reduce a model with
    `components` (identity, expression) to the layout's components. Their eigenvectors may have other signs on another
    machine, so they are stored.
    """

    kind = "Siamese 1"

    def __init__(self, encoder: nn.Module, layout: Layout, components: tuple[int, int]):
        super().__init__()
        self.encoder, self.layout = encoder, layout
        self.config = {
            "encoder": {"name": type(encoder).__name__, "arguments": encoder.config},
            "layout": {"name": layout.name, "parts": dict(layout.parts)},
            "components": list(components),
        }
        self.head = nn.Linear(encoder.features, layout.size)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        buffers = {"centre": torch.zeros(layout.size), "deviation": torch.ones(layout.size)}
        for part, count in zip(("identity", "expression"), components, strict=True):
            buffers[f"{part}_turn"] = torch.zeros(count, layout.parts[part])
        for name, value in buffers.items():
            self.register_buffer(name, value)

    def forward(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch features"], Float[Tensor, "batch coefficients"]]:
        """Return features and whitened coefficients of RGB images in [-1, 1], of the encoder's size."""
        features = self.encoder(images)
        return features, self.head(features)

    @torch.no_grad()
    def set_targets(self, reduction: Reduction, fitted: Float[Tensor, "images coefficients"]) -> None:
        """Store the reduction of the model, and the whitening by the flat coefficients of the training images."""
        centre, deviation = whitening(fitted)
        self.centre.copy_(centre)
        self.deviation.copy_(deviation)
        self.identity_turn.copy_(reduction.identity)
        self.expression_turn.copy_(reduction.expression)

    def flat(self, whitened: Float[Tensor, "batch coefficients"]) -> Float[Tensor, "batch coefficients"]:
        """Return the coefficients of the network's outputs: pose in pixels of the crop, then identity, expression."""
        return self.centre + self.deviation * whitened

    def reduction(self, model: MorphableModel) -> Reduction:
        """Return a model with the layout's components. Raise ValueError unless the model has the trained sizes."""
        sizes = [len(model.identity_basis), len(model.expression_basis)]
        if sizes != self.config["components"]:
            wanted = "{} identity and {} expression components".format(*self.config["components"])
            raise ValueError(f"the network needs a model with {wanted}; {model.name} has {sizes[0]} and {sizes[1]}")
        turns = self.identity_turn.cpu(), self.expression_turn.cpu()
        return Reduction(turned(model, *turns), self.layout, *turns)

    def posed(self, model: MorphableModel, points: Embedding | None = None) -> PosedModel:
        """Return the map from flat coefficients to points of a face in the image (None: all vertices), on the CPU."""
        whitening = self.centre.cpu(), self.deviation.cpu()
        return PosedModel(self.reduction(model).model, self.layout, *whitening, points)

    @torch.no_grad()
    def probe(self) -> Float[Tensor, " outputs"]:
        """Return a few coefficients of a fixed image (see `Saved`)."""
        size = self.config["encoder"]["arguments"].get("size", (64, 64))
        return self.flat(self.eval()(fixed_image(size).to(self.centre))[1])[0, ::8].cpu()

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Siamese":
        encoder, layout = config["encoder"], config["layout"]
        network = ENCODERS[encoder["name"]](**encoder["arguments"])
        return cls(network, Layout(layout["name"], layout["parts"]), tuple(config["components"]))
