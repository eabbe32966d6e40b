"""How fast and in how much memory does the fitting run at the size of CASIA-WebFace? Prints a table.

Random faces of a random model: 199 identity and 29 expression components, 68 landmarks with 2 mm of noise; 10,575
subjects with 488,848 images, ragged. Batches of subjects are made, fitted and written to one .npz each, so memory is
that of one batch. Usage: python benchmarks/fitting.py [--share 0.1] [--device cuda] [--slide] [--out FOLDER]
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
from torch.profiler import ProfilerActivity, profile, record_function

from facenb.fitting import fit, fit_stream, solve
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.morphable.model import Embedding, MorphableModel

SUBJECTS, IMAGES = 10_575, 488_848  # CASIA-WebFace as Liu et al. 2018 use it
IDENTITY, EXPRESSION = 199, 29
NOISE = 2.0  # mm
BATCH = 360  # subjects fitted together, about 16,000 images
PARTS = {"_step": "joint step (all)", "conjugate_gradients": "  of it: shared identity", "evaluate": "residuals"}


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
    return MorphableModel("random", mean, torch.tensor([[0, 1, 2]]), basis(IDENTITY, 6.0), basis(EXPRESSION, 4.0),
                          Embedding.at(torch.arange(68)), contour=contour)  # fmt: skip


def batches(model: MorphableModel, counts: list[int], device: str, generator: torch.Generator, clock: dict):
    """Random landmarks of BATCH subjects after another; the time this takes goes to `clock["making the data"]`."""
    shape, move = model.landmarks.of(model.identity_basis), model.landmarks.of(model.expression_basis)
    mean = model.landmarks.of(model.mean)
    for first in range(0, len(counts), BATCH):
        start = time.perf_counter()
        some = torch.tensor(counts[first : first + BATCH])
        subject = torch.repeat_interleave(torch.arange(len(some)), some)
        images = len(subject)
        identity = torch.randn(len(some), IDENTITY, generator=generator)
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


def shares(model: MorphableModel, batch: dict, slide: bool) -> list[tuple[str, float]]:
    """Share of a fit's time in each of its parts, from a profile of one core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    plain = {name: getattr(solve, name) for name in PARTS}

    def named(name):
        def call(*arguments, **options):
            with record_function(name):
                return plain[name](*arguments, **options)

        return call

    for name in PARTS:
        setattr(solve, name, named(name))
    try:
        with profile(activities=[ProfilerActivity.CPU]) as watch:
            with record_function("all"):
                fit(model, **batch, slide_contour=slide)
    finally:
        for name in PARTS:
            setattr(solve, name, plain[name])
        torch.set_num_threads(threads)
    total = {event.key: event.cpu_time_total for event in watch.key_averages()}
    return [(label, total.get(name, 0.0) / total["all"]) for name, label in PARTS.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="part of the subjects to fit (default: all)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--slide", action="store_true", help="let the jaw line slide with the pose")
    parser.add_argument("--out", help="folder for the fitted coefficients (default: a temporary one, removed)")
    asked = parser.parse_args()

    generator = torch.Generator().manual_seed(0)
    model = random_model(generator)
    counts = ragged_counts(round(SUBJECTS * asked.share), round(IMAGES * asked.share))
    clock = {"making the data": 0.0, "writing": 0.0}
    start_objective = end_objective = 0.0
    rounds, images = [], 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(asked.out or scratch)
        folder.mkdir(parents=True, exist_ok=True)
        begin, processor = time.perf_counter(), time.process_time()
        source = batches(model.to("cpu"), counts, asked.device, generator, clock)
        for index, found in enumerate(fit_stream(model.to(asked.device), source, slide_contour=asked.slide)):
            start = time.perf_counter()
            np.savez(folder / f"fit_{index:04d}.npz", identity=found.identity.cpu(), expression=found.expression.cpu(),
                     subject=found.subject.cpu(), rotation=found.camera.rotation.cpu(), scale=found.camera.scale.cpu(),
                     translation=found.camera.translation.cpu(), error=found.error.cpu())  # fmt: skip
            clock["writing"] += time.perf_counter() - start
            images += len(found.expression)
            rounds.append(len(found.objective) - 1)
            start_objective, end_objective = start_objective + found.objective[0], end_objective + found.objective[-1]
        total, processor = time.perf_counter() - begin, time.process_time() - processor
    fitting = total - sum(clock.values())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    where = torch.cuda.get_device_name() if asked.device == "cuda" else platform.processor() or platform.machine()
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}, jaw line slides: {asked.slide}")
    print(f"{len(counts):,} subjects, {images:,} images, 68 landmarks, {IDENTITY} + {EXPRESSION} coefficients")
    rows = [("images a second, fitting", f"{images / fitting:,.0f}"),
            ("images a second, with data and files", f"{images / total:,.0f}"),
            ("images a second of processor time", f"{images / processor:,.0f}"),
            ("fitting, s", f"{fitting:.1f}"), *((f"{name}, s", f"{value:.1f}") for name, value in clock.items()),
            ("peak memory, MB", f"{peak:,.0f}"), ("rounds, mean", f"{np.mean(rounds):.1f}"),
            ("objective, end / start", f"{float(end_objective / start_objective):.3f}")]  # fmt: skip
    if asked.device == "cuda":
        rows.append(("peak GPU memory, MB", f"{torch.cuda.max_memory_allocated() / 2**20:,.0f}"))
    else:
        first = next(batches(model, counts[:60], "cpu", generator, {"making the data": 0.0}))
        rows += [(f"{label}, %", f"{100 * share:.0f}") for label, share in shares(model, first, asked.slide)]
    for name, value in rows:
        print(f"  {name:38s} {value:>10s}")


if __name__ == "__main__":
    main()
