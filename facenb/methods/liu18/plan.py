"""What each profile trains on which data: size, width, steps. What the paper does not print is our choice."""

from dataclasses import dataclass, replace
from typing import Any

from facenb.training import Settings

LAMBDA_R = (0.5, 1.0)  # before and after the reconstruction is saturated (Liu18, section 4)

FIRST_SUBJECT = 1000  # of SynthFace: nobody whom an earlier notebook shows


@dataclass(frozen=True)
class Plan:
    """How large, how wide, how long."""

    size: tuple[int, int]  # of the crops (height, width); the paper: 112 x 96
    people: int  # of SynthFace, in all; photos: taken as LFW has them
    pictures: int  # of each
    test: float  # share of the people who are kept for the test
    validation: float  # share kept to watch the training
    encoder: dict[str, Any]  # SphereFace's options
    one: Settings  # phase I
    two: Settings  # phase II
    three: Settings  # phase III
    ablation: Settings  # one arm of notebook 09
    augmentation: dict[str, Any]  # of training pictures; a shifted crop is what another detector would have given
    folds: tuple[tuple[int, int], ...] = ()  # of LFW, tested two and two; nobody in them is trained on
    # The class head of phase III and its options: the paper's softmax; a margin where there are few pictures a person.
    head: tuple[str, dict[str, Any]] = ("softmax", {})


def _settings(steps: int, rate: float, batch: int = 64, **more: Any) -> Settings:
    """AdamW and a cosine: a thousand steps are then enough to see something. Clipped, for the first steps."""
    return Settings(
        steps=steps, rate=rate, batch=batch, optimiser="adamw", weight_decay=1e-3, warm_up=min(50, steps // 4),
        clip=5.0, save_every=max(steps // 4, 1), validate_every=max(steps // 6, 1), log_every=max(steps // 60, 1),
        **more,
    )  # fmt: skip


def _decoders(steps: int, batch: int = 64) -> Settings:
    """Adam moves a weight by about the rate a step, whatever its unit: columns are several mm long, so it must be high.
    In 32 bits, as they are held against the closed form."""
    return _settings(steps, 0.2, batch, precision="32-true")


NARROW = {"channels": (16, 32, 64, 128), "units": (0, 1, 1, 0), "batch_norm": True, "features": 256, "size": (64, 64)}

WIDER = NARROW | {"channels": (24, 48, 96, 192)}  # photographs differ in more than a renderer's pictures do

LIGHT = {"shift": 2, "brightness": 0.1, "contrast": 0.2}
# Five photos a person are soon known by heart.
STRONGER = {"mirror": True, "shift": 4, "brightness": 0.15, "contrast": 0.3}


def plan(profile: str, data: str) -> Plan:
    """What a profile trains on which data."""
    photos = data != "synthetic"
    if profile == "full":  # the paper's own encoder and crops
        folds = ((0, 1), (2, 3), (4, 5), (6, 7)) if photos else ()
        return Plan(
            (112, 96), 2400, 50, 1 / 6, 1 / 24, {"size": (112, 96)}, _settings(4000, 5e-4, 256, threads=8),
            _decoders(2000, 256), _settings(4000, 5e-4, 256, threads=8), _settings(2000, 5e-4, 256, threads=8),
            LIGHT | {"mirror": photos}, folds,
        )  # fmt: skip
    if profile == "smoke":  # does every line run
        few = [_settings(8, 1e-3, 16) for _ in range(4)]
        return Plan((64, 64), 24, 4, 0.5, 0.125, NARROW, *few, LIGHT | {"mirror": photos}, ((0, 1),) * photos)
    if photos:
        return Plan(
            (64, 64), 0, 0, 0.0, 0.05, WIDER, _settings(800, 2e-3), _decoders(800),
            replace(_settings(1900, 3e-3, 96), weight_decay=0.3), _settings(400, 3e-3), STRONGER, ((0, 1),),
            ("cosface", {"scale": 24.0, "margin": 0.2}),
        )  # fmt: skip
    return Plan(
        (64, 64), 960, 8, 0.1041, 0.0417, NARROW, _settings(1000, 4e-3), _decoders(800), _settings(900, 4e-3),
        _settings(460, 4e-3), LIGHT,
    )  # fmt: skip
