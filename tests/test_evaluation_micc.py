"""Errors of a surface against a scan: closed forms on spheres and planes, and what is missing is never skipped."""

import math
from dataclasses import replace

import pytest
import torch
import trimesh
from helpers import tensors
from scipy.spatial.transform import Rotation

from facenb.datasets.scans.bu3dfe import pose_set, read_bu3dfe
from facenb.datasets.scans.views import render_views
from facenb.errors import LandmarkError
from facenb.evaluation.micc import ScanErrors, by_yaw, crop_points, pool_frames, scan_errors
from facenb.synthface import SynthFace


def sphere(radius: float, subdivisions: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    return tensors(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))


def marks(radius: float) -> torch.Tensor:
    """68 places on the front of a sphere, 30 the one nearest to the viewer."""
    turn, out = torch.arange(68) * 2.4, torch.linspace(0.1, 0.8, 68)
    points = torch.stack([out * turn.cos(), out * turn.sin(), (1 - out.square()).sqrt()], 1)
    points[30] = torch.tensor([0.0, 0.0, 1.0])
    return radius * points


def moved(points: torch.Tensor, size: float = 1.0, degrees: float = 25.0) -> torch.Tensor:
    turn = torch.from_numpy(Rotation.from_rotvec([0, degrees, 10], degrees=True).as_matrix()).float()
    return size * points @ turn.T + torch.tensor([5.0, 40.0, -300.0])


@pytest.fixture(scope="module")
def scan():
    return sphere(80.0, 5)[0]


def test_a_sphere_against_a_larger_one_is_off_by_the_difference(scan):
    vertices, triangles = sphere(83.0)
    errors = scan_errors(scan, marks(80.0), vertices, triangles, marks(80.0))  # the landmarks agree: nothing moves
    assert errors.mean == pytest.approx(3.0, abs=0.1) and errors.rms == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("align", ["procrustes", "icp"])
def test_a_surface_that_was_moved_is_brought_back(scan, align):
    vertices, triangles = sphere(80.0)
    errors = scan_errors(scan, marks(80.0), moved(vertices), triangles, moved(marks(80.0)), align)
    assert errors.distances.max() < 0.15  # the facets of the mesh


def test_distances_are_to_the_surface_not_to_its_vertices(scan):
    vertices, triangles = sphere(80.0, 1)  # 42 vertices: facets with sides of 45 mm
    errors = scan_errors(scan, marks(80.0), vertices, triangles, marks(80.0))
    to_vertices = torch.cdist(crop_points(scan, marks(80.0)[30]), vertices).amin(1).mean()
    assert errors.mean < 6 < 12 < to_vertices


def test_a_wrong_size_counts_only_where_scale_is_not_free(scan):
    vertices, triangles = sphere(80.0)
    args = scan, marks(80.0), moved(vertices, 1.1), triangles, moved(marks(80.0), 1.1)
    assert scan_errors(*args).mean < 0.1
    assert scan_errors(*args, scale=False).mean > 2
    assert scan_errors(*args, "icp").mean > 1 and scan_errors(*args, "icp", scale=True).mean < 0.1


def test_icp_takes_away_what_the_landmarks_left(scan):
    """Landmarks of the prediction that are all 6 mm too low: a sphere shifted by 6 mm is back after ICP."""
    vertices, triangles = sphere(80.0)
    args = scan, marks(80.0), vertices, triangles, marks(80.0) + torch.tensor([0.0, -6.0, 0.0])
    assert scan_errors(*args).mean > 1.5
    assert scan_errors(*args, "icp").mean < 0.5


def test_only_points_about_the_nose_tip_count(scan):
    vertices, triangles = sphere(80.0)
    spoilt = torch.where(((scan - marks(80.0)[30]).norm(dim=1) > 95)[:, None], 3 * scan, scan)
    errors = scan_errors(spoilt, marks(80.0), vertices, triangles, marks(80.0))
    assert errors.distances.max() < 0.15 and len(errors.distances) < len(scan)
    share = len(errors.distances) / len(scan)
    assert share == pytest.approx(95**2 / (4 * 80**2), rel=0.05)  # a cap of that chord (Archimedes)


class TestBadInput:
    def test_a_scan_far_from_its_nose_tip(self, scan):
        vertices, triangles = sphere(80.0, 2)
        with pytest.raises(ValueError, match="no point of the scan lies within 95"):
            scan_errors(scan + 1000, marks(80.0) + 500, vertices, triangles, marks(80.0))

    @pytest.mark.parametrize("factor", [0.001, 1000.0])
    def test_another_unit(self, scan, factor):
        vertices, triangles = sphere(80.0, 2)
        with pytest.raises(ValueError, match="the scan is not in mm"):
            scan_errors(factor * scan, marks(factor * 80.0), vertices, triangles, marks(80.0))
        other = factor * vertices, triangles, marks(factor * 80.0)
        for options in ({"align": "icp"}, {"scale": False}):
            with pytest.raises(ValueError, match="the prediction is not in mm"):
                scan_errors(scan, marks(80.0), *other, **options)
        free, plain = (scan_errors(scan, marks(80.0), *one) for one in (other, (vertices, triangles, marks(80.0))))
        assert free.mean == pytest.approx(plain.mean, abs=1e-3)  # the size is left free: nothing to refuse

    def test_landmarks_alike_and_no_nose_tip(self, scan):
        vertices, triangles = sphere(80.0, 2)
        with pytest.raises(LandmarkError, match="all equal"):
            scan_errors(scan, marks(80.0), vertices, triangles, torch.zeros(68, 3))
        with pytest.raises(LandmarkError, match="all equal"):
            scan_errors(scan, marks(80.0)[30].expand(68, 3), vertices, triangles, marks(80.0))

    def test_an_unknown_alignment(self, scan):
        vertices, triangles = sphere(80.0, 2)
        with pytest.raises(ValueError, match="procrustes, icp"):
            scan_errors(scan, marks(80.0), vertices, triangles, marks(80.0), "best")


class TestPool:
    def test_frames_become_the_mean_of_each_subject(self):
        values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [10.0, 10.0]])
        pooled = pool_frames(values, ["b", "b", "a"])
        assert pooled.subjects == ("b", "a") and pooled.frames == (2, 1) and pooled.missing == (0, 0)
        assert pooled.values.tolist() == [[2.0, 3.0], [10.0, 10.0]]
        shapes = torch.arange(24.0).view(4, 2, 3)
        torch.testing.assert_close(pool_frames(shapes, list("xxyy")).values[1], shapes[2:].mean(0))

    def test_a_missing_frame_stops_it_unless_it_may_be_missing(self):
        values = torch.tensor([[1.0], [math.nan], [5.0]])
        with pytest.raises(ValueError, match=r"without a prediction: a \(1\)"):
            pool_frames(values, ["a", "a", "b"])
        pooled = pool_frames(values, ["a", "a", "b"], allow_missing=True)
        assert pooled.values.tolist() == [[1.0], [5.0]] and pooled.missing == (1, 0)
        with pytest.raises(ValueError, match="b has no frame"):
            pool_frames(values.flip(0)[[1, 2]], ["b", "a"], allow_missing=True)


def of(value: float) -> ScanErrors:
    return ScanErrors(torch.tensor([value, value, 2 * value]))


class TestTables:
    def test_both_signs_of_yaw_share_a_row_and_avg_is_the_mean_of_rows(self):
        errors = {(name, yaw): of(1.0 + abs(yaw) / 10) for name in ("a", "b") for yaw in (-90, 0, 90)}
        table = by_yaw(["a", "b"], (-90, 0, 90), errors)
        assert table.index.tolist() == ["90", "0", "avg"]
        assert table.loc["90", "pictures"] == 4 and table.loc["0", "pictures"] == 2
        assert table.loc["0", "mean"] == pytest.approx(4 / 3) and table.loc["0", "rms"] == pytest.approx(math.sqrt(2))
        assert table.loc["avg", "mean"] == pytest.approx((table.loc["90", "mean"] + table.loc["0", "mean"]) / 2)

    def test_a_missing_picture_stops_the_table_or_is_counted(self):
        errors = {("a", 0): of(1.0), ("a", 90): of(1.0), ("b", 0): of(1.0)}
        with pytest.raises(ValueError, match="b at 90 degrees"):
            by_yaw(["a", "b"], (0, 90), errors)
        table = by_yaw(["a", "b"], (0, 90), errors, allow_missing=True)
        assert table.loc["90", "missing"] == 1 and table.loc["0", "missing"] == 0 and table.loc["avg", "missing"] == 1


@pytest.fixture(scope="module")
def heads():
    synth = SynthFace()
    return synth, synth.neutrals([0, 1])


class TestOfficialLayouts:
    """From files to the table, with heads of SynthFace in the place of scans and the truth, or less, as prediction."""

    def test_bu3dfe_by_yaw(self, heads, tmp_path):
        synth, shapes = heads
        for person, shape in zip(("F0001", "M0001"), shapes, strict=True):
            points = ",\n".join(" ".join(f"{value:.4f}" for value in row) for row in shape.tolist())
            corners = ",\n".join(",".join(map(str, row)) + ",-1" for row in synth.triangles.tolist())
            (tmp_path / person).mkdir()
            (tmp_path / person / f"{person}_NE00WH_F3D.wrl").write_text(
                f"#VRML V2.0 utf8\nShape {{ geometry IndexedFaceSet {{ coord Coordinate {{ point [\n{points} ] }}\n"
                f"coordIndex [\n{corners} ] }} }}"
            )
        people = {one.person: one.scan() for one in pose_set(read_bu3dfe(tmp_path))}
        errors = {}
        for (person, scan), true in zip(people.items(), shapes, strict=True):
            landmarks = synth.landmarks.of(true)
            images = render_views(replace(scan, landmarks=landmarks), (-30, 0, 30), (64, 64))
            for yaw, image in zip((-30, 0, 30), images, strict=True):
                assert image.std() > 0.05  # a face is there to be predicted from
                guess = true if yaw == 0 else shapes.mean(0)
                args = scan.vertices, landmarks, moved(guess), synth.triangles, moved(synth.landmarks.of(guess))
                errors[person, yaw] = scan_errors(*args)
        table = by_yaw(list(people), (-30, 0, 30), errors)
        assert table.loc["0", "mean"] < 1e-3 < 0.5 < table.loc["30", "mean"] < 5
        assert table["pictures"].tolist() == [4, 2, 6]
