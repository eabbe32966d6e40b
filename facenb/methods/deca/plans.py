"""The sizes of each profile's training of teacher and learner. We chose what the papers do not print."""

from dataclasses import dataclass, field, replace
from typing import Any

from facenb.training import Settings


@dataclass(frozen=True)
class TeacherPlan:
    """The images, the network, and the settings of each stage of the training."""

    people: int  # training people
    watched: int  # validation people
    tested: int  # test people
    pictures: int  # images of each person
    side: int  # pixels of an image's side
    network: dict[str, Any]  # arguments of Deca, without the layout and the decoder's window
    landmarks: Settings  # coarse network, on landmarks alone
    image: Settings  # coarse network, on landmarks and colours
    details: Settings
    near: int  # number of training people whose images train the details
    descents: tuple[int, int]  # steps of `fit_vectors`: on landmarks, on landmarks and colours
    detailed: tuple[str, ...] = ("fine.layers",)  # learn details, besides the decoder; in DECA all of "fine"
    coarse_weights: dict[str, float] = field(default_factory=dict)  # where they differ from `Weights`


STAGES = ("landmarks", "image", "details")  # the settings of a plan
REACH = 1.5  # largest possible displacement, mm
SCALE = 11.0  # scale of the camera at the start: the mean over training images


def _narrow(width: int) -> dict[str, Any]:
    """Return a network that two CPU cores train. It sees the image at half its size."""
    return {
        "encoder": {"width": width, "blocks": (1, 1, 1, 1), "places": True},
        "hidden": 256,
        "detail": 16,
        "decoder": {"reach": REACH, "texels": 96},  # about 2.6 mm each
        "scale": SCALE,
        "shrink": 2,
    }


def _coarse(steps: int, batch: int, rate: float = 5e-3) -> Settings:
    return Settings(
        steps=steps,
        batch=batch,  # pairs
        rate=rate,
        optimiser="adamw",
        warm_up=steps // 20,
        save_every=min(max(steps // 2, 1), 500),  # a killed training loses at most so many steps
        validate_every=max(steps // 6, 1),
        log_every=max(steps // 12, 1),
    )


def _details(steps: int, batch: int) -> Settings:
    """Return settings for the linear decoder.

    It learns with SGD. AdamW moves every texel equally far, also where the images say nothing: its maps grew to four
    times the true size and matched no wrinkles. After 150 steps the maps of validation people became worse again.
    """
    return replace(_coarse(steps, batch, rate=0.02), optimiser="sgd", warm_up=steps // 10)


SMOKE = TeacherPlan(  # runs every line of the notebooks in seconds
    people=6,
    watched=2,
    tested=3,
    pictures=3,
    side=64,
    network=_narrow(4),
    landmarks=_coarse(6, batch=2),
    image=_coarse(4, batch=2),
    details=_details(4, batch=2),
    near=4,
    descents=(10, 2),
)
QUICK = TeacherPlan(  # half a minute on two CPU cores: one sees the network learn
    people=180,
    watched=20,
    tested=40,
    pictures=4,
    side=112,
    network=_narrow(12),
    landmarks=_coarse(800, batch=10),
    image=_coarse(80, batch=10),
    details=_details(80, batch=6),
    near=60,
    descents=(120, 15),
)
FULL = TeacherPlan(  # the paper's network and images, for a GPU
    people=2000,
    watched=100,
    tested=100,
    pictures=20,
    side=224,
    network={"encoder": {"width": 64}, "decoder": {"reach": REACH}, "scale": SCALE},
    landmarks=_coarse(20000, batch=16, rate=1e-4),
    image=_coarse(60000, batch=16, rate=1e-4),
    details=_coarse(40000, batch=8, rate=1e-4),
    near=200,
    detailed=("fine",),
    descents=(300, 60),
)
REFERENCE = replace(  # two idle cores: set 8 min, landmarks 54, colours 17; vectors 5, details 2
    QUICK,
    people=8000,
    watched=100,
    tested=200,
    pictures=6,
    network=_narrow(16),
    landmarks=_coarse(30000, batch=64, rate=4e-3),
    image=_coarse(5000, batch=64, rate=1.5e-3),
    details=_details(150, batch=24),
    near=2000,
    coarse_weights={"photometric": 0.5},  # with 2, the shape at rest of validation people was worse in a short trial
)


def teacher_plan(profile: str, seed: int = 0) -> TeacherPlan:
    """Return the plan of a profile: smoke, quick, reference or full."""
    plan = {"smoke": SMOKE, "quick": QUICK, "reference": REFERENCE, "full": FULL}[profile]
    return replace(plan, **{stage: replace(getattr(plan, stage), seed=seed) for stage in STAGES})


@dataclass(frozen=True)
class LearnerPlan:
    """The images of a learner and the settings of its training."""

    learn: Settings
    details: Settings
    people: int  # of SynthFace, in the training, besides the teacher's
    held_back: int  # people of SynthFace
    tested: int = 0  # people of SynthFace; photographs: AFLW2000-3D is the test
    copies: int = 1  # of each clear image
    taught: int | None = None  # most people of the teacher's training whose images are clear images
    limit: float = 0.5  # pixels: largest departure on clear images; about a fifth of the teacher's error
    lfw: int | None = None  # most photographs that are read
    photos: int = 0  # of LFW: the most turned ones, and as many others
    every: int = 1  # photograph of AFLW2000-3D


def _learn(steps: int, batch: int, rate: float) -> Settings:
    return Settings(
        steps=steps,
        batch=batch,
        rate=rate,
        optimiser="adamw",
        weight_decay=1e-3,
        warm_up=steps // 10,
        precision="32-true",
        save_every=steps,
        validate_every=0,
        log_every=max(steps // 20, 1),
    )


def learner_plan(profile: str, photos: bool, seed: int = 0) -> LearnerPlan:
    """Return the plan of a profile: smoke, quick, reference (not for photos) or full.

    `photos`: the teacher is the released 3DDFA-V2.
    """
    rate, fine = 4e-5 if photos else 2e-3, 5e-4
    if photos:
        smoke = LearnerPlan(_learn(4, 16, rate), _learn(2, 16, fine), 4, 2, lfw=60, photos=20, every=40)
        quick = LearnerPlan(_learn(400, 32, rate), _learn(120, 32, fine), 200, 40, photos=1200)
        full = LearnerPlan(_learn(4000, 64, rate), _learn(4000, 64, fine), 1000, 80, copies=4, photos=3000)
    else:
        smoke = LearnerPlan(_learn(4, 16, rate), _learn(2, 16, fine), 4, 3, tested=4)
        quick = LearnerPlan(_learn(150, 64, rate), _learn(60, 64, fine), 150, 40, tested=150)
        full = LearnerPlan(_learn(4000, 64, rate), _learn(4000, 64, fine), 2000, 100, tested=500, copies=4)
    plans = {"smoke": smoke, "quick": quick, "full": full}
    if not photos:
        # Two idle cores: images 3 min, three losses 20, details 6. A better teacher allows a smaller departure.
        sizes = {"tested": 200, "taught": 1000, "copies": 2, "limit": 0.25}
        plans["reference"] = LearnerPlan(_learn(8000, 64, rate), _learn(2000, 64, fine), 2500, 100, **sizes)
    plan = plans[profile]
    return replace(plan, learn=replace(plan.learn, seed=seed), details=replace(plan.details, seed=seed))
