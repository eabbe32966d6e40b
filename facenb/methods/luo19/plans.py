"""The size of each profile's training, and the settings that the sweep tries. The paper's abstract names none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from facenb.training import Settings


@dataclass(frozen=True)
class Plan:
    """Steps, pairs, and the grids of margin and weights."""

    start: Settings  # WPDC, from which all arms start
    arm: Settings  # VDC, one arm
    sweep: Settings  # VDC, one setting of the sweep
    margins: Sequence[float]  # m, in standard deviations of the coefficients
    contrasts: Sequence[float]  # w_c
    identities: Sequence[float]  # w_i
    seeds: Sequence[int]  # of the trainings; each seed has its own start
    apart: float = 30  # degrees at least, between two images of one person
    near: float = 10  # degrees at most, between two people
    # A setting's NME on validation people may be higher than plain regression's by this fraction. It is a quarter of
    # the 2 % that we allow on test people: the interval over 100 people and the longer training need the rest.
    tolerance: float = 0.005

    def seeded(self, seed: int) -> "Plan":
        """Return the plan with this seed for all trainings."""
        settings = {name: replace(getattr(self, name), seed=seed) for name in ("start", "sweep", "arm")}
        return replace(self, **settings, seeds=(seed,))


def _plan(start: int, arm: int, sweep: int, batch: int = 32, threads: int = 1, seeds: Sequence[int] = (0,)) -> Plan:
    """Return the plan with these steps."""
    settings = (
        Settings(
            steps=steps,
            rate=rate,
            batch=batch,  # pairs
            optimiser="adamw",
            weight_decay=1e-3,
            warm_up=min(30, steps // 4),
            clip=5.0,
            precision="32-true",
            save_every=max(steps // 4, 1),
            validate_every=0,
            log_every=max(steps // 25, 1),
            threads=threads,
        )
        for steps, rate in ((start, 3e-3), (arm, 2e-3), (sweep, 2e-3))
    )
    return Plan(*settings, margins=(3.0, 6.0, 10.0), contrasts=(0.1, 0.4), identities=(0.1, 1.0, 10.0), seeds=seeds)


def plan(profile: str, data: str, seed: int = 0) -> Plan:
    """Return the plan of a profile (smoke, quick, full) for a kind of data (synthetic, photos, paper)."""
    quick = _plan(200 if data == "synthetic" else 300, 150, 50)
    chosen = {"smoke": _plan(6, 4, 2, batch=8), "quick": quick, "full": _plan(4000, 4000, 500, 64, 8)}[profile]
    if data == "photos":
        chosen = replace(chosen, apart=15, near=5)  # most people in LFW look into the camera
    return chosen.seeded(seed)


def reference_plan(profile: str) -> Plan:
    """Return the plan of the reference trainings; at `smoke` a few steps with two seeds."""
    if profile == "smoke":
        small = {"margins": (4.0,), "contrasts": (0.1,), "identities": (1.0,)}
        return replace(_plan(6, 4, 2, batch=8, seeds=(0, 1)), **small)
    return _plan(600, 1800, 400, seeds=(0, 1, 2, 3, 4))
