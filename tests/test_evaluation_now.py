"""The NoW protocol on heads whose errors are known beforehand; its table against numpy; the cases that go wrong."""

import numpy as np
import pytest
import torch
import trimesh
from scipy import stats
from scipy.spatial.transform import Rotation
from test_scan_to_mesh import scan_to_mesh

from facenb.errors import LandmarkError
from facenb.evaluation.now import SEVEN, crop_scan, now_errors, now_table, pooled_intervals, unit_of
from facenb.morphable.alignment import similarity

LANDMARKS = torch.tensor(
    [[-45.0, 35, 45], [-16, 33, 55], [16, 33, 55], [45, 35, 45], [0, -12, 85], [-25, -38, 65], [25, -38, 65]]
)


def head(grow: float = 0.0, subdivisions: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """An ellipsoid with a nose; `grow` mm larger along its normals."""
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    vertices = np.array(mesh.vertices) * [70, 95, 80]
    vertices[:, 2] += 15 * np.exp(-(((vertices - [3, 0, 80]) ** 2).sum(1)) / 18**2)
    vertices[:, 0] += 6 * np.exp(-(((vertices - [30, -50, 55]) ** 2).sum(1)) / 20**2)
    mesh = trimesh.Trimesh(vertices, mesh.faces, process=False)
    return torch.from_numpy(vertices + grow * mesh.vertex_normals), torch.from_numpy(np.array(mesh.faces))


HEAD, TRIANGLES = head()


def moved(points: torch.Tensor, turn=(0.3, -0.4, 0.2), shift=(40.0, -20.0, 300.0), scale=1.0) -> torch.Tensor:
    rotation = torch.from_numpy(Rotation.from_rotvec(turn).as_matrix()).to(points.dtype)
    return scale * points @ rotation.T + torch.tensor(shift).to(points.dtype)


def errors(vertices, landmarks=LANDMARKS, triangles=TRIANGLES, **options):
    return now_errors(HEAD, LANDMARKS, vertices, triangles, landmarks, **options)


class TestErrors:
    def test_the_seven(self):
        """Eye corners, the nose's bottom, the mouth's corners of iBUG's 68."""
        assert SEVEN == (36, 39, 42, 45, 33, 48, 54)

    def test_a_moved_prediction_has_none(self):
        for metrical in (False, True):
            found = errors(moved(HEAD), moved(LANDMARKS), metrical=metrical)
            assert found.distances.max() < 2e-3

    def test_size_is_not_left_in(self):
        """20 % too small: no error where the size is free, a clear one in the metrical variant."""
        small, marks = moved(HEAD, scale=0.8), moved(LANDMARKS, scale=0.8)
        assert errors(small, marks).distances.max() < 2e-3
        assert errors(small, marks, metrical=True).distances.mean() > 3

    def test_only_the_crop_counts(self):
        vertices = HEAD.clone()
        vertices[vertices[:, 2] < -40] *= 0.5
        assert errors(moved(vertices), moved(LANDMARKS)).distances.max() < 2e-3

    def test_refined_beyond_the_landmarks(self):
        """Landmarks a few mm off shift the Procrustes alignment; the refinement takes that away again."""
        marks = moved(LANDMARKS) + torch.from_numpy(np.random.default_rng(0).normal(size=(7, 3)) * 3).float()
        place = similarity(marks[None].double(), LANDMARKS[None].double())
        found = errors(moved(HEAD), marks)
        before = scan_to_mesh(HEAD[found.inside], place.apply(moved(HEAD)[None])[0], TRIANGLES)
        assert before.mean() > 0.3 and found.distances.max() < 0.01


class TestCrop:
    def test_sphere(self):
        """Centre a third up the nose, radius 0.7 of eyes and nose, computed by hand."""
        bottom, bridge = np.array([0, -12.0, 85]), np.array([0, 33.0, 55])
        radius = 0.7 * (90 + np.linalg.norm(bridge - bottom))
        expected = np.linalg.norm(HEAD.numpy() - (bottom + 0.3 * (bridge - bottom)), axis=1) <= radius
        np.testing.assert_array_equal(crop_scan(HEAD, LANDMARKS).numpy(), expected)

    def test_empty(self):
        with pytest.raises(ValueError, match=r"crop of 100.\d+ mm .* is empty: the nearest of 2562 .* is .* mm away"):
            crop_scan(HEAD + 5000, LANDMARKS)


class TestUnits:
    @pytest.mark.parametrize("unit, size", [("mm", 1.0), ("cm", 0.1), ("m", 0.001), ("unknown", 30.0)])
    def test_told_by_the_eyes(self, unit, size):
        assert unit_of(LANDMARKS * size) == unit

    @pytest.mark.parametrize("unit, size", [("cm", 0.1), ("m", 0.001)])
    def test_metrical_with_the_unit_said(self, unit, size):
        found = errors(moved(HEAD) * size, moved(LANDMARKS) * size, metrical=True, unit=unit)
        assert found.distances.max() < 2e-3
        assert found.registration.similarity.scale.item() == pytest.approx(1 / size)

    @pytest.mark.parametrize(
        ("vertices", "landmarks", "unit", "message"),
        [
            (0.001, 0.001, "mm", "0.09 apart, so its unit seems to be m, not mm; .* pass unit='m'"),
            (30, 30, "mm", "its unit seems to be unknown, not mm"),
            (1, 1, "inch", "no unit 'inch'"),
            (0.001, 1, "mm", "the prediction .in mm by its landmarks. is not in mm"),
            (1, 0.001, "m", "the prediction .in m by its landmarks. is not in mm"),
        ],
    )
    def test_another_unit_than_said(self, vertices, landmarks, unit, message):
        with pytest.raises(ValueError, match=message):
            errors(HEAD * vertices, LANDMARKS * landmarks, metrical=True, unit=unit)

    @pytest.mark.parametrize(
        ("landmarks", "message"),
        [(0.001, "eye corners are 0.09 apart, so its unit seems to be m, not mm"), (1, "the scan is not in mm")],
    )
    def test_a_scan_in_metres(self, landmarks, message):
        with pytest.raises(ValueError, match=message):
            now_errors(HEAD * 0.001, LANDMARKS * landmarks, HEAD, TRIANGLES, LANDMARKS)


class TestBadInput:
    def test_triangles_of_another_topology(self):
        with pytest.raises(ValueError, match="triangles belong to this mesh"):
            errors(HEAD[:1000])

    @pytest.mark.parametrize("whose", ["scan", "mesh"])
    def test_vertices_not_finite(self, whose):
        broken = HEAD.clone()
        broken[3] = torch.nan
        scan, vertices = (broken, HEAD) if whose == "scan" else (HEAD, broken)
        with pytest.raises(ValueError, match=f"vertex 3 of the {whose} is not finite"):
            now_errors(scan, LANDMARKS, vertices, TRIANGLES, LANDMARKS)

    @pytest.mark.parametrize("whose", ["scan", "prediction"])
    def test_landmarks_not_finite(self, whose):
        marks = LANDMARKS.clone()
        marks[4, 0] = torch.nan
        both = (marks, LANDMARKS) if whose == "scan" else (LANDMARKS, marks)
        with pytest.raises(LandmarkError, match=f"landmark 4 of the {whose} is not finite"):
            now_errors(HEAD, both[0], HEAD, TRIANGLES, both[1])

    def test_landmarks_all_alike(self):
        with pytest.raises(LandmarkError, match="all equal"):
            errors(HEAD, torch.ones(7, 3))


NAMES = ["a/multiview_neutral/1.jpg", "a/selfie/2.jpg", "b/multiview_neutral/1.jpg", "b/multiview_occlusions/3.jpg"]


def distances(seed: int = 0) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)
    return {name: torch.from_numpy(random.gamma(2, 0.8, size=50 + 30 * row)) for row, name in enumerate(NAMES)}


class TestTable:
    def test_pooled_over_all_vertices(self):
        """Against numpy; not the mean of the images' means, which counts a small crop like a large one."""
        values = distances()
        table = now_table(NAMES, values)
        pooled = np.concatenate([values[name].numpy() for name in NAMES])
        assert (table.all.median, table.all.mean, table.all.std) == pytest.approx(
            (np.median(pooled), pooled.mean(), pooled.std())
        )
        assert table.all.images == 4 and table.all.missed == 0 and not table.missing

    def test_by_condition(self):
        values = distances()
        table = now_table(NAMES, values)
        assert list(table.conditions) == ["multiview_neutral", "multiview_occlusions", "selfie"]
        both = np.concatenate([values[NAMES[0]], values[NAMES[2]]])
        assert table.conditions["multiview_neutral"].median == pytest.approx(np.median(both))
        assert table.conditions["selfie"].mean == pytest.approx(values[NAMES[1]].mean().item())

    def test_curve_is_the_share_of_vertices(self):
        table = now_table(NAMES, distances())
        thresholds, share = table.all.curve()
        pooled = np.concatenate([values.numpy() for values in distances().values()])
        assert thresholds[0] == 0 and thresholds[-1] == 8
        np.testing.assert_allclose(share, [(pooled <= limit).mean() for limit in thresholds.numpy()])


class TestMissing:
    def without(self, *names):
        return {name: values for name, values in distances().items() if name not in names}

    def test_stops_the_score_by_name(self):
        with pytest.raises(ValueError, match="1 of 4 images have no prediction: a/selfie/2.jpg"):
            now_table(NAMES, self.without("a/selfie/2.jpg"))

    def test_allowed_it_is_counted_beside(self):
        table = now_table(NAMES, self.without("a/selfie/2.jpg"), allow_missing=True)
        assert table.missing == ("a/selfie/2.jpg",)
        assert (table.all.images, table.all.missed) == (3, 1)
        assert table.conditions["selfie"].missed == 1 and np.isnan(table.conditions["selfie"].median)
        assert table.all.curve()[1][-1] == pytest.approx(3 / 4)  # in the curve it is a failure
        assert now_table(NAMES, distances()).all.curve()[1][-1] == 1

    def test_everything(self):
        table = now_table(NAMES, {}, allow_missing=True)
        assert np.isnan(table.all.mean) and table.all.missed == 4 and (table.all.curve()[1] == 0).all()

    def test_nan_is_no_prediction(self):
        values = distances()
        values[NAMES[0]][3] = torch.nan
        with pytest.raises(ValueError, match=f"distances of {NAMES[0]} are empty or not finite"):
            now_table(NAMES, values)

    def test_an_image_that_is_not_in_the_list(self):
        with pytest.raises(ValueError, match="c/selfie/1.jpg, which is not in the list"):
            now_table(NAMES, distances() | {"c/selfie/1.jpg": torch.ones(3)})

    @pytest.mark.parametrize("names", [[], [NAMES[0], NAMES[0]]])
    def test_lists_without_or_with_one_twice(self, names):
        with pytest.raises(ValueError, match="each image once"):
            now_table(names, {})


class TestPooledIntervals:
    def test_figures_are_those_of_the_table(self):
        many = {f"{who}/selfie/1.jpg": values for who, values in enumerate(distances(3).values())}
        row, found = now_table(list(many), many).all, pooled_intervals(many)
        for name in ("median", "mean", "std"):
            assert found[name].value == pytest.approx(getattr(row, name), abs=0.02)

    def test_a_person_is_drawn_whole(self):
        """The mean's interval is nearly Student's of the people's own means where all have as many points."""
        own = torch.arange(12.0).double() / 4
        many = {f"{who}/selfie/{k}.jpg": value.repeat(5) for who, value in enumerate(own) for k in range(3)}
        found = pooled_intervals(many)["mean"]
        half = stats.t.ppf(0.975, 11) * float(own.std()) / 12**0.5
        assert found.subjects == 12
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)

    def test_one_person(self):
        with pytest.raises(ValueError, match="needs at least two people, got 1"):
            pooled_intervals({"a/selfie/1.jpg": torch.ones(3), "a/selfie/2.jpg": torch.ones(4)})
