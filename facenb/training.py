"""One plain loop for every training: CPU, one GPU, many GPUs, many nodes (by torchrun), by Lightning Fabric.

A step's rows and random numbers depend on the seed and the step alone, and everything else is in the checkpoint: a
training killed at any moment goes on, and on one CPU ends with the same weights to the bit.
"""

import logging
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, nn

from facenb.checkpoint import Checkpoint, clear, latest_checkpoint, save_checkpoint
from facenb.errors import RunError
from facenb.feed import NETWORK, Data, Feed, seed_of
from facenb.logbook import Bar, History, Log, Progress, Watch, read_log
from facenb.settings import Settings

__all__ = ["Data", "History", "Progress", "Settings", "Stopped", "train"]

Modules = dict[str, nn.Module] | nn.Module
Loss = Callable[[Any, dict[str, Tensor]], Mapping[str, Tensor]]


class Stopped(RunError):
    """The training was told to end (SIGTERM); its checkpoint is written."""


def train(
    modules: Modules, loss: Loss, data: Data, settings: Settings, folder: str | Path, *,
    validate: Callable[[Any], Mapping[str, float]] | None = None, watch: Watch | None = None,
    device: str | torch.device = "auto", fresh: bool = False,
) -> History:  # fmt: skip
    """Train the parameters of `modules` that ask for gradients, in place, and leave the modules in eval mode.

    `loss(modules, batch)` gives `{"loss": what is minimised, ...: parts for the log}`, all means over the batch.
    `validate(modules)` gives numbers for the log; it runs without gradients, in eval mode, on the first process.
    `watch(progress)` is called every `log_every` steps, after each validation and at the end; None: a bar where stderr
    is a terminal. `device`: "auto", "cpu", "cuda" or a torch device.

    `folder` belongs to this training: checkpoints, `log.csv`, `tensorboard/`. Called again it goes on from the newest
    whole checkpoint, or returns at once where all steps are done; more steps than before may be asked for. `fresh`
    throws away what is there. Many processes need a folder that all of them see.

    Raises RunError: a GPU asked for where there is none; a checkpoint of other modules, settings or another number of
    rows; a loss that is not finite; memory too small for the batch (and which would fit). Stopped after a SIGTERM.
    """
    folder = Path(folder)
    begun = time.perf_counter()
    fabric = _fabric(settings, device)
    gpus = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(gpus, device_type="cuda"), _told_to_end() as told:
        step = _Step(modules, loss)
        run = _Run(fabric, step, data, settings, folder, validate, watch, fresh)
        try:
            run.loop(told)
        finally:
            step.eval()
            run.close()
    fabric.barrier()
    return History(read_log(folder), run.resumed_from, time.perf_counter() - begun, note=run.note)


class _Step(nn.Module):
    """The modules with their loss as one module: what is to be spread over processes is its forward."""

    def __init__(self, modules: Modules, loss: Loss):
        super().__init__()
        self.parts = nn.ModuleDict(modules if isinstance(modules, dict) else {"module": modules})
        self.given, self.loss = [modules], loss  # in a list: not to be registered a second time

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.as_tensor(value) for name, value in self.loss(self.given[0], batch).items()}

    def to_train(self) -> None:
        """Training mode, but for what is frozen: its running statistics are not to move either."""
        self.train()
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


class _Run:
    """One call of `train`: what the loop needs at hand."""

    def __init__(self, fabric: Fabric, step: _Step, data: Data, settings: Settings, folder, validate, watch, fresh):
        self.fabric, self.step, self.data, self.settings, self.folder = fabric, step, data, settings, folder
        self.validate, self.note, self.log = validate, "", None
        parts = fabric.world_size * settings.accumulate
        if settings.batch % parts:
            raise RunError(f"batch {settings.batch} cannot be cut into {parts} equal parts (processes x accumulate)")
        if len(data) == 0:
            raise RunError("there is no row to train on: the data is empty")
        self.named = {name: one for name, one in step.named_parameters() if one.requires_grad}
        if not self.named:
            raise RunError("no parameter of the modules asks for gradients: there is nothing to train")
        if fabric.is_global_zero:
            folder.mkdir(parents=True, exist_ok=True)
            clear(folder, everything=fresh)
        fabric.barrier()
        found = latest_checkpoint(folder)
        if found is not None:
            _check_same(found, step, data, settings)
        self.module, self.optimiser = fabric.setup(step, _optimiser(settings, list(self.named.values())))
        if found is not None:
            self._restore(found)
        self.done = self.resumed_from = found.step if found else 0
        self.seconds = found.facts["seconds"] if found else 0.0
        self.validation: dict[str, float] = found.facts["validation"] if found else {}
        self.validated = -1
        self.watch = watch or Bar(settings.steps, self.done)

    def loop(self, told: list[str]) -> None:
        settings, fabric = self.settings, self.fabric
        if self.done == settings.steps:
            return
        if fabric.is_global_zero:
            self.log = Log(self.folder, self.done, settings.tensorboard)
        first = fabric.global_rank * settings.accumulate
        feed = Feed(
            self.data, batch=settings.batch, seed=settings.seed, start=self.done, stop=settings.steps,
            parts=fabric.world_size * settings.accumulate, mine=list(range(first, first + settings.accumulate)),
            ahead=settings.prefetch, threads=settings.threads, device=fabric.device,
        )  # fmt: skip
        with closing(feed):
            self.step.to_train()
            self.reported, self.since, self.sums = self.done, time.perf_counter(), {}
            while self.done < settings.steps:
                stop = self._update(feed, told)
                self.done += 1
                last = self.done == settings.steps
                if self.validate and (last or settings.validate_every and self.done % settings.validate_every == 0):
                    self._validate()
                    report = True
                else:
                    report = last or self.done % settings.log_every == 0
                save = last or stop or self.done % settings.save_every == 0
                if report or save:
                    self._report(feed)
                if save:
                    self._save()
                if stop and not last:
                    path = self.folder / f"checkpoint-{self.done}.json"
                    raise Stopped(f"told to end (SIGTERM) after step {self.done}; start again to go on from {path}")

    def _update(self, feed: Feed, told: list[str]) -> bool:
        """One step; whether a process was told to end."""
        settings, fabric = self.settings, self.fabric
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate_at(self.done)
        torch.manual_seed(seed_of(settings.seed, NETWORK, self.done, fabric.global_rank))
        total, seen = 0.0, []
        for part in range(settings.accumulate):
            rows, batch = feed.next()
            seen.append(rows)
            with fabric.no_backward_sync(self.module, enabled=part + 1 < settings.accumulate):
                losses = self.module(batch)
                names = _checked(losses)
                total = total + torch.stack([losses[name].detach().float() for name in names]) / settings.accumulate
                if part + 1 == settings.accumulate:  # on its way to the CPU while the GPU goes back through the network
                    means = torch.cat([total, total.new_tensor([float(bool(told))])])
                    means = _Later(fabric.all_reduce(means, reduce_op="mean") if fabric.world_size > 1 else means)
                fabric.backward(losses["loss"] / settings.accumulate)
        *values, stop = means.values()
        losses = dict(zip(names, values, strict=True))
        if not all(map(math.isfinite, values)):
            raise RunError(self._not_finite(losses, torch.cat(seen), batch))
        if settings.clip:
            fabric.clip_gradients(self.module, self.optimiser, max_norm=settings.clip, error_if_nonfinite=False)
        self.optimiser.step()
        self.optimiser.zero_grad()
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        return stop > 0

    def _not_finite(self, losses: dict[str, float], rows: Tensor, batch: dict[str, Tensor]) -> str:
        good = self.folder / f"checkpoint-{self.done // self.settings.save_every * self.settings.save_every}.json"
        return f"step {self.done}: {losses}, rows {rows.tolist()}, last good {good}"

    def _validate(self) -> None:
        self.step.eval()
        with torch.no_grad():
            values = self.validate(self.step.given[0]) if self.fabric.is_global_zero else {}
        self.validated = self.done
        self.validation = {name: float(value) for name, value in self.fabric.broadcast(dict(values)).items()}
        self.step.to_train()

    def _report(self, feed: Feed) -> None:
        """A row of the log and a call of `watch`; the sums begin anew."""
        now, steps = time.perf_counter(), self.done - self.reported
        if steps == 0:
            return
        spent = now - self.since
        self.seconds += spent
        progress = Progress(
            step=self.done, steps=self.settings.steps, epoch=self.done * self.settings.batch / len(self.data),
            losses={name: value / steps for name, value in self.sums.items()}, validation=self.validation,
            rate=self.settings.rate_at(self.done - 1), pictures_per_second=steps * self.settings.batch / spent,
            waiting=feed.waited / spent, seconds=self.seconds,
            seconds_left=(self.settings.steps - self.done) * spent / steps, done=self.done == self.settings.steps,
        )  # fmt: skip
        self.note = progress.note
        if self.log is not None:
            self.log.add(
                self.done,
                {"epoch": progress.epoch, "rate": progress.rate, **progress.losses}
                | {f"validation {name}": value for name, value in self.validation.items() if self.validated == self.done}
                | {"pictures_per_second": progress.pictures_per_second, "waiting": progress.waiting}
                | {"seconds": self.seconds, "note": progress.note},
            )
            self.watch(progress)
        self.reported, self.since, self.sums, feed.waited = self.done, time.perf_counter(), {}, 0.0

    def _save(self) -> None:
        if self.fabric.is_global_zero:
            tensors = {f"weights/{name}": tensor for name, tensor in self.step.state_dict().items()}
            for name, parameter in self.named.items():
                for key, value in self.optimiser.optimizer.state[parameter].items():
                    if isinstance(value, Tensor):
                        tensors[f"optimiser/{name}/{key}"] = value
            facts = {"settings": self.settings.as_dict(), "rows": len(self.data), "seconds": self.seconds}
            save_checkpoint(self.folder, self.done, tensors, facts | {"validation": self.validation})
        self.fabric.barrier()

    def _restore(self, found: Checkpoint) -> None:
        self.step.load_state_dict(
            {name.removeprefix("weights/"): one for name, one in found.tensors.items() if name.startswith("weights/")}
        )
        state = self.optimiser.optimizer.state
        for name, parameter in self.named.items():
            prefix = f"optimiser/{name}/"
            for key, value in found.tensors.items():
                if key.startswith(prefix):
                    place = torch.empty_like(parameter) if value.shape == parameter.shape else torch.empty_like(value)
                    state[parameter][key.removeprefix(prefix)] = place.copy_(value)

    def close(self) -> None:
        if self.log is not None:
            self.log.close()


class _Later:
    """Numbers on their way from the device, without holding up what the device does next."""

    def __init__(self, numbers: Tensor):
        self.event, self.numbers = None, numbers
        if numbers.is_cuda:
            self.numbers = torch.empty(numbers.shape, pin_memory=True).copy_(numbers, non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def values(self) -> list[float]:
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.tolist()


def _checked(losses: Mapping[str, Tensor]) -> list[str]:
    """The names of the losses, where they are what a loss must give."""
    if "loss" not in losses:
        raise RunError(f'the loss gives {", ".join(losses) or "nothing"}; one of them must be called "loss"')
    shapes = {name: tuple(value.shape) for name, value in losses.items() if value.numel() != 1}
    if shapes:
        raise RunError(f"each loss must be one number, the mean over the batch; these have shapes: {shapes}")
    if not losses["loss"].requires_grad:
        raise RunError("the loss does not depend on any parameter that asks for gradients")
    return list(losses)


def _optimiser(settings: Settings, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=settings.rate)


def _check_same(found: Checkpoint, step: _Step, data: Data, settings: Settings) -> None:
    """RunError naming what differs between a checkpoint and the training that is to go on from it."""
    now = {name: tuple(one.shape) for name, one in step.state_dict().items()}
    then = {k.removeprefix("weights/"): tuple(v.shape) for k, v in found.tensors.items() if k.startswith("weights/")}
    other = "; give another folder, or fresh=True to train anew over it"
    if now != then:
        names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        told = ", ".join(f"{n} is {now.get(n, 'not there')} (then {then.get(n, 'not there')})" for n in names[:4])
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise RunError(f"{found.path} is of other modules: {told}{more}{other}")
    if different := settings.differences(found.facts["settings"]):
        raise RunError(f"{found.path} was made with other settings: {different}{other}")
    if len(data) != found.facts["rows"]:
        raise RunError(f"{found.path} was made with {found.facts['rows']} rows of data, here are {len(data)}{other}")
    if settings.steps < found.step:
        raise RunError(f"{found.path} has {found.step} steps behind it, more than the {settings.steps} asked for{other}")


def _fabric(settings: Settings, device: str | torch.device) -> Fabric:
    """Fabric on the device asked for, with the processes that torchrun or Slurm started."""
    asked = str(device)
    if asked.startswith("cuda") and not torch.cuda.is_available():
        raise RunError(f"device is {asked!r}, but torch sees no GPU here; use device 'auto' or 'cpu'")
    gpu = asked != "cpu" and torch.cuda.is_available()
    devices, nodes = settings.devices, settings.nodes
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    elif devices * nodes > 1 and "SLURM_NTASKS" not in os.environ:
        raise RunError(
            f"{devices * nodes} processes were asked for, but this is one alone; start the training with "
            f"`torchrun --nproc-per-node {devices} --nnodes {nodes} -m ...`, or with srun"
        )
    many = devices * nodes > 1
    index = torch.device(asked).index if gpu and asked != "auto" else None
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells of devices on every start
    precision = settings.precision
    if precision == "auto":
        precision = "bf16-mixed" if gpu else "32-true"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Fabric's remarks on the machine
        fabric = Fabric(
            accelerator="cuda" if gpu else "cpu", devices=[index] if index is not None and not many else devices,
            num_nodes=nodes, precision=precision,
            # Phase I leaves the decoders out, phase II the encoder: parameters without a gradient are no mistake.
            strategy=DDPStrategy(find_unused_parameters=True) if many else "auto",
        )  # fmt: skip
        fabric.launch()
    return fabric


@contextmanager
def _told_to_end() -> Iterator[list[str]]:
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
