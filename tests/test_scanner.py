"""Simulated scans: on the true surface but for noise along the view, seen by the scanner, the same every time."""

import numpy as np
import pytest
import torch
import trimesh

from facenb.imaging.camera import euler_to_matrix
from facenb.synthface import SynthFace
from facenb.synthface.scanner import SIDES, STEEP, scan_head

COARSE = {"pitch": 3.0}
PLAIN = {"noise": 0.0, "holes": 0}
SYNTH = SynthFace(0)
VIEWS = euler_to_matrix(torch.deg2rad(torch.tensor([[yaw, 0.0, 0.0] for yaw in SIDES])))[:, 2]  # to the scanner


@pytest.fixture(scope="module")
def plain():
    return scan_head(SYNTH, 7, **PLAIN, **COARSE)


def test_without_noise_every_vertex_lies_on_the_true_surface(plain):
    assert len(plain.scan.vertices) > 2000
    faces = plain.head[SYNTH.triangles].double().numpy()
    for point in plain.scan.vertices[::97].double().numpy():  # against all triangles, one by one
        closest = trimesh.triangles.closest_point(faces, np.tile(point, (len(faces), 1)))
        assert np.linalg.norm(closest - point, axis=1).min() < 1e-3


def test_noise_is_along_one_of_the_views_and_as_wide_as_asked_for():
    noisy, exact = (scan_head(SYNTH, 7, noise=noise, **COARSE).scan.vertices for noise in (0.4, 0.0))
    off = noisy - exact
    along = (off @ VIEWS.T).abs().amax(1)
    torch.testing.assert_close(off.norm(dim=1), along, atol=1e-3, rtol=0)
    assert float(along.square().mean().sqrt()) == pytest.approx(0.4, rel=0.06)


def test_triangles_face_outwards_and_the_back_of_the_head_is_not_seen(plain):
    scan = plain.scan
    a, b, c = (scan.vertices[scan.triangles[:, k]] for k in range(3))
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    facing = (normal @ VIEWS.T).amax(1)
    assert (facing > 0).all() and (facing > STEEP / 2).float().mean() > 0.99
    assert scan.vertices[:, 2].min() > plain.head[:, 2].min() + 60
    assert torch.equal(scan.triangles.unique(), torch.arange(len(scan.vertices)))  # every vertex has a triangle


def test_it_reaches_as_far_as_asked_for_and_is_as_fine():
    near, fine = (scan_head(SYNTH, 7, radius=60.0, pitch=pitch, **PLAIN).scan for pitch in (3.0, 1.5))
    assert (near.vertices - near.landmarks[30]).norm(dim=1).max() <= 60
    assert len(fine.vertices) == pytest.approx(4 * len(near.vertices), rel=0.2)


def test_holes_take_vertices_away(plain):
    torn = scan_head(SYNTH, 7, noise=0.0, holes=12, **COARSE)
    lost = torch.cdist(plain.scan.vertices, torn.scan.vertices).amin(1) > 1e-4
    assert 20 < int(lost.sum()) < 0.3 * len(lost)


def test_a_scan_is_the_same_in_any_company_and_another_seed_gives_another():
    alone = scan_head(SYNTH, 9, **COARSE)
    scan_head(SYNTH, 7, **COARSE)
    assert torch.equal(alone.scan.vertices, scan_head(SYNTH, 9, **COARSE).scan.vertices)
    again = scan_head(SYNTH, 9, seed=1, **COARSE)
    assert not torch.equal(again.scan.vertices, alone.scan.vertices)
    torch.testing.assert_close(again.head, alone.head)


def test_an_expression_is_scanned_with_its_landmarks():
    opened = torch.zeros(len(SYNTH.expression_names))
    opened[SYNTH.expression_names.index("jawOpen")] = 1.0
    found = scan_head(SYNTH, 7, expression=opened, **COARSE)
    torch.testing.assert_close(found.head, SYNTH.shape(SYNTH.subject(7), opened[None])[0])
    torch.testing.assert_close(found.scan.landmarks, SYNTH.landmarks.of(found.head))
    assert np.ptp(found.scan.landmarks[[62, 66], 1].numpy()) > 8
