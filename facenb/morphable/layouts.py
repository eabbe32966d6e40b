"""Coefficient layouts: the named parts of the flat vector that describes a face, and their order."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Layout:
    """Named consecutive slices of a flat coefficient vector. The order matters."""

    name: str
    parts: Mapping[str, int]  # length of each part, in order

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layout) and str(self) == str(other)

    def __str__(self) -> str:
        return f"{self.name} ({self.size} = {' + '.join(f'{length} {part}' for part, length in self.parts.items())})"

    @property
    def size(self) -> int:
        """Return the length of the flat vector."""
        return sum(self.parts.values())

    @property
    def slices(self) -> dict[str, slice]:
        """Return the slice of each part in the flat vector."""
        ends = accumulate(self.parts.values())
        return {part: slice(end - self.parts[part], end) for part, end in zip(self.parts, ends, strict=True)}

    def check(self, flat: Float[Tensor, "..."], what: str = "this vector") -> None:
        """Raise ValueError unless `flat` has this layout's length. The message lists the layouts of that length."""
        length = flat.shape[-1]
        if length != self.size:
            fitting = "".join(f", the length of {layout}" for layout in LAYOUTS.values() if layout.size == length)
            raise ValueError(f"{self} is needed, but {what} is {length} long{fitting}; use one layout for both")

    def split(self, flat: Float[Tensor, "*batch coefficients"]) -> dict[str, Float[Tensor, "*batch part"]]:
        """Return the parts of flat vectors by name (views, not copies). Raise ValueError for a wrong length."""
        self.check(flat)
        return {part: flat[..., where] for part, where in self.slices.items()}

    def join(self, parts: Mapping[str, Float[Tensor, "*batch part"]]) -> Float[Tensor, "*batch coefficients"]:
        """Return the flat vectors of all parts. Parts may be in any order; leading dimensions are broadcast.

        Raise ValueError if a part is missing, unknown or of a wrong length.
        """
        lengths = {part: value.shape[-1] for part, value in parts.items()}
        if lengths != dict(self.parts):
            raise ValueError(f"{self} cannot be joined from parts {lengths}")
        batch = torch.broadcast_shapes(*(value.shape[:-1] for value in parts.values()))
        return torch.cat([parts[part].expand(*batch, length) for part, length in self.parts.items()], -1)


# Liu et al. 2018: BFM-2009 identity and FaceWarehouse expression, which the paper calls residual.
LIU18 = Layout("LIU18", {"identity": 199, "expression": 29})
# 3DDFA and 2DASL, the published methods most similar to Luo et al. 2019. Pose is [f R | t] (3x4), row by row.
LUO19 = Layout("LUO19", {"pose": 12, "identity": 40, "expression": 10})
# DECA (Feng et al. 2021), the teacher named by Rana. The parts are in DECA's order; light is 9 x 3.
DECA = Layout(
    "DECA",
    {"identity": 100, "albedo": 50, "expression": 50, "global_pose": 3, "jaw_pose": 3, "camera": 3, "light": 27},
)
# Deng et al. 2019: the 257 coefficients listed by Rana. The rotation is in Euler angles; light is 3 x 9.
DENG = Layout("DENG", {"identity": 80, "expression": 64, "albedo": 80, "rotation": 3, "light": 27, "translation": 3})
LAYOUTS = {layout.name: layout for layout in (LIU18, LUO19, DECA, DENG)}
