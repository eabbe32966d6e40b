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

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.datasets.layout import find_folder
from facenb.errors import AssetError

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}
BOX = ["FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT"]


@dataclass(frozen=True)
class TemplatePictures:
    """The images of a protocol; an image that is in several templates comes several times."""

    names: tuple[str, ...]  # files, below the folder of images
    template: Int[Tensor, " images"]
    media: Int[Tensor, " images"]


@dataclass(frozen=True)
class TemplatePairs:
    """Templates to compare, by number."""

    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]


@dataclass(frozen=True)
class Search:
    """Templates of a gallery or of probes, and whose they are."""

    template: Int[Tensor, " templates"]
    person: Int[Tensor, " templates"]


@dataclass(frozen=True)
class IJB:
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
    folder = find_folder(folder, lambda found: (found / "meta").is_dir(), f"the folder meta of {name}")
    start = folder / "meta" / name
    faces = _table(f"{start}_face_tid_mid.txt", 3, r"\s+")
    pictures = TemplatePictures(tuple(faces[0]), _whole(faces, 1), _whole(faces, 2))
    labels = _table(f"{start}_template_pair_label.txt", 3, r"\s+")
    same = _whole(labels, 2)
    if not torch.isin(same, torch.tensor([0, 1])).all():
        raise AssetError(f"{labels.attrs['path']}: expected 0 or 1 for a pair, got {int(same.max())}")
    pairs = TemplatePairs(_whole(labels, 0), _whole(labels, 1), same == 1)
    searches = [_table(f"{start}_1N_{part}.csv", 2, ",", titles=True) for part in _parts(name)]
    galleries_and_probes = [_search(table, *table.columns[:2]) for table in searches]
    points = _table(f"{start}_name_5pts_score.txt", 12, r"\s+")
    if tuple(points[0]) != pictures.names:
        raise AssetError(f"{points.attrs['path']} and {faces.attrs['path']} list different images")
    for search, part in zip(galleries_and_probes, _parts(name), strict=True):
        _check_templates(search.template, pictures, part)
    _check_templates(torch.cat([pairs.first, pairs.second]), pictures, "the pairs")
    values = torch.stack([_numbers(points, column) for column in range(1, 12)], 1).float()
    one, two, probes = galleries_and_probes
    return IJB(folder, pictures, pairs, (one, two), probes, values[:, :10].unflatten(1, (5, 2)) + 0.5, values[:, 10])


def _parts(name: str) -> list[str]:
    return [*(f"gallery_{which}" for which in GALLERIES[name]), "probe_mixed"]


@dataclass(frozen=True)
class IJBASplit:
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
    root = find_folder(folder, lambda found: (found / "IJB-A_11_sets").is_dir(), "the folder IJB-A_11_sets")
    verify, search = (root / f"IJB-A_{kind}_sets" / f"split{split}" for kind in ("11", "1N"))
    metadata = _metadata(verify / f"verify_metadata_{split}.csv")
    compared = _table(verify / f"verify_comparisons_{split}.csv", 2, ",")
    first, second = _whole(compared, 0), _whole(compared, 1)
    pictures = _pictures(metadata)
    _check_templates(torch.cat([first, second]), pictures, f"split {split}'s comparisons")
    person = metadata.groupby("TEMPLATE_ID")["SUBJECT_ID"].first()
    same = torch.tensor(person.loc[first.numpy()].to_numpy() == person.loc[second.numpy()].to_numpy())
    gallery, probes = (_metadata(search / f"search_{kind}_{split}.csv") for kind in ("gallery", "probe"))
    both = pd.concat([gallery, probes], ignore_index=True)
    searches = [_search(table, "TEMPLATE_ID", "SUBJECT_ID") for table in (gallery, probes)]
    pairs = TemplatePairs(first, second, same)
    return IJBASplit(pictures, _boxes(metadata), pairs, _pictures(both), _boxes(both), *searches)


def _table(path: str | Path, columns: int, separator: str, titles: bool = False) -> pd.DataFrame:
    """Return a text table as text; columns are numbered from 0 unless it has titles. AssetError names the file."""
    path = Path(path)
    if not path.is_file():
        raise AssetError(f"There is no {path}. Place the set's own files there.")
    try:
        table = pd.read_csv(path, sep=separator, header=0 if titles else None, dtype=str, engine="python")
    except (ValueError, pd.errors.ParserError) as error:
        raise AssetError(f"{path} is not a table ({error}). Get it again.") from error
    if table.shape[1] < columns or not len(table) or table.iloc[:, :columns].isna().any(axis=None):
        shape = f"{len(table)} rows of {table.shape[1]} columns"
        raise AssetError(f"Expected {columns} columns without gaps in {path}, got {shape}")
    table.attrs["path"] = path
    return table


def _metadata(path: Path) -> pd.DataFrame:
    table = _table(path, 4, ",", titles=True)
    table.columns = [str(title).strip().upper() for title in table.columns]
    needed = ["TEMPLATE_ID", "SUBJECT_ID", "FILE", "MEDIA_ID", *BOX]
    missing = [title for title in needed if title not in table]
    if missing:
        raise AssetError(f"{path} has no column {missing[0]}; it has {', '.join(table.columns)}")
    for title in needed:
        if title != "FILE":
            table[title] = _numbers(table, title).numpy()
    return table


def _pictures(table: pd.DataFrame) -> TemplatePictures:
    return TemplatePictures(tuple(table["FILE"]), _whole(table, "TEMPLATE_ID"), _whole(table, "MEDIA_ID"))


def _boxes(table: pd.DataFrame) -> Float[Tensor, "images 4"]:
    return torch.tensor(table[BOX].to_numpy(dtype="float32"))


def _search(table: pd.DataFrame, template: str, person: str) -> Search:
    """Return the templates and people of a table; rows of one template are one."""
    pairs = torch.stack([_whole(table, template), _whole(table, person)], 1).tolist()
    unique = torch.tensor(list(dict.fromkeys(map(tuple, pairs))))
    return Search(unique[:, 0], unique[:, 1])


def _numbers(table: pd.DataFrame, column: int | str) -> Float[Tensor, " rows"]:
    values = pd.to_numeric(table[column], errors="coerce")
    if values.isna().any():
        text = table[column][values.isna()].iloc[0]
        raise AssetError(f"{table.attrs['path']}, column {column}: {text!r} is not a number")
    return torch.tensor(values.to_numpy(dtype="float64"))


def _whole(table: pd.DataFrame, column: int | str) -> Int[Tensor, " rows"]:
    values = _numbers(table, column)
    if (values % 1 != 0).any():
        text = float(values[values % 1 != 0][0])
        raise AssetError(f"{table.attrs['path']}, column {column}: {text} is not a whole number")
    return values.long()


def _check_templates(templates: Tensor, pictures: TemplatePictures, part: str) -> None:
    absent = ~torch.isin(templates, pictures.template)
    if absent.any():
        raise AssetError(f"{part} names template {int(templates[absent][0])}, which has no image")
