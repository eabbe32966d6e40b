"""What is where on SynthFace's mesh: landmarks, regions, edges of lids, as `benchmarks/landmarks.py` measured them."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch

from facenb.morphable.model import Embedding

LANDMARKS, REGIONS = (Path(__file__).parent / "data" / name for name in ("landmarks.json", "regions.json"))


@cache
def landmarks() -> Embedding:
    """Return the 68 points in the order of Multi-PIE / iBUG."""
    stored = json.loads(LANDMARKS.read_text())
    return Embedding(torch.tensor(stored["vertices"]), torch.tensor(stored["weights"], dtype=torch.float32))


@cache
def regions() -> dict[str, np.ndarray]:
    """Return vertex indices by the name of the region; `left` is the person's left."""
    return {name: np.array(vertices) for name, vertices in json.loads(REGIONS.read_text())["regions"].items()}


@cache
def lid_rims() -> list[list[np.ndarray]]:
    """Return the front edge of the upper and of the lower lid, of the left then the right eye, from corner to corner.

    x ascends.
    """
    return [[np.array(rim) for rim in eye] for eye in json.loads(REGIONS.read_text())["lid_rims"]]
