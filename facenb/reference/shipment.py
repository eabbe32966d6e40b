"""Write and read one part of the reference trainings: its networks, its measurements and its card."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from pooch import file_hash
from torch import Tensor

from facenb import savefile
from facenb.datasets.sets.faces import describe
from facenb.errors import ModelFileError, RunError
from facenb.files import write_json
from facenb.morphable.model import MorphableModel
from facenb.networks.weights import Saved
from facenb.runs.results import run_folder

PACKAGE = Path(__file__).parent  # the parts that ship
CARD, MEASURES = "card.json", "measures.safetensors"
SMALL = (torch.int8, torch.int16, torch.int32)  # the types in which a file holds whole numbers, if they fit
Network = TypeVar("Network", bound=Saved)


@dataclass(frozen=True)
class Shipment:
    """The result of one part of the reference trainings."""

    model: MorphableModel  # for which the networks are trained
    networks: dict[str, Saved]  # after `rounded`; the measures are those of the rounded networks
    measures: dict[str, Tensor]  # of each image, pair or person, for instance "method/seed0/whole"
    facts: dict[str, Any]  # for the card: data, people, images, seeds, steps, seconds, figures
    # Modules that do not ship: untrained, or equal to a module of an earlier part. Name here: name in the earlier part.
    omitted: Mapping[str, str] = field(default_factory=dict)


def smallest(values: Tensor) -> Tensor:
    """Return whole numbers in the smallest type that holds them, for a file; other tensors as they are."""
    if values.is_floating_point() or values.dtype == torch.bool:
        return values
    fits = (kind for kind in SMALL if torch.equal(values.to(kind).long(), values.long()))
    return values.to(next(fits, torch.int64))


@torch.no_grad()
def rounded(network: Network) -> Network:
    """Round the weights to half precision, as they ship, and return the network. Weights stay 32-bit numbers."""
    for value in network.parameters():
        if value.ndim > 1:
            value.copy_(value.half())
    return network


def write_part(folder: Path, name: str, shipment: Shipment, card: Mapping[str, Any]) -> Path:
    """Write a part into `folder/name` and return this folder. The card comes last, so a part is complete or refused.

    Raise ModelFileError or RunError if a file cannot be written.
    """
    place, files = folder / name, {}
    for title, network in shipment.networks.items():
        large = {key for key, value in network.named_parameters() if value.ndim > 1}
        tensors = {
            key: value.half() if key in large else value
            for key, value in network.to_ship(shipment.model).items()
            if not key.startswith(tuple(f"{module}." for module in shipment.omitted))
        }
        facts = {"config": network.config, "omitted": dict(shipment.omitted)}
        path = savefile.save(place / f"{title}.safetensors", network.kind, tensors, facts)
        files[path.name] = file_hash(path)
    if shipment.measures:
        measures = {key: smallest(values) for key, values in shipment.measures.items()}
        files[MEASURES] = file_hash(savefile.save(place / MEASURES, "measures", measures, {}))
    networks = {
        title: {"kind": network.kind, "probe": network.probe().tolist()} for title, network in shipment.networks.items()
    }
    try:
        facts = {"part": name, "model": describe(shipment.model), **card, **shipment.facts}
        write_json(place / CARD, {**facts, "networks": networks, "files": files})
    except OSError as error:
        raise RunError(f"Cannot write {place / CARD} ({error}). Make room, then run the command again.") from error
    for path in place.glob("*.safetensors"):
        if path.name not in files:
            path.unlink()
    return place


@dataclass(frozen=True)
class Part:
    """A part that was trained. Each file is compared with the checksum in the card before it is used."""

    folder: Path
    card: dict[str, Any] = field(repr=False)

    def network(self, name: str, kind: type[Network], model: MorphableModel, earlier: Network | None = None) -> Network:
        """Return a network, on the CPU and in eval mode. Modules that its file omits are those of `earlier`.

        `earlier`: a network of an earlier part; without it, these modules are untrained. Raise ModelFileError if the
        network was trained for another model than `model`, its file is not the one of the card, or it is of another
        architecture.
        """
        if (trained := self.card["model"]) != (given := describe(model)):
            differ = ", ".join(
                f"{key} {trained[key]}, not {given.get(key)}" for key in trained if trained[key] != given.get(key)
            )
            raise ModelFileError(f"The reference network {name} was trained for another model: {differ}.")
        tensors, facts = savefile.load(self._file(f"{name}.safetensors"), kind.kind)
        network = kind.from_config(facts["config"])
        for module, same in facts["omitted"].items():
            source = earlier.get_submodule(same) if earlier else network.get_submodule(module)
            tensors |= {f"{module}.{key}": value for key, value in source.state_dict().items()}
        try:
            network.from_shipped(tensors, model)
        except RuntimeError as error:
            names = ", ".join(sorted(tensors.keys() ^ network.state_dict().keys())[:3]) or "the shapes of its tensors"
            problem = f"{self.folder / name} does not fit the architecture {kind.kind}, for instance {names}"
            raise ModelFileError(f"{problem}. {self._again}") from error
        network.card = self.card
        return network.eval()

    @property
    def measures(self) -> dict[str, Tensor]:
        """The measurements of all arms and seeds. Raise ModelFileError if the file is not the one of the card."""
        loaded = savefile.load(self._file(MEASURES), "measures")[0]
        return {key: values.long() if values.dtype in SMALL else values for key, values in loaded.items()}

    @property
    def minutes(self) -> float:
        """The time that the trainings took, in minutes."""
        return self.card["seconds"] / 60

    @property
    def strength(self) -> str:
        """How much the training can carry (`strength_of`)."""
        return strength_of([self])

    @property
    def _again(self) -> str:
        return f"Restore the folder, or train it again: make reference PART={self.card['part']}"

    def _file(self, name: str) -> Path:
        path, listed = self.folder / name, self.card["files"]
        if name not in listed:
            raise ModelFileError(f"{self.folder} has no {name}, only {', '.join(listed)}.")
        if not path.is_file():
            raise ModelFileError(f"{path} is missing. {self._again}")
        if (digest := file_hash(path)) != listed[name]:
            problem = f"its SHA-256 is {digest[:12]}, the card has {listed[name][:12]}"
            raise ModelFileError(f"{path} is damaged or of another training: {problem}. {self._again}")
        return path


def read_part(name: str, data: str = "synthetic", folder: str | Path | None = None) -> Part:
    """Return a part of the reference trainings: of `folder`, else one trained here, else the one that ships.

    Raise RunError if there is none, with the command that trains it, and ModelFileError if its card cannot be read.
    """
    trained = run_folder("", "reference", data) / "parts"
    places = [*([Path(folder)] if folder else []), trained, PACKAGE if data == "synthetic" else PACKAGE / data]
    for place in places:
        path = place / name / CARD
        if path.is_file():
            try:
                card = json.loads(path.read_text(encoding="utf-8"))
                return Part(path.parent, {**card, "files": dict(card["files"])})
            except (ValueError, KeyError, TypeError) as error:
                raise ModelFileError(
                    f"{path} is not a card ({error!r}). Restore it, or train the part again."
                ) from error
    command = f"make reference PART={name}" + (f" DATA={data}" if data != "synthetic" else "")
    raise RunError(f"The reference part {name!r} ({data}) has not been trained. Train it with: {command}")


def read_seeds(name: str, data: str = "synthetic", folder: str | Path | None = None) -> list[Part]:
    """Return the parts `name-0`, `name-1`, ..., one for each seed that was trained. Raise RunError if there is none."""
    parts = [read_part(f"{name}-0", data, folder)]
    with suppress(RunError):
        while True:
            parts.append(read_part(f"{name}-{len(parts)}", data, folder))
    return parts


def strength_of(parts: Sequence[Part]) -> str:
    """Return how much one part, or the parts of several seeds, can carry: people, images, seeds, time and device."""
    card, count = parts[0].card, sum(len(part.card["seeds"]) for part in parts)
    people, images = (f"{card[name]['train']:,} {name}" for name in ("people", "images"))
    seeds, minutes = f"{count} seed" + "s" * (count > 1), sum(part.minutes for part in parts)
    return f"reference: {people}, {images}, {seeds}, {minutes:.0f} min on {card['device']}"
