"""A folder's name that only one training has, and the digest of weights that it stands on."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def training_name(name: str, facts: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> str:
    """`name` and a digest of what a training depends on: facts (as JSON), and modules by their weights as they are.

    So a notebook run again goes on where it was, and one that was changed begins anew beside it. What tells one loss
    from another (its name, its weights) belongs into the facts.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for part, module in modules.items():
        _add(digest, {f"{part}.{key}": value for key, value in module.state_dict().items()})
    return f"{name}-{digest.hexdigest()[:10]}"


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """A digest of tensors, to the bit, and of their names; the same on every device and for every order in memory."""
    digest = hashlib.sha256()
    _add(digest, tensors)
    return digest.hexdigest()


def _add(digest, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        # By way of bytes: numpy has no bfloat16.
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
