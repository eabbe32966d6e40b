"""Memory that a batch does not fit into: telling it from other errors, and finding what would fit."""

import gc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from facenb.training.settings import Settings
from facenb.training.step import Step

NO_MEMORY = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that a batch was too large."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_MEMORY)
    )


def rows_that_fit(
    step: Step, batch: dict[str, Tensor], settings: Settings, optimiser: torch.optim.Optimizer, autocast: Callable
) -> int:
    """How many rows of a batch pass forward and back: the half, the quarter and so on are tried; 0 where not even one.

    Room for what the optimiser keeps is set apart where it has not taken it yet. Gradients are lost.
    """
    rows = max(len(tensor) for tensor in batch.values() if tensor.ndim)
    for size in _halves(rows):
        _free(optimiser)
        part = {name: one[:size] if one.ndim and len(one) == rows else one for name, one in batch.items()}
        if _passes(step, part, settings, optimiser, autocast):
            _free(optimiser)
            return size
    return 0


def _halves(rows: int) -> Iterator[int]:
    while rows > 1:
        rows //= 2
        yield rows


def _passes(step, batch, settings, optimiser, autocast: Callable[[], AbstractContextManager]) -> bool:
    try:
        copies = 0 if optimiser.state else {"sgd": 1, "adamw": 2}[settings.optimiser]
        reserve = [torch.empty_like(one) for one in step.trained().values() for _ in range(copies)]
        with autocast():
            loss = step(batch)["loss"]
        loss.backward()
        del reserve
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False


def _free(optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
