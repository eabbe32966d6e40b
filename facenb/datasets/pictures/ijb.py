"""IJB-A, IJB-B and IJB-C: templates of several pictures, pairs of templates, galleries and probes.

IJB-A as NIST gives it: `IJB-A_11_sets/split1/verify_metadata_1.csv` and `verify_comparisons_1.csv`,
`IJB-A_1N_sets/split1/search_gallery_1.csv` and `search_probe_1.csv`, ten splits; metadata has a line of titles with
TEMPLATE_ID, SUBJECT_ID, FILE, MEDIA_ID, and then the face's box; a comparison is two templates.

IJB-B and IJB-C in the layout that circulates with InsightFace's evaluation: `meta/ijbc_face_tid_mid.txt` (picture,
template, medium), `meta/ijbc_template_pair_label.txt` (template, template, 1 or 0), `meta/ijbc_1N_gallery_G1.csv` and
`_G2.csv` (IJB-B: `_S1`, `_S2`) and `meta/ijbc_1N_probe_mixed.csv` (a line of titles; template and person first),
`meta/ijbc_name_5pts_score.txt` (picture, five points, the detector's score), pictures in `loose_crop/`.
We have seen neither set; names and columns are those that public readers of them use.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from facenb.errors import AssetError

GALLERIES = {"ijbb": ("S1", "S2"), "ijbc": ("G1", "G2")}


@dataclass(frozen=True)
class TemplatePictures:
    """The pictures of a protocol; a picture that is in several templates comes several times."""

    names: tuple[str, ...]  # files, below the folder of pictures
    template: Int[Tensor, " pictures"]
    media: Int[Tensor, " pictures"]


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

    Closed set: search both as one. Open set: search one of them, and the probes of the other one's people are
    strangers; the figure is the mean over the two.
    """

    folder: Path
    pictures: TemplatePictures
    pairs: TemplatePairs
    galleries: tuple[Search, Search]
    probes: Search
    points: Float[Tensor, "pictures 5 2"]  # eyes, nose tip, mouth corners; pixels with centres at +0.5
    detector: Float[Tensor, " pictures"]  # score of the face detector


def read_ijb(folder: str | Path, name: str = "ijbc") -> IJB:
    """IJB-B (`ijbb`) or IJB-C (`ijbc`) from the folder that holds `meta`.

    Raises AssetError naming a file that is missing, a line that does not fit, and a template without a picture.
    """
    if name not in GALLERIES:
        raise ValueError(f"{name!r} is none of {', '.join(GALLERIES)}; IJB-A is read by read_ijba")
    folder, meta = Path(folder), Path(folder) / "meta"
    faces = _table(meta / f"{name}_face_tid_mid.txt", 3, r"\s+")
    pictures = TemplatePictures(tuple(faces[0]), _numbers(faces[1]), _numbers(faces[2]))
    label = _table(meta / f"{name}_template_pair_label.txt", 3, r"\s+")
    pairs = TemplatePairs(_numbers(label[0]), _numbers(label[1]), _kinds(label[2]))
    galleries = [_search(meta / f"{name}_1N_gallery_{which}.csv") for which in GALLERIES[name]]
    probes = _search(meta / f"{name}_1N_probe_mixed.csv")
    points = _table(meta / f"{name}_name_5pts_score.txt", 12, r"\s+")
    if tuple(points[0]) != pictures.names:
        raise AssetError(f"the pictures of {name}_name_5pts_score.txt and {name}_face_tid_mid.txt in {meta} differ")
    for search, where in ((galleries[0], "gallery 1"), (galleries[1], "gallery 2"), (probes, "the probes")):
        _check_templates(search.template, pictures, where)
    _check_templates(torch.cat([pairs.first, pairs.second]), pictures, "the pairs")
    five = torch.stack([_floats(points[column]) for column in range(1, 11)], 1).unflatten(1, (5, 2))
    return IJB(folder, pictures, pairs, (galleries[0], galleries[1]), probes, five + 0.5, _floats(points[11]))


@dataclass(frozen=True)
class IJBASplit:
    """One of the ten splits of IJB-A."""

    pictures: TemplatePictures  # of verification
    boxes: Float[Tensor, "pictures 4"]  # left, top, width, height of the face, pixels
    pairs: TemplatePairs
    search_pictures: TemplatePictures  # of gallery and probes
    search_boxes: Float[Tensor, "search 4"]
    gallery: Search
    probes: Search


def read_ijba(folder: str | Path, split: int) -> IJBASplit:
    """A split (1 to 10) of IJB-A from the folder that holds IJB-A_11_sets and IJB-A_1N_sets.

    Raises AssetError naming a file or column that is missing, and a comparison of a template without a picture.
    """
    if not 1 <= split <= 10:
        raise ValueError(f"IJB-A has splits 1 to 10, not {split}")
    one, many = (Path(folder) / f"IJB-A_{kind}_sets" / f"split{split}" for kind in ("11", "1N"))
    metadata = _metadata(one / f"verify_metadata_{split}.csv")
    compared = _table(one / f"verify_comparisons_{split}.csv", 2, ",")
    first, second = _numbers(compared[0]), _numbers(compared[1])
    pictures = _pictures(metadata)
    _check_templates(torch.cat([first, second]), pictures, f"split {split}'s comparisons")
    person = metadata.groupby("TEMPLATE_ID")["SUBJECT_ID"].first()
    same = torch.tensor(person.loc[first.numpy()].to_numpy() == person.loc[second.numpy()].to_numpy())
    gallery, probes = (_metadata(many / f"search_{kind}_{split}.csv") for kind in ("gallery", "probe"))
    both = pd.concat([gallery, probes], ignore_index=True)
    return IJBASplit(pictures, _boxes(metadata), TemplatePairs(first, second, same), _pictures(both), _boxes(both),
                     _templates(gallery), _templates(probes))  # fmt: skip


def _table(path: Path, columns: int, separator: str, titles: bool = False) -> pd.DataFrame:
    """The first columns of a text table as text, columns by number."""
    if not path.is_file():
        raise AssetError(f"there is no {path}; place the set's own files there")
    try:
        table = pd.read_csv(path, sep=separator, header=0 if titles else None, dtype=str, engine="python")
    except (ValueError, pd.errors.ParserError) as error:
        raise AssetError(f"{path} is no table ({error}); get it again") from error
    if table.shape[1] < columns or not len(table) or table.iloc[:, :columns].isna().any(axis=None):
        raise AssetError(f"{path} has {len(table)} rows of {table.shape[1]} columns; {columns} whole ones are needed")
    if not titles:
        table.columns = range(table.shape[1])
    table.attrs["path"] = path
    return table


def _search(path: Path) -> Search:
    table = _table(path, 2, ",", titles=True)
    whole = table.iloc[:, :2].drop_duplicates()
    return Search(_numbers(whole.iloc[:, 0], path), _numbers(whole.iloc[:, 1], path))


def _metadata(path: Path) -> pd.DataFrame:
    table = _table(path, 4, ",", titles=True)
    table.columns = [str(title).strip().upper() for title in table.columns]
    needed = ("TEMPLATE_ID", "SUBJECT_ID", "FILE", "MEDIA_ID", "FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT")
    missing = [title for title in needed if title not in table]
    if missing:
        raise AssetError(f"{path} has no column {missing[0]}; it has {', '.join(table.columns)}")
    for title in needed:
        if title != "FILE":
            table[title] = pd.to_numeric(table[title], errors="coerce")
            if table[title].isna().any():
                raise AssetError(f"{path}, row {int(table[title].isna().argmax()) + 2}: {title} is no number")
    return table


def _pictures(table: pd.DataFrame) -> TemplatePictures:
    return TemplatePictures(tuple(table["FILE"]), _numbers(table["TEMPLATE_ID"]), _numbers(table["MEDIA_ID"]))


def _boxes(table: pd.DataFrame) -> Tensor:
    return torch.tensor(table[["FACE_X", "FACE_Y", "FACE_WIDTH", "FACE_HEIGHT"]].to_numpy(dtype="float32"))


def _templates(table: pd.DataFrame) -> Search:
    whole = table[["TEMPLATE_ID", "SUBJECT_ID"]].drop_duplicates()
    return Search(_numbers(whole["TEMPLATE_ID"]), _numbers(whole["SUBJECT_ID"]))


def _numbers(column: pd.Series, path: Path | str = "") -> Tensor:
    values = pd.to_numeric(column, errors="coerce")
    if values.isna().any() or (values % 1 != 0).any():
        wrong = column[values.isna() | (values % 1 != 0)]
        raise AssetError(f"{path or column.attrs.get('path', 'a table')}: {wrong.iloc[0]!r} is no whole number")
    return torch.tensor(values.to_numpy(dtype="int64"))


def _floats(column: pd.Series) -> Tensor:
    values = pd.to_numeric(column, errors="coerce")
    if values.isna().any():
        where = column.attrs.get("path", "a table")
        raise AssetError(f"{where}: {column[values.isna()].iloc[0]!r} is no number")
    return torch.tensor(values.to_numpy(dtype="float32"))


def _kinds(column: pd.Series) -> Tensor:
    numbers = _numbers(column)
    if not torch.isin(numbers, torch.tensor([0, 1])).all():
        raise AssetError(f"{column.attrs.get('path', 'a table')}: a pair is 0 or 1, not {int(numbers.max())}")
    return numbers == 1


def _check_templates(asked: Tensor, pictures: TemplatePictures, where: str) -> None:
    absent = ~torch.isin(asked, pictures.template)
    if absent.any():
        raise AssetError(f"{where} name template {int(asked[absent][0])}, of which there is no picture")
