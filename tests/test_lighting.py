"""Spherical harmonics against quadrature on the sphere and the formulas of DECA and Deng et al."""

import math

import numpy as np
import pytest
import torch

from facenb.imaging import lighting
from facenb.imaging.lighting import ambient, directional, irradiance, spherical_harmonics


def sphere(rings=64):
    """Unit normals and weights that integrate polynomials over the sphere exactly: Gauss-Legendre in z."""
    z, weight = np.polynomial.legendre.leggauss(rings)
    angle = np.arange(2 * rings) * math.pi / rings
    radius = np.sqrt(1 - z**2)[:, None]
    points = np.stack(
        [radius * np.cos(angle), radius * np.sin(angle), np.broadcast_to(z[:, None], (rings, 2 * rings))], -1
    )
    weights = np.broadcast_to(weight[:, None] * math.pi / rings, (rings, 2 * rings))
    return torch.tensor(points.reshape(-1, 3)), torch.tensor(weights.reshape(-1).copy())


def some_normals(count=50):
    return torch.nn.functional.normalize(
        torch.randn(count, 3, generator=torch.Generator().manual_seed(0)).double(), dim=-1
    )


def test_the_basis_is_orthonormal():
    normals, weights = sphere()
    basis = spherical_harmonics(normals)
    torch.testing.assert_close(basis.T @ (basis * weights[:, None]), torch.eye(9).double(), atol=1e-12, rtol=0)


def test_the_basis_is_scipys_up_to_the_sign():
    from scipy.special import sph_harm_y

    x, y, z = some_normals().numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    for index, (degree, order) in enumerate(
        [(0, 0), (1, -1), (1, 0), (1, 1), (2, -2), (2, -1), (2, 0), (2, 1), (2, 2)]
    ):
        value = sph_harm_y(degree, abs(order), polar, azimuth)
        value = value.real if order == 0 else math.sqrt(2) * (-1) ** order * (value.imag if order < 0 else value.real)
        np.testing.assert_allclose(spherical_harmonics(some_normals())[:, index].numpy(), value, atol=1e-12)


def test_ambient_light_is_the_same_everywhere():
    colour = torch.tensor([[0.2, 0.5, 1.0]]).double()
    torch.testing.assert_close(irradiance(some_normals()[None], ambient(colour)), colour[:, None].expand(1, 50, 3))


def test_directional_light_is_the_projection_of_the_clamped_cosine():
    normals, weights = sphere(400)
    direction, colour = torch.tensor([[1.0, -2, 2]]).double(), torch.tensor([[0.9, 0.6, 0.3]]).double()
    cosine = (normals @ direction[0] / 3).clamp(min=0)
    expected = (spherical_harmonics(normals) * (weights * cosine)[:, None]).sum(0)[:, None] * colour
    torch.testing.assert_close(directional(direction, colour)[0], expected, atol=1e-4, rtol=0)


def test_directional_light_facing_aside_and_away():
    direction, colour = torch.tensor([[0.0, 3, 0]]).double(), torch.ones(1, 3).double()
    at = torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, -1, 0]]).double()
    received = irradiance(at[None], directional(direction, colour))[0, :, 0]
    torch.testing.assert_close(received, torch.tensor([1 + 1 / 16, 3 / 32, 1 / 16]).double())
    angle = torch.linspace(0, math.pi, 721).double()
    around = torch.stack([angle.sin(), angle.cos(), 0 * angle], -1)
    received = irradiance(around[None], directional(direction, colour))[0, :, 0]
    assert abs(received.min() - (3 / 32 - 2 / 15)) < 1e-5
    assert abs(angle[received.argmin()] - math.acos(-8 / 15)) < 0.01


def test_light_adds_up_and_batches_are_independent():
    generator = torch.Generator().manual_seed(2)
    light, normals = torch.randn(3, 9, 3, generator=generator), some_normals(24).float().view(3, 2, 4, 3)
    received = irradiance(normals, light)
    assert received.shape == (3, 2, 4, 3)
    for k in range(3):
        torch.testing.assert_close(received[k], spherical_harmonics(normals[k]) @ light[k])
    torch.testing.assert_close(
        irradiance(normals, 2 * light + 1), 2 * received + irradiance(normals, torch.ones(3, 9, 3))
    )


def deca_shading(normals, coefficients):
    """`add_SHlight`, written out from the constants of the published code."""
    x, y, z = normals.unbind(-1)
    one = torch.ones_like(x)
    functions = torch.stack([one, x, y, z, x * y, x * z, y * z, x**2 - y**2, 3 * z**2 - 1], -1)
    pi = math.pi
    first, second = 2 * pi / 3 * math.sqrt(3 / (4 * pi)), pi / 4 * 3 * math.sqrt(5 / (12 * pi))
    constants = [1 / math.sqrt(4 * pi)] + [first] * 3 + [second] * 3
    constants += [pi / 4 * 1.5 * math.sqrt(5 / (12 * pi)), pi / 4 * 0.5 * math.sqrt(5 / (4 * pi))]
    return (functions * torch.tensor(constants).double()) @ coefficients


def deng_shading(normals, gamma):
    """`compute_color` for an albedo of one, written out from the constants of the published code."""
    x, y, z = normals.unbind(-1)
    a = [math.pi, 2 * math.pi / math.sqrt(3), 2 * math.pi / math.sqrt(8)]
    c = [1 / math.sqrt(4 * math.pi), math.sqrt(3) / math.sqrt(4 * math.pi), 3 * math.sqrt(5) / math.sqrt(12 * math.pi)]
    linear, square = a[1] * c[1], a[2] * c[2]
    basis = [
        a[0] * c[0] * torch.ones_like(x),
        -linear * y,
        linear * z,
        -linear * x,
        square * x * y,
        -square * y * z,
        0.5 * square / math.sqrt(3) * (3 * z**2 - 1),
        -square * x * z,
        0.5 * square * (x**2 - y**2),
    ]
    colours = gamma.view(3, 9) + torch.tensor([0.8] + [0.0] * 8).double()
    return torch.stack(basis, -1) @ colours.T


@pytest.mark.parametrize(
    ("size", "shading", "read", "write"),
    [
        ((9, 3), deca_shading, lighting.from_deca, lighting.to_deca),
        ((27,), deng_shading, lighting.from_deng, lighting.to_deng),
    ],
)
def test_published_lights_shade_alike(size, shading, read, write):
    light, normals = torch.randn(2, *size, generator=torch.Generator().manual_seed(3)).double(), some_normals()
    received = irradiance(normals.expand(2, -1, -1), read(light))
    torch.testing.assert_close(received[1], shading(normals, light[1]))
    torch.testing.assert_close(write(read(light)), light)


@pytest.mark.parametrize("build", [lambda d, c: directional(d, c), lambda d, c: ambient(c)])
def test_gradients(build):
    direction, colour = torch.randn(2, 3).double(), torch.rand(2, 3).double().requires_grad_()
    normals = some_normals(6).view(2, 3, 3).clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, c, n: irradiance(n, build(d, c)), (direction.requires_grad_(), colour, normals)
    )
