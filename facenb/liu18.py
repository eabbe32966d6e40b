"""Liu et al. 2018 put together: the training set, the network and the three phases that notebooks 06 to 09 share.

The notebooks tell the story; here is what two of them need. What the paper does not print (optimiser, rates, steps, the
unit of L_R) is our choice, and `Plan` gives the reason for each.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from facenb.data.assets import asset
from facenb.data.build_lfw import TestPairs, build_lfw, lfw_test_crops, people_of_folds
from facenb.data.build_photos import build_records
from facenb.data.build_set import build_synthetic, true_shapes
from facenb.data.canonical import mediapipe_embedding
from facenb.data.lfw import read_lfw
from facenb.data.photo import Fitter, ict_fitter
from facenb.data.training_set import Subset, TargetScaling
from facenb.evaluation.shape import shape_errors
from facenb.losses import coefficient_loss, joint_loss, shape_loss
from facenb.morphable.model import MorphableModel
from facenb.morphable.sources import read
from facenb.morphable.synthetic import load_or_build
from facenb.networks.joint import Codes, JointNetwork, ShapeParts
from facenb.networks.sphereface import SphereFace
from facenb.results import Run
from facenb.training import Settings

LAMBDA_R = (0.5, 1.0)  # before and after the reconstruction is saturated (Liu18, section 4)
FIRST_SUBJECT = 1000  # of SynthFace: nobody whom an earlier notebook shows
TOGETHER = 256  # pictures at a time where nothing is learned


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
STRONGER = {
    "mirror": True,
    "shift": 4,
    "brightness": 0.15,
    "contrast": 0.3,
}  # five photos a person are soon known by heart


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
        _settings(520, 4e-3), LIGHT,
    )  # fmt: skip


@dataclass(frozen=True)
class Material:
    """What a run trains on and is tested with."""

    run: Run
    plan: Plan
    model: MorphableModel
    train: Subset
    validation: Subset
    test: Subset | None  # SynthFace's people with their truth; None for photos
    folds: tuple[int, ...] = ()  # of LFW's pairs, whose people are in none of the above
    fitter: Fitter | None = None  # of photos: the model with the landmarks it is fitted to

    @property
    def scaling(self) -> TargetScaling:
        return self.train.scaling

    @cached_property
    def truth(self) -> Float[Tensor, "test vertices 3"]:
        """True shapes of the test pictures with their expression, mm: for evaluation only."""
        return true_shapes(self.test.set, self.test.rows)

    @cached_property
    def neutral(self) -> Float[Tensor, "test vertices 3"]:
        """True shapes of the test pictures' people at rest, mm."""
        return true_shapes(self.test.set, self.test.rows, neutral=True)

    @cached_property
    def pairs(self) -> TestPairs:
        """LFW's pairs of `folds`, photos only."""
        return lfw_test_crops(self.folds, self.plan.size, fitter=self.fitter)

    @property
    def yaw(self) -> Float[Tensor, " test"]:
        """|yaw| of the test pictures, degrees."""
        return self.test.truth["angles"][:, 0].abs().rad2deg()

    def supervision(self) -> "Supervision":
        """The fitted shapes of the training people, as phases II and III aim at them."""
        return Supervision(self.model, self.train)

    def new_network(self, seed: int = 0) -> JointNetwork:
        """An untrained network for this model, its scaling and mean face in place."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = SphereFace(**self.plan.encoder)
            sizes = len(self.model.identity_basis), len(self.model.expression_basis), len(self.model.mean)
            network = JointNetwork(encoder, *sizes)
        one, two = self.scaling.identity, self.scaling.expression
        network.set_scaling(one.centre, one.half_range, two.centre, two.half_range)
        network.set_mean_shape(self.model.mean)
        return network


def prepare(run: Run, folds: tuple[int, int] | None = None) -> Material:
    """The training set of a run, made where it is not there yet, split by people.

    `synthetic`: people of SynthFace. `photos`: LFW's people with two photos or more, but for those in `folds`, which
    pair of folds to keep apart (None: the plan's first). `paper`: the records of CASIA-WebFace with BFM-2019, to be
    tested on all pairs of LFW. Raises AssetError where data is not here, with what gets it.
    """
    chosen = plan(run.profile, run.data)
    if run.data == "synthetic":
        people = range(FIRST_SUBJECT, FIRST_SUBJECT + chosen.people)
        model = load_or_build(run.path("models/synthface").parent, run.seed)
        options = {"pictures": chosen.pictures, "size": chosen.size, "workers": os.cpu_count() or 1}
        whole = build_synthetic(run.path("sets/liu18"), model, run.seed, people, **options)
        parts = whole.split(chosen.validation, chosen.test, run.seed)
        return Material(run, chosen, model, parts.train.augmented(**chosen.augmentation), parts.validation, parts.test)
    lfw = read_lfw()
    if run.data == "photos":
        folds, fitter = folds or chosen.folds[0], ict_fitter()
        whole = build_lfw(run.path("sets/lfw"), 2, chosen.size, lfw=lfw, fitter=fitter)
        apart = people_of_folds(lfw.pairs(), folds)
    else:
        folds, fitter = tuple(sorted({pair.fold for pair in lfw.pairs()})), paper_fitter()
        records, size = asset("casia-webface-records"), chosen.size
        whole = build_records(run.path("sets/casia"), records, 2, size, leave_out=True, fitter=fitter)
        apart = set()
    parts = whole.split(chosen.validation, 0, run.seed, without=apart)
    train, names = parts.train, whole.card.get("names", [])
    if run.profile == "smoke":
        train = whole.of(train.subjects.unique()[:24])
    assert not {names[k] for k in train.subjects.unique().tolist()} & apart, "a person of the test is trained on"
    validation = replace(parts.validation, scaling=train.scaling)
    return Material(run, chosen, fitter.model, train.augmented(**chosen.augmentation), validation, None, folds, fitter)


def paper_fitter() -> Fitter:
    """BFM-2019 with MediaPipe's points on it. (The paper's BFM-2009 has no expressions.) AssetError where it is not."""
    model = read(asset("bfm-2019") / "model2019_bfm.h5")
    return Fitter.of(model, mediapipe_embedding(model))


@dataclass(frozen=True)
class CodesOnly:
    """Fitted codes without their pictures, as phase II learns from them; implements the protocol of training."""

    identity: Float[Tensor, "rows identity"]
    residual: Float[Tensor, "rows residual"]

    @classmethod
    def of(cls, subset: Subset) -> "CodesOnly":
        """Those of a subset, as its `load` gives them without mirroring."""
        read = subset.set.shards.read(subset.rows, ["identity", "expression"])
        scaling = subset.scaling
        return cls(scaling.identity.to_codes(read["identity"]), scaling.expression.to_codes(read["expression"]))

    def __len__(self) -> int:
        return len(self.identity)

    def load(self, rows: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """A batch of both codes; nothing random is done to them."""
        return {"identity": self.identity[rows], "residual": self.residual[rows]}


class Supervision(nn.Module):
    """Fitted shapes from fitted codes: `ds = sum_k (centre_k + half_range_k code_k) basis_k`, in mm.

    `unit` is the mean squared length of a vertex's displacement over the training pictures, mm^2: what the mean face
    gets.
    """

    def __init__(self, model: MorphableModel, training: Subset):
        super().__init__()
        parts = {"identity": model.identity_basis, "residual": model.expression_basis}
        scalings = {"identity": training.scaling.identity, "residual": training.scaling.expression}
        for name, basis in parts.items():
            flat, scaling = basis.flatten(1), scalings[name]
            self.register_buffer(f"{name}_basis", scaling.half_range[:, None] * flat, persistent=False)
            self.register_buffer(f"{name}_centre", scaling.centre @ flat, persistent=False)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # training steps, for lambda_R
        some = training.load(torch.arange(0, len(training), max(1, len(training) // 512)))
        self.unit = float(sum(part.square().sum(2).mean() for part in self(some)[:2]))

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Displacements (B, V, 3) by identity and by residual."""
        found = [
            torch.addmm(self.get_buffer(f"{name}_centre"), batch[name], self.get_buffer(f"{name}_basis")).unflatten(
                1, (-1, 3)
            )
            for name in ("identity", "residual")
        ]
        return found[0], found[1]


def phase_one(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Phase I: the encoder regresses the fitted codes, Euclidean loss."""
    codes = modules["network"].encode(batch["image"])
    identity = coefficient_loss(codes.identity, batch["identity"])
    residual = coefficient_loss(codes.residual, batch["residual"])
    return {"loss": identity + residual, "identity": identity, "residual": residual}


def phase_two(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Phase II: each decoder by itself, from fitted codes to fitted displacements, in units of `unit`."""
    made = modules["network"].shape(Codes(batch["identity"], batch["residual"]))
    aim = modules["targets"](batch)
    identity, residual = (shape_loss(made[k], aim[k]) / modules["targets"].unit for k in (0, 1))
    return {"loss": identity + residual, "identity": identity, "residual": residual}


def reconstruction_loss(network: JointNetwork, codes: Codes, aim: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
    """L_R, mm^2: each displacement against its own aim; where the network has one code, against the sum of both."""
    made = network.shape(codes)
    if network.residual:
        return shape_loss(made.identity, aim[0]) + shape_loss(made.residual, aim[1])
    return shape_loss(made.identity, aim[0] + aim[1])


def phase_three(steps: int, reconstruction: bool = True, identification: bool = True) -> Callable:
    """Phase III, `lambda_R L_R + L_C`: end to end. lambda_R rises from 0.5 to 1 after a third of the steps.

    L_R in mm^2, the mean over vertices; the paper does not print its unit, on which the meaning of lambda_R hangs.
    L_R counts the displacement by identity and the one by residual, each against its own target: what keeps the two
    apart. (The paper prints a loss on the shape; on the sum alone, c_id bends to the classes and c_res undoes it.)
    """

    def loss(modules: dict[str, nn.Module], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        network, targets = modules["network"], modules["targets"]
        codes, parts = network.encode(batch["image"]), {}
        zero = codes.identity.new_zeros(())
        if reconstruction:
            parts["L_R"] = reconstruction_loss(network, codes, targets(batch))
        if identification:
            logits = modules["head"](codes.identity, batch["label"])
            parts["L_C"] = nn.functional.cross_entropy(logits, batch["label"])
        weight = LAMBDA_R[0] if int(targets.calls) < steps // 3 else LAMBDA_R[1]
        if targets.training:
            targets.calls += 1
        return {"loss": joint_loss(parts.get("L_R", zero), parts.get("L_C", zero), weight), **parts}

    return loss


@torch.no_grad()
def encode(network: JointNetwork, subset: Subset, rows: Int[Tensor, " rows"] | None = None) -> Codes:
    """Codes of a subset's pictures as they are, on the CPU."""
    device = network.mean_shape.device
    rows = torch.arange(len(subset)) if rows is None else rows
    plain = replace(subset, augmentation=type(subset.augmentation)())
    network.eval()
    found = [network.encode(plain.load(some)["image"].to(device)) for some in rows.split(TOGETHER)]
    return Codes(*(torch.cat(part).float().cpu() for part in zip(*found, strict=True)))


@torch.no_grad()
def encode_pairs(network: JointNetwork, pairs: TestPairs, mirror: bool = False) -> Float[Tensor, "photos identity"]:
    """c_id of LFW's test crops; with `mirror`, of photo and mirrored photo side by side (the usual LFW script)."""
    device = network.mean_shape.device
    network.eval()
    sides = [
        torch.cat([network.encode(pairs.inputs(some, flip).to(device)).identity.float().cpu()
                   for some in torch.arange(len(pairs.image)).split(TOGETHER)])
        for flip in ((False, True) if mirror else (False,))
    ]  # fmt: skip
    return torch.cat(sides, 1)


@torch.no_grad()
def shapes(network: JointNetwork, codes: Codes) -> ShapeParts:
    """What the decoders make of codes, on the CPU."""
    device = network.mean_shape.device
    return ShapeParts(*(part.float().cpu() for part in network.shape(Codes(*(code.to(device) for code in codes)))))


@dataclass(frozen=True)
class TestErrors:
    """Errors of the test pictures, mm: mean vertex distance within 95 mm of the nose tip, aligned on 68 landmarks."""

    whole: Float[Tensor, " test"]  # with expression
    whole_rms: Float[Tensor, " test"]
    identity: Float[Tensor, " test"]  # the face at rest

    __test__ = False  # no test of pytest's


def measure(material: Material, make: Callable[[Int[Tensor, " rows"]], tuple[Tensor, Tensor]]) -> TestErrors:
    """Errors against the truth of whatever `make(rows)` gives: whole and identity shapes (rows, V, 3) of test rows."""
    whole, rms, identity = [], [], []
    landmarks = material.model.landmarks
    for rows in torch.arange(len(material.test)).split(TOGETHER):
        one, two = make(rows)
        found = shape_errors(one, material.truth[rows], landmarks)
        whole.append(found.mean)
        rms.append(found.rms)
        identity.append(shape_errors(two, material.neutral[rows], landmarks).mean)
    return TestErrors(torch.cat(whole), torch.cat(rms), torch.cat(identity))


def measure_network(material: Material, network: JointNetwork, codes: Codes) -> TestErrors:
    """`measure` of the decoders' shapes."""

    def make(rows: Tensor) -> tuple[Tensor, Tensor]:
        parts = shapes(network, Codes(codes.identity[rows], codes.residual[rows]))
        return parts.whole, network.mean_shape.cpu() + parts.identity

    return measure(material, make)


def measure_model(material: Material, network: JointNetwork, codes: Codes) -> TestErrors:
    """`measure` of the 3DMM's own shapes for the codes: what phase I predicts, before there are decoders."""

    def make(rows: Tensor) -> tuple[Tensor, Tensor]:
        device = network.mean_shape.device
        found = network.coefficients(Codes(codes.identity[rows].to(device), codes.residual[rows].to(device)))
        identity, residual = (part.detach().cpu() for part in found)
        return material.model.shape(identity, residual), material.model.shape(identity)

    return measure(material, make)


def need_network(run: Run, name: str, notebook: str, like: dict[str, Any]) -> JointNetwork:
    """A network that an earlier notebook saved, on the run's device; RunError that says which command makes it."""
    path = run.need(f"networks/{name}.safetensors", notebook)
    return JointNetwork.load(path, like).to(run.device)


def training_folder(
    material: Material, name: str, settings: Settings, start: dict[str, nn.Module] | None = None, **more: Any
) -> Path:
    """Where a training lives: another folder for other settings, pictures, network, or whatever `more` tells apart.

    `start`: the modules as they are before the training, by their weights. So a notebook run again goes on where it
    was, and one that was changed begins anew beside it.
    """
    train = material.train
    facts = {"settings": settings.as_dict(), "card": train.set.card, "people": train.subjects.unique().tolist(),
             "augmentation": asdict(train.augmentation), "encoder": material.plan.encoder, **more}  # fmt: skip
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for part, module in (start or {}).items():
        for key, value in module.state_dict().items():
            digest.update(f"{part}.{key}".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return material.run.path(f"training/{name}-{digest.hexdigest()[:10]}")


def mean_coefficients(material: Material) -> Float[Tensor, " identity"]:
    """Mean of the training people's fitted identity coefficients, every picture alike."""
    train = material.train
    parts = [train.set.shards.read(rows, ["identity"])["identity"].sum(0) for rows in train.rows.split(65536)]
    return torch.stack(parts).sum(0) / len(train)
