"""A jaw joint for SynthFace's linear model, so that it is posed as FLAME is: global rotation, jaw rotation."""

from dataclasses import replace

import torch

from facenb.morphable.model import Joints, MorphableModel
from facenb.morphable.synthetic.expressions import CONDYLE, expression_masks

MOVED = ("jaw_open", "jaw_sideways")  # expressions that the joint takes the place of
GUIDES = (0, 1, 15, 16, 27)  # landmarks by the ears and between the eyes: the hinge goes with them


def with_jaw(model: MorphableModel) -> MorphableModel:
    """SynthFace's model with joints (global, jaw), without the expressions that only open or shift the jaw.

    The global joint lies in the middle of the landmarks: so a head that turns stays where it is in the picture, and a
    network need not learn a shift with every turn. The jaw's hinge follows the person's face: the smallest weights on a
    few landmarks that put it where SynthFace has it on the mean head. A positive turn about x opens the mouth. Raises
    ValueError for a model of other vertices or without the expressions.
    """
    if missing := [name for name in MOVED if name not in model.expression_names]:
        raise ValueError(f"{model.name} has no expression {', '.join(missing)}; this is for SynthFace's own model")
    mask = torch.from_numpy(expression_masks()["jaw"]).to(model.mean)
    if len(mask) != len(model.mean):
        raise ValueError(f"{model.name} has {len(model.mean)} vertices, and SynthFace's heads {len(mask)}")
    guides = model.landmarks.vertices[list(GUIDES), 0]
    places = torch.cat([model.mean[guides], torch.ones(len(guides), 1).to(model.mean)], 1).double()  # (5, 4)
    hinge = torch.tensor([*CONDYLE, 1.0], dtype=torch.float64)
    regressor = torch.zeros(2, len(mask)).to(model.mean)
    marks = model.landmarks.vertices[:, 0]
    regressor[0].index_add_(0, marks, torch.full((len(marks),), 1 / len(marks)).to(model.mean))
    regressor[1, guides] = (torch.linalg.pinv(places.T) @ hinge).to(model.mean)
    joints = Joints(("global", "jaw"), (-1, 0), regressor, torch.stack([1 - mask, mask], 1))
    kept = [k for k, name in enumerate(model.expression_names) if name not in MOVED]
    return replace(
        model,
        name=f"{model.name} with a jaw",
        joints=joints,
        expression_basis=model.expression_basis[kept],
        expression_names=tuple(model.expression_names[k] for k in kept),
    )
