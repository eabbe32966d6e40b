"""The joint network of Liu et al. 2018: a picture to an identity and a residual code, and codes to a 3D face.

`s = s_mean + ds_id + ds_res`, with `ds_id = f_id(c_id)` and `ds_res = f_res(c_res)`; vertices in mm. Codes are whitened
coefficients scaled to [-1, 1]: `code = (coefficient - centre) / half_range`, per dimension.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from facenb.networks.saved import Saved
from facenb.networks.sphereface import SphereFace


class Codes(NamedTuple):
    """What the encoder says of each picture, both scaled to [-1, 1]."""

    identity: Float[Tensor, "batch identity"]  # c_id
    residual: Float[Tensor, "batch residual"]  # c_res


class ShapeParts(NamedTuple):
    """A face as the sum it is made of, mm."""

    identity: Float[Tensor, "batch vertices 3"]  # ds_id
    residual: Float[Tensor, "batch vertices 3"]  # ds_res
    whole: Float[Tensor, "batch vertices 3"]  # s = s_mean + ds_id + ds_res


class LinearDecoder(nn.Module):
    """One fully connected layer from a code to displacements of all vertices, mm."""

    def __init__(self, codes: int, vertices: int):
        super().__init__()
        self.fc = nn.Linear(codes, 3 * vertices)
        nn.init.zeros_(self.fc.bias)

    def forward(self, code: Float[Tensor, "batch codes"]) -> Float[Tensor, "batch vertices 3"]:
        """Displacements in mm of codes."""
        return self.fc(code).unflatten(1, (-1, 3))

    @torch.no_grad()
    def set_basis(
        self,
        basis: Float[Tensor, "codes vertices 3"],
        centre: Float[Tensor, " codes"],
        half_range: Float[Tensor, " codes"],
    ) -> None:
        """Become the 3DMM's own: `displacement = sum_k (centre_k + half_range_k code_k) basis_k`, basis in mm.

        Raises ValueError for a basis of other codes or vertices.
        """
        flat = basis.flatten(1).to(self.fc.weight)
        if flat.shape != self.fc.weight.T.shape:
            own = f"{self.fc.in_features} codes and {self.fc.out_features // 3} vertices"
            raise ValueError(f"basis {tuple(basis.shape)} for a decoder of {own}")
        self.fc.weight.copy_((half_range.to(flat)[:, None] * flat).T)
        self.fc.bias.copy_(centre.to(flat) @ flat)


class JointNetwork(Saved, nn.Module):
    """Encoder, two heads, two linear decoders, the mean face, and the scaling of the codes (Liu et al. 2018).

    `identity` and `residual` are the lengths of the codes (the paper: 199 and 29), `vertices` the number n of vertices.
    `residual=0` has one code and one decoder for the whole shape: the ablation without disentangling.
    """

    kind = "JointNetwork 2"

    def __init__(self, encoder: nn.Module, identity: int, residual: int, vertices: int):
        super().__init__()
        if identity < 1 or residual < 0 or vertices < 1:
            raise ValueError(
                f"identity {identity} and vertices {vertices} must be positive, residual {residual} not negative"
            )
        self.encoder, self.identity, self.residual, self.vertices = encoder, identity, residual, vertices
        self.to_identity = nn.Linear(encoder.features, identity)
        self.to_residual = nn.Linear(encoder.features, residual) if residual else None
        self.identity_decoder = LinearDecoder(identity, vertices)
        self.residual_decoder = LinearDecoder(residual, vertices) if residual else None
        for name, length in (("identity", identity), ("residual", residual)):
            self.register_buffer(f"{name}_centre", torch.zeros(length))
            self.register_buffer(f"{name}_half_range", torch.ones(length))
        self.register_buffer("mean_shape", torch.zeros(vertices, 3))
        self.card: dict[str, Any] = {}  # what a saved network says of its training

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Codes:
        """Codes of RGB pictures in [-1, 1], of the encoder's size (ValueError otherwise)."""
        features = self.encoder(images)
        residual = self.to_residual(features) if self.residual else features.new_zeros(len(features), 0)
        return Codes(self.to_identity(features), residual)

    def shape(self, codes: Codes) -> ShapeParts:
        """Vertices in mm of codes: the two displacements and the whole face, `s = s_mean + ds_id + ds_res`.

        In a 16 bit training the displacements have 16 bits, and the sum has the mean's 32.
        """
        identity = self.identity_decoder(codes.identity)
        residual = self.residual_decoder(codes.residual) if self.residual else torch.zeros_like(identity)
        return ShapeParts(identity, residual, self.mean_shape + identity + residual)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Codes:
        """The same as `encode`."""
        return self.encode(images)

    def coefficients(self, codes: Codes) -> Codes:
        """Whitened coefficients of scaled codes: `centre + half_range * code`."""
        return Codes(
            self.identity_centre + self.identity_half_range * codes.identity,
            self.residual_centre + self.residual_half_range * codes.residual,
        )

    @torch.no_grad()
    def set_scaling(
        self,
        identity_centre: Float[Tensor, " identity"],
        identity_half_range: Float[Tensor, " identity"],
        residual_centre: Float[Tensor, " residual"] | None = None,
        residual_half_range: Float[Tensor, " residual"] | None = None,
    ) -> None:
        """Keep how the training targets were scaled. ValueError for other lengths or a negative half range.

        A half range of 0 belongs to a dimension that never varied: its one value comes back, whatever the code.
        """
        given = {
            "identity_centre": identity_centre,
            "identity_half_range": identity_half_range,
            "residual_centre": residual_centre,
            "residual_half_range": residual_half_range,
        }
        for name, value in given.items():
            buffer = self.get_buffer(name)
            if value is None and not len(buffer):
                continue
            if value is None or value.shape != buffer.shape:
                shape = None if value is None else tuple(value.shape)
                raise ValueError(f"{name} has shape {shape}, and the network's codes have {tuple(buffer.shape)}")
            if not value.isfinite().all() or (name.endswith("half_range") and not (value >= 0).all()):
                wrong = "finite and not negative" if name.endswith("half_range") else "finite"
                raise ValueError(f"{name} must be {wrong} in every dimension, and is not: {value.tolist()}")
        for name, value in given.items():
            if value is not None:
                self.get_buffer(name).copy_(value)

    @torch.no_grad()
    def set_mean_shape(self, vertices: Float[Tensor, "vertices 3"]) -> None:
        """Keep the mean face s_mean, mm, the mean of all neutral training shapes. ValueError for another count."""
        if vertices.shape != self.mean_shape.shape:
            raise ValueError(f"mean shape {tuple(vertices.shape)} for a network of {tuple(self.mean_shape.shape)}")
        self.mean_shape.copy_(vertices)

    @property
    def config(self) -> dict[str, Any]:
        """What makes this network again, without its weights: `JointNetwork.from_config(config)`; fit for JSON."""
        return {
            "encoder": self.encoder.config,
            "identity": self.identity,
            "residual": self.residual,
            "vertices": self.vertices,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "JointNetwork":
        """Return an untrained network of a configuration."""
        encoder = SphereFace(**config["encoder"])
        return cls(encoder, config["identity"], config["residual"], config["vertices"])
