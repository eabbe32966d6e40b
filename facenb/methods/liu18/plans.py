"""The size of each profile's training: images, people, network, steps. We chose what the paper does not print."""

from dataclasses import dataclass, replace
from typing import Any

from facenb.training import Settings

LAMBDA_R = (0.5, 1.0)  # before and after the reconstruction is saturated (Liu18, section 4)


@dataclass(frozen=True)
class Plan:
    """The sizes of data and network, and the settings of each phase."""

    size: tuple[int, int]  # of the crops (height, width)
    people: int  # total, SynthFace only; for photos LFW determines the number
    pictures: int  # images of each person
    test: float  # fraction of the people kept for the test
    validation: float  # fraction of the people kept to watch the training
    encoder: dict[str, Any]  # arguments of SphereFace
    one: Settings  # phase I
    two: Settings  # phase II
    three: Settings  # phase III
    ablation: Settings  # one arm of notebook 09, and each phase I before it
    augmentation: dict[str, Any]  # of training images
    folds: tuple[tuple[int, int], ...]  # pairs of LFW folds to test; their people are not trained on; () without LFW
    head: tuple[str, dict[str, Any]]  # class head of phase III and its arguments


PHASES = ("one", "two", "three", "ablation")  # the settings of a plan
NARROW = {
    "channels": (16, 32, 64, 128),  # a quarter of the paper's: it learns on two CPU cores
    "units": (0, 1, 1, 0),
    "batch_norm": True,  # without it a thousand steps do not converge
    "features": 256,
    "size": (64, 64),
}
WIDE = NARROW | {"channels": (24, 48, 96, 192)}  # for an hour of training, or photographs
SHIFTED = {
    "shift": 2,  # pixels: another detector would place the crop elsewhere
    "brightness": 0.1,
    "contrast": 0.2,
}
STRONGER = {  # a network soon memorises five photos of a person
    "mirror": True,
    "shift": 4,
    "brightness": 0.15,
    "contrast": 0.3,
}


def _settings(
    steps: int, rate: float, batch: int = 64, weight_decay: float = 1e-3, reports: int = 6, **options: Any
) -> Settings:
    """Return settings that validate `reports` times."""
    return Settings(
        steps=steps,
        rate=rate,
        batch=batch,
        optimiser="adamw",  # with a cosine schedule, a thousand steps show an effect
        weight_decay=weight_decay,
        warm_up=min(50, steps // 4),
        clip=5.0,  # for the first steps, whose gradients are large
        save_every=max(steps // max(4, reports), 1),
        validate_every=max(steps // reports, 1),
        log_every=max(steps // 60, 1),
        **options,
    )


QUICK = Plan(  # for two CPU cores, on SynthFace
    size=(64, 64),  # two thirds of the paper's side: a third of the time
    people=960,
    pictures=8,
    test=0.1041,  # 100 people
    validation=0.0417,  # 40 people
    encoder=NARROW,
    one=_settings(steps=500, rate=4e-3),  # each notebook trains for about half a minute, so that one sees it learn
    # One Adam step is about the rate, and the decoders' columns are several mm long. Full precision, since the result
    # is compared with the closed form.
    two=_settings(steps=800, rate=0.2, precision="32-true"),
    three=_settings(steps=400, rate=4e-3),
    ablation=_settings(steps=100, rate=4e-3),  # seven trainings
    augmentation=SHIFTED,
    folds=(),
    head=("softmax", {}),  # the paper's
)
SMOKE = replace(  # the smallest plan that runs every line of the notebooks
    QUICK,
    people=24,
    pictures=4,
    test=0.5,
    validation=0.125,
    **dict.fromkeys(PHASES, _settings(steps=8, rate=1e-3, batch=16)),
)
LONG = _settings(steps=4000, rate=5e-4, batch=256, threads=8)
FULL = replace(  # the paper's encoder and crops, for a GPU
    QUICK,
    size=(112, 96),  # the paper's
    people=2400,
    pictures=50,
    test=1 / 6,  # 400 people
    validation=1 / 24,  # 100 people
    encoder={"size": (112, 96)},  # SphereFace-20
    one=LONG,
    two=_settings(steps=2000, rate=0.2, batch=256, precision="32-true"),
    three=LONG,
    ablation=_settings(steps=2000, rate=5e-4, batch=256, threads=8),
)
QUICK_PHOTOS = replace(  # two CPU cores finish it on LFW in minutes
    QUICK,
    people=0,
    pictures=0,
    test=0.0,  # LFW's own pairs are the test
    validation=0.05,
    encoder=WIDE,  # photographs differ in more ways than rendered images
    one=_settings(steps=250, rate=2e-3),
    three=_settings(steps=200, rate=3e-3, batch=96, weight_decay=0.3),  # few photos: decay against overfitting
    ablation=_settings(steps=40, rate=3e-3),
    augmentation=STRONGER,
    folds=((0, 1),),
    head=("cosface", {"scale": 24.0, "margin": 0.2}),  # a margin helps with few images of each person
)
MIRRORED = SHIFTED | {"mirror": True}
ALL_FOLDS = ((0, 1), (2, 3), (4, 5), (6, 7))  # all of LFW that is not trained on
PLANS = {"smoke": SMOKE, "quick": QUICK, "full": FULL}
PHOTO_PLANS = {
    "smoke": replace(SMOKE, encoder=WIDE, augmentation=MIRRORED, folds=((0, 1),)),
    "quick": QUICK_PHOTOS,
    "full": replace(FULL, augmentation=MIRRORED, folds=ALL_FOLDS),
}
REFERENCE = replace(  # two CPU cores finish it on SynthFace in an hour
    QUICK,
    people=6200,
    test=100 / 6200,
    validation=100 / 6200,
    encoder=WIDE,
    one=_settings(steps=15_000, rate=4e-3, reports=15),
    three=_settings(steps=10_000, rate=4e-3, reports=10),
    ablation=_settings(steps=4000, rate=4e-3, reports=4),
)
SPACED = {"warm_up": 50, "save_every": 500, "validate_every": 500, "log_every": 100}
REFERENCE_PHOTOS = replace(
    QUICK_PHOTOS,
    one=replace(QUICK_PHOTOS.one, steps=2000, **SPACED),
    three=replace(QUICK_PHOTOS.three, steps=4000, **SPACED),
    ablation=_settings(steps=1500, rate=3e-3),
)


def _seeded(chosen: Plan, seed: int) -> Plan:
    return replace(chosen, **{phase: replace(getattr(chosen, phase), seed=seed) for phase in PHASES})


def plan(profile: str, data: str, seed: int = 0) -> Plan:
    """Return the plan of a profile (smoke, quick, full) for a kind of data (synthetic, photos, paper)."""
    return _seeded((PLANS if data == "synthetic" else PHOTO_PLANS)[profile], seed)


def reference_plan(profile: str, data: str, seed: int = 0) -> Plan:
    """Return the plan of the reference trainings; at smoke that of the notebooks."""
    if profile == "smoke":
        return plan(profile, data, seed)
    return _seeded(REFERENCE if data == "synthetic" else REFERENCE_PHOTOS, seed)
