"""Where a training runs: devices, processes, precision; and how it hears that it is to end."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor

from facenb.errors import RunError
from facenb.training.settings import Settings


class Stopped(RunError):
    """The training was told to end (SIGTERM); its checkpoint is written."""


def launch(settings: Settings, device: str | torch.device) -> Fabric:
    """Fabric on the device asked for, together with the processes that torchrun or Slurm started beside this one.

    Raises RunError for a GPU where there is none, and for several processes where nothing started them.
    """
    asked = str(device)
    try:
        known = asked == "auto" or torch.device(asked).type in ("cpu", "cuda")
    except RuntimeError:  # what torch knows no device by
        known = False
    if not known:
        raise RunError(f"device is {asked!r}; choose 'auto', 'cpu', or 'cuda'")
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"device is {asked!r}, but torch sees no GPU here; use device 'auto' or 'cpu'")
    gpu = asked != "cpu" and torch.cuda.is_available()
    devices, nodes = settings.devices, settings.nodes
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif devices * nodes > 1 and "SLURM_NTASKS" not in os.environ:
        raise RunError(
            f"{devices * nodes} processes are asked for, but this is one alone; start the training with "
            f"`torchrun --nnodes {nodes} --nproc-per-node {devices} -m ...`, or with srun"
        )
    many = devices * nodes > 1
    index = torch.device(asked).index if gpu and asked != "auto" else None
    precision = settings.precision
    if precision == "auto":
        bf16 = gpu and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16-mixed" if bf16 else "32-true"
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of the devices at every start
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    # Phase I leaves the decoders out, phase II the encoder: parameters without a gradient are no mistake.
    strategy = DDPStrategy(find_unused_parameters=True) if many else "auto"
    which = [index] if index is not None and not many else devices
    try:
        fabric = Fabric(
            accelerator="cuda" if gpu else "cpu", strategy=strategy, devices=which, num_nodes=nodes, precision=precision
        )
    except (MisconfigurationException, ValueError) as error:
        raise RunError(f"{devices} processes on each of {nodes} nodes cannot run here: {error}") from error
    fabric.launch()
    return fabric


@contextmanager
def told_to_end() -> Iterator[list[str]]:
    """A list that is no longer empty once a SIGTERM came. Python lets the main thread alone listen to signals."""
    told: list[str] = []
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("SIGTERM"))
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the folder, and keep it to this training while it lasts; the system frees it however the training ends.

    Raises RunError where the folder cannot be written, and where another training is at work in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "w")
    except OSError as error:
        raise RunError(f"cannot write to {folder} ({error.strerror}); choose another folder") from error
    with file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(
                f"another training is at work in {folder}; end it first, or choose another folder"
            ) from error
        except (ImportError, OSError):
            pass  # Windows, and network disks without locks
        yield


@contextmanager
def tuned(device: torch.device) -> Iterator[None]:
    """On a GPU: try out the ways to convolve, once for each shape, and take the fastest. As it was before, after."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class Later:
    """Numbers on their way from the device, without holding up what the device does next."""

    def __init__(self, numbers: Tensor):
        self.numbers, self.event = numbers, None
        if numbers.is_cuda:
            self.numbers = torch.empty(numbers.shape, pin_memory=True).copy_(numbers, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def values(self) -> list[float]:
        """The numbers, once they have arrived."""
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.tolist()
