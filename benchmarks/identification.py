"""How long does it take to search 100,000 faces among 1,000,000, and in how much memory? Prints a table.

Random features of 512 numbers, a template a person. All features of the full size are held in memory and a share of the
probes is searched (--share); the time of the whole search is extrapolated from that share and named so: the work is one
block of probes after another, each the same. "peak memory" is that of the whole process, Python and torch included.
Usage: python benchmarks/identification.py [--gallery 1000000] [--probes 100000] [--share 0.02] [--features 512]
"""

import argparse
import platform
import resource
import time

import torch

from facenb.evaluation.identification import BLOCK, identify

LIMIT = 4.0  # GB


def directions(count: int, features: int, generator: torch.Generator) -> torch.Tensor:
    """Random features (count, features), made in place."""
    return torch.empty(count, features).normal_(generator=generator)


def multiply_rate(gallery: torch.Tensor, probe: torch.Tensor) -> float:
    """GFLOP/s of the bare product of a block, the floor of the search."""
    rows = max(1, BLOCK // len(gallery))
    probe[:rows] @ gallery.T
    start = time.perf_counter()
    probe[:rows] @ gallery.T
    return 2e-9 * rows * gallery.numel() / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gallery", type=int, default=1_000_000)
    parser.add_argument("--probes", type=int, default=100_000)
    parser.add_argument("--share", type=float, default=0.02, help="part of the probes to search")
    parser.add_argument("--features", type=int, default=512)
    asked = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    gallery = directions(asked.gallery, asked.features, generator)
    probe = directions(asked.probes, asked.features, generator)
    person = torch.randint(0, 2 * asked.gallery, (asked.probes,), generator=generator)  # half of them strangers
    count = max(2, round(asked.share * asked.probes))
    known = (person[:count] < asked.gallery).nonzero()[:, 0]
    probe[known] = 0.2 * gallery[person[known]] + probe[known]  # alike enough for some to be found
    rate = multiply_rate(gallery, probe)

    start = time.perf_counter()
    found = identify(gallery, torch.arange(asked.gallery), probe[:count], person[:count])
    rates = found.table()
    seconds = time.perf_counter() - start

    scores, whole = count * asked.gallery, asked.probes * asked.gallery
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    floor = 2e-9 * scores * asked.features / rate
    print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"gallery {asked.gallery:,}, {asked.features} features; {count:,} of {asked.probes:,} probes searched")
    for name, value in (
        ("time, s", f"{seconds:.1f}"),
        ("scores a second, million", f"{1e-6 * scores / seconds:,.0f}"),
        ("  of it: bare product, %", f"{100 * floor / seconds:.0f}"),
        ("bare product, GFLOP/s", f"{rate:.0f}"),
        (f"extrapolated to all {whole:.0e} scores, min", f"{seconds * whole / scores / 60:.0f}"),
        ("peak memory, GB", f"{peak:.2f}"),
        ("  of it: the features, GB", f"{(gallery.numel() + probe.numel()) * 4 / 1024**3:.2f}"),
        ("rank-1, %", f"{rates['rank-1']:.1f}"),
        ("DIR at FAR 1%, %", f"{rates['DIR at FAR 1%']:.1f}"),
    ):
        print(f"  {name:<44} {value:>8}")
    print(f"{'within' if peak < LIMIT else 'ABOVE'} the limit of {LIMIT:g} GB")


if __name__ == "__main__":
    main()
