"""Where a training runs (device, processes, precision), and how a signal stops it."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from facenb.errors import RunError


class Stopped(RunError):
    """A SIGTERM stopped the training; its checkpoint is written."""


def launch(device: torch.device, precision: str) -> Fabric:
    """Return Fabric on a device, with the processes that torchrun started."""
    gpu = device.type == "cuda"
    if precision == "auto":
        bf16 = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    devices, nodes, strategy = 1, 1, "auto"
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        # Phase I does not use the decoders, and phase II does not use the encoder, so some parameters get no gradient.
        strategy = DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto"
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    elif device.index is not None and gpu:
        devices = [device.index]
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it reports the devices at every start
    places = {"accelerator": "cuda" if gpu else "cpu", "devices": devices, "num_nodes": nodes}
    fabric = Fabric(**places, strategy=strategy, precision=precision)
    fabric.launch()
    return fabric


@contextmanager
def sigterm() -> Iterator[list[int]]:
    """Yield a list to which each SIGTERM adds its number. Python delivers signals to the main thread only."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
