"""The reference trainings of teacher, details and learner."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from facenb.evaluation.claims import mean_of, paired_difference
from facenb.evaluation.landmarks import nme
from facenb.evaluation.shape import shape_errors
from facenb.losses import coefficient_spread
from facenb.methods.deca.learner import LOSSES, DecaReading, Distillation, spreads_apart
from facenb.methods.deca.lessons import OCCLUDERS, SEEN, synthetic_lessons
from facenb.methods.deca.measures import (
    Wrinkles,
    errors_at_rest,
    landmark_error,
    predicted_wrinkles,
    relief,
    vertex_errors,
    watch_shapes,
)
from facenb.methods.deca.plans import learner_plan, teacher_plan
from facenb.methods.deca.scene import landmarks_of
from facenb.methods.deca.trainings import Material, optimise, place, predict, prepare, train_coarse, train_details
from facenb.methods.liu18.measures import gap_closed
from facenb.methods.liu18.reference import figure
from facenb.networks.deca import Deca
from facenb.reference.shipment import Shipment, read_part, rounded
from facenb.runs.results import Run
from facenb.synthface import course_model, with_jaw
from facenb.training import History

DETAILS = {"fine": "fine", "decoder": "decoder"}  # ship with the part "details" only
EARLIER = {"details": "teacher", "learner": "details"}  # the part that has the modules which a part does not train


def profile_of(run: Run) -> str:
    """Return the plan's name: the reference plan, but at smoke that of the notebooks."""
    return "smoke" if run.profile == "smoke" else "reference"


def teacher(run: Run) -> Shipment:
    """Train the coarse network on landmarks and colours, without a recogniser. Measure it on unseen people."""
    material = prepare(run, teacher_plan(profile_of(run), run.seed))
    network = material.new_network()
    histories = train_coarse(material, network, validate=watch_shapes(material))
    network = rounded(network.cpu()).to(run.device)
    test, who = material.test, material.test.subjects
    vectors = {"teacher": predict(network, test), "optimised": optimise(material, network, test)}
    at_rest = {"mean face": errors_at_rest(material, test)}
    at_rest |= {name: errors_at_rest(material, test, flat) for name, flat in vectors.items()}
    at_rest["teacher, mean of a person's images"] = errors_at_rest(material, test, vectors["teacher"], averaged=True)
    measures, figures = {"subject": who}, []
    for name, flat in vectors.items():
        measures[f"{name}/landmarks"] = error = landmark_error(material.model, material.layout, flat, test)
        figures.append(figure(f"{name}, landmarks", mean_of(error, who), "% of the side"))
    for name, error in at_rest.items():
        measures[f"{name}/at rest"] = error
        below = gap_closed(at_rest["mean face"], error, torch.zeros_like(error), who)
        figures.append(figure(f"{name}, shape at rest", mean_of(error, who), "mm"))
        figures.append(figure(f"{name}, shape at rest, below the mean face's", below, "%"))
    facts = facts_of(material, histories, figures)
    return Shipment(material.model, {"teacher": network.cpu()}, measures, facts, DETAILS)


def details(run: Run) -> Shipment:
    """Train the detail network and the decoder of the teacher. Measure its displacement maps on unseen people."""
    material = prepare(run, teacher_plan(profile_of(run), run.seed))
    network = material.new_network().to(run.device)  # its detail network depends on the seed
    network.coarse.load_state_dict(read_network(run, "teacher").coarse.state_dict())
    placed = place(material, network)
    history = train_details(material, network, placed)
    network = rounded(network.cpu())
    test, who, wrinkles = material.test, material.test.subjects, Wrinkles.of(material)
    flat, codes = predict(network, test), predict(network, test, detail=True)
    predicted = predicted_wrinkles(network, material.stage.to("cpu"), flat, codes)[:, wrinkles.points]
    maps = {"with details": predicted, "one map for all": predicted.mean(0, keepdim=True)}
    maps["none"] = torch.zeros_like(maps["one map for all"])
    measures, figures = {"subject": who}, []
    for name, values in maps.items():
        displaced, changed = wrinkles.errors(values)
        measures |= {f"{name}/displacement": displaced, f"{name}/change": changed}
        figures.append(figure(f"{name}, displacement", mean_of(displaced, who), "mm"))
        figures.append(figure(f"{name}, change", mean_of(changed, who), "mm"))
        if name != "none":
            measures[f"{name}/correlation"] = wrinkles.correlation(values)
            figures.append(figure(f"{name}, correlation", mean_of(measures[f"{name}/correlation"], who), ""))
    more = paired_difference(measures["with details/correlation"], measures["one map for all/correlation"], who)
    figures.append(figure("with details, correlation above one map for all", more, ""))
    facts = facts_of(replace(material, train=placed.faces), {"details": history}, figures)
    same = {"coarse": "coarse", "fine.encoder": "coarse.encoder"}
    return Shipment(material.model, {"details": network}, measures, facts, same)


def learner(run: Run) -> Shipment:
    """Train the three learners and the details of the chosen one. Measure them under each occluder.

    The chosen learner ships with its teacher's detail network. Of the trained details, the measurements ship.
    """
    material = prepare(run, teacher_plan(profile_of(run), run.seed))
    plan = learner_plan(profile_of(run), False, run.seed)
    network = read_network(run, "details").to(run.device).requires_grad_(False)
    taught = material.train.of(material.train.people[: plan.taught])
    reading = DecaReading(material.model, network.layout, taught.size, run.device)
    distillation = Distillation(network, reading, synthetic_lessons(run, plan, taught))
    trained, histories = {}, {}
    for kind in LOSSES:
        trained[kind], histories[kind] = distillation.train(kind)
    choice = distillation.choose(trained)
    fine, histories["details"] = distillation.train_details()
    further, _ = distillation.choose_details(fine)
    ships = rounded(choice.learners[choice.best].cpu())
    chosen = copy.deepcopy(ships)
    chosen.fine.load_state_dict(rounded(distillation.between(further, fine).cpu()).fine.state_dict())
    networks = choice.learners | {choice.best: chosen.to(run.device)}
    measures, figures = measured(distillation, {"teacher": network} | networks, choice.best)
    lessons = distillation.lessons
    used = replace(material, train=lessons.clear, validation=lessons.held_back, test=lessons.test)
    facts = {"best": choice.best, "fractions": choice.fractions | {"details": further}}
    facts = facts_of(used, histories, figures, **facts)
    return Shipment(material.model, {"learner": ships}, measures, facts, DETAILS)


def measured(
    distillation: Distillation, networks: Mapping[str, Deca], best: str
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return the errors of each network on the test images, by occluder, and the figures of the chosen learner."""
    lessons, reading = distillation.lessons, distillation.reading
    model, layout, who = with_jaw(course_model()), reading.layout, lessons.test.subjects
    marked = lessons.test.read(["landmarks"])["landmarks"]
    constant = shape_errors(model.mean.expand_as(lessons.truth), lessons.truth, model).mean
    measures = {"subject": who, "yaw": lessons.yaw, "mean face/vertices": constant}
    for name, network in networks.items():
        flat = {kind: distillation.predict(network, faces) for kind, faces in lessons.tests.items()}
        spread = coefficient_spread(flat["clear"])
        for kind, vectors in flat.items():
            predicted = landmarks_of(model, layout, vectors, lessons.test.size)
            measures[f"{name}/{kind}/vertices"] = vertex_errors(model, layout, vectors, lessons.truth)
            measures[f"{name}/{kind}/NME"] = 100 * nme(predicted, marked)
            measures[f"{name}/{kind}/disagreement"] = spreads_apart(vectors, flat["clear"], spread)
    measures |= kept_details(distillation, networks["teacher"], networks[best])
    figures, zero = [], torch.zeros_like(constant)
    groups = {"clear": ("clear",), "seen occluders": SEEN, "all occluders": OCCLUDERS}
    for group, kinds in groups.items():
        for metric in ("vertices", "NME"):
            errors = {
                name: torch.stack([measures[f"{name}/{kind}/{metric}"] for kind in kinds]).mean(0) for name in networks
            }
            unit = "mm" if metric == "vertices" else "%"
            figures += [figure(f"{name}, {group}, {metric}", mean_of(errors[name], who), unit) for name in errors]
            below = gap_closed(errors["teacher"], errors[best], zero, who)
            figures.append(figure(f"learner, {group}, {metric}, below its teacher's", below, "%"))
            if metric == "vertices":
                below = gap_closed(constant, errors[best], zero, who)
                figures.append(figure(f"learner, {group}, {metric}, below the mean face's", below, "%"))
    return measures, figures


def kept_details(distillation: Distillation, teacher: Deca, best: Deca) -> dict[str, Tensor]:
    """Return how far codes (spreads) and displacements (mm) are from the teacher's of the clear images."""
    lessons, model = distillation.lessons, with_jaw(course_model())
    spread, measures, aims = coefficient_spread(distillation.codes), {}, ()
    for name, network in (("teacher", teacher), ("learner", best)):
        for kind, faces in lessons.tests.items():
            codes = distillation.predict(network, faces, detail=True)
            values = relief(network, model, distillation.predict(network, faces), codes)
            aims = aims or (codes, values)  # the first: the teacher's of the clear images
            measures[f"{name}/{kind}/codes"] = spreads_apart(codes, aims[0], spread)
            measures[f"{name}/{kind}/displacement"] = (values - aims[1]).abs().mean(1)
    back = lessons.held_back
    mean_map = relief(teacher, model, distillation.aim, distillation.predict(teacher, back, detail=True)).mean(0)
    return measures | {"mean map/displacement": (aims[1] - mean_map).abs().mean(1)}


def read_network(run: Run, name: str) -> Deca:
    """Return the network of a part with all its modules: of this run, or the one that ships.

    Raise RunError if a part is missing, and ModelFileError if a file is damaged.
    """
    part = read_part(name, run.data, run.folder / "parts")
    earlier = read_network(run, EARLIER[name]) if name in EARLIER else None
    return part.network(name, Deca, with_jaw(course_model()), earlier)


def facts_of(material: Material, histories: Mapping[str, History], figures: list[dict], **more: Any) -> dict[str, Any]:
    """Return the facts of trainings on this material for a card."""
    logs, sets = {name: history.log.iloc[-1] for name, history in histories.items()}, ("train", "validation", "test")
    return {
        "data": "SynthFace",
        "people": {name: getattr(material, name).classes for name in sets},
        "images": {name: len(getattr(material, name)) for name in sets},
        "size": list(material.test.size),
        "encoder": material.plan.network["encoder"],
        "steps": {name: int(last["step"]) for name, last in logs.items()},
        "seconds": float(sum(last["seconds"] for last in logs.values())),
        "seeds": [material.run.seed],
        "figures": figures,
        **more,
    }
