"""A small training for the tests, and jobs of it in processes of their own: `training_jobs.py <job> <folder>`."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from facenb.errors import RunError
from facenb.training import Settings, train


class Points:
    """Points in space with a value each, blurred by the generator as pictures are by augmentation."""

    def __init__(self, rows: int = 50, blur: float = 0.1):
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(rows, 3, generator=generator)
        self.y = (self.x @ torch.tensor([[1.0], [-2.0], [0.5]])).sin()
        self.blur = blur
        self.asked: list[list[int]] = []

    def __len__(self) -> int:
        return len(self.x)

    def load(self, rows, generator):
        self.asked.append(rows.tolist())
        noise = torch.randn(len(rows), 3, generator=generator)
        return {"x": self.x[rows] + self.blur * noise, "y": self.y[rows], "row": rows}


def modules(dropout: float = 0.2, norm: bool = True) -> dict[str, nn.Module]:
    """A network with running statistics and randomness of its own, a head, and a part that no loss reaches."""
    torch.manual_seed(2)
    layers = [nn.Linear(3, 8), nn.BatchNorm1d(8) if norm else nn.Identity(), nn.PReLU(), nn.Dropout(dropout)]
    return {"network": nn.Sequential(*layers), "head": nn.Linear(8, 1), "idle": nn.Linear(2, 2)}


def loss(parts, batch):
    error = parts["head"](parts["network"](batch["x"])) - batch["y"]
    return {"loss": error.square().mean(), "absolute": error.abs().mean()}


def settings(**changes) -> Settings:
    usual = {"steps": 20, "batch": 8, "rate": 0.05, "save_every": 5, "log_every": 1}
    return Settings(**usual | changes)


def run(parts, folder, data=None, **changes):
    """`train` on the CPU with the loss, data and settings of the tests, but for the changes."""
    options = {name: changes.pop(name) for name in ("validate", "watch", "device") if name in changes}
    options = {"device": "cpu", "watch": lambda progress: None} | options
    return train(
        parts, changes.pop("loss", loss), Points() if data is None else data, settings(**changes), folder, **options
    )


def cut(parts, folder, at=13, watch=lambda progress: None, **changes) -> None:
    """`run`, interrupted after a step; there are checkpoints every five."""

    def interrupting(progress):
        watch(progress)
        if progress.step == at:
            raise KeyboardInterrupt

    try:
        run(parts, folder, watch=interrupting, **changes)
    except KeyboardInterrupt:
        return
    raise AssertionError(f"the training ended before step {at}")


def same(first: dict, second: dict) -> bool:
    """Whether two dictionaries hold the same tensors to the bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def weights(parts: dict[str, nn.Module]) -> dict[str, torch.Tensor]:
    """Parameters and running statistics."""
    return {f"{key}.{name}": one.clone() for key, part in parts.items() for name, one in part.state_dict().items()}


def write(path: Path, text: str = "") -> None:
    """A file that is there whole or not at all, for those who wait for it."""
    path.with_suffix(".partial").write_text(text)
    os.replace(path.with_suffix(".partial"), path)


def in_child(work) -> int:
    """Do the work in a fork, and return how it ended: the exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(folder: Path) -> None:
    """Kill a training at each call that writes, and at every fifth that loads; each time go on and keep the end."""

    def train_and_keep(here: Path, moment: int = 0) -> None:
        calls = 0

        def armed(call):
            def wrapped(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments, **options)

            return wrapped

        parts, data = modules(), Points()
        if moment:
            load, armed_load = data.load, armed(data.load)
            data.load = lambda *rows: (load if len(data.asked) % 5 else armed_load)(*rows)
            os.replace, os.fsync, Path.unlink = armed(os.replace), armed(os.fsync), armed(Path.unlink)
        train(parts, loss, data, settings(optimiser="adamw", rate=0.01), here, device="cpu")
        torch.save(weights(parts), here / "end.pt")
        write(here / "calls.txt", str(calls))

    # The parent starts no thread, and so may fork.
    assert in_child(lambda: train_and_keep(folder / "whole", moment=10**9)) == 0
    for moment in range(1, int((folder / "whole" / "calls.txt").read_text()) + 1):
        here = folder / f"killed-{moment}"
        assert in_child(lambda: train_and_keep(here, moment)) == -signal.SIGKILL, moment  # noqa: B023
        assert in_child(lambda: train_and_keep(here)) == 0, moment  # noqa: B023


def endless(folder: Path) -> None:
    """Train for ever; a file says that it is on its way."""
    parts = modules()
    train(
        parts,
        loss,
        Points(),
        settings(steps=10**9, save_every=10**9),
        folder,
        device="cpu",
        watch=lambda progress: progress.step == 3 and write(folder / "under-way.txt"),
    )


def spread(folder: Path) -> None:
    """What torchrun starts: two trainings one after the other, then one whose second process meets a NaN."""
    rank = int(os.environ["RANK"])
    for name, changes in (("plain", {}), ("accumulated", {"accumulate": 2, "optimiser": "adamw", "rate": 0.01})):
        parts = modules(dropout=0.0, norm=False)
        history = train(parts, loss, Points(), settings(clip=0.5, **changes), folder / name, device="cpu")
        torch.save(weights(parts), folder / f"{name}-{rank}.pt")
        assert len(history.log) == 20
    refused = ""
    for shift in (0.0, rank / 10, 0.1):  # done already; the weights of the first process count; of neither
        parts = modules(dropout=0.0, norm=False)
        nn.init.constant_(parts["head"].bias, shift + float(parts["head"].bias)) if shift else None
        try:
            assert train(parts, loss, Points(), settings(clip=0.5), folder / "plain", device="cpu").resumed_from == 20
        except RunError as error:
            refused += f"{shift}: {error}\n"
    write(folder / f"refused-{rank}.txt", refused)
    for name, steps in (("nan", 20), ("term", 10**9)):
        data = Points()
        data.load = disturbed(data, name) if rank == 1 else data.load
        try:
            train(modules(), loss, data, settings(steps=steps), folder / name, device="cpu")
        except RunError as error:
            write(folder / f"{name}-{rank}.txt", f"{type(error).__name__}: {error}")


def disturbed(data: Points, how: str):
    """`load`, which from the seventh batch on gives a NaN, or calls for the end."""
    load = data.load

    def wrapped(rows, generator):
        batch = load(rows, generator)
        if len(data.asked) >= 7:
            if how == "term":
                os.kill(os.getpid(), signal.SIGTERM)
            else:
                batch["x"][1] = float("nan")
        return batch

    return wrapped


if __name__ == "__main__":
    {"kill": kill, "endless": endless, "spread": spread}[sys.argv[1]](Path(sys.argv[2]))
