"""Procrustes alignment against known motions, scipy, and the cases in which it is not determined."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from facenb.errors import LandmarkError
from facenb.morphable.alignment import align, similarity


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), factor=st.floats(0.01, 100), dimensions=st.sampled_from([2, 3]))
def test_a_known_motion_is_found(seed, factor, dimensions):
    rng = np.random.default_rng(seed)
    points = torch.tensor(rng.normal(size=(2, 20, dimensions)))
    turn = Rotation.random(rng=seed).as_matrix() if dimensions == 3 else Rotation.from_rotvec([0, 0, seed]).as_matrix()
    turn = torch.tensor(turn[:dimensions, :dimensions])
    shift = torch.tensor(rng.normal(size=dimensions)) * 10
    found = similarity(points, factor * points @ turn.T + shift)
    assert torch.allclose(found.scale, torch.tensor(factor, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(found.rotation, turn.expand(2, -1, -1), atol=1e-9)
    assert torch.allclose(found.shift, shift.expand(2, -1), atol=1e-7)


def test_the_remaining_distance_is_scipys():
    source, target = np.random.default_rng(1).normal(size=(2, 30, 3))
    if np.linalg.det((target - target.mean(0)).T @ (source - source.mean(0))) < 0:
        source[:, 0] *= -1  # scipy may reflect, we may not
    moved = align(torch.tensor(source)[None], torch.tensor(target)[None])[0].numpy()
    _, _, disparity = procrustes(target, source)  # scaled so that the target has unit norm
    assert np.square(moved - target).sum() / np.square(target - target.mean(0)).sum() == pytest.approx(disparity)


def test_no_motion_nearby_is_better():
    generator = torch.Generator().manual_seed(2)
    source, target = torch.randn(2, 1, 25, 3, generator=generator, dtype=torch.float64)
    for scale in (True, False):
        found = similarity(source, target, scale)
        best = (found.apply(source) - target).square().sum()
        for _ in range(50):
            turn = Rotation.from_rotvec(1e-2 * torch.randn(3, generator=generator).numpy()).as_matrix()
            factor = 1 + 1e-2 * float(torch.randn(1, generator=generator)) if scale else 1.0
            shift = 1e-2 * torch.randn(3, generator=generator)
            nudged = found._replace(
                scale=found.scale * factor, rotation=torch.tensor(turn) @ found.rotation, shift=found.shift + shift
            )
            assert (nudged.apply(source) - target).square().sum() >= best


def test_without_scale_the_size_stays():
    points = torch.randn(1, 10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    moved = align(points, 2 * points, scale=False)
    assert torch.allclose(moved, points + points.mean(1, keepdim=True))  # only the middle moves


def test_a_mirrored_face_is_not_reflected():
    points = torch.randn(1, 10, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    assert torch.linalg.det(similarity(points, points * torch.tensor([-1.0, 1, 1])).rotation) == pytest.approx(1)


def test_points_on_a_line_give_a_rotation_that_maps_the_line():
    line = torch.linspace(0, 1, 5, dtype=torch.float64)[None, :, None] * torch.tensor([1.0, 2, 3])
    onto = line.norm(dim=-1, keepdim=True) * torch.tensor([0.0, 1, 0])
    found = similarity(line, onto)
    assert torch.allclose(found.apply(line), onto, atol=1e-9)
    assert torch.allclose(found.rotation @ found.rotation.mT, torch.eye(3).double(), atol=1e-9)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), None])
def test_points_that_cannot_be_aligned_are_named(broken):
    source = torch.randn(3, 5, 3, generator=torch.Generator().manual_seed(5))
    if broken is None:
        source[1] = 7.0
    else:
        source[1, 2, 0] = broken
    with pytest.raises(LandmarkError, match="points 1 of 3 cannot be aligned"):
        similarity(source, source[:1])


def test_one_target_serves_a_batch_and_the_dtype_stays():
    source = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(6))
    moved = align(source, source[:1])
    assert moved.shape == (4, 6, 3) and moved.dtype == torch.float32
    assert torch.allclose(moved[0], source[0], atol=1e-6)
