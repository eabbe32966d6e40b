"""Live 3D views (k3d), each with an image from our own renderer for readers without a kernel."""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import k3d
import numpy as np
import torch
from k3d.objects import Mesh
from k3d.plot import Plot
from torch import Tensor

from facenb.runs.results import png
from facenb.show.figures import headless, sheet, snapshot, three

YAWS = (-60, -25, 0, 25, 60)  # degrees at which a mesh is shown without a kernel


def _packed(colours: Tensor) -> np.ndarray:
    """Return RGB in [0, 1] as 0xRRGGBB, as k3d takes it."""
    bytes_ = (colours.clamp(0, 1) * 255).round().to(torch.int64)
    return ((bytes_[:, 0] << 16) + (bytes_[:, 1] << 8) + bytes_[:, 2]).numpy().astype(np.uint32)


def _plot(vertices, triangles, colours) -> tuple[Plot, Mesh]:
    vertices = three(vertices, "vertices")
    plot = k3d.plot(height=440, grid_visible=False, camera_auto_fit=False, menu_visibility=False, camera_up_axis="y")
    look = {"color": 0xC7BAB0} if colours is None else {"colors": _packed(three(colours, "colours"))}
    faces = np.asarray(triangles, dtype=np.uint32)
    mesh = k3d.mesh(vertices.numpy(), faces, flat_shading=False, side="double", **look)
    plot += mesh
    low, high = vertices.amin(0), vertices.amax(0)
    middle = ((low + high) / 2).tolist()
    distance = 1.25 * float((high - low).max())
    plot.camera = [middle[0], middle[1], middle[2] + distance, *middle, 0, 1, 0]
    return plot, mesh


class View:
    """A cell's output: a 3D widget to turn and move, and an image for readers without a kernel."""

    def __init__(self, name: str, widget: ipywidgets.DOMWidget, picture: bytes):
        self.name, self.widget, self.picture = name, widget, picture

    def __repr__(self) -> str:
        return f"3D view: {self.name}"

    def _repr_mimebundle_(self, **_) -> dict:
        bundle = {"text/plain": repr(self), "image/png": self.picture}
        if not headless():
            live = self.widget._repr_mimebundle_()
            live = live[0] if isinstance(live, tuple) else live
            bundle |= {key: value for key, value in (live or {}).items() if "widget" in key}
        return bundle


def view(name: str, vertices, triangles, colours=None) -> View:
    """Return a 3D view of a mesh, with an image of it at several yaws."""
    pictures = [snapshot(vertices, triangles, colours, yaw=yaw) for yaw in YAWS]
    titles = [f"yaw {yaw:+.0f}°" for yaw in YAWS]
    return View(name, _plot(vertices, triangles, colours)[0], png(sheet(pictures, titles)))


def explore(
    name: str,
    update: Callable[..., tuple],
    triangles,
    sliders: Mapping[str, tuple[float, float]],
    frames: Sequence[Mapping[str, float]],
    columns: int | None = None,
    yaw: float = 20.0,
    centre=None,
    extent: float | None = None,
) -> View:
    """Return sliders that move a face: `update(**values)` gives (vertices, colours or None) for the sliders' values.

    `sliders` maps a name to (lowest, highest). All start at the value nearest to zero in their range. The image for
    readers without a kernel shows each of `frames` (values of some sliders, the others at their start) from `yaw`
    degrees. `centre` (3,) and `extent` in mm are as in `snapshot`.
    """
    start = {key: float(np.clip(0.0, *ends)) for key, ends in sliders.items()}
    low, high = three(update(**start)[0], "vertices").aminmax(dim=0)
    centre = (low + high) / 2 if centre is None else centre
    frame = {"centre": centre, "extent": float((high - low)[:2].max()) * 1.08 if extent is None else extent}
    pictures, titles = [], []
    for values in frames:
        vertices, colours = update(**(start | dict(values)))
        pictures.append(snapshot(vertices, triangles, colours, yaw=yaw, **frame))
        title = "\n".join(f"{key} {value:+.3g}" for key, value in values.items() if value)
        titles.append(title or ", ".join(f"{key} 0" for key in values) or "at rest")
    vertices, colours = update(**start)
    plot, mesh = _plot(vertices, triangles, colours)
    handles = {}
    for key, (lowest, highest) in sliders.items():
        options = {"step": (highest - lowest) / 100, "style": {"description_width": "initial"}}
        handles[key] = ipywidgets.FloatSlider(start[key], min=lowest, max=highest, description=key, **options)

    def moved(_change) -> None:
        vertices, colours = update(**{key: handle.value for key, handle in handles.items()})
        with plot.hold_sync(), mesh.hold_sync():
            mesh.vertices = three(vertices, "vertices").numpy()
            if colours is not None:
                mesh.colors = _packed(three(colours, "colours"))

    for handle in handles.values():
        handle.observe(moved, "value")
    controls = ipywidgets.VBox(list(handles.values()), layout={"width": "340px"})
    box = ipywidgets.HBox([controls, ipywidgets.Box([plot], layout={"flex": "1 1 auto"})])
    return View(name, box, png(sheet(pictures, titles, columns)))
