"""One plain loop for every training: CPU, one GPU, many GPUs, many nodes (by torchrun), on Lightning Fabric.

The rows and random numbers of a step depend on the seed and the step only, and the checkpoint holds everything else.
So a training that was killed at any moment can be continued. On one CPU it ends with the same weights, bit for bit.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_download.folders import explained
from facenb.errors import RunError
from facenb.files import hold
from facenb.training.checkpoint import latest_checkpoint, save_checkpoint, weights_digest
from facenb.training.feed import NETWORK, Data, Feed, seed_of
from facenb.training.launch import Stopped, launch, sigterm
from facenb.training.logbook import Bar, History, Log, Progress, Readout, Watch, read_log
from facenb.training.settings import Settings

Modules = dict[str, nn.Module] | nn.Module
Loss = Callable[[Any, dict[str, Tensor]], Mapping[str, Tensor]]


def train(
    modules: Modules,
    loss: Loss,
    data: Data,
    settings: Settings,
    folder: str | Path,
    *,
    validate: Callable[[Any], Mapping[str, Any]] | None = None,
    watch: Watch | None = None,
    device: str | torch.device = "cpu",
) -> History:
    """Train the parameters of `modules` that require gradients, in place, and leave the modules in eval mode.

    Return the log with the time. `data.load(rows, generator)` makes batches; `settings` says how many, how large.

    `loss(modules, batch)` returns `{"loss": the value to minimise, ...: parts for the log}`, means over the batch.
    `validate(modules)` returns numbers for the log; it runs in eval mode, without gradients, on the first process.
    `watch(progress)` is called every `log_every` steps, after each validation and checkpoint, and at the end.
    The modules stay on the device.

    `folder` holds the checkpoints and `log.jsonl`. Called again, `train` goes on from the newest complete checkpoint,
    or returns at once if all steps are done. A checkpoint does not know the loss, the content of the rows, or frozen
    weights. Name the folder with `training_name`. Then a change of these gives another folder.

    After an error or a stop, the modules hold the weights of the last checkpoint, or those they started with.

    Raise RunError if the folder cannot be written, another training runs in it, its checkpoint is of another training,
    a loss or gradient is not finite, or a batch does not fit in memory. Raise Stopped after a SIGTERM.
    """
    begun, folder = time.perf_counter(), Path(folder)
    fabric = launch(torch.device(device), settings.precision)
    gpu, main = fabric.device.type == "cuda", fabric.is_global_zero
    feed, net = Feed(data, settings, fabric.device, fabric.global_rank, fabric.world_size), Step(modules, loss)
    with ExitStack() as stack:
        if main:
            with explained(folder, RunError, "Choose another folder."):
                busy = f"Another training runs in {folder}. End it first, or choose another folder."
                stack.enter_context(hold(folder / "lock", busy))
            for path in folder.glob(".checkpoint-*.partial"):
                path.unlink()
        fabric.barrier()
        checkpoint = latest_checkpoint(folder)
        # The first process decides, since the others receive its weights.
        if problem := fabric.broadcast(net.problem(checkpoint, settings, len(data)) if checkpoint else ""):
            raise RunError(f"The checkpoint in {folder} {problem}. Give another folder, or delete this one.")

        # Random numbers, cuDNN and the signal handler are put back when the training ends.
        stack.enter_context(torch.random.fork_rng([fabric.device] if gpu else [], device_type="cuda"))
        stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=gpu))  # use the fastest convolutions
        received = stack.enter_context(sigterm())

        state = {"step": 0, "seconds": 0.0, "start": weights_digest(net.trained())}
        wrapped, optimiser = fabric.setup(net, make_optimiser(settings, net))
        if checkpoint:
            net.nets.load_state_dict(checkpoint["modules"])
            optimiser.optimizer.load_state_dict(checkpoint.pop("optimiser"))
            state = checkpoint
        state |= {"settings": settings.as_dict(), "rows": len(data)}
        state |= {"trained": list(net.trained()), "modules": net.weights()}
        stack.enter_context(back_to_saved(net, state))

        first, steps, readout = state["step"], settings.steps, Readout(feed, folder)
        batches = stack.enter_context(closing(feed.batches(first)))
        reports = [Log(folder, first), Bar(steps, first), *([watch] if watch else [])] if main else []
        start = since = time.perf_counter()
        waiting, reported = 0.0, first
        net.to_train()
        for step in range(first, steps):
            # Update the weights.
            for group in optimiser.param_groups:
                group["lr"] = settings.rate_at(step)
            torch.manual_seed(seed_of(settings.seed, NETWORK, step, fabric.global_rank))
            means = 0.0
            for part in feed.mine:
                asked = time.perf_counter()
                batch = next(batches)
                waiting += time.perf_counter() - asked
                with fabric.no_backward_sync(wrapped, enabled=part != feed.mine[-1]):
                    losses = wrapped(batch)
                    fabric.backward(losses["loss"] / settings.accumulate)
                values = torch.stack([value.detach().float() for value in losses.values()])
                means = means + values / settings.accumulate
            gradients = {name: value.grad for name, value in net.trained().items() if value.grad is not None}
            norms = torch.stack(torch._foreach_norm(list(gradients.values()))).float()
            if settings.clip:
                nn.utils.clip_grads_with_norm_(net.trained().values(), settings.clip, torch.linalg.vector_norm(norms))
            optimiser.step()
            optimiser.zero_grad()
            means = torch.cat([means, means.new_tensor([len(received)])])  # a signal may reach only one process
            means = fabric.all_reduce(means, reduce_op="mean") if fabric.world_size > 1 else means
            readout.add(step, losses, gradients, torch.cat([means, norms]))

            # Read the losses. Those of a GPU are read one step late, so that the GPU always has work. If a report, a
            # validation or a checkpoint is due, they are read at once.
            done, last = step + 1, step + 1 == steps
            validating = validate is not None and (last or done % (settings.validate_every or steps) == 0)
            saving = last or done % settings.save_every == 0
            reporting = validating or saving or done % settings.log_every == 0
            if stop := readout.read(late=gpu and not reporting):
                saving = reporting = True
                readout.read()
            validation = fabric.broadcast(net.validated(validate) if main else {}) if validating else {}
            if reporting:
                now = time.perf_counter()
                state["seconds"] += now - since
                progress = Progress(
                    step=done,
                    steps=steps,
                    losses=readout.means(),
                    validation=validation,
                    rate=settings.rate_at(step),
                    images_per_second=(done - reported) * settings.batch / (now - since),
                    waiting=waiting / (now - since),
                    seconds=state["seconds"],
                    seconds_left=(steps - done) * (now - start) / (done - first),
                )
                for report in reports:
                    report(progress)
                since, waiting, reported = time.perf_counter(), 0.0, done
            if saving:
                weights = net.weights()
                if bad := [name for name, value in weights.items() if not value.isfinite().all()]:
                    names = ", ".join(bad[:4])
                    raise RunError(f"Not finite after step {done}: {names}. Lower the rate, or set clip.")
                state |= {"step": done, "modules": weights}
                if main:
                    save_checkpoint(folder, state | {"optimiser": optimiser.optimizer.state_dict()})
                fabric.barrier()
            if stop:
                reached = f"step {done} of {steps}. Start it again to go on from there."
                raise Stopped(f"SIGTERM stopped the training in {folder} after {reached}")
    fabric.barrier()
    return History(read_log(folder), first, time.perf_counter() - begun)


class Step(nn.Module):
    """The modules and their loss as one module, so that its forward can run in several processes."""

    def __init__(self, modules: Modules, loss: Loss):
        super().__init__()
        self.nets = nn.ModuleDict(modules if isinstance(modules, dict) else {"module": modules})
        self.given, self.loss = [modules], loss  # in a list, so that it is not registered a second time

    def forward(self, batch: dict[str, Tensor]) -> Mapping[str, Tensor]:
        """Return the losses of a batch."""
        return self.loss(self.given[0], batch)

    @torch.no_grad()
    def validated(self, validate: Callable[[Any], Mapping[str, Any]]) -> dict[str, float]:
        """Return the numbers of `validate(modules)` in eval mode."""
        self.eval()
        numbers = {name: float(value) for name, value in validate(self.given[0]).items()}
        self.to_train()
        return numbers

    def trained(self) -> dict[str, nn.Parameter]:
        """Return the parameters that require gradients."""
        return {name: value for name, value in self.nets.named_parameters() if value.requires_grad}

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of all parameters and buffers, on the CPU."""
        return {name: value.detach().to("cpu", copy=True) for name, value in self.nets.state_dict().items()}

    def to_train(self) -> None:
        """Switch to training mode, except frozen modules: their running statistics must not move either."""
        self.train()
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()

    def problem(self, checkpoint: dict[str, Any], settings: Settings, rows: int) -> str:
        """Return why a checkpoint belongs to another training, or "" if it belongs to this one."""
        if differences := settings.differences(checkpoint["settings"]):
            return f"has other settings: {differences}"
        if rows != checkpoint["rows"]:
            return f"was trained on {checkpoint['rows']} rows of data, not {rows}"
        if list(trained := self.trained()) != checkpoint["trained"]:
            changed = sorted({*trained} ^ {*checkpoint["trained"]})
            return f"trained other parameters; the difference is {', '.join(changed[:4])} ({len(changed)} in all)"
        reached = {name: checkpoint["modules"][name] for name in trained}
        if weights_digest(trained) not in (checkpoint["start"], weights_digest(reached)):
            return "began with other weights than the modules hold"
        return ""


def make_optimiser(settings: Settings, step: Step) -> torch.optim.Optimizer:
    """Return SGD with momentum 0.9, or AdamW; only weights with two or more dimensions decay."""
    groups = [{"params": [], "weight_decay": decay} for decay in (settings.weight_decay, 0.0)]
    for value in step.trained().values():
        groups[value.ndim <= 1]["params"].append(value)
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=settings.rate)


@contextmanager
def back_to_saved(step: Step, state: dict[str, Any]) -> Iterator[None]:
    """Leave the modules in eval mode; after an error they hold `state["modules"]`, the weights saved last."""
    try:
        yield
    except BaseException as error:
        with suppress(RuntimeError):  # a GPU that has failed accepts nothing
            step.nets.load_state_dict(state["modules"])
        if isinstance(error, torch.OutOfMemoryError):
            raise RunError(f"A batch does not fit in memory ({error}). Set a larger accumulate.") from error
        raise
    finally:
        step.eval()
