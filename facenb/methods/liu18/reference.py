"""The reference trainings of Liu18: phases I to III, and the ablation with several seeds."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facenb.evaluation.claims import mean_of, mean_of_pairs
from facenb.evaluation.intervals import Effect
from facenb.methods.liu18.ablation import Ablation, measure_arms
from facenb.methods.liu18.material import Material, prepare
from facenb.methods.liu18.measures import (
    encode,
    fitted_shapes,
    gap_closed,
    mean_face,
    measure_model,
    measure_network,
    of_errors,
    watch_codes,
)
from facenb.methods.liu18.photo import synthetic_network
from facenb.methods.liu18.plans import NARROW, reference_plan
from facenb.methods.liu18.recognition import Galleries, Gallery, of_test, watch_validation
from facenb.methods.liu18.trainings import train_phase_one, train_phase_three, train_phase_two
from facenb.networks.joint import JointNetwork
from facenb.reference.shipment import Shipment, rounded
from facenb.runs.results import Run
from facenb.training import History


def figure(name: str, effect: Effect, unit: str) -> dict[str, Any]:
    """Return a row of a card's figures."""
    ends = {"low": effect.low, "high": effect.high}
    return {"name": name, "value": effect.value, **ends, "unit": unit, "n": effect.subjects}


def facts_of(material: Material, histories: Mapping[str, History], figures: list[dict], **more: Any) -> dict[str, Any]:
    """Return the facts of trainings on this material for a card."""
    logs = {name: history.log.iloc[-1] for name, history in histories.items()}
    sets = {name: getattr(material, name) for name in ("train", "validation", "test")}
    sets = {name: images for name, images in sets.items() if images is not None}  # LFW's pairs are no set
    return {
        "data": "LFW" if material.test is None else "SynthFace",
        "people": {name: images.classes for name, images in sets.items()},
        "images": {name: len(images) for name, images in sets.items()},
        "size": list(material.plan.size),
        "encoder": material.plan.encoder,
        "steps": {name: int(last["step"]) for name, last in logs.items()},
        "batch": material.plan.one.batch,
        "seconds": float(sum(last["seconds"] for last in logs.values())),
        "figures": figures,
        **more,
    }


def logged(histories: Mapping[str, History]) -> dict[str, Tensor]:
    """Return the curves of trainings: losses and numbers of the validation, at the steps that were validated."""
    curves = {}
    for name, history in histories.items():
        unused = ("rate", "images_per_second", "waiting", "seconds")
        rows = history.log.drop(columns=list(unused)).dropna()
        curves |= {f"log/{name}/{column}": torch.tensor(rows[column].to_numpy()).float() for column in rows}
    return curves


def liu18(run: Run) -> Shipment:
    """Train phases I, II and III with the wider encoder, and measure phases I and III on unseen people."""
    material = prepare(run, sizes=reference_plan(run.profile, run.data, run.seed))
    network, watch, histories = material.new_network(run.seed), watch_validation(material), {}
    network.set_bases(material.model.identity_basis, material.model.expression_basis)  # for the validation of L_R
    histories["phase I"] = train_phase_one(material, network, validate=watch_codes(material))
    one = rounded(copy.deepcopy(network).cpu())
    one.set_bases(material.model.identity_basis, material.model.expression_basis)
    histories["phase II"] = train_phase_two(material, network)
    histories["phase III"] = train_phase_three(material, network, validate=watch)
    three = rounded(network.cpu())
    return measured(material, {"phase_I": one, "phase_III": three}, histories)


def measured(material: Material, networks: dict[str, JointNetwork], histories: dict[str, History]) -> Shipment:
    """Measure both networks on the test people."""
    gallery, subject = Gallery.of(material), material.test.subjects
    errors = {"mean face": mean_face(material), "fitted targets": fitted_shapes(material)}
    measures, figures = of_test(gallery), []
    for name, network in networks.items():
        codes = encode(network, material.test)
        errors[name] = (measure_model if name == "phase_I" else measure_network)(material, network, codes)
        right = gallery.verify(codes.identity).right
        measures[f"{name}/right"] = right
        figures.append(
            figure(f"{name}, accuracy of c_id", mean_of_pairs(right.double(), *gallery.people).percent(), "%")
        )
    for name, error in errors.items():
        measures |= of_errors(name, error)
        figures += [
            figure(f"{name}, {kind}", mean_of(getattr(error, kind), subject), "mm") for kind in ("whole", "identity")
        ]
    measures |= logged(histories)
    for name in networks:
        for kind in ("whole", "identity"):
            values = (getattr(errors[key], kind) for key in ("mean face", name, "fitted targets"))
            figures.append(figure(f"{name}, gap closed, {kind}", gap_closed(*values, subject), "%"))
    return Shipment(
        material.model, networks, measures, facts_of(material, histories, figures, seeds=[material.run.seed])
    )


STARTS = ("nothing", "SynthFace")  # from which phases I to III on photographs start


def photos(run: Run) -> Shipment:
    """Train phases I to III on LFW, from nothing and from the encoder that was trained on SynthFace, and verify.

    The test folds are those of the plan; their people are in no training. The networks do not ship.
    """
    plan, taught = reference_plan(run.profile, run.data, run.seed), synthetic_network()
    networks, codes, histories, galleries = {}, {}, {}, []
    for folds in plan.folds:
        material, name = prepare(run, folds, plan), "folds{}-{}".format(*folds)
        galleries.append(Gallery.of(material))
        of_fold = {"untrained": material.new_network(run.seed), "phase III of SynthFace": taught}
        for start in STARTS:
            network, suffix = material.new_network(run.seed), f"_{name}_{start}"
            if start == "SynthFace":
                network.encoder.load_state_dict(taught.encoder.state_dict())
            histories[f"I {suffix}"] = train_phase_one(material, network, suffix)
            of_fold[f"phase I from {start}"] = rounded(copy.deepcopy(network).cpu())
            network.set_bases(material.model.identity_basis, material.model.expression_basis)
            watch = watch_validation(material)
            histories[f"III {suffix}"] = train_phase_three(material, network, suffix, validate=watch)
            of_fold[f"phase III from {start}"] = rounded(network.cpu())
        for method, network in of_fold.items():
            codes.setdefault(method, []).append(galleries[-1].codes(network))
        for phase in ("I", "III"):
            networks[f"phase_{phase}_{name}"] = of_fold[f"phase {phase} from SynthFace"]
        codes.setdefault("fitted coefficients", []).append(galleries[-1].fitted)
    whole = Galleries(tuple(galleries))
    return verified(material, whole, networks, codes, histories)


def verified(material: Material, galleries: Galleries, networks: dict, codes: dict, histories: dict) -> Shipment:
    """Verify the pairs of all test folds of LFW."""
    measures, figures = {"pairs/same": galleries.same, "pairs/fold": galleries.fold}, []
    names = np.unique(np.concatenate(galleries.people), return_inverse=True)[1]
    measures["pairs/first_person"], measures["pairs/second_person"] = torch.from_numpy(names).chunk(2)
    for method, of_parts in codes.items():
        measures[f"{method}/score"] = galleries.scores(of_parts)
        measures[f"{method}/right"] = right = galleries.verify(of_parts).right
        figures.append(figure(method, mean_of_pairs(right.double(), *galleries.people).percent(), "%"))
    right = {start: measures[f"phase III from {start}/right"].double() for start in STARTS}
    gain = mean_of_pairs(right["SynthFace"] - right["nothing"], *galleries.people).percent()
    figures.append(figure("phase III, start from SynthFace less start from nothing", gain, "points"))
    facts = facts_of(material, histories, figures, folds=material.plan.folds, seeds=[material.run.seed])
    return Shipment(material.model, networks, measures, facts)


def ablation(run: Run, seed: int) -> Shipment:
    """Train the four arms of one seed with the narrow encoder, and measure them on unseen people."""
    plan = replace(reference_plan(run.profile, run.data, run.seed), encoder=NARROW)
    material = prepare(run, sizes=plan)
    trainings = Ablation(material, seed, validate=watch_validation(material))
    networks = {arm: rounded(network.cpu()) for arm, network in trainings.arms().items()}
    measures, figures = measure_arms(material, networks), []
    gallery, subject = Gallery.of(material), material.test.subjects
    for arm in networks:
        accuracy = mean_of_pairs(measures[f"{arm}/right"].double(), *gallery.people).percent()
        figures.append(figure(f"({arm}) accuracy", accuracy, "%"))
        if arm != "d":
            figures.append(figure(f"({arm}) whole", mean_of(measures[f"{arm}/whole"], subject), "mm"))
    measures |= logged(trainings.histories)
    texture = networks["d"]
    texture.set_bases(material.model.identity_basis, material.model.expression_basis)
    facts = facts_of(material, trainings.histories, figures, seeds=[seed], unit=material.supervision().unit)
    return Shipment(material.model, {"texture": texture} if seed == run.seed else {}, measures, facts)
