"""A folder's name that only one training has."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from torch import nn


def training_name(name: str, facts: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> str:
    """`name` and a digest of what a training depends on: facts (as JSON), and modules by their weights as they are.

    So a notebook run again goes on where it was, and one that was changed begins anew beside it.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for part, module in modules.items():
        for key, value in module.state_dict().items():
            digest.update(f"{part}.{key}".encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return f"{name}-{digest.hexdigest()[:10]}"
