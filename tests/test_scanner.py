"""Synthetic scans: on the true surface but for noise along the view, seen by the scanner, the same every time."""

import numpy as np
import pytest
import torch
import trimesh

from facenb.imaging.camera import euler_to_matrix
from facenb.synthface import SynthFace
from facenb.synthface.scanner import SIDES, STEEP, scan_head

COARSE = {"pitch": 3.0}


@pytest.fixture(scope="module")
def synth() -> SynthFace:
    return SynthFace(0)


@pytest.fixture(scope="module")
def plain(synth):
    return scan_head(synth, 7, noise=0.0, holes=0, **COARSE)


def test_without_noise_every_vertex_lies_on_the_true_surface(plain):
    assert len(plain.scan.vertices) > 2000
    faces = plain.head[plain.triangles].double().numpy()
    for point in plain.scan.vertices[::97].double().numpy():  # against all triangles, one by one
        closest = trimesh.triangles.closest_point(faces, np.tile(point, (len(faces), 1)))
        assert np.linalg.norm(closest - point, axis=1).min() < 1e-3
    assert torch.equal(plain.scan.vertices, plain.exact)


def test_noise_is_along_one_of_the_views_and_as_wide_as_asked_for(synth):
    found = scan_head(synth, 7, noise=0.4, **COARSE)
    off = found.scan.vertices - found.exact
    angles = torch.zeros(len(SIDES), 3)
    angles[:, 0] = torch.deg2rad(torch.tensor(SIDES))
    views = euler_to_matrix(angles)[:, 2]
    along = off @ views.T
    best = along.abs().amax(1)
    torch.testing.assert_close(off.norm(dim=1), best, atol=1e-3, rtol=0)
    assert float(best.square().mean().sqrt()) == pytest.approx(0.4, rel=0.06)


def test_triangles_face_outwards_and_the_back_of_the_head_is_not_seen(plain):
    scan = plain.scan
    a, b, c = (scan.vertices[scan.triangles[:, k]] for k in range(3))
    normal = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1)
    angles = torch.zeros(len(SIDES), 3)
    angles[:, 0] = torch.deg2rad(torch.tensor(SIDES))
    facing = (normal @ euler_to_matrix(angles)[:, 2].T).amax(1)
    assert (facing > 0).all() and (facing > STEEP / 2).float().mean() > 0.99
    assert scan.vertices[:, 2].min() > plain.head[:, 2].min() + 60


def test_it_reaches_as_far_as_asked_for_and_is_as_fine(synth):
    near = scan_head(synth, 7, noise=0.0, holes=0, radius=60.0, **COARSE)
    assert (near.exact - near.scan.landmarks[30]).norm(dim=1).max() <= 60
    twice = scan_head(synth, 7, noise=0.0, holes=0, radius=60.0, pitch=1.5)
    assert len(twice.exact) == pytest.approx(4 * len(near.exact), rel=0.2)


def test_holes_take_vertices_away(synth, plain):
    torn = scan_head(synth, 7, noise=0.0, holes=12, **COARSE)
    lost = torch.cdist(plain.exact, torn.exact).amin(1) > 1e-4
    assert 20 < int(lost.sum()) < 0.3 * len(plain.exact)


def test_every_vertex_has_a_triangle(plain):
    assert torch.equal(plain.scan.triangles.unique(), torch.arange(len(plain.scan.vertices)))


def test_landmarks_are_those_of_the_head(synth, plain):
    torch.testing.assert_close(plain.scan.landmarks, synth.landmarks.of(plain.head))


def test_a_scan_is_the_same_in_any_company_and_another_seed_gives_another(synth):
    alone = scan_head(synth, 9, **COARSE)
    scan_head(synth, 7, **COARSE)
    assert torch.equal(alone.scan.vertices, scan_head(synth, 9, **COARSE).scan.vertices)
    again = scan_head(synth, 9, seed=1, **COARSE)
    assert again.exact.shape != alone.exact.shape or not torch.equal(again.scan.vertices, alone.scan.vertices)
    torch.testing.assert_close(again.head, alone.head)


def test_an_expression_is_scanned(synth):
    smile = torch.zeros(len(synth.expression_names))
    smile[synth.expression_names.index("jawOpen")] = 1.0
    found = scan_head(synth, 7, expression=smile, **COARSE)
    torch.testing.assert_close(found.head, synth.shape(synth.subject(7), smile[None])[0])
    assert np.ptp(found.scan.landmarks[[62, 66], 1].numpy()) > 8


def test_a_scan_of_nothing(synth):
    with pytest.raises(ValueError, match="nothing is left of the scan of subject 7"):
        scan_head(synth, 7, radius=1.0, pitch=5.0)
