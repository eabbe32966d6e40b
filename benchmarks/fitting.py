"""How fast and in how much memory does the fitting run at the size of CASIA-WebFace? Prints a table.

Random faces of a random model: 199 identity and 29 expression components, 68 landmarks with 2 mm of noise; 10,575
subjects with 488,848 images, ragged. Batches of subjects are made, fitted and written to one .npz each, so memory is
that of one batch. Usage: python benchmarks/fitting.py [--share 0.1] [--device cuda] [--contour sliding] [--out FOLDER]
"""

import argparse
import math
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from facenb.fitting import fit
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.morphable.model import Embedding, MorphableModel

SUBJECTS, IMAGES = 10_575, 488_848  # CASIA-WebFace as Liu et al. 2018 use it
IDENTITY, EXPRESSION = 199, 29
NOISE = 2.0  # mm
BATCH = 360  # subjects fitted together, about 16,000 images


def random_model(generator: torch.Generator, candidates: int = 26) -> MorphableModel:
    """68 landmarks and their contour lines on half an ellipsoid; smooth bases whose deviations fall as 1 / k."""
    jaw, line = torch.linspace(-math.pi, 0, 17), torch.linspace(1.0, -0.3, candidates)
    around = torch.cat([jaw, 2 * math.pi * torch.rand(51, generator=generator), jaw.repeat_interleave(candidates)])
    up = torch.cat([torch.zeros(17), 0.4 + 1.1 * torch.rand(51, generator=generator), line.repeat(17)])
    mean = torch.stack([70 * around.cos() * up.cos(), 95 * around.sin() * up.cos(), 80 * up.sin()], 1)
    mean[17:68, 2] += 8 * torch.randn(51, generator=generator)
    centres = 80 * torch.randn(120, 3, generator=generator)
    kernel = torch.exp(-torch.cdist(mean, centres).square() / (2 * 30**2))  # (P, 120)

    def basis(count: int, total: float) -> torch.Tensor:
        fields = torch.einsum("pc,bck->bpk", kernel, torch.randn(count, 120, 3, generator=generator))
        fields = fields / fields.square().sum((1, 2), keepdim=True).sqrt() / torch.arange(1, count + 1)[:, None, None]
        return total * fields * math.sqrt(len(mean) / float(fields.square().sum()))  # rms displacement in mm

    contour = 68 + torch.arange(17 * candidates).view(17, -1)
    bases = basis(IDENTITY, 6.0), basis(EXPRESSION, 4.0)
    landmarks = Embedding.at(torch.arange(68))
    return MorphableModel("random", mean, torch.tensor([[0, 1, 2]]), *bases, landmarks, contour=contour)


def batches(model: MorphableModel, counts: list[int], device: str, generator: torch.Generator, clock: dict):
    """Yield random landmarks of BATCH subjects at a time; add the time this takes to `clock["making the data"]`."""
    shape, move = model.landmarks.of(model.identity_basis), model.landmarks.of(model.expression_basis)
    mean = model.landmarks.of(model.mean)
    for first in range(0, len(counts), BATCH):
        start = time.perf_counter()
        images_each = torch.tensor(counts[first : first + BATCH])
        subject = torch.repeat_interleave(torch.arange(len(images_each)), images_each)
        images = len(subject)
        identity = torch.randn(len(images_each), IDENTITY, generator=generator)
        expression = torch.randn(images, EXPRESSION, generator=generator)
        points = (identity @ shape.flatten(1))[subject] + expression @ move.flatten(1)
        points = mean + points.unflatten(1, (-1, 3))
        angles = (2 * torch.rand(images, 3, generator=generator) - 1) * torch.tensor([1.2, 0.4, 0.4])
        scale = 0.3 + torch.rand(images, generator=generator)
        camera = WeakPerspective(euler_to_matrix(angles), scale, torch.full((images, 2), 56.0))
        seen = camera.project(points)[..., :2]
        seen = seen + NOISE * scale[:, None, None] * torch.randn(seen.shape, generator=generator)
        batch = {"landmarks": seen.to(device), "subject": subject.to(device)}
        clock["making the data"] += time.perf_counter() - start
        yield batch


def ragged_counts(subjects: int, images: int) -> list[int]:
    """Images a subject: log-normal as in a set gathered from the web, at least two, `images` in all."""
    raw = np.random.default_rng(0).lognormal(0.0, 0.7, subjects)
    counts = 2 + np.floor(raw / raw.sum() * (images - 2 * subjects)).astype(int)
    counts[: images - counts.sum()] += 1
    return counts.tolist()


def one_image(model: MorphableModel, images: int = 50) -> tuple[float, float]:
    """Median wall-clock and processor time in ms of a fit of one image alone, with a fixed contour."""
    generator = torch.Generator().manual_seed(1)
    landmarks = next(batches(model, [1] * images, "cpu", generator, {"making the data": 0.0}))["landmarks"]
    times = []
    for image in landmarks[:, None]:
        start = time.perf_counter(), time.process_time()
        fit(model, image, contour="fixed")
        times.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    wall, processor = 1e3 * np.median(times, axis=0)
    return wall, processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="part of the subjects to fit (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--contour", choices=("fixed", "sliding"), default="fixed")
    parser.add_argument("--out", help="folder for the fitted coefficients (default: a temporary one, removed)")
    asked = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    model = random_model(generator)
    wall, processor_alone = one_image(model)
    counts = ragged_counts(round(SUBJECTS * asked.share), round(IMAGES * asked.share))
    clock = {"making the data": 0.0, "writing": 0.0}
    objective = np.zeros(2)  # at the start and at the end
    rounds, images = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(asked.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        begin, processor = time.perf_counter(), time.process_time()
        on_device = model.to(asked.device)
        for index, batch in enumerate(batches(model, counts, asked.device, generator, clock)):
            result = fit(on_device, **batch, contour=asked.contour)
            start = time.perf_counter()
            camera = {name: getattr(result.camera, name).cpu() for name in ("rotation", "scale", "translation")}
            fields = {name: getattr(result, name).cpu() for name in ("identity", "expression", "subject", "error")}
            np.savez(folder / f"fit_{index:04d}.npz", **camera, **fields)
            clock["writing"] += time.perf_counter() - start
            images += len(result.expression)
            rounds.append(len(result.objective) - 1)
            objective += result.objective[[0, -1]].numpy()
        total, processor = time.perf_counter() - begin, time.process_time() - processor
    fitting = total - sum(clock.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    where = torch.cuda.get_device_name() if asked.device == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, contour: {asked.contour}")
    print(f"{len(counts):,} subjects, {images:,} images, 68 landmarks, {IDENTITY} + {EXPRESSION} coefficients")
    rows = {
        "images a second, fitting": f"{images / fitting:,.0f}",
        "images a second, with data and files": f"{images / total:,.0f}",
        "images a second of processor time": f"{images / processor:,.0f}",
        "fitting, s": f"{fitting:.1f}",
        **{f"{name}, s": f"{value:.1f}" for name, value in clock.items()},
        "peak memory, MB": f"{peak:,.0f}",
        "rounds, mean": f"{np.mean(rounds):.1f}",
        "objective, end / start": f"{objective[1] / objective[0]:.3f}",
        "one image alone on the CPU, ms": f"{wall:.1f}",
        "  of processor time, ms": f"{processor_alone:.1f}",
    }
    if asked.device == "cuda":
        rows["peak GPU memory, MB"] = f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}"
    for name, value in rows.items():
        print(f"  {name:38s} {value:>10s}")


if __name__ == "__main__":
    main()
