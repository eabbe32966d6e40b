"""Cameras against closed form: the conventions stated at the top of `facenb.imaging.camera`."""

import math

import pytest
import torch
from scipy.spatial.transform import Rotation

from facenb.imaging.camera import Perspective, WeakPerspective, euler_to_matrix, matrix_to_euler


def angles(count=200, seed=0):
    spread = torch.tensor([math.pi / 2 - 0.01, math.pi - 0.01, math.pi - 0.01], dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1) * spread


def test_rotation_is_roll_after_yaw_after_pitch():
    yaw_pitch_roll = angles()
    expected = Rotation.from_euler("ZYX", yaw_pitch_roll[:, [2, 0, 1]].numpy()).as_matrix()
    torch.testing.assert_close(euler_to_matrix(yaw_pitch_roll), torch.tensor(expected))


def test_angles_come_back():
    torch.testing.assert_close(matrix_to_euler(euler_to_matrix(angles())), angles())


@pytest.mark.parametrize(
    ("turn", "point", "direction"),
    [
        ((0.3, 0, 0), (0, 0, 100), (1, 0)),  # positive yaw: the nose to the image's right
        ((0, 0.3, 0), (0, 0, 100), (0, 1)),  # positive pitch: the nose down
        ((0, 0, 0.3), (0, 100, 0), (-1, 0)),  # positive roll: counter-clockwise, the crown to the left
    ],
)
def test_signs_of_the_angles(turn, point, direction):
    cameras = [
        WeakPerspective(euler_to_matrix(torch.tensor([a])), torch.ones(1), torch.zeros(1, 2))
        for a in [(0.0, 0.0, 0.0), tuple(map(float, turn))]
    ]
    before, after = (camera.project(torch.tensor([[point]], dtype=torch.float32))[0, 0, :2] for camera in cameras)
    moved = after - before
    assert moved @ torch.tensor(direction, dtype=torch.float32) > 20
    assert abs(moved @ torch.tensor(direction[::-1], dtype=torch.float32)) < 20


def test_weak_perspective_by_hand():
    camera = WeakPerspective(torch.eye(3)[None], torch.tensor([2.0]), torch.tensor([[50.0, 60.0]]))
    projected = camera.project(torch.tensor([[[10.0, 20.0, 30.0]]]))
    torch.testing.assert_close(projected, torch.tensor([[[70.0, 20.0, -30.0]]]))  # up is a smaller v, nearer is less


def test_perspective_by_hand():
    camera = Perspective(
        torch.eye(3)[None], torch.tensor([[0.0, 0.0, -500.0]]), torch.tensor([400.0]), torch.tensor([[50.0, 60.0]])
    )
    projected = camera.project(torch.tensor([[[10.0, 20.0, 100.0], [0.0, 0.0, 600.0]]]))
    torch.testing.assert_close(projected[0, 0], torch.tensor([60.0, 40.0, 400.0]))
    assert projected[0, 1, 2] == -100  # behind the camera
    assert projected.isfinite().all()


def test_far_perspective_becomes_weak_perspective():
    points = torch.randn(1, 50, 3, dtype=torch.float64) * 80
    rotation = euler_to_matrix(torch.tensor([[0.4, -0.2, 0.1]], dtype=torch.float64))
    centre, far = torch.tensor([[112.0, 112.0]], dtype=torch.float64), 1e7
    position = torch.tensor([[0, 0, -far]], dtype=torch.float64)
    weak = WeakPerspective(rotation, torch.tensor([0.7], dtype=torch.float64), centre)
    perspective = Perspective(rotation, position, torch.tensor([0.7 * far], dtype=torch.float64), centre)
    torch.testing.assert_close(perspective.project(points)[..., :2], weak.project(points)[..., :2], atol=1e-2, rtol=0)


@pytest.mark.parametrize(("cameras", "shapes"), [(1, 4), (4, 1), (4, 4)])
def test_a_batch_of_one_is_broadcast(cameras, shapes):
    points = torch.randn(shapes, 7, 3)
    camera = WeakPerspective(euler_to_matrix(torch.randn(cameras, 3)), torch.rand(cameras), torch.rand(cameras, 2))
    projected = camera.project(points)
    for k in range(4):
        i, j = min(k, cameras - 1), min(k, shapes - 1)
        alone = WeakPerspective(camera.rotation[i : i + 1], camera.scale[i : i + 1], camera.translation[i : i + 1])
        torch.testing.assert_close(projected[k], alone.project(points[j : j + 1])[0])


def test_gradients():
    def project(turn, scale, shift, points):
        return WeakPerspective(euler_to_matrix(turn), scale, shift).project(points)

    def project_perspective(turn, position, focal, points):
        return Perspective(euler_to_matrix(turn), position, focal, torch.zeros(2, 2)).project(points)

    torch.manual_seed(1)
    turn, points = torch.randn(2, 3).double(), torch.randn(2, 4, 3).double() * 50
    position = torch.tensor([[0, 0, -400], [5, 8, -500]]).double()
    weak = [turn, torch.rand(2).double(), torch.rand(2, 2).double(), points]
    perspective = [turn, position, torch.tensor([300.0, 200]).double(), points]
    assert torch.autograd.gradcheck(project, [x.clone().requires_grad_() for x in weak])
    assert torch.autograd.gradcheck(project_perspective, [x.clone().requires_grad_() for x in perspective], atol=1e-4)
