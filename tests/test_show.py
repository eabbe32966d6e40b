"""What a person looks at: pictures are drawn where they should be, live views move, and a picture is left behind."""

import io

import matplotlib.pyplot as plt
import nbclient
import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import trimesh
from helpers import tensors
from PIL import Image

from facenb import show
from facenb.imaging.texture import Texture
from facenb.training import Progress


@pytest.fixture(scope="module")
def ball():
    return tensors(trimesh.creation.icosphere(3, radius=50.0))


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_a_snapshot_of_a_ball_fills_the_disc_it_should(ball):
    picture = show.snapshot(*ball, size=100, extent=200.0)
    drawn = (picture < 0.999).any(-1)
    assert drawn.sum() == pytest.approx(np.pi * 25**2, rel=0.03)  # radius 50 mm at 0.5 pixels a mm
    rows, columns = np.nonzero(drawn)
    assert rows.mean() == pytest.approx(49.5, abs=0.3) and columns.mean() == pytest.approx(49.5, abs=0.3)


def test_a_snapshot_turns_as_the_camera_says(ball):
    vertices, triangles = ball
    colours = torch.where(vertices[:, 2:] > 40, torch.tensor([1.0, 0, 0]), torch.tensor([0.0, 0, 1]))
    picture = show.snapshot(vertices, triangles, colours, yaw=60, size=100)
    red = np.nonzero((picture[..., 0] > 0.2) & (picture[..., 2] < 0.1))
    assert red[1].mean() > 70  # the nose goes to the right


def test_a_snapshot_with_a_texture_of_one_colour_is_that_of_vertices_of_this_colour(ball):
    vertices, triangles = ball
    red = torch.tensor([0.8, 0.2, 0.1])
    texture = Texture(red.expand(1, 4, 4, 3), torch.rand(len(vertices), 2), triangles)
    pictures = [show.snapshot(vertices, triangles, colours, size=60) for colours in (texture, red.expand_as(vertices))]
    np.testing.assert_allclose(*pictures, atol=1e-5)


def test_vertices_of_another_shape_are_named(ball):
    with pytest.raises(ValueError, match=r"vertices must be .* got \(2, 5, 3\)"):
        show.snapshot(torch.zeros(2, 5, 3), ball[1])


def test_error_colours_follow_the_map_to_its_ends():
    colours = show.colour_by([-1.0, 0.0, 2.0, 9.0], 0.0, 2.0).numpy()
    ends = [plt.get_cmap("viridis")(end)[:3] for end in (0.0, 1.0)]
    assert np.allclose(colours[:2], ends[0]) and np.allclose(colours[2:], ends[1])


def test_landmarks_fall_on_the_middle_of_their_pixel():
    fig, axis = plt.subplots()
    show.draw_landmarks(axis, [[10.5, 20.5], [1.5, 2.5]], visible=[True, False])
    assert axis.collections[0].get_offsets().tolist() == [[10.0, 20.0]]
    assert axis.collections[1].get_offsets().tolist() == [[1.0, 2.0]]
    plt.close(fig)


def test_a_view_is_live_with_a_kernel_and_leaves_a_picture(ball, monkeypatch):
    monkeypatch.delenv("FACENB_HEADLESS", raising=False)
    view = show.view("ball", *ball)
    bundle = view._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle and bundle["text/plain"] == "3D view: ball"
    assert len(np.unique(opened(bundle["image/png"]).reshape(-1, 3), axis=0)) > 50
    monkeypatch.setenv("FACENB_HEADLESS", "1")
    assert set(view._repr_mimebundle_()) == {"text/plain", "image/png"}


def test_a_slider_moves_the_mesh_and_its_colours(ball):
    vertices, triangles = ball

    def stretched(tall, wide):
        scale = torch.tensor([1 + wide, 1 + tall, 1.0])
        return vertices * scale, torch.full_like(vertices, 0.5 + tall / 10)

    view = show.explore("stretch", stretched, triangles, {"tall": (-0.5, 1), "wide": (0, 1)}, [{"tall": 1}])
    controls, stage = view.widget.children
    mesh = stage.children[0].objects[0]
    assert np.allclose(mesh.vertices, vertices)
    controls.children[0].value = 1.0
    assert np.allclose(mesh.vertices, vertices * torch.tensor([1.0, 2.0, 1.0]))
    assert hex(int(mesh.colors[0])) == "0x999999"


def at(step: int, loss: float, **more) -> Progress:
    known = {"validation": {}, "rate": 0.1, "images_per_second": 830.0, "waiting": 0.0, "seconds": 9.0}
    known |= {"seconds_left": 40.0} | more
    return Progress(step=step, steps=1000, losses={"loss": loss}, **known)


def curves(live: show.Live) -> list[dict[str, list]]:
    """For each axes its lines' points, by name; the dots under the name of their colour's line and a star."""
    fig = live.figure("now")
    found = []
    for axis in fig.axes:
        name_of = {line.get_color(): line.get_label() for line in axis.lines if not line.get_label().startswith("_")}
        found.append(
            {
                name_of[line.get_color()] + "*" * line.get_label().startswith("_"): line.get_xydata().tolist()
                for line in axis.lines
            }
        )
    plt.close(fig)
    return found


def test_a_live_training_is_drawn_as_it_was_told():
    live = show.Live("phase")
    live(at(10, 8.0))
    live(at(20, 4.0, validation={"loss": 5.0, "accuracy": 0.5}))
    live(at(30, 2.0))
    left, right = curves(live)
    assert left == {"loss": [[10, 8], [20, 4], [30, 2]], "loss*": [[20, 5]]} and right == {"accuracy": [[20, 0.5]]}


def test_a_finished_training_is_drawn_from_its_log():
    live = show.Live("phase")
    live.finish(pd.DataFrame())  # nothing there yet
    table = {"step": [5, 10], "rate": [1.0, 0.5], "loss": [3.0, 1.0]}
    table |= {"validation loss": [np.nan, 2.0], "images_per_second": [9.0, 9.0], "waiting": [0.0, 0.0]}
    live.finish(pd.DataFrame(table | {"seconds": [1.0, 2.0]}))
    assert curves(live) == [{"loss": [[5, 3], [10, 1]], "loss*": [[10, 2]]}]


@pytest.mark.parametrize(("losses", "scale"), [((9.0, 1.0), "log"), ((1.2, 1.0), "linear"), ((9.0, -1.0), "linear")])
def test_a_loss_that_falls_far_has_a_log_axis(losses, scale):
    live = show.Live("phase")
    for step, loss in enumerate(losses, 1):
        live(at(step, loss))
    fig = live.figure()
    assert fig.axes[0].get_yscale() == scale
    plt.close(fig)


def test_a_live_training_is_silent_outside_a_notebook(capfd):
    live = show.Live("phase")
    live(at(1000, 1.0))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("stored", ["", "1"])
def test_a_notebook_shows_a_training_in_one_output(stored, monkeypatch):
    monkeypatch.setenv("FACENB_HEADLESS", stored)
    source = """
from types import SimpleNamespace
from facenb import show
live, known = show.Live("phase"), {"steps": 1000, "validation": {}, "images_per_second": 830.0, "note": "slow"}
live.every = 0.0
drawn, show.live.png = [], lambda fig, png=show.live.png: drawn.append(fig._suptitle.get_text()) or png(fig)
for step in range(100, 1001, 300):
    live.due = 0.0
    live(SimpleNamespace(step=step, losses={"loss": 1 / step}, seconds=9, seconds_left=200, done=step == 1000, **known))
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in (source, "drawn")])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    [output] = notebook.cells[0].outputs
    assert output.data["text/plain"] == "training: phase, 1,000 steps" and "image/png" in output.data
    last = "'phase: step 1,000 of 1,000, 830 images/s, 9 s, slow'"
    first = "'phase: step 100 of 1,000, 830 images/s, 3 min left, slow'"
    [told] = notebook.cells[1].outputs
    drawn = told.data["text/plain"].strip("[]").split(",\n ")
    assert drawn[-1] == last and len(drawn) == (1 if stored else 4) and (stored or drawn[0] == first)
