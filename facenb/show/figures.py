"""Figures and rendered faces in the style of the course."""

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
from facenb.imaging.texture import Texture

# One colour for one thing, in every figure (the palette of Okabe and Ito, which colour-blind readers can tell apart).
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


def figure(rows: int = 1, columns: int = 1, width: float = 8.0, height: float = 3.4, **options) -> tuple[Figure, Any]:
    """Return figure and axes in the course's style, as `plt.subplots`. `height` in inches is that of one row."""
    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, figsize=(width, height * rows), layout="constrained", **options)


def headless() -> bool:
    """Return whether no user can turn a view: stored and batch runs set FACENB_HEADLESS."""
    return os.environ.get("FACENB_HEADLESS", "") not in ("", "0")


def studio_light() -> Tensor:
    """Return a key light from the upper left, a fill light and ambient light as spherical harmonics (1, 9, 3)."""
    white = torch.ones(1, 3)
    key, fill = torch.tensor([[-0.45, 0.5, 0.75]]), torch.tensor([[0.8, 0.1, 0.4]])
    return ambient(0.38 * white) + directional(key, 0.62 * white) + directional(fill, 0.16 * white)


def three(array, what: str) -> Tensor:
    """Return vertices or colours (n, 3) from an array of (n, 3) or (1, n, 3). Raise ValueError for another shape."""
    values = torch.as_tensor(array, dtype=torch.float32).detach().cpu()
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or values.shape[1] != 3:
        raise ValueError(f"{what} must be (n, 3) or (1, n, 3), got {tuple(values.shape)}")
    return values


def snapshot(
    vertices,
    triangles,
    colours=None,
    yaw: float = 0.0,
    size: int = 220,
    light: Tensor | None = None,
    centre=None,
    extent: float | None = None,
) -> np.ndarray:
    """Return a rendered image (size, size, 3) in [0, 1] of one mesh turned by `yaw` degrees.

    `colours` are linear RGB at the vertices (V, 3), or a `Texture` of one image; without them the mesh is grey.
    `centre` (3,) in mm and `extent` in mm (the side of the image) give several images the same frame.
    """
    vertices = three(vertices, "vertices")
    low, high = vertices.amin(0), vertices.amax(0)
    centre = (low + high) / 2 if centre is None else torch.as_tensor(centre, dtype=torch.float32)
    extent = float((high - low)[:2].max()) * 1.08 if extent is None else extent
    if not isinstance(colours, Texture):
        colours = (torch.tensor(CLAY).expand_as(vertices) if colours is None else three(colours, "colours"))[None]
    fine = 2 * size  # twice as fine, then averaged: smooth outlines
    angles = torch.tensor([[yaw, 0.0, 0.0]]).deg2rad()
    camera = WeakPerspective(euler_to_matrix(angles), torch.tensor([fine / extent]), torch.full((1, 2), fine / 2))
    triangles, light = torch.as_tensor(triangles).cpu().long(), studio_light() if light is None else light
    white = torch.ones(3)
    image = render((vertices - centre)[None], triangles, colours, camera, (fine, fine), light, white).image[0]
    return image.unflatten(0, (size, 2)).unflatten(2, (size, 2)).mean((1, 3)).clamp(0, 1).numpy()


def sheet(
    pictures: Sequence, titles: Sequence[str] = (), columns: int | None = None, width: float = 8.0, rows: Sequence = ()
) -> Figure:
    """Return a grid of images (H, W, 3), each with its title; `rows` are the names of the rows."""
    columns = columns or min(len(pictures), 8)
    count = -(-len(pictures) // columns)
    ratio = np.shape(pictures[0])[0] / np.shape(pictures[0])[1]
    title_height = 0.22 if len(titles) else 0.0
    size = (width, count * (width / columns * ratio + title_height))
    fig, axes = plt.subplots(count, columns, figsize=size, layout="constrained", squeeze=False)
    fig.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.01, hspace=0.01)
    for number, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        if number < len(pictures):
            axis.imshow(np.clip(np.asarray(pictures[number]), 0, 1), interpolation="antialiased")
        if number < len(titles):
            axis.set_title(titles[number], fontsize=9)
        if number % columns == 0 and number // columns < len(rows):
            axis.set_ylabel(rows[number // columns], fontsize=9)
    return fig


def colour_by(values, low: float, high: float, colour_map: str = "viridis") -> Tensor:
    """Return vertex colours (V, 3) for one value at each vertex. `colour_scale` draws the colour bar."""
    share = (np.asarray(values, dtype=float) - low) / (high - low)
    return torch.as_tensor(plt.get_cmap(colour_map)(np.clip(share, 0, 1))[:, :3], dtype=torch.float32)


def colour_scale(
    fig: Figure, low: float, high: float, label: str, colour_map: str = "viridis", axes: Sequence | None = None
) -> Figure:
    """Add the colour bar of `colour_by` to a figure, beside all of it or beside `axes`. Return the figure."""
    mappable = plt.cm.ScalarMappable(plt.Normalize(low, high), colour_map)
    fig.colorbar(mappable, ax=fig.axes if axes is None else axes, label=label, shrink=0.8, aspect=30, pad=0.02)
    return fig


def draw_landmarks(axis, landmarks, visible=None, colour: str = COLOURS["landmark"], size: float = 9.0, label=None):
    """Draw landmarks (n, 2) in pixels on the axis of an image; hidden ones as rings.

    The centre of the first pixel is 0 in imshow and +0.5 in this project, so the points are moved by half a pixel.
    """
    points = np.asarray(landmarks, dtype=float)[:, :2] - 0.5
    seen = np.ones(len(points), bool) if visible is None else np.asarray(visible, bool)
    axis.scatter(*points[seen].T, s=size, color=colour, linewidths=0, label=label)
    axis.scatter(*points[~seen].T, s=size, facecolors="none", edgecolors=colour, linewidths=0.8)
    axis.set(xticks=[], yticks=[])
