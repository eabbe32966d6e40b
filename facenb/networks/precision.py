"""Geometry stays in 32 bits where a training runs in mixed precision."""

import torch
from torch import Tensor


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without automatic 16 bits, on the tensor's device. What comes in from outside still needs `.float()`.

    In bfloat16 a vertex 100 mm from the middle is known to a quarter of a millimetre only.
    """
    return torch.autocast(tensor.device.type, enabled=False)
