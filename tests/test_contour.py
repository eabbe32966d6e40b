import math

import numpy as np
import pytest
import torch

from facenb.errors import ModelFileError
from facenb.morphable.contour import contour_lines

AXES = torch.tensor([75.0, 100.0, 90.0], dtype=torch.float64)  # half axes of an egg as large as a head, mm


@pytest.fixture(scope="module")
def egg():
    """An ellipsoid with landmarks: the jaw line on its outline seen from the front, the others near its middle."""
    rings, sectors = 60, 90
    polar = torch.linspace(0, math.pi, rings, dtype=torch.float64)[:, None]
    around = (torch.arange(sectors, dtype=torch.float64) * 2 * math.pi / sectors)[None]
    unit = torch.stack([polar.sin() * around.sin(), polar.cos().expand(-1, sectors), polar.sin() * around.cos()], -1)
    number = torch.arange(rings * sectors).view(rings, sectors)
    a, b = number[:-1], number[1:]
    c, d = a.roll(-1, 1), b.roll(-1, 1)
    triangles = torch.cat([torch.stack([a, b, c], -1), torch.stack([c, b, d], -1)]).view(-1, 3)
    angle = torch.deg2rad(torch.linspace(175, 365, 17, dtype=torch.float64))
    jaw = torch.stack([angle.cos() * AXES[0], angle.sin() * AXES[1], torch.zeros(17, dtype=torch.float64)], -1)
    inner = torch.tensor([0.0, 0.0, 90.0], dtype=torch.float64).expand(51, 3)
    return (unit.reshape(-1, 3) * AXES).float(), triangles, torch.cat([jaw, inner]).float()


def test_each_line_lies_in_its_half_plane_and_runs_from_front_to_back_through_its_landmark(egg):
    mean, triangles, landmarks = egg
    lines = contour_lines(mean, triangles, landmarks)
    assert lines.shape == (17, 26)
    edge = 9.0  # mm, the longest edge here
    for line, landmark in zip(mean[lines], landmarks[:17], strict=True):
        direction = landmark[:2] / landmark[:2].norm()
        across = line[:, 0] * direction[1] - line[:, 1] * direction[0]
        assert across.abs().max() < edge
        assert (line[:, :2] @ direction > 0).all()
        assert (line[1:, 2] - line[:-1, 2]).max() < edge / 2 and line[0, 2] > 50 > 0 > line[-1, 2]
        nearest = (mean - landmark).norm(dim=1).min()
        assert (line - landmark).norm(dim=1).min() == nearest


@pytest.mark.parametrize("yaw", [20, 40, 55])
def test_the_outline_of_the_turned_head_crosses_the_lines_of_the_far_side(egg, yaw):
    mean, triangles, landmarks = egg
    lines = contour_lines(mean, triangles, landmarks)
    # Closed form: on an ellipsoid the outline is where the normal x / a^2 is across the line of sight.
    sight = torch.tensor([-math.sin(math.radians(yaw)), 0, math.cos(math.radians(yaw))], dtype=torch.float64)
    normal = torch.nn.functional.normalize(mean.double() / AXES**2, dim=-1)
    facing = normal[lines] @ sight  # (17, 26)
    far = facing[12:16]  # positive yaw turns the viewer's right side away
    assert far.abs().min(1).values.max() < 0.1
    assert (far.max(1).values > 0).all() and (far.min(1).values < 0).all()


def test_it_is_the_same_line_for_a_mirrored_a_moved_and_a_scaled_head(egg):
    mean, triangles, landmarks = egg
    lines = contour_lines(mean, triangles, landmarks)
    shift = torch.tensor([3.0, -20.0, 400.0])
    assert torch.equal(contour_lines(2 * mean, triangles, 2 * landmarks), lines)
    # Elsewhere numbers are rounded differently, and of two vertices as near to the line either may be taken.
    moved = contour_lines(mean + shift, triangles, landmarks + shift)
    assert (moved == lines).float().mean() > 0.9
    flip = torch.tensor([-1.0, 1.0, 1.0])
    mirrored = contour_lines(mean * flip, triangles.flip(1), landmarks * flip)
    assert (mirrored == lines).float().mean() > 0.9


def test_an_open_mesh(egg):
    mean, triangles, landmarks = egg
    front = triangles[(mean[triangles][..., 2] > 0.1).all(1)]  # a mask that ends at the landmarks
    lines = contour_lines(mean, front, landmarks)
    assert np.isin(lines[:, 5:-5].numpy(), front.numpy()).all()
    nowhere = landmarks.clone()
    with pytest.raises(ModelFileError, match="no triangle near the jaw-line landmark"):
        contour_lines(mean, triangles[:0], nowhere)
