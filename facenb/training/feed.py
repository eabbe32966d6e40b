"""The order in which a training sees its rows, and a thread that has the next batches ready.

Which rows step i takes, and with what random numbers they are altered, depends on (seed, i) and nothing else: a
training that goes on after a kill sees what it would have seen.
"""

import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from facenb.errors import RunError
from facenb.training.memory import out_of_memory

ORDER, ALTERATION, NETWORK = range(3)  # what random numbers are for; each use has a stream of its own


@runtime_checkable
class Data(Protocol):
    """A set of rows that gives whole batches. `load` draws random numbers from `generator` only, from any thread."""

    def __len__(self) -> int: ...

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator) -> dict[str, Tensor]: ...


def seed_of(*numbers: int) -> int:
    """One 64-bit seed out of several numbers, all of which count."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


@lru_cache(maxsize=2)
def _permutation(rows: int, seed: int, epoch: int) -> Int[Tensor, " rows"]:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed_of(seed, ORDER, epoch)))


def rows_of_step(step: int, batch: int, rows: int, seed: int) -> Int[Tensor, " batch"]:
    """The rows that a step (from 0) takes.

    Each epoch is a permutation of all rows; the epochs stand in one line, and the steps cut it into batches, so that
    no row is left out and a batch may hold the end of one epoch and the beginning of the next.
    """
    epoch, start = divmod(step * batch, rows)
    line = [_permutation(rows, seed, epoch)]
    while sum(map(len, line)) < start + batch:
        epoch += 1
        line.append(_permutation(rows, seed, epoch))
    return torch.cat(line)[start : start + batch] if len(line) > 1 else line[0][start : start + batch]


class Feed:
    """Batches in the order of the steps, loaded ahead by threads.

    A step's rows are cut into `parts` equal parts; this process takes those named in `mine`, one after the other.
    """

    def __init__(
        self, data: Data, *, batch: int, seed: int, start: int, stop: int, parts: int, mine: Sequence[int],
        ahead: int, threads: int, device: torch.device,
    ):  # fmt: skip
        self.data, self.batch, self.seed, self.parts, self.device = data, batch, seed, parts, device
        self.wanted = ((step, part) for step in range(start, stop) for part in mine)
        self.cores = torch.get_num_threads()
        # A loader takes one core; the others belong to the network.
        self.pool = ThreadPoolExecutor(threads, "loader", initializer=torch.set_num_threads, initargs=(1,))
        self.ready: deque[Future] = deque()
        self.waited = 0.0  # seconds since somebody set it to 0
        for _ in range(max(ahead, 1)):
            self._ask()

    def next(self) -> dict[str, Tensor]:
        """The batch that comes next, on the device. What the data's `load` raises is raised here."""
        future = self.ready.popleft()
        if not future.done():
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # as long as the GPU has work left, nobody waits for data
            start = time.perf_counter()
            future.exception()
            self.waited += time.perf_counter() - start
        try:
            _, batch = future.result()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise RunError(
                f"there is no memory to load {self.batch // self.parts} rows ({error}); choose a smaller batch or "
                "prefetch, or a larger accumulate"
            ) from error
        self._ask()
        return {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}

    def close(self) -> None:
        """Let the threads end; what they were loading is thrown away."""
        self.pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self.cores)  # what the loaders set is also what new threads begin with

    def _ask(self) -> None:
        place = next(self.wanted, None)
        if place is not None:
            self.ready.append(self.pool.submit(self.load, *place))

    def load(self, step: int, part: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Rows and batch of a part of a step, the same whenever it is asked for; in memory, not on the device."""
        size = self.batch // self.parts
        rows = rows_of_step(step, self.batch, len(self.data), self.seed)[part * size : (part + 1) * size]
        generator = torch.Generator().manual_seed(seed_of(self.seed, ALTERATION, step, part))
        batch = self._checked(self.data.load(rows, generator))
        if self.device.type == "cuda":
            batch = {name: tensor.pin_memory() for name, tensor in batch.items()}
        return rows, batch

    def _checked(self, batch: Any) -> dict[str, Tensor]:
        """RunError where what the data's `load` gave is no dictionary of tensors."""
        told = f"`load` of {type(self.data).__name__} gives"
        if not isinstance(batch, Mapping):
            raise RunError(f"{told} a {type(batch).__name__}; it must give a dictionary of tensors, by name")
        others = {name: type(one).__name__ for name, one in batch.items() if not isinstance(one, Tensor)}
        if others:
            raise RunError(f"{told} what is no tensor: {others}; make tensors of these, or leave them out")
        return dict(batch)
