"""Figures and rendered faces, in the course's one style."""

import io
import os
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional
from facenb.imaging.render import render

# One colour for one thing, in every figure (Okabe and Ito's palette, told apart by colour-blind readers too).
COLOURS = {
    "truth": "#222222",
    "fit": "#0072B2",
    "mean face": "#8C8C8C",
    "best possible": "#009E73",
    "within": "#0072B2",
    "between": "#D55E00",
    "second": "#CC79A7",
    "landmark": "#E69F00",
}
CLAY = (0.78, 0.73, 0.69)
STYLE = {
    "figure.facecolor": "white",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#E6E6E6",
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def figure(rows: int = 1, columns: int = 1, width: float = 8.0, height: float = 3.4, **more) -> tuple[Figure, Any]:
    """Figure and axes (as `plt.subplots`) in the course's style; `height` is of one row, in inches."""
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", **more)


def headless() -> bool:
    """Whether nobody is there to turn a view: stored and batch runs set FACENB_HEADLESS."""
    return os.environ.get("FACENB_HEADLESS", "") not in ("", "0")


def studio_light() -> Tensor:
    """A key light from the upper left, a fill from the right and an ambient part, (1, 9, 3) spherical harmonics."""
    white = torch.ones(1, 3)
    key, fill = torch.tensor([[-0.45, 0.5, 0.75]]), torch.tensor([[0.8, 0.1, 0.4]])
    return ambient(0.38 * white) + directional(key, 0.62 * white) + directional(fill, 0.16 * white)


def three(array, what: str) -> Tensor:
    """Vertices or colours (n, 3) from anything like them; ValueError naming the shape otherwise."""
    values = torch.as_tensor(array, dtype=torch.float32).detach().cpu()
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"{what} must be (n, 3) or (1, n, 3), got {tuple(values.shape)}")
    return values


def snapshot(
    vertices, triangles, colours=None, yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0, size: int = 220,
    light: Tensor | None = None, centre=None, extent: float | None = None,
) -> np.ndarray:  # fmt: skip
    """A rendered picture (size, size, 3) of one mesh in [0, 1]; angles in degrees, clay where no colours are given.

    `centre` (3,) mm and `extent` mm (what fills the picture) keep several pictures to one frame.
    """
    vertices = three(vertices, "vertices")
    low, high = vertices.amin(0), vertices.amax(0)
    centre = (low + high) / 2 if centre is None else torch.as_tensor(centre, dtype=torch.float32)
    extent = float((high - low)[:2].max()) * 1.08 if extent is None else extent
    albedo = torch.tensor(CLAY).expand_as(vertices) if colours is None else three(colours, "colours")
    fine = 2 * size  # twice as fine, then averaged: smooth outlines
    angles = torch.tensor([[yaw, pitch, roll]]).deg2rad()
    camera = WeakPerspective(euler_to_matrix(angles), torch.tensor([fine / extent]), torch.full((1, 2), fine / 2))
    picture = render(
        (vertices - centre)[None], torch.as_tensor(triangles).cpu().long(), albedo[None], camera, (fine, fine),
        light=studio_light() if light is None else light, background=torch.ones(3),
    ).image[0]  # fmt: skip
    return picture.unflatten(0, (size, 2)).unflatten(2, (size, 2)).mean((1, 3)).clamp(0, 1).numpy()


def sheet(
    pictures: Sequence, titles: Sequence[str] = (), columns: int | None = None, width: float = 8.0, rows: Sequence = ()
) -> Figure:
    """A grid of pictures (H, W, 3), each with its title; `rows` names the rows."""
    columns = columns or min(len(pictures), 8)
    count = -(-len(pictures) // columns)
    ratio = np.shape(pictures[0])[0] / np.shape(pictures[0])[1]
    title_height = 0.22 if len(titles) else 0.0
    fig, axes = plt.subplots(
        count, columns, figsize=(width, count * (width / columns * ratio + title_height)), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for place, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if place < len(pictures):
            axis.imshow(np.clip(np.asarray(pictures[place]), 0, 1), interpolation="antialiased")
        if place < len(titles):
            axis.set_title(titles[place], fontsize=9)
        if place % columns == 0 and place // columns < len(rows):
            axis.set_ylabel(rows[place // columns], fontsize=9)
    return fig


def colour_by(values, low: float, high: float, colour_map: str = "viridis") -> Tensor:
    """Vertex colours (V, 3) for one number a vertex, for error maps; draw the scale with `colour_scale`."""
    share = (np.asarray(values, dtype=float) - low) / (high - low)
    return torch.as_tensor(plt.get_cmap(colour_map)(np.clip(share, 0, 1))[:, :3], dtype=torch.float32)


def colour_scale(
    fig: Figure, low: float, high: float, label: str, colour_map: str = "viridis", axes: Sequence | None = None
) -> Figure:
    """Add the colour bar that belongs to `colour_by` to a figure, beside all of it or some `axes`."""
    mappable = plt.cm.ScalarMappable(plt.Normalize(low, high), colour_map)
    fig.colorbar(mappable, ax=fig.axes if axes is None else axes, label=label, shrink=0.8, aspect=30, pad=0.02)
    return fig


def draw_landmarks(axis, landmarks, visible=None, colour: str = COLOURS["landmark"], size: float = 9.0, label=None):
    """Landmarks (n, 2) in pixels on a picture's axis; hidden ones are rings. imshow's pixel centres are at 0, ours
    at +0.5, so the points are moved by half a pixel."""
    points = np.asarray(landmarks, dtype=float)[:, :2] - 0.5
    seen = np.ones(len(points), bool) if visible is None else np.asarray(visible, bool)
    axis.scatter(*points[seen].T, s=size, color=colour, linewidths=0, label=label)
    axis.scatter(*points[~seen].T, s=size, facecolors="none", edgecolors=colour, linewidths=0.8)
    axis.set(xticks=[], yticks=[])


def png(fig: Figure) -> bytes:
    """A figure as PNG; it is closed."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110, bbox_inches="tight", facecolor="white", pil_kwargs={"optimize": True})
    plt.close(fig)
    return buffer.getvalue()
