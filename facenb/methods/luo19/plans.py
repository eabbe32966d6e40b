"""The size of each profile's training, and the settings that the sweep tries. The paper's abstract names none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from facenb.training import Settings


@dataclass(frozen=True)
class Plan:
    """Steps, pairs, and the grids of margin and weights."""

    start: Settings  # WPDC, from which all arms start
    sweep: Settings  # VDC, one setting of the sweep
    arm: Settings  # VDC, one arm
    margins: Sequence[float]  # m, in standard deviations of the coefficients
    contrasts: Sequence[float]  # w_c
    identities: Sequence[float]  # w_i
    tolerance: float  # a setting's NME on validation people may be higher than plain regression's by this fraction
    apart: float = 30  # degrees at least, between two images of one person
    near: float = 10  # degrees at most, between two people
    watched: int = 512  # validation images at most (about)


def _settings(steps: int, rate: float, batch: int = 32, **options: Any) -> Settings:
    return Settings(
        steps=steps,
        rate=rate,
        batch=batch,  # pairs
        optimiser="adamw",
        weight_decay=1e-3,
        warm_up=min(30, steps // 4),
        clip=5.0,
        precision="32-true",
        save_every=steps,
        validate_every=0,
        log_every=max(steps // 25, 1),
        **options,
    )


def _plan(steps: tuple[int, int, int], grids: tuple[Sequence[float], ...], **options: Any) -> Plan:
    """Return a plan for the steps of start, sweep and arm, and the grids of m, w_c and w_i."""
    rates = (3e-3, 2e-3, 2e-3)
    settings = (_settings(count, rate, **options) for count, rate in zip(steps, rates, strict=True))
    return Plan(*settings, *grids, tolerance=0.02)


def plan(profile: str, data: str, seed: int = 0) -> Plan:
    """Return the plan of a profile (smoke, quick, full) for a kind of data (synthetic, photos, paper)."""
    grid = (3.0, 6.0, 10.0), (0.1, 0.4), (0.1, 1.0, 10.0)
    chosen = {
        "smoke": _plan((6, 2, 4), ((4.0,), (0.1,), (1.0,)), batch=8),
        "quick": _plan((200, 50, 150) if data == "synthetic" else (300, 40, 150), grid),
        "full": _plan(
            (4000, 500, 4000),
            ((2.0, 4.0, 6.0, 8.0, 12.0), (0.01, 0.03, 0.1, 0.3), (0.1, 1.0, 10.0)),
            batch=64,
            threads=8,
        ),
    }[profile]
    if data == "photos":
        chosen = replace(chosen, apart=15, near=5)  # most people in LFW look into the camera
    return replace(chosen, **{name: replace(getattr(chosen, name), seed=seed) for name in ("start", "sweep", "arm")})
