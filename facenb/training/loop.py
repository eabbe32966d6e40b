"""One plain loop for every training: CPU, one GPU, many GPUs, many nodes (by torchrun), on Lightning Fabric.

A step's rows and random numbers depend on the seed and the step alone, and everything else is in the checkpoint: a
training killed at any moment goes on, and on one CPU ends with the same weights to the bit.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from facenb.errors import RunError
from facenb.training.checkpoint import Checkpoint, clear, latest_checkpoint, list_checkpoints, save_checkpoint
from facenb.training.feed import NETWORK, Data, Feed, seed_of
from facenb.training.launch import Later, Stopped, alone_in, launch, told_to_end, tuned
from facenb.training.logbook import Bar, History, Log, Progress, Watch, read_log
from facenb.training.memory import out_of_memory, rows_that_fit
from facenb.training.settings import Settings
from facenb.training.step import (
    Loss,
    Modules,
    Step,
    check_same,
    check_weights,
    make_optimiser,
    restore,
    start_of,
    state_of,
)


def train(
    modules: Modules, loss: Loss, data: Data, settings: Settings, folder: str | Path, *,
    validate: Callable[[Any], Mapping[str, Any]] | None = None, watch: Watch | None = None,
    device: str | torch.device = "auto", fresh: bool = False,
) -> History:  # fmt: skip
    """Train the parameters of `modules` that ask for gradients, in place, and leave the modules in eval mode.

    `loss(modules, batch)` gives `{"loss": what is minimised, ...: parts for the log}`, all means over the batch.
    `validate(modules)` gives numbers for the log; it runs without gradients, in eval mode, on the first process.
    `watch(progress)` is called every `log_every` steps, with each validation and checkpoint and at the end; None: a
    bar where stderr is a terminal. `device`: "auto", "cpu", "cuda" or a torch device; the modules stay there.

    `folder` belongs to this training: checkpoints, `log.csv`, `tensorboard/`. Called again it goes on from the newest
    whole checkpoint, or returns at once where all steps are done. More steps than before may be asked for; with a
    cosine that is another training than that many at once. `fresh` throws away what is there. Several processes need a
    folder that all of them see.

    What goes on has to be the same training. Compared are settings, shapes, the number of rows and the weights that the
    trained parameters start with; not the loss, which is code, nor what is in the rows or in frozen modules: with
    another of these the old network comes back. So give the folder a name that changes with them:
    `training.naming.training_name(name, facts, modules)`.

    Raises RunError: a GPU asked for where there is none; a folder that cannot be written, or in which another training
    is at work; a checkpoint of other modules, settings or number of rows, or where the trained parameters are neither
    those it started from nor its own; data or a loss that do not give what they have to; a loss or gradient that is
    not finite; memory too small for the batch (and which would fit). Stopped after a SIGTERM.
    """
    begun, folder = time.perf_counter(), Path(folder)
    step = Step(modules, loss)
    fabric = launch(settings, device)
    gpus = [fabric.device] if fabric.device.type == "cuda" else []
    with ExitStack() as around:
        around.enter_context(alone_in(folder) if fabric.is_global_zero else nullcontext())
        around.enter_context(torch.random.fork_rng(gpus, device_type="cuda"))
        around.enter_context(tuned(fabric.device))
        told = around.enter_context(told_to_end())
        run = _Run(fabric, step, data, settings, folder, fresh, validate, watch, told)
        try:
            run.loop()
        except BaseException:
            with suppress(RuntimeError):  # a GPU that failed gives nothing back
                _left[folder.resolve()] = start_of(step)
            raise
        finally:
            run.close()
            step.eval()
    fabric.barrier()
    return History(read_log(folder), run.resumed_from, time.perf_counter() - begun, run.note)


# Weights (their digest) in the middle of a training that was interrupted, by its folder: a cell that is run again in a
# notebook gives these, and may go on from the checkpoint.
_left: dict[Path, str] = {}


class _Run:
    """One call of `train`: what its loop needs at hand."""

    def __init__(
        self, fabric: Fabric, step: Step, data: Data, settings: Settings, folder: Path, fresh: bool,
        validate: Callable | None, watch: Watch | None, told: list[str],
    ):  # fmt: skip
        self.fabric, self.step, self.settings, self.folder, self.rows = fabric, step, settings, folder, len(data)
        self.validate, self.told = validate, told
        parts = fabric.world_size * settings.accumulate
        if settings.batch % parts:
            raise RunError(
                f"batch {settings.batch} cannot be cut into {parts} equal parts ({fabric.world_size} processes times "
                f"accumulate {settings.accumulate}); choose a batch that {parts} divides"
            )
        if not self.rows:
            raise RunError("the data has no rows: there is nothing to train on")
        found = self._found(fresh)
        self.start = start_of(step) if found is None else found.facts.get("start")
        self.module, self.optimiser = fabric.setup(step, make_optimiser(settings, step))
        self.done, self.seconds, self.validation = 0, 0.0, {}
        if found is not None:
            restore(found, step, self.optimiser.optimizer)
            self.done, self.seconds, self.validation = found.step, found.facts["seconds"], found.facts["validation"]
        self.resumed_from, self.validated, self.note, self.log = self.done, -1, "", None
        names = {one: name.removeprefix("parts.") for name, one in step.trained().items()}
        self.trained = [(names[one], one) for group in self.optimiser.param_groups for one in group["params"]]
        self.slopes: tuple[int, list[str], Later] | None = None  # step, names, norms of the last gradient
        self.watch = watch or (Bar(settings.steps, self.done) if fabric.is_global_zero else None)
        first = fabric.global_rank * settings.accumulate
        self.mine = range(first, first + settings.accumulate)
        self.feed = Feed(
            data, batch=settings.batch, seed=settings.seed, start=self.done, stop=settings.steps, parts=parts,
            mine=self.mine, ahead=settings.prefetch, threads=settings.threads, device=fabric.device,
        )  # fmt: skip

    def _found(self, fresh: bool) -> Checkpoint | None:
        """The checkpoint to go on from, once it is known to be of this training."""
        if self.fabric.is_global_zero:
            clear(self.folder, everything=fresh)
        self.fabric.barrier()
        found = latest_checkpoint(self.folder)
        if found is not None:
            check_same(found, self.step, self.rows, self.settings)
            self._check_weights(found)
        return found

    def _check_weights(self, found: Checkpoint) -> None:
        """`check_weights` for the first process, whose weights the others get; all of them raise what it found."""
        wrong = None
        if self.fabric.is_global_zero:
            try:
                check_weights(found, self.step, _left.get(self.folder.resolve()))
            except RunError as error:
                wrong = str(error)
        if wrong := self.fabric.broadcast(wrong):
            raise RunError(wrong)

    def loop(self) -> None:
        """Steps until all are done, with what belongs between them."""
        settings = self.settings
        if self.done == settings.steps:
            return
        self.step.to_train()
        self.begun = self.since = time.perf_counter()
        self.reported, self.sums, self.counts = self.done, {}, {}
        while self.done < settings.steps:
            stop = self._one_step()
            self.done += 1
            last = self.done == settings.steps
            validate = self.validate is not None and (last or _due(self.done, settings.validate_every))
            save = last or stop or _due(self.done, settings.save_every)
            if validate or save:
                self._check_gradient()
            if validate:
                self._validate()
            if validate or save or _due(self.done, settings.log_every):
                self._report()
            if save:
                self._save()
            if stop:
                raise Stopped(
                    f"told to end (SIGTERM) after step {self.done} of {settings.steps}; "
                    f"start it again to go on from {self.folder / f'checkpoint-{self.done}.json'}"
                )

    def _one_step(self) -> bool:
        """One update; whether a process was told to end. RunError where memory is short."""
        try:
            return self._update()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            told = str(error).strip().splitlines()[0]
        # Out here, because the error's frames held on to the step's tensors.
        raise RunError(self._too_large(told))

    def _update(self) -> bool:
        settings, fabric = self.settings, self.fabric
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate_at(self.done)
        torch.manual_seed(seed_of(settings.seed, NETWORK, self.done, fabric.global_rank))
        total = 0.0
        for part in range(settings.accumulate):
            batch = self.feed.next()
            last = part + 1 == settings.accumulate
            with fabric.no_backward_sync(self.module, enabled=not last):
                losses = self.module(batch)
                total = total + torch.stack([one.detach().float() for one in losses.values()]) / settings.accumulate
                if last:  # off to the CPU, while the device goes back through the network
                    means = torch.cat([total, total.new_tensor([len(self.told)])])
                    means = Later(fabric.all_reduce(means, reduce_op="mean") if fabric.world_size > 1 else means)
                fabric.backward(losses["loss"] / settings.accumulate)
        *values, stop = means.values()
        self._check_gradient()  # the step before's: first, since its harm is in this loss
        if not all(map(math.isfinite, values)):
            told = ", ".join(f"{name} {value:.6g}" for name, value in zip(losses, values, strict=True))
            raise RunError(
                f"the loss of step {self.done + 1} is not finite ({told}). "
                + self._batch_of(self.done, "lower the rate, set clip, or look at the loss")
            )
        self._clip()
        self.optimiser.step()
        self.optimiser.zero_grad()
        for name, value in zip(losses, values, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1  # a part of the loss may be there in some steps only
        return stop > 0

    def _validate(self) -> None:
        self.step.eval()
        with torch.no_grad():
            values = dict(self.validate(self.step.given[0])) if self.fabric.is_global_zero else {}
        self.validation = {name: float(value) for name, value in self.fabric.broadcast(values).items()}
        self.validated = self.done
        self.step.to_train()

    def _report(self) -> None:
        """A row of the log, and a call of `watch`, about the steps since the last one."""
        settings, now, steps = self.settings, time.perf_counter(), self.done - self.reported
        spent = now - self.since
        self.seconds += spent
        progress = Progress(
            step=self.done, steps=settings.steps, epoch=self.done * settings.batch / self.rows,
            losses={name: value / self.counts[name] for name, value in self.sums.items()}, validation=self.validation,
            rate=settings.rate_at(self.done - 1), pictures_per_second=steps * settings.batch / spent,
            waiting=self.feed.waited / spent, seconds=self.seconds, done=self.done == settings.steps,
            seconds_left=(settings.steps - self.done) * (now - self.begun) / (self.done - self.resumed_from),
        )  # fmt: skip
        self.note = progress.note
        if self.fabric.is_global_zero:
            if self.log is None:  # only now: a training that fails in its first step leaves the table as it was
                self.log = Log(self.folder, self.resumed_from, settings.tensorboard)
            self.log.add(progress, validated=self.validated == self.done)
        if self.fabric.is_global_zero and self.watch is not None:
            self.watch(progress)
        self.reported, self.sums, self.counts, self.feed.waited = self.done, {}, {}, 0.0
        self.since = time.perf_counter()

    def _save(self) -> None:
        tensors = state_of(self.step, self.optimiser.optimizer)
        bad = [name for name, one in tensors.items() if one.is_floating_point() and not one.isfinite().all()]
        if bad:
            raise RunError(
                f"after step {self.done} {', '.join(bad[:4])} of {len(tensors)} tensors are not finite, though the "
                f"loss was; nothing is saved. Lower the rate or set clip; {self._last_good()}"
            )
        if self.fabric.is_global_zero:
            facts = {"settings": self.settings.as_dict(), "rows": self.rows, "trained": list(self.step.trained())}
            facts |= {"start": self.start, "seconds": self.seconds, "validation": self.validation}
            save_checkpoint(self.folder, self.done, tensors, facts)
        self.fabric.barrier()

    def _clip(self) -> None:
        """Clip the gradient where that is asked for, and see by the norms of its parts whether it is finite.

        On a GPU they are read with the next loss, which the loop waits for anyway.
        """
        parts = [(name, one.grad) for name, one in self.trained if one.grad is not None]
        if not parts:
            raise RunError("the loss does not depend on any parameter of the modules that asks for gradients")
        norms = torch.stack(torch._foreach_norm([grad for _, grad in parts]))  # as torch's own clipping has them
        self.slopes = self.done, [name for name, _ in parts], Later(norms)
        if self.slopes[-1].event is None:  # on a CPU they are here
            self._check_gradient()
        if self.settings.clip:
            given = [one for _, one in self.trained]
            torch.nn.utils.clip_grads_with_norm_(given, self.settings.clip, torch.linalg.vector_norm(norms))

    def _check_gradient(self) -> None:
        """RunError where the last gradient was not finite, though its loss was."""
        if self.slopes is None:
            return
        (step, names, norms), self.slopes = self.slopes, None
        bad = [name for name, norm in zip(names, norms.values(), strict=True) if not math.isfinite(norm)]
        if bad:
            raise RunError(
                f"the gradient of step {step + 1} is not finite, though its loss is: {', '.join(bad[:4])} "
                f"({len(bad)} of {len(names)} parameters). "
                + self._batch_of(step, "look in the loss for a root, norm or division at 0, whose slope is not finite")
            )

    def _batch_of(self, step: int, advice: str) -> str:
        """Rows of a step, what of their data is not finite or else `advice`, and what is saved."""
        rows, harmed = [], {}
        for part in self.mine:  # loaded again: the same rows, altered in the same way
            some, batch = self.feed.load(step, part)
            rows += some.tolist()
            for name, tensor in batch.items():
                if not tensor.is_floating_point() or tensor.isfinite().all():
                    continue
                wrong = ~tensor.isfinite().reshape(len(tensor) if tensor.ndim else 1, -1).all(1)
                if len(wrong) == len(some):
                    harmed.setdefault(f"{name} of rows", []).extend(some[wrong].tolist())
                else:  # not one for each row, as pairs are: by the place in what was loaded
                    at = f" of part {part - self.mine[0] + 1}" if len(self.mine) > 1 else ""
                    harmed[f"{name}{at} (of length {len(wrong)}) at"] = wrong.nonzero()[:, 0].tolist()
        cause = f"the data of these rows is finite: {advice}"
        if harmed:
            cause = "not finite in the data: " + "; ".join(f"{what} {wrong}" for what, wrong in harmed.items())
        world, rank = self.fabric.world_size, self.fabric.global_rank
        share = f" in process {rank} of {world}" if world > 1 else ""
        return f"Its batch is rows {rows}{share}; {cause}. Nothing of it is saved; {self._last_good()}"

    def _last_good(self) -> str:
        paths = list_checkpoints(self.folder)
        return f"the last good checkpoint is {paths[0]}" if paths else "there is no checkpoint yet"

    def _too_large(self, told: str) -> str:
        """Which batch would fit, found by trying."""
        settings, world = self.settings, self.fabric.world_size
        part = settings.batch // (world * settings.accumulate)
        _, batch = self.feed.load(self.done, self.mine[0])
        batch = {name: tensor.to(self.fabric.device) for name, tensor in batch.items()}
        fits = rows_that_fit(self.step, batch, settings, self.optimiser.optimizer, self.fabric.autocast)
        words = f"{part} rows at once do not fit in the memory of {self.fabric.device} ({told}). "
        if not fits:
            return words + "Not even one row does: take a smaller network, smaller pictures or another device"
        cuts = range(settings.accumulate, settings.batch + 1)
        cut = next(cut for cut in cuts if settings.batch % (cut * world) == 0 and settings.batch <= fits * cut * world)
        return words + f"{fits} do: set accumulate={cut}, which learns the same, or batch={fits * world}"

    def close(self) -> None:
        """End the threads that load, the log and the bar."""
        self.feed.close()
        for one in (self.log, self.watch):
            if isinstance(one, (Log, Bar)):
                one.close()


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
