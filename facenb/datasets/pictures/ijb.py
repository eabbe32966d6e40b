"""IJB-A, IJB-B and IJB-C: templates of several images, pairs of templates, galleries and probes.

IJB-A as NIST gives it, ten splits: `IJB-A_11_sets/split1/verify_metadata_1.csv` and `verify_comparisons_1.csv`,
`IJB-A_1N_sets/split1/search_gallery_1.csv` and `search_probe_1.csv`. Metadata has a line of titles with TEMPLATE_ID,
SUBJECT_ID, FILE, MEDIA_ID and the face's box; a comparison names two templates.

IJB-B and IJB-C in the layout that circulates with InsightFace's evaluation: `meta/ijbc_face_tid_mid.txt` (image,
template, medium), `meta/ijbc_template_pair_label.txt` (template, template, 1 or 0), `meta/ijbc_1N_gallery_G1.csv` and
`_G2.csv` (IJB-B: `_S1`, `_S2`) and `meta/ijbc_1N_probe_mixed.csv` (a line of titles; template and person first),
`meta/ijbc_name_5pts_score.txt` (image, five points, the detector's score), images in `loose_crop/`.
We have seen neither set; names and columns are those that public readers of them use.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.layout import AGAIN, find_folder
from facenb.errors import AssetError

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
BOX = ["FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT"]
METADATA = ["TEMPLATE_ID", "SUBJECT_ID", "FILE", "MEDIA_ID", *BOX]


class TemplatePictures(NamedTuple):
    """The images of a protocol; an image that is in several templates comes several times."""

    names: tuple[str, ...]  # files, below the folder of images
    template: Int[Tensor, " images"]
    media: Int[Tensor, " images"]


class TemplatePairs(NamedTuple):
    """Templates to compare, by number."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]


class Search(NamedTuple):
    """Templates of a gallery or of probes, and whose they are."""

    template: Int[Tensor, " templates"]
    person: Int[Tensor, " templates"]


class IJB(NamedTuple):
    """IJB-B or IJB-C. Gallery 1 and 2 share no person; a probe's person is in one of them.

    Closed set: search both galleries as one. Open set: search one of them, so that the probes of the other gallery's
    people are strangers; the result is the mean over the two.
    """

    folder: Path
    pictures: TemplatePictures
    pairs: TemplatePairs
    galleries: tuple[Search, Search]
    probes: Search
    points: Float[Tensor, "images 5 2"]  # eyes, nose tip, mouth corners; pixels with centres at +0.5
    detector: Float[Tensor, " images"]  # score of the face detector


def read_ijb(folder: str | Path, name: str = "ijbc") -> IJB:
    """Return IJB-B (`ijbb`) or IJB-C (`ijbc`) from the folder that holds `meta`, or one above.

    Raises AssetError naming a file that is missing, a wrong line, and a template without an image.
    """
    if name not in GALLERIES:
        raise ValueError(f"Expected one of {', '.join(GALLERIES)}, got {name!r}; IJB-A is read by read_ijba")
    folder = find_folder(folder, "", lambda inner: (inner / "meta").is_dir(), f"the folder meta of {name}")
    start = folder / "meta" / name
    faces = _table(f"{start}_face_tid_mid.txt", ["FILE", "TEMPLATE_ID", "MEDIA_ID"])
    points = _table(f"{start}_name_5pts_score.txt", ["FILE", *range(11)])
    labels = _table(f"{start}_template_pair_label.txt", ["first", "second", "same"])
    if list(points["FILE"]) != list(faces["FILE"]):
        raise AssetError(f"{points.attrs['path']} and {faces.attrs['path']} list different images")
    if not labels["same"].isin([0, 1]).all():
        raise AssetError(f"{labels.attrs['path']}: expected 0 or 1 for a pair, got {labels['same'].max():g}")
    pictures = _pictures(faces)
    parts = (*(f"gallery_{part}" for part in GALLERIES[name]), "probe_mixed")
    tables = [_table(f"{start}_1N_{part}.csv", ["TEMPLATE_ID", "SUBJECT_ID"], ",", titles=1) for part in parts]
    gallery_1, gallery_2, probes = map(_search, tables)
    pairs = TemplatePairs(_whole(labels["first"]), _whole(labels["second"]), _whole(labels["same"]) == 1)
    for templates in (pairs.first, pairs.second, gallery_1.template, gallery_2.template, probes.template):
        _check_templates(templates, pictures, name)
    values = torch.tensor(points[list(range(11))].to_numpy("float32"))
    five = values[:, :10].unflatten(1, (5, 2)) + 0.5
    return IJB(folder, pictures, pairs, (gallery_1, gallery_2), probes, five, values[:, 10])


class IJBASplit(NamedTuple):
    """One of the ten splits of IJB-A."""

    pictures: TemplatePictures  # of verification
    boxes: Float[Tensor, "images 4"]  # left, top, width, height of the face, pixels
    pairs: TemplatePairs
    search_pictures: TemplatePictures  # of gallery and probes
    search_boxes: Float[Tensor, "search 4"]
    gallery: Search
    probes: Search


def read_ijba(folder: str | Path, split: int) -> IJBASplit:
    """Return a split (1 to 10) of IJB-A from the folder that holds IJB-A_11_sets and IJB-A_1N_sets, or one above.

    Raises AssetError naming a file or column that is missing, and a comparison of a template without an image.
    """
    if not 1 <= split <= 10:
        raise ValueError(f"IJB-A has splits 1 to 10, not {split}")
    root = find_folder(folder, "ijb-a", lambda inner: (inner / "IJB-A_11_sets").is_dir(), "the folder IJB-A_11_sets")
    verify, search = (root / f"IJB-A_{kind}_sets" / f"split{split}" for kind in ("11", "1N"))
    metadata = _table(verify / f"verify_metadata_{split}.csv", METADATA, ",", named=True)
    compared = _table(verify / f"verify_comparisons_{split}.csv", ["first", "second"], ",")
    gallery, probes = (
        _table(search / f"search_{kind}_{split}.csv", METADATA, ",", named=True) for kind in ("gallery", "probe")
    )
    first, second, pictures = _whole(compared["first"]), _whole(compared["second"]), _pictures(metadata)
    _check_templates(torch.cat([first, second]), pictures, f"split {split}")
    person = metadata.groupby("TEMPLATE_ID")["SUBJECT_ID"].first()
    same = torch.tensor(person.loc[first.numpy()].to_numpy() == person.loc[second.numpy()].to_numpy())
    both = pd.concat([gallery, probes], ignore_index=True)
    boxes, search_boxes = (torch.tensor(table[BOX].to_numpy("float32")) for table in (metadata, both))
    pairs = TemplatePairs(first, second, same)
    return IJBASplit(pictures, boxes, pairs, _pictures(both), search_boxes, _search(gallery), _search(probes))


def _table(
    path: str | Path, columns: list, separator: str = r"\s+", titles: int | None = None, named: bool = False
) -> pd.DataFrame:
    """Return columns of a text table, all numbers but FILE: the first ones, or (`named`) those with these titles.

    `titles` is the number of lines of titles to skip. Raises AssetError naming the file and what is wrong.
    """
    first = {"sep": separator, "header": None, "skiprows": titles, "names": columns, "usecols": range(len(columns))}
    kinds = {column: str if column == "FILE" else "float64" for column in columns}
    try:
        table = pd.read_csv(path, dtype=kinds, **({"usecols": columns} if named else first))
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise AssetError(f"{path} is not a table of {', '.join(map(str, columns))} ({error}). {AGAIN}") from error
    if not len(table) or table.isna().any(axis=None):
        raise AssetError(f"{path} has no rows, or a row without {len(columns)} columns. {AGAIN}")
    table.attrs["path"] = path
    return table


def _pictures(table: pd.DataFrame) -> TemplatePictures:
    return TemplatePictures(tuple(table["FILE"]), _whole(table["TEMPLATE_ID"]), _whole(table["MEDIA_ID"]))


def _search(table: pd.DataFrame) -> Search:
    """Return the templates and people of a table; rows of one template are one."""
    unique = table[["TEMPLATE_ID", "SUBJECT_ID"]].drop_duplicates()
    return Search(_whole(unique["TEMPLATE_ID"]), _whole(unique["SUBJECT_ID"]))


def _whole(column: pd.Series) -> Int[Tensor, " rows"]:
    return torch.tensor(column.to_numpy("int64"))


def _check_templates(templates: Tensor, pictures: TemplatePictures, part: str) -> None:
    absent = ~torch.isin(templates, pictures.template)
    if absent.any():
        raise AssetError(f"{part} names template {int(templates[absent][0])}, which has no image")
