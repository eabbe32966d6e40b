"""The 64 x 64 grid on BFM-2009 with its 68 landmarks, from the 3DDFA-V2 files (Guo et al. 2020). Micrometres.

The bases derive from BFM-2009: academic use only, no redistribution.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facenb.morphable.formats.reading import expect, finish, read_npz, reader, rows, tensor
from facenb.morphable.layouts import LUO19
from facenb.morphable.model import Embedding, MorphableModel

KIND, WHERE = "BFM grid of 3DDFA-V2", "https://github.com/cleardusk/3DDFA_V2"
SOURCE = "BFM-2009 on a 64 x 64 grid, from 3DDFA-V2 (Guo et al. 2020), academic use only, no redistribution"
SIDE = 64
MM = 1e-3  # micrometres to mm
NEEDED = ("u_base", "w_shp_base", "w_exp_base", "paf_mu", "paf_w_shp", "paf_w_exp", "v2_std")


@reader(KIND, WHERE)
def read_bfm_grid(path: str | Path) -> MorphableModel:
    """Return the grid's 4,096 vertices and behind them the 68 landmarks as vertices of their own, in no triangle.

    A coefficient of one is the standard deviation of that parameter over 3DDFA's training images (`v2_std`, the layout
    LUO19). The parameters' mean is left out, so that zero is BFM's mean face. Some files hold the identity basis a
    second time where the grid's expression basis belongs: then only the landmarks have expressions, and the grid has
    zeros. Raise ModelFileError for a missing, damaged or other file.
    """
    arrays = read_npz(path, NEEDED)
    deviation = LUO19.split(torch.from_numpy(arrays["v2_std"].reshape(-1)))
    grid_expression = arrays["paf_w_exp"]
    repeated = np.array_equal(grid_expression, arrays["paf_w_shp"][:, : grid_expression.shape[1]])
    if repeated:
        grid_expression = np.zeros_like(grid_expression)
    coordinates = np.concatenate([arrays["paf_mu"].reshape(-1), arrays["u_base"].reshape(-1)])
    expect("number of coordinates", len(coordinates), 3 * (SIDE * SIDE + 68))
    identity = np.concatenate([arrays["paf_w_shp"], arrays["w_shp_base"]])
    expression = np.concatenate([grid_expression, arrays["w_exp_base"]])
    marks = SIDE * SIDE + torch.arange(68)
    return finish(
        "bfm-grid",
        tensor(coordinates.reshape(-1, 3) * MM),
        _grid_triangles(),
        Embedding.at(marks),
        identity_basis=rows(identity, deviation["identity"].numpy(), MM),
        expression_basis=rows(expression, deviation["expression"].numpy(), MM),
        regions={"grid": torch.arange(SIDE * SIDE), "landmarks": marks},
        source=SOURCE + ("; expressions at the 68 landmarks only" if repeated else ""),
    )


def _grid_triangles() -> Tensor:
    """Return two triangles a cell."""
    number = torch.arange(SIDE * SIDE).view(SIDE, SIDE)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[:-1, 1:], number[1:, 1:]
    return torch.stack([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)], -2).view(-1, 3)
