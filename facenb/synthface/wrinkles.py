"""Wrinkles: a displacement map of each person in the atlas. They are deeper with age and expression.

The edges of the mesh (5 to 7 mm) are too coarse for wrinkles, so photographs show them by shading normals only.
"""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from facenb.synthface.atlas import bump, smooth_step
from facenb.synthface.expressions import EXPRESSIONS
from facenb.synthface.people import Subject, SynthFace
from facenb.synthface.skin import layers

DEEPEST = 1.2  # mm, never exceeded
PATTERN = 24  # number of random numbers in [0, 1) for a person's pattern
STREAM = 12  # number of the stream in a subject's random numbers


@lru_cache(maxsize=8)
def grooves(pattern: tuple[float, ...], size: int) -> np.ndarray:
    """Return depth maps (14, size, size), 0 to about 1: one person's seven families of wrinkles, right then left."""
    at, r = layers(size), iter(pattern)
    signed, x, y = at["x"], np.abs(at["x"]), at["y"]
    forehead = np.zeros_like(x)
    for line in range(3):  # wavy lines across the forehead
        height = 35.0 + 10.5 * line + 4.0 * (next(r) - 0.5)
        wave = 1.5 * np.sin(signed / (9.0 + 6.0 * next(r)) + 6.28 * next(r)) - 0.0022 * x**2 * (1 + next(r))
        forehead += (0.6 + 0.4 * next(r)) * bump(y - height, wave, 1.9)
    distance, angle = np.hypot(x - 44.0, y + 1.0), np.arctan2(y + 1.0, x - 44.0)
    spokes = (0.5 + 0.5 * np.cos(8.0 * angle + 3.0 * (next(r) - 0.5))) ** 2
    crow = spokes * smooth_step(distance, 3.0, 8.0) * (1 - smooth_step(distance, 15.0, 24.0)) * smooth_step(x, 44, 48)
    glabella = bump(x - 4.5, 2.0 * next(r), 1.9) * bump(y, 16.0, 8.0 + 3.0 * next(r))
    below = -40.0 - y
    fold = 20.0 + 0.33 * below + 2.5 * (next(r) - 0.5) - 0.002 * below**2
    nasolabial = bump(x, fold, 2.4) * smooth_step(below, -2.0, 6.0) * (1 - smooth_step(below, 28.0, 42.0))
    marionette = bump(x - 27.0 - 0.12 * (-78.0 - y), 2 * (next(r) - 0.5), 2.2)
    marionette *= smooth_step(-y, 76.0, 82.0) * (1 - smooth_step(-y, 94.0, 106.0))
    nose = bump(y + 2.0 + 3 * next(r), 0.6 * x, 1.6) * smooth_step(x, 1.0, 4.0) * (1 - smooth_step(x, 8.0, 14.0))
    lid = bump(np.hypot(x - 31.0, 1.15 * (y - 1.0)) - 15.0, 3 * next(r), 1.7) * smooth_step(-y, 4.0, 10.0)
    families = np.stack([forehead, crow, glabella, nasolabial, marionette, nose, lid])
    # The skin beside a groove bulges a little.
    families = (families - 0.18 * np.sqrt(families)) * at["front"]
    left = smooth_step(signed, -10.0, 10.0)
    return np.concatenate([families * (1 - left), families * left]).astype(np.float32)


def depths(age: float, expression: np.ndarray) -> np.ndarray:
    """Return the depth (B, 2, 7) in mm of each family on the right and the left half; age in years."""
    value = dict(zip(EXPRESSIONS, np.asarray(expression, float).T, strict=True))

    def both(name):
        return np.stack([value[f"{name}Right"], value[f"{name}Left"]], -1)

    old = 0.06 + 0.94 / (1 + np.exp(-(age - 50.0) / 7.5))
    young = 0.35 + 0.65 * old
    raised = np.maximum(both("browOuterUp"), value["browInnerUp"][:, None])
    squint = np.maximum(both("mouthSmile"), 0.8 * np.maximum(both("eyeSquint"), both("eyeBlink")))
    snarl = np.maximum(both("noseSneer"), 0.7 * both("mouthUpperUp"))
    return np.stack(
        [
            0.60 * old + 0.90 * young * raised,
            0.45 * old + 0.70 * young * squint,
            0.35 * old + 0.75 * young * both("browDown"),
            0.95 * old + 0.80 * young * np.maximum(both("mouthSmile"), 0.7 * snarl),
            0.75 * old + 0.45 * young * both("mouthFrown"),
            0.05 * old + 0.60 * young * np.maximum(snarl, 0.3 * both("browDown")),
            0.65 * old + 0.35 * young * squint,
        ],
        axis=-1,
    )


def displacement(
    synth: SynthFace, subject: Subject, expression: Float[Tensor, "batch expressions"], size: int = 416
) -> Float[Tensor, "batch size size"]:
    """Return a person's displacement maps: mm along the normals, negative in grooves; row 0 is the atlas's top."""
    pattern = tuple(synth.generator(subject.index, STREAM).random(PATTERN))
    deep = depths(subject.traits["age"], expression.detach().cpu().numpy()).astype(np.float32)
    total = np.tensordot(deep.reshape(len(deep), -1), grooves(pattern, size), 1)
    return torch.from_numpy(-DEEPEST * np.tanh(total / DEEPEST))
