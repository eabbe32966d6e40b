"""How many crops a second come from a table, ready for a network, and in how much memory? Prints a table.

Sets of random bytes with targets of 100 + 57 coefficients, and their mirrored ones, as LFW's with ICT-FaceKit. Batches
of 256 in the order of a training: rows from all over the set, mirrored, shifted and relit. "own memory" is what
the process holds itself at its peak; pages of the files count apart, and the system takes them back when it needs them.
Usage: python benchmarks/loader.py [--rows 50000] [--folder FOLDER] [--batches 60]
"""

import argparse
import itertools
import platform
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from facenb.datasets.sets.augmentation import network_input
from facenb.datasets.sets.faces import FaceSet, read_faces
from facenb.datasets.sets.table import build_table

SIZES = ((64, 64), (112, 96))
BATCH, PICTURES = 256, 46  # CASIA-WebFace has 46 pictures a person
IDENTITY, EXPRESSION = 100, 57
TARGET = 3000  # crops a second on two cores


def make(folder: Path, rows: int, size: tuple[int, int]) -> float:
    """A set of random bytes; returns the seconds it took."""
    generator, start = torch.Generator().manual_seed(0), time.perf_counter()

    def blocks(_: int):
        for first in range(0, rows, 4096):
            count = min(4096, rows - first)
            image = torch.randint(0, 256, (count, *size, 3), generator=generator, dtype=torch.uint8)
            identity, expression = (torch.randn(count, k, generator=generator) for k in (IDENTITY, EXPRESSION))
            targets = {"identity": identity, "expression": expression}
            mirrored = {f"{name}_mirrored": values for name, values in targets.items()}
            yield {"image": image, "subject": torch.arange(first, first + count) // PICTURES, **targets, **mirrored}

    build_table(folder, {"kind": "benchmark"}, blocks)
    return time.perf_counter() - start


def rate(load, data: FaceSet, batches: int, threads: int) -> float:
    """Crops a second with so many threads that load batches."""
    orders = itertools.cycle(torch.randperm(len(data), generator=torch.Generator().manual_seed(1)).split(BATCH)[:-1])
    wanted = [next(orders) for _ in range(batches)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(load, wanted[: 2 * threads]))
        start = time.perf_counter()
        for _ in pool.map(load, wanted):
            pass
        return batches * BATCH / (time.perf_counter() - start)


def memory(name: str) -> float:
    """MB of `VmRSS` (all), `RssAnon` (own) or `RssFile` (pages of files); 0 where the system does not tell."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(lines[name].split()[0]) / 1024
    except (OSError, KeyError):
        return 0.0


class Watch:
    """The largest values of own memory and file pages while it is open."""

    def __enter__(self):
        self.own = self.files = 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        return self

    def _look(self) -> None:
        while not self._end.wait(0.02):
            self.own, self.files = max(self.own, memory("RssAnon")), max(self.files, memory("RssFile"))

    def __exit__(self, *_) -> None:
        self._end.set()
        self._thread.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--folder", help="where the sets are made (default: a temporary folder); they are removed")
    parser.add_argument("--sizes", nargs="*", default=["x".join(map(str, size)) for size in SIZES])
    asked = parser.parse_args()
    torch.set_num_threads(1)  # as the loop's loading threads have it
    print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}; batch {BATCH}")
    for size in (tuple(map(int, text.split("x"))) for text in asked.sizes):
        with tempfile.TemporaryDirectory(dir=asked.folder) as scratch:
            measure(Path(scratch) / "set", asked.rows, size, asked.batches)


def measure(folder: Path, rows: int, size: tuple[int, int], batches: int) -> None:
    seconds = make(folder, rows, size)
    whole = read_faces(folder)
    start = time.perf_counter()
    data = whole.split(seed=0).train
    opened = time.perf_counter() - start
    changed = data.augmented(mirror=True, shift=3, brightness=0.1, contrast=0.2)
    names, generators = list(whole.table.columns), threading.local()

    def load(some):
        if not hasattr(generators, "own"):
            generators.own = torch.Generator().manual_seed(0)
        return changed.load(some, generators.own)

    images = data.read(["image"], torch.arange(BATCH))["image"]
    draw = changed.augmentation.draw(BATCH, torch.Generator().manual_seed(0))
    before = memory("RssAnon")
    with Watch() as watch:
        table = [
            ("augmented, one thread", rate(load, data, batches, 1)),
            ("augmented, two threads", rate(load, data, batches, 2)),
            ("as they are, one thread", rate(lambda some: data.load(some), data, batches, 1)),
            ("  of it: reading rows", rate(lambda some: data.read(names, some), data, batches, 1)),
            ("  of it: to floats, augmented", rate(lambda some: network_input(images, draw), data, batches, 1)),
        ]
    read, change = table[3][1], table[4][1]
    bound = "changing the pictures" if change < read else "reading rows"
    held = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    print(f"\n{size[0]}x{size[1]}: {rows:,} rows, {held:.2f} GB in {len(names)} fields")
    print(f"  made in {seconds:.1f} s; opened, checksums and split {opened:.1f} s")
    for name, value in table:
        print(f"  {name:32s} {value:10,.0f} crops/s")
    met = "met" if table[1][1] >= TARGET else "MISSED"
    print(f"  bound by {bound}; the target of {TARGET:,} crops/s on two cores is {met}")
    print(
        f"  own memory {before:,.0f} MB before, {watch.own:,.0f} MB at its peak; pages of files {watch.files:,.0f} MB"
    )


if __name__ == "__main__":
    main()
