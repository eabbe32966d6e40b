"""IJB-A, IJB-B and IJB-C: templates of several images, pairs of templates, galleries and probes.

IJB-A as NIST gives it, ten splits: `IJB-A_11_sets/split1/verify_metadata_1.csv` and `verify_comparisons_1.csv`,
`IJB-A_1N_sets/split1/search_gallery_1.csv` and `search_probe_1.csv`. Metadata files have a header with TEMPLATE_ID,
SUBJECT_ID, FILE, MEDIA_ID and the face's box. Each comparison is a pair of templates.

IJB-B and IJB-C in the layout that circulates with InsightFace's evaluation: `meta/ijbc_face_tid_mid.txt` (image,
template, medium), `meta/ijbc_template_pair_label.txt` (template, template, 1 or 0), `meta/ijbc_1N_gallery_G1.csv` and
`_G2.csv` (IJB-B: `_S1`, `_S2`) and `meta/ijbc_1N_probe_mixed.csv` (a header; template and person first),
`meta/ijbc_name_5pts_score.txt` (image, five points, the detector's score), images in `loose_crop/`.
We have seen neither set; file names and columns follow public code that reads them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from facenb.datasets.folders import AGAIN, find_folder
from facenb.datasets.pictures.lfw import Pairs
from facenb.errors import AssetError

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
BOX = ["FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT"]
METADATA = ["TEMPLATE_ID", "SUBJECT_ID", "FILE", "MEDIA_ID", *BOX]
BY_TITLE = {"header": 0, "names": None, "usecols": METADATA}  # how pandas finds the columns of IJB-A's metadata


class TemplateImages(NamedTuple):
    """The images of a protocol. An image in several templates is listed once for each of them."""

    names: tuple[str, ...]  # files, below the folder of images
    template: Int[Tensor, " images"]
    media: Int[Tensor, " images"]
    box: Float[Tensor, "images 4"] | None = None  # IJB-A: left, top, width, height of the face, pixels
    points: Float[Tensor, "images 5 2"] | None = None  # IJB-B and C: eyes, nose tip, mouth corners; pixels
    detector: Float[Tensor, " images"] | None = None  # IJB-B and C: score of the face detector


class Search(NamedTuple):
    """Templates of a gallery or of probes, and the person of each."""

    template: Int[Tensor, " templates"]
    person: Int[Tensor, " templates"]


class IJB(NamedTuple):
    """A split of IJB-A (one gallery), or IJB-B or IJB-C (two disjoint galleries; each probe's person is in one).

    Closed set: search the union of both galleries. Open set: search one gallery, so that probes of people in the other
    gallery have no match; the result is the mean over the two galleries.
    """

    folder: Path
    images: TemplateImages  # of the pairs' templates
    pairs: Pairs  # of templates, by number; all in fold 0
    galleries: tuple[Search, ...]
    probes: Search
    search_images: TemplateImages  # of galleries and probes


def read_ijb(folder: str | Path, name: str = "ijbc") -> IJB:
    """Return IJB-B (`ijbb`) or IJB-C (`ijbc`) from the folder that holds `meta`, or one above. Raises AssetError."""
    folder = find_folder(folder, "", lambda inner: (inner / "meta").is_dir(), f"the folder meta of {name}")
    start = folder / "meta" / name
    faces = _table(f"{start}_face_tid_mid.txt", ["FILE", "TEMPLATE_ID", "MEDIA_ID"], sep=r"\s+")
    points = _table(f"{start}_name_5pts_score.txt", ["FILE", *range(11)], sep=r"\s+")
    labels = _table(f"{start}_template_pair_label.txt", ["first", "second", "same"], sep=r"\s+")
    if list(points["FILE"]) != list(faces["FILE"]):
        raise AssetError(f"{start}_name_5pts_score.txt and {start}_face_tid_mid.txt list different images")
    if not labels["same"].isin([0, 1]).all():
        raise AssetError(f"{start}_template_pair_label.txt: expected 0 or 1 for a pair, got {labels['same'].max():g}")
    lists = (*(f"gallery_{number}" for number in GALLERIES[name]), "probe_mixed")
    tables = [_table(f"{start}_1N_{which}.csv", ["TEMPLATE_ID", "SUBJECT_ID"], header=0) for which in lists]
    *galleries, probes = map(_search, tables)
    first, second, same = _whole(labels)
    values = torch.tensor(points[list(range(11))].to_numpy("float32"))
    five = values[:, :10].unflatten(1, (5, 2)) + 0.5  # our pixel centres are at +0.5
    images = _images(faces)._replace(points=five, detector=values[:, 10])
    searched = [search.template for search in (*galleries, probes)]
    _check_templates(torch.cat([first, second, *searched]), images, name)
    return IJB(folder, images, Pairs(first, second, same == 1, 0 * first), tuple(galleries), probes, images)


def read_ijba(folder: str | Path, split: int) -> IJB:
    """Return a split (1 to 10) of IJB-A from the folder of IJB-A_11_sets and IJB-A_1N_sets. Raises AssetError."""
    root = find_folder(folder, "ijb-a", lambda inner: (inner / "IJB-A_11_sets").is_dir(), "the folder IJB-A_11_sets")
    verify, search = (root / f"IJB-A_{kind}_sets" / f"split{split}" for kind in ("11", "1N"))
    metadata = _table(verify / f"verify_metadata_{split}.csv", METADATA, **BY_TITLE)
    first, second = _whole(_table(verify / f"verify_comparisons_{split}.csv", ["first", "second"]))
    gallery, probes = (
        _table(search / f"search_{kind}_{split}.csv", METADATA, **BY_TITLE) for kind in ("gallery", "probe")
    )
    images, searched = map(_images, (metadata, pd.concat([gallery, probes], ignore_index=True)))
    _check_templates(torch.cat([first, second]), images, f"split {split}")
    person = metadata.groupby("TEMPLATE_ID")["SUBJECT_ID"].first()
    same = torch.tensor(person.loc[first.numpy()].to_numpy() == person.loc[second.numpy()].to_numpy())
    return IJB(root, images, Pairs(first, second, same, 0 * first), (_search(gallery),), _search(probes), searched)


def _table(path: str | Path, columns: list, **options: Any) -> pd.DataFrame:
    """Return the first columns of a text table as `columns`; all but FILE are numbers. `options` go to `read_csv`."""
    kinds = {column: str if column == "FILE" else "float64" for column in columns}
    options = {"header": None, "names": columns, "usecols": range(len(columns))} | options
    try:
        table = pd.read_csv(path, dtype=kinds, **options)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise AssetError(f"{path} is not a table of {', '.join(map(str, columns))} ({error}). {AGAIN}") from error
    if not len(table) or table.isna().any(axis=None):
        raise AssetError(f"{path} has no rows, or a row without {len(columns)} columns. {AGAIN}")
    return table


def _images(table: pd.DataFrame) -> TemplateImages:
    box = torch.tensor(table[BOX].to_numpy("float32")) if "FACE_X" in table else None
    return TemplateImages(tuple(table["FILE"]), *_whole(table[["TEMPLATE_ID", "MEDIA_ID"]]), box)


def _search(table: pd.DataFrame) -> Search:
    """Return the templates and people of a table, with one entry for each template."""
    return Search(*_whole(table[["TEMPLATE_ID", "SUBJECT_ID"]].drop_duplicates()))


def _whole(table: pd.DataFrame) -> tuple[Int[Tensor, " rows"], ...]:
    """Return the columns of a table of whole numbers."""
    return torch.tensor(table.to_numpy("int64")).unbind(1)


def _check_templates(templates: Int[Tensor, " templates"], images: TemplateImages, part: str) -> None:
    absent = templates[~torch.isin(templates, images.template)]
    if len(absent):
        raise AssetError(f"{part} names template {int(absent[0])}, which has no image")
