"""The joint network of Liu et al. 2018: map an image to an identity and a residual code, and codes to a 3D face.

`s = s_mean + ds_id + ds_res`, with `ds_id = f_id(c_id)` and `ds_res = f_res(c_res)`; vertices in mm. Codes are whitened
coefficients of the 3DMM (identity, expression). The network scales each dimension to [-1, 1].
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.morphable.model import MorphableModel
from facenb.networks.sphereface import SphereFace
from facenb.networks.weights import Saved, fixed_image


class Codes(NamedTuple):
    """The codes of each image, scaled to [-1, 1]."""

    identity: Float[Tensor, "batch identity"]  # c_id
    residual: Float[Tensor, "batch residual"]  # c_res


class ShapeParts(NamedTuple):
    """The terms of a face's shape, mm."""

    identity: Float[Tensor, "batch vertices 3"]  # ds_id
    residual: Float[Tensor, "batch vertices 3"]  # ds_res
    whole: Float[Tensor, "batch vertices 3"]  # s = s_mean + ds_id + ds_res


class Scaling(nn.Module):
    """Scale each coefficient separately to a code in [-1, 1]: `code = (coefficient - centre) / half_range`.

    The paper does not publish its scaling. A constant coefficient has code 0; `to_coefficients` returns its value.
    """

    def __init__(self, length: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(length))
        self.register_buffer("half_range", torch.ones(length))

    @torch.no_grad()
    def span(self, coefficients: Float[Tensor, "rows coefficients"]) -> None:
        """Set the scaling that maps the range of these coefficients exactly to [-1, 1]."""
        low, high = coefficients.aminmax(dim=0)
        self.centre.copy_((low + high) / 2)
        self.half_range.copy_((high - low) / 2)

    def to_codes(self, coefficients: Float[Tensor, "*batch coefficients"]) -> Float[Tensor, "*batch coefficients"]:
        """Return the codes of coefficients. Coefficients outside the range in `span` get codes outside [-1, 1]."""
        still = self.half_range == 0
        return ((coefficients - self.centre) / self.half_range.masked_fill(still, 1)).masked_fill(still, 0)

    def to_coefficients(self, codes: Float[Tensor, "*batch coefficients"]) -> Float[Tensor, "*batch coefficients"]:
        return self.centre + self.half_range * codes


class LinearDecoder(nn.Module):
    """One fully connected layer from a code to the displacements of all vertices, mm."""

    def __init__(self, codes: int, vertices: int):
        super().__init__()
        self.fc = nn.Linear(codes, 3 * vertices)
        nn.init.zeros_(self.fc.bias)

    def forward(self, code: Float[Tensor, "batch codes"]) -> Float[Tensor, "batch vertices 3"]:
        return self.fc(code).unflatten(1, (-1, 3))

    @torch.no_grad()
    def set_basis(self, basis: Float[Tensor, "codes vertices 3"], scaling: Scaling) -> None:
        """Set the weights to the 3DMM's: `displacement = sum_k (centre_k + half_range_k code_k) basis_k`, in mm."""
        flat = basis.flatten(1).to(self.fc.weight)
        self.fc.weight.copy_((scaling.half_range.to(flat)[:, None] * flat).T)
        self.fc.bias.copy_(scaling.centre.to(flat) @ flat)


def _of_model(name: str) -> bool:
    """Return whether a tensor is the mean face or belongs to a decoder: a 3DMM has values for these."""
    return name == "mean_shape" or "_decoder." in name


class JointNetwork(Saved, nn.Module):
    """Encoder, two heads, two linear decoders, the mean face, and the scaling of the codes (Liu et al. 2018).

    `identity` and `residual` are the lengths of the codes (199 and 29 in the paper), `vertices` the number of vertices.
    With `residual=0` one code and one decoder give the whole shape: the ablation without disentangling.
    """

    kind = "JointNetwork 3"

    def __init__(self, encoder: nn.Module, identity: int, residual: int, vertices: int):
        super().__init__()
        self.encoder, self.identity, self.residual, self.vertices = encoder, identity, residual, vertices
        self.config = {"encoder": encoder.config, "identity": identity, "residual": residual, "vertices": vertices}
        self.to_identity = nn.Linear(encoder.features, identity)
        self.to_residual = nn.Linear(encoder.features, residual) if residual else None
        self.identity_decoder = LinearDecoder(identity, vertices)
        self.residual_decoder = LinearDecoder(residual, vertices) if residual else None
        self.identity_scaling, self.residual_scaling = Scaling(identity), Scaling(residual)
        self.register_buffer("mean_shape", torch.zeros(vertices, 3))

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Codes:
        """Return the codes of RGB images in [-1, 1], of the encoder's size."""
        features = self.encoder(images)
        residual = self.to_residual(features) if self.residual else features.new_zeros(len(features), 0)
        return Codes(self.to_identity(features), residual)

    def shape(self, codes: Codes) -> ShapeParts:
        """Return vertices in mm: both displacements and the whole face, `s = s_mean + ds_id + ds_res`.

        If the training uses 16 bits, the displacements have 16 bits, and the sum has 32 bits, like the mean.
        """
        identity = self.identity_decoder(codes.identity)
        residual = self.residual_decoder(codes.residual) if self.residual else torch.zeros_like(identity)
        return ShapeParts(identity, residual, self.mean_shape + identity + residual)

    def codes(self, identity: Float[Tensor, "batch identity"], expression: Float[Tensor, "batch expression"]) -> Codes:
        """Return the codes of whitened coefficients: the encoder's targets."""
        return Codes(self.identity_scaling.to_codes(identity), self.residual_scaling.to_codes(expression))

    def coefficients(self, codes: Codes) -> tuple[Float[Tensor, "batch identity"], Float[Tensor, "batch expression"]]:
        """Return the whitened identity and expression coefficients of codes."""
        identity = self.identity_scaling.to_coefficients(codes.identity)
        return identity, self.residual_scaling.to_coefficients(codes.residual)

    def set_bases(
        self, identity: Float[Tensor, "identity vertices 3"], expression: Float[Tensor, "expression vertices 3"]
    ) -> None:
        """Set both decoders to the bases of the 3DMM: the closed-form solution of phase II."""
        self.identity_decoder.set_basis(identity, self.identity_scaling)
        self.residual_decoder.set_basis(expression, self.residual_scaling)

    def to_ship(self, model: MorphableModel) -> dict[str, Tensor]:
        """Return the weights, without the mean face and the decoders' tensors that are still those of `model`."""
        of_model, own = JointNetwork.from_config(self.config), self.state_dict()
        of_model.load_state_dict(own)
        of_model._take(model)
        given = of_model.state_dict()
        same = {name for name in own if _of_model(name) and torch.equal(own[name].cpu(), given[name])}
        return {name: value for name, value in own.items() if name not in same}

    def from_shipped(self, tensors: Mapping[str, Tensor], model: MorphableModel) -> None:
        """Load the tensors of `to_ship`. Raise RuntimeError if they do not fit."""
        absent, unknown = self.load_state_dict(tensors, strict=False)
        if unknown or not all(map(_of_model, absent)):
            raise RuntimeError(f"The tensors do not fit: {absent + unknown}.")
        self._take(model)  # needs the scaling, which is loaded now
        self.load_state_dict(tensors, strict=False)

    def _take(self, model: MorphableModel) -> None:
        """Set the mean face and both decoders to those of a 3DMM."""
        self.set_mean_shape(model.mean)
        self.set_bases(model.identity_basis, model.expression_basis)

    @torch.no_grad()
    def probe(self) -> Float[Tensor, " outputs"]:
        codes = self.eval().encode(fixed_image(self.encoder.size).to(self.mean_shape))
        return torch.cat(self.shape(codes)[:1], 1).flatten()[:8].cpu()

    @torch.no_grad()
    def set_mean_shape(self, vertices: Float[Tensor, "vertices 3"]) -> None:
        """Store the mean face s_mean, mm: the mean of all neutral training shapes."""
        self.mean_shape.copy_(vertices)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "JointNetwork":
        return cls(**{**config, "encoder": SphereFace(**config["encoder"])})
