"""The reference trainings of Luo19: the sweep on validation people, then four arms with several seeds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from facenb.evaluation.claims import mean_of_pairs, paired_difference
from facenb.evaluation.intervals import Effect
from facenb.methods import liu18
from facenb.methods.liu18.plans import reference_plan as liu18_plan
from facenb.methods.liu18.reference import facts_of, figure
from facenb.methods.luo19.effects import METRICS, Seeds, nme_falls, ratio, ratio_more, spread, spread_less
from facenb.methods.luo19.measures import IdentityTest, LandmarkTest, Measured
from facenb.methods.luo19.plans import reference_plan
from facenb.methods.luo19.targets import PairMaterial
from facenb.methods.luo19.trainings import Sweep, arms, new_network, train_arm, train_start
from facenb.networks.joint import JointNetwork
from facenb.reference.shipment import Shipment, read_part, rounded
from facenb.runs.results import Run

START, PLAIN, BOTH = "after WPDC", "plain regression", "+ both"


def siamese(run: Run) -> Shipment:
    """Train the start and the four arms of each seed, from the encoder of the reference phase I.

    The sweep uses the first seed. The first seed's network with both losses ships; of the other arms and seeds, the
    measurements.
    """
    plan = reference_plan(run.profile)
    material = liu18.prepare(run, sizes=liu18_plan(run.profile, run.data, run.seed))
    phase_one = read_part("liu18", run.data, run.folder / "parts")
    encoder = phase_one.network("phase_I", JointNetwork, material.model).encoder
    pairs = PairMaterial.of(material, plan)
    of_seed = {seed: replace(pairs, plan=plan.seeded(seed)) for seed in plan.seeds}
    networks, histories, first = {}, {}, plan.seeds[0]
    for seed, seeded in of_seed.items():
        network, history = train_start(seeded, new_network(seeded, seed, encoder))
        networks[START, seed], histories[f"{START}, seed {seed}"] = network, history
    sweep = Sweep(of_seed[first], networks[START, first])
    choice = sweep.run()
    histories |= {f"sweep {number}": history for number, history in enumerate(sweep.histories)}
    for seed, seeded in of_seed.items():
        for arm, options in arms(**choice).items():
            networks[arm, seed], histories[f"{arm}, seed {seed}"] = train_arm(seeded, networks[START, seed], **options)

    identity, landmarks = IdentityTest.of(pairs), LandmarkTest.of(pairs)
    people = torch.stack([torch.from_numpy(side) for side in identity.gallery.people])
    measures = {"subject": landmarks.faces, "yaw": landmarks.yaw, "people of pairs": people}
    named = {f"{arm}/seed{seed}": network for (arm, seed), network in networks.items()}
    margins = [key for key in sweep.networks if len(key) == 2 and key[0] == choice["contrast"]]
    named |= {f"sweep/{key[1]:g}": sweep.networks[key] for key in sorted(margins)} | {"sweep/plain": sweep.networks[()]}
    for name, network in named.items():
        measured = Measured.of(rounded(network.cpu()), identity, landmarks).tensors()
        measures |= {f"{name}/{key}": value for key, value in measured.items()}
        measures[f"shape/{name}"] = identity.shape_error(identity.codes(network))
    measures["shape/mean face"] = liu18.mean_face(material).identity
    steps = {name: getattr(plan, name).steps for name in ("start", "sweep", "arm")}
    facts = facts_of(material, histories, figures(measures, list(plan.seeds)), seeds=list(plan.seeds))
    tables = {axes: [[*key, *value] for key, value in table.items()] for axes, table in sweep.tables.items()}
    swept = {"plain": list(sweep.plain), "tables": tables, "tolerance": plan.tolerance, "at an edge": sweep.edges}
    facts |= {"steps": steps, "batch": plan.arm.batch, "choice": choice, "sweep": swept}
    return Shipment(material.model, {"both": networks[BOTH, first]}, measures, facts)


def read_arms(measures: Mapping[str, Tensor], seeds: list[int]) -> dict[str, Seeds]:
    """Return what was measured of the start and the four arms, one entry for each seed."""
    names = (START, *arms(0, 0, 0))
    return {name: [Measured.read(measures, f"{name}/seed{seed}/") for seed in seeds] for name in names}


def read_margins(measures: Mapping[str, Tensor]) -> dict[str, Seeds]:
    """Return what was measured of the sweep's plain regression ("plain") and of each margin with the chosen w_c."""
    names = dict.fromkeys(name.split("/")[1] for name in measures if name.startswith("sweep/"))
    return {name: [Measured.read(measures, f"sweep/{name}/")] for name in names}


def shape_gain(measures: Mapping[str, Tensor], seeds: list[int], arm: str) -> Effect:
    """Return by how many mm an arm's neutral shapes of the test people are nearer to the truth than the mean face."""
    errors = torch.stack([measures[f"shape/{arm}/seed{seed}"] for seed in seeds])
    return paired_difference(measures["shape/mean face"], errors, measures["subject"])


def figures(measures: Mapping[str, Tensor], seeds: list[int]) -> list[dict[str, Any]]:
    """Return the card's figures: each arm alone, then each arm against plain regression."""
    every, people, rows = read_arms(measures, seeds), measures["people of pairs"].numpy(), []
    for name, arm in every.items():
        right = torch.stack([seed.right.double() for seed in arm])
        rows += [
            figure(f"{name}, spread", spread(arm, "spread"), "deviations"),
            figure(f"{name}, spread of shapes", spread(arm, "shapes"), "mm"),
            figure(f"{name}, between / within", ratio(arm), ""),
            figure(f"{name}, accuracy", mean_of_pairs(right, *people).percent(), "%"),
            figure(f"{name}, nearer to the true shape than the mean face", shape_gain(measures, seeds, name), "mm"),
        ]
    plain = every[PLAIN]
    for name in list(arms(0, 0, 0))[1:]:
        arm = every[name]
        falls = nme_falls(plain, arm, "exact labels", measures["yaw"], measures["subject"])
        rows += [
            figure(f"{name}, less spread than {PLAIN}", spread_less(plain, arm, "spread"), "deviations"),
            figure(f"{name}, less spread of shapes", spread_less(plain, arm, "shapes"), "mm"),
            figure(f"{name}, higher between / within", ratio_more(plain, arm), ""),
            *(figure(f"{name}, {metric}, fall", falls[metric], "%") for metric in METRICS),
        ]
    return rows
