"""A mesh or a model laid onto points: known motions and shapes are found, degenerate input has a defined outcome."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from helpers import tensors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from test_scan_to_mesh import scan_to_mesh

from facenb.evaluation.registration import fit_surface, icp
from facenb.evaluation.scan import ScanToMesh
from facenb.morphable.alignment import Similarity
from facenb.morphable.model import Embedding, MorphableModel


def mask() -> trimesh.Trimesh:
    """Half an ellipsoid with a nose off the middle and a chin: no turn of it looks like another."""
    mesh = trimesh.creation.icosphere(subdivisions=3)
    vertices = np.array(mesh.vertices) * [70, 95, 80]
    for middle, reach, height in (([5, 0, 80], 18, 18), ([0, -60, 50], 20, 8), ([-30, 45, 55], 25, 6)):
        vertices[:, 2] += height * np.exp(-(((vertices - middle) ** 2).sum(1)) / reach**2)
    mesh = trimesh.Trimesh(vertices, mesh.faces, process=False)
    return mesh.submesh([np.flatnonzero(mesh.triangles_center[:, 2] > 10)], append=True)


MASK = mask()
VERTICES, TRIANGLES = tensors(MASK, torch.float64)
SURFACE = ScanToMesh(VERTICES, TRIANGLES)


def sampled(count: int = 1500, seed: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.array(trimesh.sample.sample_surface(MASK, count, seed=seed)[0]))


def motion(turn=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0), scale=1.0) -> Similarity:
    rotation = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix())
    return Similarity(torch.tensor([float(scale)]).double(), rotation[None], torch.tensor(np.array([shift])).double())


STAY = motion()
TRUE = motion((0.1, -0.15, 0.1), (6.0, -4.0, 8.0))
GROWN = motion((0.1, -0.15, 0.1), (6.0, -4.0, 8.0), 1.2)


def close(found: Similarity, true: Similarity, angle=1e-5, length=2e-3):
    torch.testing.assert_close(found.rotation, true.rotation, atol=angle, rtol=0)
    torch.testing.assert_close(found.scale, true.scale, atol=angle, rtol=0)
    torch.testing.assert_close(found.shift, true.shift, atol=length, rtol=0)


class TestKnownMotion:
    def test_rigid(self):
        found = icp(TRUE.apply(sampled()[None])[0], SURFACE, STAY)
        assert found.distances.max() < 2e-3
        close(found.similarity, TRUE)

    def test_with_scale(self):
        close(icp(GROWN.apply(sampled()[None])[0], SURFACE, STAY, scale=True).similarity, GROWN)

    def test_many_points_start_with_some(self):
        points = sampled(12_000)
        found = icp(GROWN.apply(points[None])[0], SURFACE, STAY, scale=True)
        assert len(found.distances) == 12_000
        close(found.similarity, GROWN)

    def test_an_aligned_mesh_stays(self):
        found = icp(sampled(), SURFACE, STAY)
        assert found.distances.max() < 1e-9

    def test_distances_are_those_to_the_moved_mesh(self):
        points = sampled() + torch.from_numpy(np.random.default_rng(0).normal(size=(1500, 3)))
        found = icp(points * 1.3, SURFACE, STAY, scale=True)
        moved = found.similarity.apply(VERTICES[None])[0]
        torch.testing.assert_close(found.distances, scan_to_mesh(points * 1.3, moved, TRIANGLES))


def test_scale_is_not_left_in():
    """Points 20 % larger than the mesh: with the size free nothing remains, without it what remains is the size."""
    points = GROWN.apply(sampled()[None])[0]
    assert icp(points, SURFACE, STAY, scale=True).distances.mean() < 1e-3
    rigid = icp(points, SURFACE, STAY, scale=False)
    assert rigid.similarity.scale.item() == 1 and rigid.distances.mean() > 3


def test_a_sphere_in_a_larger_sphere():
    """Rigidly nothing can be gained: every point stays the difference of the radii away."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=80)
    points = trimesh.creation.icosphere(subdivisions=3, radius=83).vertices
    surface = ScanToMesh(*tensors(ball, torch.float64))
    found = icp(torch.tensor(points), surface, STAY, scale=False)
    assert float(found.distances.min()) == pytest.approx(3, abs=1e-3) and found.distances.mean() < 3.05
    grown = icp(torch.tensor(points), surface, STAY, scale=True)
    assert float(grown.similarity.scale) == pytest.approx(83 / 80, abs=1e-3) and grown.distances.max() < 0.1


@pytest.mark.parametrize("scale", [False, True])
def test_no_lower_cost_nearby(scale):
    """The optimum of scipy, which knows only the distances, from the result: nothing is left to gain."""
    points = sampled(300) * 1.05 + torch.from_numpy(np.random.default_rng(3).normal(size=(300, 3)))
    found = icp(points, SURFACE, STAY, scale=scale)

    def distances(values):
        factor = np.exp(values[6]) if scale else 1.0
        change = motion(values[:3], values[3:6] * 50, factor)
        moved = change.apply(found.similarity.apply(VERTICES[None]))[0]
        return scan_to_mesh(points, moved, TRIANGLES).numpy()

    better = least_squares(distances, np.zeros(6 + scale), diff_step=1e-5, max_nfev=15)
    assert (found.distances.numpy() ** 2).mean() <= (better.fun**2).mean() * (1 + 1e-4)


@settings(max_examples=8, deadline=None)
@given(st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-200, 200)] * 3), st.floats(0.01, 100))
def test_errors_do_not_depend_on_where_scan_and_mesh_are(turn, shift, size):
    """Both moved together, the start with them: the same distances, times the size."""
    points = sampled(400) + torch.from_numpy(np.random.default_rng(4).normal(size=(400, 3)))
    before = icp(points, SURFACE, STAY, scale=True).distances
    common = motion(turn, shift, size)
    surface = ScanToMesh(common.apply(VERTICES[None])[0], TRIANGLES)
    after = icp(common.apply(points[None])[0], surface, STAY, scale=True).distances
    torch.testing.assert_close(after / size, before, atol=5e-3, rtol=0)


class TestDegenerate:
    @pytest.mark.parametrize("scale", [False, True])
    def test_collinear(self, scale):
        """A motion, proper and finite, that is no worse than the start."""
        points = torch.linspace(-60, 60, 40).double()[:, None] * torch.tensor([1.0, 0.3, 0.0]).double() + 5
        found = icp(points, SURFACE, STAY, scale=scale)
        assert torch.linalg.det(found.similarity.rotation).item() == pytest.approx(1)
        assert found.distances.square().mean() <= scan_to_mesh(points, VERTICES, TRIANGLES).square().mean()

    def test_a_mirrored_face_stays_one(self):
        """The mirror image cannot be reached: a proper turn comes out, and an error remains."""
        found = icp(sampled() * torch.tensor([-1.0, 1.0, 1.0]), SURFACE, STAY, scale=True)
        assert torch.linalg.det(found.similarity.rotation).item() == pytest.approx(1)
        assert found.distances.mean() > 0.5


def egg() -> MorphableModel:
    """An egg with smooth bumps for identities and expressions; 68 of its vertices in front are the landmarks."""
    mesh = trimesh.creation.icosphere(subdivisions=4)
    ball = torch.tensor(mesh.vertices, dtype=torch.float32)
    waves = ((2.0, 0.3), (3.0, 1.1), (4.0, 2.0), (5.0, 0.7), (2.5, 2.9))
    bumps = torch.stack([ball * (f * ball @ torch.tensor([1.0, 0.6, 0.3]) + p).sin()[:, None] for f, p in waves])
    front = (ball[:, 2] > 0.3).nonzero()[:, 0]
    marks = Embedding.at(front[torch.linspace(0, len(front) - 1, 68).long()].tolist())
    mean = ball * torch.tensor([70.0, 95.0, 80.0])
    return MorphableModel("egg", mean, torch.tensor(mesh.faces), 5 * bumps[:3], 4 * bumps[3:], marks)


EGG = egg()
SHAPE = EGG.shape(torch.tensor([[1.5, -1.0, 0.8]]), torch.tensor([[0.7, -1.2]]))[0]
MARKS = EGG.landmarks.of(SHAPE)
POINTS = trimesh.sample.sample_surface(trimesh.Trimesh(SHAPE, EGG.triangles, process=False), 3000, seed=0)[0]
POINTS = torch.tensor(POINTS[POINTS[:, 2] > 0], dtype=torch.float32)


class TestFitSurface:
    @pytest.mark.parametrize(("size", "scale"), [(1.0, False), (1.0, True), (1.3, True)])
    def test_a_shape_of_the_span_is_found_wherever_it_lies(self, size, scale):
        move = motion((0.17, -0.35, 0.09), (30.0, -10.0, 200.0), size)
        aim, marks, shape = (move.apply(points[None])[0] for points in (POINTS, MARKS, SHAPE))
        found = fit_surface(EGG, aim, marks, scale=scale)
        away = scan_to_mesh(aim, found, EGG.triangles)
        assert away.mean() < 0.02 and away.max() < 0.3  # mm
        front = SHAPE[:, 2] > 0  # where the points lie
        torch.testing.assert_close(found[front], shape[front], atol=1.0, rtol=0)

    def test_a_size_that_may_not_change_is_kept(self):
        rigid = replace(EGG, identity_basis=torch.zeros(0, *EGG.mean.shape))
        found = fit_surface(rigid, 1.3 * POINTS, 1.3 * MARKS, scale=False, neutral=True)
        torch.testing.assert_close(found.std(0).norm(), rigid.mean.std(0).norm())

    def test_without_expressions_the_fit_is_worse(self):
        shapes = (fit_surface(EGG, POINTS, MARKS, neutral=neutral) for neutral in (False, True))
        whole, neutral = (scan_to_mesh(POINTS, shape, EGG.triangles).mean() for shape in shapes)
        assert neutral > whole + 0.1

    def test_no_face_at_all_does_no_harm(self):
        noise = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
        points = 90 * torch.nn.functional.normalize(noise, dim=1) + 20 * noise
        start, found = EGG.mean, fit_surface(EGG, points, EGG.landmarks.of(EGG.mean))
        assert scan_to_mesh(points, found, EGG.triangles).mean() < scan_to_mesh(points, start, EGG.triangles).mean()

    def test_points_far_off_the_face_pull_less_than_by_their_square(self, monkeypatch):
        hair = POINTS[POINTS[:, 1] > 60][::5] + torch.tensor([0.0, 40.0, 0.0])
        both = torch.cat([POINTS, hair])
        held = scan_to_mesh(POINTS, fit_surface(EGG, both, MARKS), EGG.triangles).median()
        monkeypatch.setattr("facenb.evaluation.registration.ROBUST", 1e9)
        assert held < 0.2 * scan_to_mesh(POINTS, fit_surface(EGG, both, MARKS), EGG.triangles).median()

    def test_components_that_are_alike_or_empty_do_no_harm(self):
        basis = EGG.identity_basis
        model = replace(EGG, identity_basis=torch.cat([basis, basis[:1], torch.zeros_like(basis[:1])]))
        assert scan_to_mesh(POINTS, fit_surface(model, POINTS, MARKS), EGG.triangles).mean() < 0.05

    def test_points_in_metres(self):
        with pytest.raises(ValueError, match="the scan is not in mm"):
            fit_surface(EGG, POINTS / 1000, MARKS / 1000)
