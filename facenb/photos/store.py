"""Prepared photos: the crop, the landmarks and the fit of each photo, made once and kept in a cache folder.

A photo is known by the SHA-256 of its file, wherever it lies. All photos that a call finds missing become one table
(facenb.table), in which a killed run continues. Tables in folders that may only be read are used like any other.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from facenb.assets import asset
from facenb.errors import AssetError, ImageError
from facenb.files import digest, write_json
from facenb.fitting import Fit
from facenb.imaging.camera import WeakPerspective
from facenb.photos.cache import cache_folders, writable_folder
from facenb.photos.crops import ALIGNED, crop_photos
from facenb.photos.images import read_image, upright_size
from facenb.photos.landmarks import MESH, POINTS, VERSION, detect, five_points, to_68
from facenb.photos.photo import LIMIT, Fitter, fit_photos
from facenb.table import Block, Table, build_table, read_table

SIDE = 112  # pixels of the crop that is kept: the largest that a network here takes
BLOCK = 256  # photos that a killed run loses at most
FIELDS = ("points", "five", "faces", "size")


class Memory(dict):
    """Fields of photos in memory, read as a Table is."""

    column = dict.__getitem__


@dataclass(frozen=True)
class Prepared:
    """Prepared photos, in the order asked for. Points are in pixels of the upright photo, NaN where no face was found.

    Index with row numbers to choose among them.
    """

    points: Float[Tensor, "photos 478 2"]  # MediaPipe's, of the face nearest to the photo's centre
    five: Float[Tensor, "photos 5 2"]  # eye centres, nose tip, mouth corners, image left first
    faces: Int[Tensor, " photos"]  # how many the photo shows
    size: Int[Tensor, "photos 2"]  # height, width of the photo
    tables: tuple[Table | Memory, ...]  # where the crops lie
    row: Int[Tensor, "photos 2"]  # number of the table, row in it

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: Int[Tensor, " chosen"] | Bool[Tensor, " photos"] | slice) -> "Prepared":
        return replace(self, **{name: getattr(self, name)[rows] for name in (*FIELDS, "row")})

    @property
    def found(self) -> Bool[Tensor, " photos"]:
        """Whether a face was found."""
        return self.faces > 0

    @property
    def mesh(self) -> Float[Tensor, "photos 468 2"]:
        """The points of MediaPipe's canonical mesh, which a model is fitted to."""
        return self.points[:, :MESH]

    @property
    def landmarks(self) -> Float[Tensor, "photos 68 2"]:
        """The 68 landmarks of iBUG."""
        return to_68(self.points)

    def crops(self, size: tuple[int, int]) -> UInt8[Tensor, "photos height width 3"]:
        """Return each face on `crops.template(size)`; the middle of the photo where no face was found.

        They are the kept crops of 112 x 112 pixels, reduced. `size` (height, width) is at most as wide as high, by an
        even number of pixels.
        """
        height, width = size
        left = (height - width) // 2
        crops = torch.empty(len(self), height, width, 3, dtype=torch.uint8)
        for rows in torch.arange(len(self)).split(BLOCK):
            planes = _rows(self.tables, "crop", self.row[rows]).permute(0, 3, 1, 2).float()
            if height != SIDE:
                planes = functional.interpolate(planes, (height, height), mode="bilinear", antialias=True)
            crops[rows] = planes[..., left : left + width].permute(0, 2, 3, 1).round().to(torch.uint8)
        return crops

    def fit(self, fitter: Fitter) -> Fit:
        """Return the fit of each photo by itself. It is kept for each model. NaN where no face was found."""
        tables = tuple(_fits(table, fitter) for table in self.tables)
        values = {name: _rows(tables, name, self.row) for name in tables[0].fields}
        camera = WeakPerspective(*(values.pop(name) for name in ("rotation", "scale", "translation")))
        subject = torch.arange(len(self))
        return Fit(**values, camera=camera, subject=subject, labels=subject, objective=torch.zeros(0))


def prepare_photos(paths: Sequence[str | Path], aligned: bool = False, quiet: bool = True) -> Prepared:
    """Return prepared photos of image files. Those that were never prepared before are prepared and kept.

    `aligned`: images of 112 x 112 pixels that already lie on InsightFace's five points, which are kept as they are.
    Raises ImageError naming a file that is not an image, or has another size.
    """
    keys, settings = _content_keys(paths), _settings(aligned)
    tables, places = _kept_tables(f"photos/{settings}")
    missing = {key: Path(path) for key, path in zip(keys, paths, strict=True) if key not in places}
    if missing:
        names = hashlib.sha256("".join(missing).encode()).hexdigest()
        made, blocks = {"settings": settings, "photos": names}, -(-len(missing) // BLOCK)

        def make(first: int) -> Iterator[Block]:
            for start in range(first * BLOCK, len(missing), BLOCK):
                block = list(missing)[start : start + BLOCK]
                fields = _stacked([_prepare_file(missing[key], aligned) for key in block])
                yield fields | {"key": torch.tensor([list(bytes.fromhex(key)) for key in block], dtype=torch.uint8)}

        tables.append(_table(f"photos/{settings}", names[:16], made, make, blocks, quiet))
        places |= {key: (len(tables) - 1, row) for row, key in enumerate(missing)}
    return _gathered(tables, [places[key] for key in keys])


def prepare_images(images: Iterable[Float[Tensor, "_height _width 3"]], aligned: bool = False) -> Prepared:
    """Return prepared photos of images in memory (RGB in [0, 1]), as `prepare_photos`. Nothing is kept."""
    fields = _stacked([_prepare(image, aligned, f"image {number}") for number, image in enumerate(images)])
    memory = Memory({name: values.numpy() for name, values in fields.items()})
    return _gathered([memory], [(0, row) for row in range(len(fields["faces"]))])


def _prepare_file(path: Path, aligned: bool) -> Block:
    """Decode a photo, once, and return its fields in pixels of the whole photo."""
    image, size = read_image(path, LIMIT), torch.tensor(upright_size(path))
    fields = _prepare(image, aligned, str(path))
    factor = float(size[1]) / image.shape[1]
    return fields | {"points": factor * fields["points"], "five": factor * fields["five"], "size": size}


def _prepare(image: Tensor, aligned: bool, name: str) -> Block:
    if aligned and image.shape[:2] != (SIDE, SIDE):
        raise ImageError(
            f"{name} is {image.shape[1]} x {image.shape[0]} pixels; aligned images have {SIDE} x {SIDE}. "
            "Scale it, or give aligned=False to crop by landmarks."
        )
    detection = detect(image)
    points = detection.pick("central") if detection.count else torch.full((POINTS, 2), torch.nan)
    five = torch.tensor(ALIGNED) + 0.5 if aligned else five_points(points)
    crop = (image * 255).round().to(torch.uint8) if aligned else crop_photos([image], five[None], (SIDE, SIDE))[0]
    size = torch.tensor(image.shape[:2])
    return {"points": points, "five": five, "faces": torch.tensor(detection.count), "size": size, "crop": crop}


def _stacked(prepared: list[Block]) -> Block:
    return {name: torch.stack([fields[name] for fields in prepared]) for name in prepared[0]}


def _settings(aligned: bool) -> str:
    """Return what tells results of this detector and this way to prepare photos from any other's."""
    task = (asset("mediapipe") / "face_landmarker.task").read_bytes()
    return hashlib.sha256(task + f"{VERSION} {SIDE} {LIMIT} {aligned}".encode()).hexdigest()[:16]


def _content_keys(paths: Sequence[str | Path]) -> list[str]:
    """Return the SHA-256 of each file. It is remembered, and computed anew if the file's size or time has changed."""
    remembered: dict[str, list] = {}
    for file in cache_folders("photos/files.json"):
        with suppress(OSError, ValueError):
            remembered |= json.loads(file.read_text(encoding="utf-8"))
    before, keys = len(remembered), []
    for path in map(os.path.abspath, paths):
        try:
            facts = os.stat(path)
            name = f"{path} {facts.st_size} {facts.st_mtime_ns}"
            if name not in remembered:
                remembered[name] = digest(Path(path))
        except OSError as error:
            raise ImageError(f"photo {path} cannot be read: {error.strerror}; name image files") from error
        keys.append(remembered[name])
    if len(remembered) > before:
        with suppress(OSError):
            write_json(writable_folder("photos") / "files.json", remembered)
    return keys


def _kept_tables(name: str) -> tuple[list[Table | Memory], dict[str, tuple[int, int]]]:
    """Return all complete tables of some settings, and the place (table, row) of each photo by its key."""
    tables: list[Table | Memory] = []
    places: dict[str, tuple[int, int]] = {}
    for card in (card for folder in cache_folders(name) for card in sorted(folder.glob("*/card.json"))):
        with suppress(AssetError):  # unfinished or damaged: not used, and made anew when it is asked for
            table = read_table(card.parent)
            places |= {key.tobytes().hex(): (len(tables), row) for row, key in enumerate(table.column("key"))}
            tables.append(table)
    return tables, places


def _table(parent: str, name: str, made: dict, make: Callable, blocks: int | None = None, quiet: bool = True) -> Table:
    """Return a cached table: read it from any cache folder, or build it in the first that can be written to."""
    for folder in cache_folders(parent):
        with suppress(AssetError):
            return read_table(folder / name)
    return build_table(writable_folder(parent) / name, made, make, blocks, quiet)


def _gathered(tables: list[Table | Memory], places: list[tuple[int, int]]) -> Prepared:
    row = torch.tensor(places, dtype=torch.int64).view(-1, 2)
    return Prepared(**{name: _rows(tables, name, row) for name in FIELDS}, tables=tuple(tables), row=row)


def _rows(tables: Sequence[Table | Memory], name: str, row: Int[Tensor, "chosen 2"]) -> Tensor:
    """Return a field of chosen rows (number of the table, row in it)."""
    number, row = row.unbind(1)
    first = torch.from_numpy(np.array(tables[0].column(name)[:1]))
    values = first.new_empty(len(number), *first.shape[1:])
    for k in number.unique().tolist():
        values[number == k] = torch.from_numpy(tables[k].column(name)[row[number == k].numpy()])
    return values


def _fits(table: Table, fitter: Fitter) -> Table:
    """Return the fits of all photos of a table, kept for each model."""
    points, model = np.array(table.column("points")[:, :MESH]), fitter.model
    content = hashlib.sha256(points.tobytes())
    for tensor in (model.mean, model.identity_basis, model.expression_basis, fitter.embedding.weights):
        content.update(tensor.cpu().contiguous().numpy().tobytes())
    made = {"points and model": content.hexdigest()}

    def make(first: int) -> Iterator[Block]:
        for rows in torch.from_numpy(points).split(BLOCK)[first:]:
            usable = ~rows.isnan().flatten(1).any(1)
            sizes = {"identity": (len(model.identity_basis),), "expression": (len(model.expression_basis),)}
            sizes |= {"error": (), "unit": (), "rotation": (3, 3), "scale": (), "translation": (2,)}
            block = {name: torch.full((len(rows), *size), torch.nan) for name, size in sizes.items()}
            if usable.any():
                fitted = fit_photos(fitter, rows[usable])
                for name, values in block.items():
                    values[usable] = getattr(fitted if hasattr(fitted, name) else fitted.camera, name).cpu()
            yield block

    return _table("fits", made["points and model"][:16], made, make)
