"""Pictures of scans: where a known point appears, what the texture shows there, landmarks laid back on a surface."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from facenb.datasets.scans import views as scan_views
from facenb.datasets.scans.open_scans import SCANS, marked, prepared, seen_from_outside, to_front
from facenb.datasets.scans.views import BEHIND, camera_of, mark, render_views
from facenb.errors import LandmarkError
from facenb.morphable.alignment import similarity
from facenb.morphable.mesh import Scan
from facenb.photos.landmarks import IBUG68
from facenb.synthface import SynthFace


@pytest.fixture(scope="module")
def ball() -> Scan:
    """A sphere of 80 mm with its landmarks all round the front."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=80.0)
    at = torch.linspace(-1, 1, 68)
    at[[0, 36]], at[[45, 67]] = at[[36, 0]], at[[67, 45]]  # the eye corners lie outermost
    points = torch.stack([60 * at, 30 * (5 * at).sin(), torch.zeros(68)], 1)
    points[:, 2] = (80.0**2 - points.square().sum(1)).sqrt()
    vertices, triangles = torch.tensor(mesh.vertices, dtype=torch.float32), torch.tensor(mesh.faces)
    return Scan("ball", vertices, triangles, "mm", points)


def seen(images):
    """Where something else than the background is seen."""
    return ((images - torch.tensor(BEHIND)).abs() > 0.01).any(-1)


def test_positive_yaw_turns_the_nose_to_the_right():
    """Of a spike towards the viewer."""
    vertices = torch.tensor([[0.0, -9, 0], [0, 9, 0], [0, 0, 120]])
    scan = Scan("nose", vertices, torch.tensor([[0, 1, 2], [1, 0, 2]]), "mm", vertices[:1].repeat(68, 1) * 0)
    images = render_views(scan, (-40, 40), (80, 120))
    assert images.shape == (2, 80, 120, 3)
    for image, left in zip(seen(images), (True, False), strict=True):
        columns = image.any(0).nonzero()[:, 0].float()
        assert len(columns) > 20 and (columns.mean() < 55 if left else columns.mean() > 65)


def test_the_image_of_a_ball_is_a_disc_of_its_size(ball):
    images = render_views(ball, (0.0,), (215, 215))  # one pixel a mm
    assert int(seen(images).sum()) == pytest.approx(np.pi * 80**2, rel=0.015)


def test_a_texture_is_shown_where_its_uv_say_and_the_right_way_up(tmp_path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:32, :, 0], pixels[32:, :, 2] = 255, 255  # red above, blue below
    pixels[:, 32:, 1] = 255  # green on the right
    Image.fromarray(pixels).save(tmp_path / "paint.png")
    vertices = torch.tensor([[-50.0, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]])
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
    scan = Scan("square", vertices, triangles, "mm", None, uv, triangles, tmp_path / "paint.png")
    image = render_views(scan, (0.0,), (64, 64))[0]
    for row, column, colour in ((20, 20, [1, 0, 0]), (20, 44, [1, 1, 0]), (48, 20, [0, 0, 1]), (48, 44, [0, 1, 1])):
        torch.testing.assert_close(image[row, column], torch.tensor(colour, dtype=torch.float32))


class TestMark:
    @pytest.fixture
    def sees(self, monkeypatch):
        """A detector that finds the places (68, 3) it is told, wherever the scan shows them: `sees(places)`."""
        shown, plain = {}, scan_views._look

        def remember(scan, field):
            shown.update(scan=scan, field=field)
            return plain(scan, field)

        def told(places):
            def detect(image, closer):
                camera = camera_of(shown["scan"], (0.0,), image.shape[:2], shown["field"])
                points = torch.zeros(478, 2)
                points[list(IBUG68)] = camera.project(places[None])[0, :, :2]
                return points[None]

            monkeypatch.setattr(scan_views, "detect", detect)

        monkeypatch.setattr(scan_views, "_look", remember)
        return told

    def test_points_of_the_picture_come_back_to_the_surface(self, ball, sees):
        """A detector that sees known places of the ball: the marks are these places."""
        sees(ball.landmarks)
        found = mark(replace(ball, landmarks=None))
        torch.testing.assert_close(found, ball.landmarks, atol=0.6, rtol=0)  # one pixel is 0.3 mm

    def test_what_falls_past_the_jaw_or_through_a_hole_is_put_on_the_skin(self, ball, sees):
        """A ball with a hole before a wall: the marks in the hole and off the ball's rim must not lie on the wall."""
        wall = torch.tensor([[-200.0, -200, -150], [200, -200, -150], [200, 200, -150], [-200, 200, -150]])
        corners = ball.triangles[((ball.vertices - ball.landmarks[60]).norm(dim=1) > 3)[ball.triangles].all(1)]
        more = torch.tensor([[0, 1, 2], [0, 2, 3]]) + len(ball.vertices)
        scan = replace(ball, vertices=torch.cat([ball.vertices, wall]), triangles=torch.cat([corners, more]))
        rim = torch.tensor([0.0, -82.0, 0.0])

        sees(torch.cat([ball.landmarks[:8], rim[None], ball.landmarks[9:]]))
        found = mark(scan)
        assert found[:, 2].min() > -20 and found[60, 2] > ball.landmarks[60, 2] - 10

    def test_where_no_face_is_seen_the_scan_is_named(self, ball, monkeypatch):
        nothing = torch.zeros(0, 478, 2)
        monkeypatch.setattr("facenb.datasets.scans.views.detect", lambda image, closer: nothing)
        with pytest.raises(LandmarkError, match="No face is seen on the scan ball"):
            mark(ball)


class TestFrame:
    def test_a_head_turned_away_comes_back(self):
        synth = SynthFace()
        marks = synth.landmarks.of(synth.mean)
        scan = Scan("head", synth.mean, synth.triangles, "mm", marks)
        turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
        turn = turn * torch.linalg.det(turn)
        away = replace(scan, vertices=2 * scan.vertices @ turn + 50, landmarks=2 * marks @ turn + 50)
        back = to_front(replace(away, unit="unknown"))
        rotation = similarity(back.vertices[None], synth.mean[None]).rotation[0]
        torch.testing.assert_close(rotation, torch.eye(3).double(), atol=1e-4, rtol=0)
        assert float((back.landmarks[36] - back.landmarks[45]).norm()) == pytest.approx(90, abs=1e-3)
        kept = to_front(away)
        twice = 2 * float((marks[36] - marks[45]).norm())
        assert float((kept.landmarks[36] - kept.landmarks[45]).norm()) == pytest.approx(twice, rel=1e-5)

    def test_what_lies_inside_is_not_seen(self):
        outer, inner = (trimesh.creation.icosphere(subdivisions=3, radius=r) for r in (80.0, 40.0))
        vertices = torch.tensor(np.concatenate([outer.vertices, inner.vertices]), dtype=torch.float32)
        triangles = torch.tensor(np.concatenate([outer.faces, inner.faces + len(outer.vertices)]))
        seen = seen_from_outside(vertices, triangles)
        assert not seen[len(outer.faces) :].any() and seen[: len(outer.faces)].float().mean() > 0.7


@pytest.mark.parametrize("name", SCANS)
def test_the_real_ones_look_at_the_viewer(real_asset, name):
    pytest.importorskip("mediapipe")
    found = prepared(name, real_asset(SCANS[name][0]))
    scan, marks = found.scan, found.scan.landmarks
    assert 75 < float((marks[36] - marks[45]).norm()) < 110  # mm
    assert marks[36, 0] < marks[45, 0] and marks[27, 1] > marks[30, 1] > marks[57, 1] > marks[8, 1]
    assert marks[30, 2] > marks[[36, 45, 48, 54], 2].max()  # the nose stands out
    away = torch.cdist(marks, scan.vertices).amin(1)
    assert away.median() < 2.5
    jaw, middle = marks[:17, 2], marks[48:68, 2].mean()
    assert (jaw > middle - 130).all() and (marks[48:68, 2] > middle - 25).all()  # not on the neck, nor in the mouth
    assert seen(render_views(scan, (-30, 0, 30), (96, 96))).flatten(1).float().mean(1).min() > 0.2
    a, b, c = (scan.vertices[scan.triangles[:, k]] for k in range(3))
    front = torch.linalg.cross(b - a, c - a)[:, 2]
    near = (a - marks[30]).norm(dim=1) < 50
    assert (front[near] > 0).float().mean() > 0.85  # triangles face outwards


def test_a_scan_of_micc_or_bu3dfe_gets_its_landmarks_where_a_detector_is(real_asset):
    """The scan of james without his landmarks, tilted: marked anew, they lie within millimetres of his own."""
    pytest.importorskip("mediapipe")
    own = prepared("james", real_asset("scan-james")).scan
    turn = torch.from_numpy(Rotation.from_euler("yxz", [12, -8, 5], degrees=True).as_matrix()).float()
    found = marked(replace(own, vertices=own.vertices @ turn.T + 30, landmarks=None))
    inner = slice(17, 68)
    away = (found.landmarks - own.landmarks)[inner].norm(dim=1)
    assert away.median() < 5 and away.max() < 14  # mm; two who mark the same face differ by about 2
