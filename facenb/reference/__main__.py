"""Train the reference networks, one part after the other:

    python -m facenb.reference                      (all parts; about ten hours on two cores)
    python -m facenb.reference liu18 ablation-0     (two parts)
    python -m facenb.reference --data photos        (on LFW; the networks stay in the run folder)

A killed command goes on where it was. A part that is finished is not trained again; delete its folder to repeat it.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from data_download.folders import ensure_home
from facenb.errors import FacenbError
from facenb.files import hold
from facenb.methods.deca import reference as deca
from facenb.methods.liu18 import reference as liu18
from facenb.methods.luo19 import reference as luo19
from facenb.reference.shipment import CARD, PACKAGE, Shipment, write_part
from facenb.runs.results import DEVICES, Run, commit, device_name, run_folder, versions

# Each part with its minutes on two CPU cores. Later parts use networks of earlier ones.
PARTS: dict[str, dict[str, tuple[float, Callable[[Run], Shipment]]]] = {
    "synthetic": {
        "liu18": (45, liu18.liu18),
        **{f"ablation-{seed}": (30, partial(liu18.ablation, seed=seed)) for seed in range(5)},
        "siamese": (90, luo19.siamese),
        "teacher": (90, deca.teacher),
        "details": (10, deca.details),
        "learner": (35, deca.learner),
    },
    "photos": {"liu18": (40, liu18.photos)},
}


def train_parts(run: Run, names: list[str], target: Path) -> None:
    """Train the parts that `target` lacks, and write them there. Raise FacenbError if one cannot be trained."""
    parts = PARTS[run.data]
    todo = [name for name in names if not (target / name / CARD).is_file()]
    with hold(run.path("reference.lock"), f"Another command trains in {run.folder}. Wait for it."):
        for number, name in enumerate(todo):
            left = sum(parts[later][0] for later in todo[number:])
            print(f"part {number + 1} of {len(todo)}: {name}; all: about {left:.0f} min on two cores", flush=True)
            start = time.time()
            shipment = parts[name][1](run)
            card = {
                "command": f"make reference PART={name}" + ("" if run.data == "synthetic" else f" DATA={run.data}"),
                "commit": commit(),
                "seed": run.seed,
                "profile": run.profile,
                "device": device_name(run.device),
                "versions": versions(),
                "date": time.strftime("%Y-%m-%d"),
            }
            place = write_part(target, name, shipment, card)
            if run.data == "photos" and run.profile != "smoke":  # what may be passed on: no weights
                write_part(PACKAGE / run.data, name, replace(shipment, networks={}), card)
            print(f"{place}: {(time.time() - start) / 60:.1f} min", flush=True)
            for row in shipment.facts["figures"]:
                print("  {name}: {value:.3g} [{low:.3g}, {high:.3g}] {unit}".format(**row), flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    ensure_home()
    parser = argparse.ArgumentParser(
        "python -m facenb.reference", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="all parts if none is given")
    parser.add_argument("--data", choices=PARTS, default="synthetic")
    parser.add_argument("--profile", choices=("smoke", "quick"), default="quick", help="smoke: seconds, for tests")
    parser.add_argument("--device", choices=DEVICES, default="auto")
    parser.add_argument("--run-folder", default="", help="folder of sets and checkpoints")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.parts if name not in PARTS[given.data]]:
        parser.error(f"there is no part {unknown[0]!r}; the parts are {', '.join(PARTS[given.data])}")
    smoke = given.profile == "smoke"
    folder = given.run_folder or run_folder("", "reference-smoke" if smoke else "reference", given.data)
    try:
        run = Run("reference", given.profile, given.data, 0, given.device, folder)
        target = run.folder / "parts" if smoke or given.data != "synthetic" else PACKAGE
        train_parts(run, given.parts or list(PARTS[given.data]), target)
    except FacenbError as error:
        print(f"facenb: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
