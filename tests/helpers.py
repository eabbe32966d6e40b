"""What several test files use."""

import numpy as np
import torch
import trimesh


def tensors(mesh: trimesh.Trimesh, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vertices and triangles of a mesh of trimesh."""
    return torch.tensor(np.array(mesh.vertices), dtype=dtype), torch.tensor(np.array(mesh.faces))
