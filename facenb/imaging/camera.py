"""Cameras: from millimetres on the model's axes to pixels.

Conventions, for the whole package:
- Model axes: x to the right (the viewer's right), y up, z towards the viewer, in mm. At rotation I the face looks at
  the camera.
- A rotation takes model axes to camera axes (x right, y up, z towards the camera): `R = Rz(roll) Ry(yaw) Rx(pitch)`.
  Positive yaw turns the nose towards the image's right, positive pitch turns it down, positive roll turns the head
  counter-clockwise in the image.
- Pixels: u to the right, v down, origin at the top left corner of the image, pixel centres at +0.5.
- Depth grows away from the camera, in mm. Under weak perspective its zero is the model's origin (so it may be
  negative). Under perspective its zero is the camera, and points with depth <= 0 are behind the camera.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from facenb.morphable.model import Tensors


def euler_to_matrix(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Return the rotation `Rz(roll) Ry(yaw) Rx(pitch)` of (yaw, pitch, roll) in radians."""
    yaw, pitch, roll = angles.unbind(-1)
    unit, zero = torch.ones_like(yaw), torch.zeros_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, -1).unflatten(-1, (3, 3))

    about_y = matrix(yaw.cos(), zero, yaw.sin(), zero, unit, zero, -yaw.sin(), zero, yaw.cos())
    about_x = matrix(unit, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    about_z = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, unit)
    return about_z @ about_y @ about_x


def matrix_to_euler(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Return (yaw, pitch, roll) in radians of a rotation, yaw in [-pi/2, pi/2]."""
    yaw = torch.asin((-rotation[..., 2, 0]).clamp(-1, 1))
    pitch = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    roll = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    return torch.stack([yaw, pitch, roll], -1)


@dataclass(frozen=True)
class WeakPerspective(Tensors):
    """Scaled orthographic projection, `u = f P R x + t` (Liu et al. 2018, Eq. 7, the shift in pixels)."""

    rotation: Float[Tensor, "batch 3 3"]
    scale: Float[Tensor, " batch"]  # pixels per mm
    translation: Float[Tensor, "batch 2"]  # pixel position (u, v) of the model's origin
    is_perspective = False

    def project(self, vertices: Float[Tensor, "_batch points 3"]) -> Float[Tensor, "batch points 3"]:
        """Return (u, v) in pixels and depth in mm of points in mm; a batch of one on either side is broadcast."""
        turned = vertices @ self.rotation.transpose(-1, -2)  # (B, N, 3), camera axes
        u = self.scale[:, None] * turned[..., 0] + self.translation[:, None, 0]
        v = -self.scale[:, None] * turned[..., 1] + self.translation[:, None, 1]
        return torch.stack([u, v, -turned[..., 2]], -1)


@dataclass(frozen=True)
class Perspective:
    """Pinhole camera: `u = c_u + f X / Z`, `v = c_v - f Y / Z` with Z the depth along the viewing direction."""

    rotation: Float[Tensor, "batch 3 3"]
    position: Float[Tensor, "batch 3"]  # the model's origin on the camera's axes, mm; z is minus the distance
    focal: Float[Tensor, " batch"]  # pixels
    principal: Float[Tensor, "batch 2"]  # pixel position (u, v) of the optical axis
    is_perspective = True

    def project(self, vertices: Float[Tensor, "_batch points 3"]) -> Float[Tensor, "batch points 3"]:
        """Return (u, v) in pixels and depth in mm of points in mm; u and v have no meaning where depth <= 0."""
        turned = vertices @ self.rotation.transpose(-1, -2) + self.position[:, None]  # (B, N, 3)
        depth = -turned[..., 2]
        ratio = self.focal[:, None] / torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
        u = self.principal[:, None, 0] + ratio * turned[..., 0]
        v = self.principal[:, None, 1] - ratio * turned[..., 1]
        return torch.stack([u, v, depth], -1)


Camera = WeakPerspective | Perspective
