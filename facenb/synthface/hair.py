"""Hair and a shirt: ribbons that follow each head, grown once on the mean head by `bake/hair.py`.

Every style has the same number of vertices, so people of all styles can be rendered in one batch. First come the
ribbons, flat strips with a texture of strands. Then come a cap below them, which closes gaps, and a shirt, which covers
the end of the neck.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from scipy import sparse
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree
from torch import Tensor

from facenb.synthface import atlas
from facenb.synthface.heads import load_heads, mean_head

PATH = Path(__file__).parent / "data" / "hair.safetensors"
RIBBONS, STEPS = 900, 8
STYLES = tuple("bald;buzz;crop;ring;side part;swept back;curly;afro;fringe;bob;long;wavy;bun;pony tail".split(";"))
WIDER = 1.6  # coarse hair has half of the ribbons; this factor makes them wider
NEIGHBOURS = 8  # skin vertices that a point of hair follows


@dataclass(frozen=True)
class Growth:
    """A style on the template (`atlas.template`). Its V vertices are those of the ribbons, the cap and the shirt."""

    points: np.ndarray  # (V, 3) mm, origin between the eyes; NaN for ribbons not used
    tint: np.ndarray  # (V,) brightness
    shares: sparse.csr_array  # (V, vertices of the head): weights of the skin vertices that a hair vertex follows


def choose(traits: dict[str, float], recession: float, generator: np.random.Generator) -> list[str]:
    """Return three styles of a person (they may repeat). Each photograph takes one of them."""
    african, gone = traits["african"], recession / 18
    if traits["sex"] > 0.5:
        likely = {"long": 0.25, "wavy": 0.2, "bob": 0.15, "bun": 0.12, "pony tail": 0.12, "fringe": 0.06, "crop": 0.04}
        likely |= {"side part": 0.04, "curly": 0.04 + 0.2 * african, "afro": 0.02 + 0.2 * african}
    else:
        likely = {"crop": 0.25, "side part": 0.2, "buzz": 0.15, "swept back": 0.12, "fringe": 0.07, "long": 0.03}
        likely |= {"curly": 0.06 + 0.2 * african, "afro": 0.02 + 0.15 * african}
        likely = {name: share * (1 - gone) for name, share in likely.items()}
        likely |= {"bald": 0.03 + 0.3 * gone, "ring": 0.6 * gone, "buzz": likely["buzz"] + 0.3 * gone}
    shares = np.array(list(likely.values()))
    return [str(name) for name in generator.choice(list(likely), 3, p=shares / shares.sum())]


@dataclass(frozen=True)
class Mesh:
    """Head, then hair, then shirt as one mesh with texture coordinates."""

    triangles: Tensor
    uv: Tensor
    uv_triangles: Tensor
    hair: int  # the first triangle of the hair
    shirt: int  # the first triangle of the shirt


@cache
def mesh() -> Mesh:
    """Return the triangles and texture coordinates of head, hair and shirt, which are the same for all styles."""
    heads, stored = load_heads(), load_file(PATH)
    triangles = torch.from_numpy(stored["triangles"].astype(np.int64))
    return Mesh(
        triangles=torch.cat([torch.from_numpy(heads.triangles), triangles + len(heads.component)]),
        uv=torch.from_numpy(np.concatenate([heads.uv, stored["uv"]])),
        uv_triangles=torch.cat([torch.from_numpy(heads.uv_triangles), triangles + len(heads.uv)]),
        hair=len(heads.triangles),
        shirt=len(heads.triangles) + int(stored["hair_triangles"][0]),
    )


@lru_cache(maxsize=4 * len(STYLES))
def grow(code: int, coarse: bool = False) -> Growth:
    """Return a style on the mean head (do not write to it). `code`: index in STYLES; + len(STYLES): mirrored.

    If `coarse`, there are half as many ribbons and they are wider, for small images.
    """
    stored, (mirrored, style) = load_file(PATH), divmod(code, len(STYLES))
    points = stored["points"][style].astype(float)
    count = 2 * RIBBONS * (STEPS + 1)
    ribbons = points[:count].reshape(RIBBONS, STEPS + 1, 2, 3)
    if coarse:
        middle = ribbons.mean(2, keepdims=True)
        ribbons = middle + WIDER * (ribbons - middle)
        ribbons[1::2] = np.nan
    if mirrored:
        ribbons = ribbons[:, :, ::-1] * (-1, 1, 1)
    points[:count] = ribbons.reshape(-1, 3)
    head = atlas.template()
    skin = np.flatnonzero((load_heads().component == atlas.SKIN) & (np.abs(head[:, 0]) < 78))  # not the ears
    distance, nearest = cKDTree(head[skin]).query(np.nan_to_num(points), NEIGHBOURS)
    shares = 1 / (distance + 8.0) ** 2
    shares /= shares.sum(1, keepdims=True)
    starts = np.arange(len(points) + 1) * NEIGHBOURS
    shares = sparse.csr_array((shares.ravel(), skin[nearest].ravel(), starts), shape=(len(points), len(head)))
    return Growth(points, stored["tint"][style].astype(np.float32), shares)


def follow(growth: Growth, head: np.ndarray) -> np.ndarray:
    """Return the vertices of hair (V, 3) in mm on a person's neutral head (vertices, 3); NaN where there is none."""
    between_eyes = mean_head()[0] - atlas.template()[0]
    return (growth.points + between_eyes + growth.shares @ (head - mean_head())).astype(np.float32)


@lru_cache(maxsize=4)
def strand_tile(size: int) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the box of the hair in an atlas of `size` x `size` texels, and the brightness of its texels."""
    rows, columns = box = atlas.tile(atlas.HAIR, size)
    factor = atlas.SIZE // size
    shape = (rows.stop - rows.start) * factor, (columns.stop - columns.start) * factor
    noise = np.random.Generator(np.random.PCG64(14)).standard_normal(shape)
    fine, coarse = gaussian_filter(noise, (18, 0.7)), gaussian_filter(noise, (60, 4))
    bright = np.clip(1.2 + 0.26 * fine / fine.std() + 0.14 * coarse / coarse.std(), 0.3, 2.2)
    bright = bright.reshape(shape[0] // factor, factor, shape[1] // factor, factor).mean((1, 3))
    return box, bright.astype(np.float32)
