"""How long does one score of NoW take, alignment included, and what bounds it? Prints a table.

A head like SynthFace's in a mesh of 10,000 vertices, against a scan of 60,000 points of its face, 1 mm off: tree,
Procrustes, refinement, distances. All 60,000 lie in the crop, more than any real scan has there.
Usage: python benchmarks/scan_to_mesh.py [--points 60000] [--vertices 10000] [--repeats 5]
"""

import argparse
import math
import os
import statistics
import time

import numpy as np
import torch
import trimesh

from facenb.evaluation.registration import icp
from facenb.evaluation.scan import ScanToMesh
from facenb.morphable.alignment import similarity
from facenb.morphable.model import axis_angle_to_matrix


def face(vertices: int) -> trimesh.Trimesh:
    """An ellipsoid with nose, chin and cheek, of about so many vertices."""
    side = max(4, round(math.sqrt(vertices / 2)))
    mesh = trimesh.creation.uv_sphere(count=[side, side])  # twice as many columns as rows
    points = np.array(mesh.vertices) * [70, 95, 80]
    for middle, reach, height in (([0, 0, 80], 18, 18), ([0, -60, 50], 20, 8), ([-30, 5, 65], 25, 5)):
        points[:, 2] += height * np.exp(-(((points - middle) ** 2).sum(1)) / reach**2)
    return trimesh.Trimesh(points, mesh.faces, process=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=60_000)
    parser.add_argument("--vertices", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    mesh = face(options.vertices)
    vertices, triangles = torch.from_numpy(np.array(mesh.vertices)), torch.from_numpy(np.array(mesh.faces))
    front = mesh.submesh([np.flatnonzero(mesh.triangles_center[:, 2] > 0)], append=True)
    scan = np.array(trimesh.sample.sample_surface(front, options.points, seed=0)[0])
    scan = torch.from_numpy(scan + np.random.default_rng(0).normal(size=scan.shape))
    seven = torch.from_numpy(np.array(front.vertices)[:: len(front.vertices) // 7][:7])
    turned = 0.9 * vertices @ axis_angle_to_matrix(torch.tensor([0.2, -0.3, 0.1]).double()).T + 30
    marks = 0.9 * seven @ axis_angle_to_matrix(torch.tensor([0.2, -0.3, 0.1]).double()).T + 30 + torch.randn(7, 3)
    clock: dict[str, list[float]] = {}

    def timed(name, work):
        start = time.perf_counter()
        result = work()
        clock.setdefault(name, []).append(time.perf_counter() - start)
        return result

    closest, spent = ScanToMesh.closest, []

    def timed_closest(surface, points):
        start = time.perf_counter()
        result = closest(surface, points)
        spent.append((time.perf_counter() - start, len(points)))
        return result

    ScanToMesh.closest = timed_closest
    for _ in range(options.repeats):
        spent.clear()
        begin = time.perf_counter()
        surface = timed("the tree", lambda: ScanToMesh(turned, triangles))
        place = timed("Procrustes", lambda: similarity(marks[None].double(), seven[None]))
        result = timed("refinement", lambda surface=surface, place=place: icp(scan, surface, place, scale=True))
        clock.setdefault("all", []).append(time.perf_counter() - begin)
        clock.setdefault("  of it: closest points, some", []).append(sum(t for t, n in spent if n < len(scan)))
        clock.setdefault("  of it: closest points, all", []).append(sum(t for t, n in spent if n == len(scan)))
    looks = sum(n == len(scan) for _, n in spent)
    print(
        f"{len(scan)} points, {len(vertices)} vertices, {len(triangles)} triangles; {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads of torch; mean distance {result.distances.mean():.3f} mm, {looks} looks at "
        "all points"
    )
    for name, times in clock.items():
        low, middle, high = (1000 * value for value in (min(times), statistics.median(times), max(times)))
        print(f"{name:32}{middle:8.1f} ms   (from {low:.1f} to {high:.1f})")
    print(f"{len(scan) / statistics.median(clock['all']):,.0f} points a second, alignment included")


if __name__ == "__main__":
    main()
