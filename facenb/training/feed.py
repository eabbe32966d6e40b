"""The order of the rows, which depends on the seed and the step only, and threads that load the next batches."""

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from facenb.errors import RunError
from facenb.training.settings import Settings

ORDER, ALTERATION, NETWORK = range(3)  # each use of random numbers has its own stream
AHEAD = 4  # batches loaded ahead, so that images that load slowly do not delay a step


@runtime_checkable
class Data(Protocol):
    """A set of rows, loaded as whole batches. `load` runs in threads; it draws random numbers from `generator` only."""

    def __len__(self) -> int: ...

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator) -> dict[str, Tensor]: ...


def seed_of(*numbers: int) -> int:
    """Return one 64-bit seed that depends on all the numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> Int[Tensor, " rows"]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed_of(seed, ORDER, epoch)))


def rows_of_step(step: int, batch: int, rows: int, seed: int) -> Int[Tensor, " batch"]:
    """Return the rows of a step (from 0).

    Each epoch is a permutation of all rows. The steps cut the sequence of epochs into batches, so no row is left out
    and a batch may hold the end of one epoch and the start of the next.
    """
    first, start = divmod(step * batch, rows)
    last = ((step + 1) * batch - 1) // rows
    epochs = [_permutation(rows, seed, epoch) for epoch in range(first, last + 1)]
    return torch.cat(epochs)[start : start + batch]


class Feed:
    """The batches of a training.

    Each batch is cut into equal parts, `accumulate` for each process; this process loads the parts `mine`.
    """

    def __init__(self, data: Data, settings: Settings, device: torch.device, rank: int = 0, processes: int = 1):
        self.data, self.settings, self.device = data, settings, device
        parts = processes * settings.accumulate
        if settings.batch % parts:
            whole = f"{parts} (accumulate times the number of processes)"
            raise RunError(f"The batch of {settings.batch} rows must be a multiple of {whole}. Change the settings.")
        self.size = settings.batch // parts
        self.mine = range(rank * settings.accumulate, (rank + 1) * settings.accumulate)

    def load(self, step: int, part: int) -> tuple[Int[Tensor, " rows"], dict[str, Tensor]]:
        """Return the rows and the batch of one part of a step, in the memory of the CPU."""
        rows = rows_of_step(step, self.settings.batch, len(self.data), self.settings.seed).split(self.size)[part]
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, ALTERATION, step, part))
        batch = self.data.load(rows, generator)
        if self.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return rows, batch

    def batches(self, first: int) -> Iterator[dict[str, Tensor]]:
        """Yield this process's parts of all steps from `first` on, on the device, while threads load the next parts."""
        cores, queue = torch.get_num_threads(), deque()
        order = ((step, part) for step in range(first, self.settings.steps) for part in self.mine)
        # Each loader uses one core; the network uses the others.
        pool = ThreadPoolExecutor(self.settings.threads, initializer=torch.set_num_threads, initargs=(1,))
        try:
            queue.extend(pool.submit(self.load, *index) for index in itertools.islice(order, AHEAD))
            while queue:
                _, batch = queue.popleft().result()
                queue.extend(pool.submit(self.load, *index) for index in itertools.islice(order, 1))
                yield {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(cores)  # else new threads use the number set by the last loader
