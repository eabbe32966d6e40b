"""What is trained: modules and their loss as one module, its optimiser, and the state a checkpoint keeps of both."""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from facenb.errors import RunError
from facenb.training.checkpoint import Checkpoint
from facenb.training.naming import weights_digest
from facenb.training.settings import Settings

Modules = dict[str, nn.Module] | nn.Module
Loss = Callable[[Any, dict[str, Tensor]], Mapping[str, Tensor]]
ANEW = "; give another folder, or fresh=True to train anew over it"


class Step(nn.Module):
    """The modules with their loss as one module: what is to be spread over processes is its forward."""

    def __init__(self, modules: Modules, loss: Loss):
        super().__init__()
        self.parts = nn.ModuleDict(modules if isinstance(modules, dict) else {"module": modules})
        self.given, self.loss = [modules], loss  # in a list: not to be registered a second time
        if not self.trained():
            raise RunError("no parameter of the modules asks for gradients: there is nothing to train")

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses of a batch. RunError where they are not what a loss has to give."""
        losses = self.loss(self.given[0], batch)
        if not isinstance(losses, Mapping):
            raise RunError(f'the loss gives a {type(losses).__name__}; it must give {{"loss": what is minimised, ...}}')
        losses = {name: torch.as_tensor(value) for name, value in losses.items()}
        if "loss" not in losses:
            raise RunError(f'the loss gives {", ".join(losses) or "nothing"}; one of them must be called "loss"')
        shapes = {name: tuple(value.shape) for name, value in losses.items() if value.numel() != 1}
        if shapes:
            raise RunError(f"each loss must be one number, the mean over the batch; these have shapes: {shapes}")
        if torch.is_grad_enabled() and not losses["loss"].requires_grad:
            raise RunError("the loss does not depend on any parameter that asks for gradients")
        return {name: value.reshape(()) for name, value in losses.items()}

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that ask for gradients."""
        return {name: one for name, one in self.named_parameters() if one.requires_grad}

    def to_train(self) -> None:
        """Training mode, but for what is frozen: its running statistics are not to move either."""
        self.train()
        for module in self.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()


def make_optimiser(settings: Settings, step: Step) -> torch.optim.Optimizer:
    """SGD with momentum 0.9, or AdamW; weights of two dimensions and more decay."""
    parameters = step.trained().values()
    groups = [
        {"params": [one for one in parameters if one.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [one for one in parameters if one.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.rate, momentum=0.9)
    return torch.optim.AdamW(groups, lr=settings.rate)


def state_of(step: Step, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors to go on from: `weights/<name>` and `optimiser/<name of the parameter>/<key>`."""
    tensors = {f"weights/{name}": tensor for name, tensor in step.parts.state_dict().items()}
    for name, parameter in step.trained().items():
        for key, value in optimiser.state[parameter].items():
            if isinstance(value, Tensor):
                tensors[f"optimiser/{name}/{key}"] = value
    return tensors


def restore(found: Checkpoint, step: Step, optimiser: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors back where `state_of` took them from."""
    step.parts.load_state_dict(_weights(found))
    for name, parameter in step.trained().items():
        prefix = f"optimiser/{name}/"
        for key, value in found.tensors.items():
            if key.startswith(prefix):
                key = key.removeprefix(prefix)
                # As the optimiser made it: the count of steps on the CPU, all else on the parameter's device.
                place = value if key == "step" else torch.empty_like(parameter, requires_grad=False).copy_(value)
                optimiser.state[parameter][key] = place


def check_same(found: Checkpoint, step: Step, rows: int, settings: Settings) -> None:
    """RunError naming what differs between a checkpoint and the training that is to go on from it."""
    now = {name: tuple(one.shape) for name, one in step.parts.state_dict().items()}
    then = {name: tuple(one.shape) for name, one in _weights(found).items()}
    if now != then:
        names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        told = ", ".join(f"{name} {now.get(name, 'absent')} (then {then.get(name, 'absent')})" for name in names[:4])
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise RunError(f"{found.path} is of other modules: {told}{more}{ANEW}")
    if different := settings.differences(found.facts["settings"]):
        raise RunError(f"{found.path} was made with other settings: {different}{ANEW}")
    if rows != found.facts["rows"]:
        raise RunError(f"{found.path} was made with {found.facts['rows']} rows of data, here are {rows}{ANEW}")
    if settings.steps < found.step:
        raise RunError(f"{found.path} has done {found.step} steps, more than the {settings.steps} asked for{ANEW}")
    if found.facts["trained"] != list(step.trained()):
        raise RunError(f"{found.path} trained other parameters of the same modules (requires_grad differs){ANEW}")
    if settings.schedule == "cosine" and found.step == found.facts["settings"]["steps"] < settings.steps:
        warnings.warn(
            f"{found.path} has gone through its whole cosine: going on from {found.step} to {settings.steps} steps "
            f"raises the rate again and is another training than {settings.steps} steps at once; for that one"
            f"{ANEW[1:]}",
            stacklevel=5,
        )


def check_weights(found: Checkpoint, step: Step, left: str | None = None) -> None:
    """RunError where the trained parameters are neither what the checkpoint's training began with nor what it is at.

    `left`: the digest of others that are welcome. A checkpoint that keeps no digest passes.
    """
    start, then = found.facts.get("start"), _weights(found)
    reached = weights_digest({name: then[name] for name in _trained(step)})
    if start is not None and start_of(step) not in (start, reached, left):
        raise RunError(
            f"{found.path} is of a training from other weights: the modules hold neither those that it started with "
            f"nor those that it has reached. To go on with it, make them as they were then{ANEW}"
        )


def start_of(step: Step) -> str:
    """A digest of the trained parameters."""
    return weights_digest(_trained(step))


def _trained(step: Step) -> dict[str, Tensor]:
    """The trained parameters by their names in a checkpoint."""
    return {name: one.detach() for name, one in step.parts.named_parameters() if one.requires_grad}


def _weights(found: Checkpoint) -> dict[str, Tensor]:
    return {name.removeprefix("weights/"): one for name, one in found.tensors.items() if name.startswith("weights/")}
