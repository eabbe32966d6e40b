"""How fast faces are drawn: milliseconds an image, stage by stage, forward and with gradients, and what bounds it.

Run with the cores to itself: `python benchmarks/render.py [--markdown] [--repeats 7]`. The minimum of the repeats is
printed. The mesh is a displaced sphere of 9,384 triangles (a face's count), about 45 % of the image covered; the
shape comes from 80 identity and 12 expression coefficients. "forward" has a colour per vertex; "texture" (one for each
image) and "relief" are the same with a UV texture, and in brackets their ratio to "forward".
"""

import argparse
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient, directional, irradiance
from facenb.imaging.raster import interpolate, rasterize
from facenb.imaging.render import render, vertex_normals
from facenb.imaging.texture import Texture

BATCH = 64
SIZES = (64, 112, 224)
COEFFICIENTS = 80 + 12
TARGETS = {64: 0.25, 112: 0.4, 224: 1.0}  # ms an image on two cores, numba, forward
TEXELS = {64: 64, 112: 128, 224: 256}  # a side of the texture: one to 1.3 texels a pixel, as `imaging.texture` asks for


def displaced_sphere(rings: int = 69, columns: int = 69) -> tuple[Tensor, Tensor]:
    """Vertices in mm (V, 3) and triangles (T, 3) of a bumpy ball, a head's size."""
    polar = torch.linspace(0, torch.pi, rings + 1)[1:-1, None]
    azimuth = torch.arange(columns) * 2 * torch.pi / columns
    radius = 80 + 4 * torch.sin(5 * polar) * torch.cos(4 * azimuth)
    ball = torch.stack([polar.sin() * azimuth.sin(), polar.cos().expand(-1, columns), polar.sin() * azimuth.cos()], -1)
    vertices = torch.cat([(ball * radius[..., None]).view(-1, 3), torch.tensor([[0.0, 80, 0], [0, -80, 0]])])
    ring, column = torch.meshgrid(torch.arange(rings - 2), torch.arange(columns), indexing="ij")
    a, b = (ring * columns + column).flatten(), (ring * columns + (column + 1) % columns).flatten()
    sides = torch.cat([torch.stack([a, a + columns, b], -1), torch.stack([b, a + columns, b + columns], -1)])
    rim, last = torch.arange(columns), (rings - 2) * columns
    top = torch.stack([torch.full_like(rim, len(vertices) - 2), rim, (rim + 1) % columns], -1)
    bottom = torch.stack([torch.full_like(rim, len(vertices) - 1), last + (rim + 1) % columns, last + rim], -1)
    return vertices, torch.cat([top, sides, bottom])


class Scene:
    """Everything a stage needs, made once."""

    def __init__(self, size: int, device: torch.device):
        torch.manual_seed(0)
        vertices, triangles = displaced_sphere()
        self.size, self.triangles = (size, size), triangles.to(device)
        self.mean = vertices.flatten().to(device)
        self.basis = (torch.randn(COEFFICIENTS, vertices.numel()) * 0.1).to(device)
        self.coefficients = torch.randn(BATCH, COEFFICIENTS).to(device)
        self.albedo = torch.rand(1, len(vertices), 3).to(device)
        uv, side = vertices[:, :2].to(device) / 200 + 0.5, TEXELS[size]
        plain = Texture(torch.rand(BATCH, side, side, 3).to(device), uv, self.triangles)
        self.looks = {"vertices": self.albedo, "texture": plain}
        self.looks["relief"] = replace(plain, relief=torch.rand(1, side, side).to(device))
        angles = (torch.rand(BATCH, 3) * 2 - 1) * torch.tensor([1.2, 0.4, 0.3])
        scale, shift = torch.full((BATCH,), size / 210), size / 2 + torch.rand(BATCH, 2)
        self.camera = WeakPerspective(euler_to_matrix(angles), scale, shift).to(device)
        self.light = ambient(torch.rand(BATCH, 3)) + directional(torch.randn(BATCH, 3), torch.rand(BATCH, 3))
        self.light = self.light.to(device)
        self.vertices = self.shape()
        self.projected = self.camera.project(self.vertices)

    def shape(self, coefficients: Tensor | None = None) -> Tensor:
        coefficients = self.coefficients if coefficients is None else coefficients
        return torch.addmm(self.mean, coefficients, self.basis).view(BATCH, -1, 3)


def measure(work: Sequence[Callable[[], object]], device: torch.device, repeats: int) -> list[float]:
    """Fewest milliseconds an image of each work over the repeats, which take turns; two more warm up."""
    best = [float("inf")] * len(work)
    for repeat in range(repeats + 2):
        for number, step in enumerate(work):
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if repeat >= 2:
                best[number] = min(best[number], time.perf_counter() - start)
    return [seconds / BATCH * 1000 for seconds in best]


def stages(scene: Scene, backend: str) -> dict[str, Callable[[], object]]:
    """The stages of a picture, each on inputs that are ready."""
    with torch.no_grad():
        fragments = rasterize(scene.projected, scene.triangles, scene.size, backend=backend)
        normals = vertex_normals(scene.vertices, scene.triangles, backend)
        colour = (scene.albedo * irradiance(normals, scene.light)).contiguous()
    return {
        "shape": scene.shape,
        "normals": lambda: vertex_normals(scene.vertices, scene.triangles, backend),
        "projection": lambda: scene.camera.project(scene.vertices),
        "raster": lambda: rasterize(scene.projected, scene.triangles, scene.size, backend=backend),
        "light": lambda: scene.albedo * irradiance(normals, scene.light),
        "colour": lambda: interpolate(fragments, colour, scene.triangles, backend),
    }


def whole(scene: Scene, backend: str, look: str, gradients: bool = False) -> Callable[[], object]:
    """Coefficients to image; with gradients: back to coefficients, light and camera scale."""

    def forward() -> Tensor:
        albedo, camera = scene.looks[look], scene.camera
        return render(scene.shape(), scene.triangles, albedo, camera, scene.size, scene.light, None, backend).image

    def both() -> None:
        leaves = [x.detach().requires_grad_() for x in (scene.coefficients, scene.light, scene.camera.scale)]
        camera = WeakPerspective(scene.camera.rotation, leaves[2], scene.camera.translation)
        vertices = scene.shape(leaves[0])
        seen = render(vertices, scene.triangles, scene.looks[look], camera, scene.size, leaves[1], None, backend)
        seen.image.square().mean().backward()

    return both if gradients else torch.no_grad()(forward)


def table(device: torch.device, repeats: int) -> list[list[str]]:
    """A row per size and backend: milliseconds of each stage and of the whole, and images a second."""
    rows = []
    for backend in ("numba", "torch") if device.type == "cpu" else ("torch",):
        for size in SIZES:
            scene = Scene(size, device)
            work = stages(scene, backend)
            with torch.no_grad():
                stage = dict(zip(work, measure(list(work.values()), device, repeats), strict=True))
            looks = measure([whole(scene, backend, look) for look in scene.looks], device, repeats)
            (both,) = measure([whole(scene, backend, "vertices", gradients=True)], device, repeats)
            target = f"{TARGETS[size]:.2f}" if backend == "numba" else ""
            row = [f"{device.type} {backend}", str(size), *(f"{ms:.3f}" for ms in stage.values())]
            row += [f"{looks[0]:.3f}", target, f"{1000 / looks[0]:,.0f}", f"{both:.3f}", max(stage, key=stage.get)]
            rows.append([*row, *(f"{ms:.3f} ({ms / looks[0]:.2f})" for ms in looks[1:])])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="timed repeats; the fastest counts (default 7)")
    parser.add_argument("--markdown", action="store_true", help="print the tables for benchmarks/RESULTS.md")
    options = parser.parse_args()
    devices = [torch.device("cpu")] + [torch.device("cuda")] * torch.cuda.is_available()
    triangles = len(displaced_sphere()[1])
    print(f"batch {BATCH}, {triangles:,} triangles, {COEFFICIENTS} coefficients, milliseconds an image")
    print(f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}")
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
    head = ["backend", "size", "shape", "normals", "projection", "raster", "light", "colour"]
    head += ["forward", "target", "images/s", "forward+backward", "bound by", "texture", "relief"]
    rows = [row for device in devices for row in table(device, options.repeats)]
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    for number, row in enumerate([head, *rows]):
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if options.markdown else "  ".join(cells))
        if number == 0 and options.markdown:
            print("|" + "|".join("-" * (width + 1) + ":" for width in widths) + "|")


if __name__ == "__main__":
    main()
