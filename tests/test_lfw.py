"""LFW's official layout, small and written here, and the real one where the mirror is."""

import pytest
from PIL import Image

from facenb.datasets.pictures.lfw import read_lfw
from facenb.errors import AssetError

PEOPLE = {"Ann_Bee": 3, "Cy_Dee": 2, "Ed_Eff": 1}


@pytest.fixture
def small(tmp_path):
    for name, count in PEOPLE.items():
        folder = tmp_path / "lfw-deepfunneled" / name
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            Image.new("RGB", (250, 250)).save(folder / f"{name}_{number:04d}.jpg")
    lines = ["2\t1", "Ann_Bee\t1\t3", "Ann_Bee\t1\tCy_Dee\t2", "Cy_Dee\t1\t2", "Ed_Eff\t1\tAnn_Bee\t2"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_people_photos_and_pairs(small):
    lfw = read_lfw(small)
    assert {name: len(photos) for name, photos in lfw.people.items()} == PEOPLE
    assert list(lfw.with_at_least(2)) == ["Ann_Bee", "Cy_Dee"]
    pairs = lfw.pairs()
    assert [(pair.same, pair.fold) for pair in pairs] == [(True, 0), (False, 0), (True, 1), (False, 1)]
    assert (pairs[1].first.name, pairs[1].second.name) == ("Ann_Bee_0001.jpg", "Cy_Dee_0002.jpg")


def test_a_missing_photo_of_a_pair_is_named(small):
    (small / "lfw-deepfunneled/Cy_Dee/Cy_Dee_0002.jpg").unlink()
    with pytest.raises(AssetError, match="Cy_Dee_0002, which is missing"):
        read_lfw(small).pairs()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("words\n", "does not begin"),
        ("2\t1\nAnn_Bee\t1\t3\n", "announces 4 pairs, but holds 1"),
        ("1\t1\nAnn_Bee\tone\t3\nAnn_Bee\t1\tCy_Dee\t2\n", "line 2"),
        ("", "does not begin"),
    ],
)
def test_a_wrong_pairs_file(small, text, says):
    (small / "pairs.txt").write_text(text)
    with pytest.raises(AssetError, match=says):
        read_lfw(small).pairs()


@pytest.mark.parametrize(
    ("folder", "suffix"),
    [
        ("lfw-deepfunneled/lfw-deepfunneled", ".jpg"),
        ("lfw/lfw", ".png"),
        ("archive/lfw-deepfunneled", ".JPG"),
        ("", ".jpg"),
    ],
)
def test_layouts_that_circulate(small, tmp_path_factory, folder, suffix):
    """A folder nested once more, other formats, capitals, people directly in the folder."""
    root = tmp_path_factory.mktemp("lfw")
    (root / folder).mkdir(parents=True, exist_ok=True)
    for person in sorted((small / "lfw-deepfunneled").iterdir()):
        person.rename(root / folder / person.name)
    for photo in sorted(root.glob("**/*.jpg")):
        photo.rename(photo.with_suffix(suffix))
    (small / "pairs.txt").rename(root / "pairs.txt")
    lfw = read_lfw(root)
    assert {name: len(photos) for name, photos in lfw.people.items()} == PEOPLE
    assert lfw.pairs()[0].second.name == f"Ann_Bee_0003{suffix}"


def test_what_was_expected_and_found_is_said(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.jpg").write_text("")
    with pytest.raises(AssetError, match=r"Ann_Bee_0001\.jpg.* it holds photos/"):
        read_lfw(tmp_path)
    (tmp_path / "lfw" / "Ann_Bee").mkdir(parents=True)
    (tmp_path / "lfw" / "Ann_Bee" / "Ann_Bee_0001.jpg").write_text("")
    with pytest.raises(AssetError, match=r"Expected pairs\.txt"):
        read_lfw(tmp_path)


def test_the_real_one(real_asset):
    lfw = read_lfw(real_asset("lfw"))
    assert len(lfw.people) == 3443 and sum(map(len, lfw.people.values())) == 9146
    pairs = lfw.pairs()
    assert len(pairs) == 8 * 600 and {pair.fold for pair in pairs} == set(range(8))
    assert all(pair.same == (pair.first.parent == pair.second.parent) for pair in pairs)
