"""YouTube Faces' official layout, small and written here."""

import pytest
from PIL import Image

from facenb.datasets.pictures.ytf import read_ytf
from facenb.errors import AssetError

TITLES = "split number, pair number, first name, second name, is same"
LINES = ["1, 1, Ann_Bee/0, Ann_Bee/3, 1", "1, 2, Ann_Bee/0, Cy_Dee/2, 0", "2, 1, Ed_Eff/1, Ed_Eff/5, 1"]


@pytest.fixture
def small(tmp_path):
    for video in ("Ann_Bee/0", "Ann_Bee/3", "Cy_Dee/2", "Ed_Eff/1", "Ed_Eff/5"):
        folder = tmp_path / "aligned_images_DB" / video
        folder.mkdir(parents=True)
        for frame in (998, 1001, 20, 1003):
            Image.new("RGB", (8, 8)).save(folder / f"aligned_detect_{video[-1]}.{frame}.jpg")
    (tmp_path / "splits.txt").write_text("\n".join([TITLES, *LINES]) + "\n")
    corrected = [f"{line}, {kind}" for line, kind in zip(LINES, (1, 1, 0), strict=True)]
    (tmp_path / "splits_corrected.txt").write_text("\n".join([TITLES + ", corrected", *corrected]) + "\n")
    return tmp_path


def test_pairs_are_of_videos(small):
    ytf = read_ytf(small)
    pairs = [(ytf.videos[a], ytf.videos[b]) for a, b in zip(*(part.tolist() for part in ytf.pairs[:2]), strict=True)]
    assert pairs == [("Ann_Bee/0", "Ann_Bee/3"), ("Ann_Bee/0", "Cy_Dee/2"), ("Ed_Eff/1", "Ed_Eff/5")]
    assert ytf.pairs.same.tolist() == [True, False, True] and ytf.pairs.fold.tolist() == [0, 0, 1]


def test_the_corrected_list_is_another_column(small):
    assert read_ytf(small, corrected=True).pairs.same.tolist() == [True, True, False]


def test_frames_are_in_the_order_of_time_and_spread_evenly(small):
    ytf = read_ytf(small)
    assert [path.name.split(".")[1] for path in ytf.frames(0)] == ["20", "998", "1001", "1003"]
    assert [path.name.split(".")[1] for path in ytf.frames(0, 2)] == ["20", "1003"]
    assert len(ytf.frames(0, 9)) == 4


def test_frames_in_the_other_folder_with_suffixes_in_capitals(small):
    for frame in small.glob("aligned_images_DB/*/*/*.jpg"):
        frame.rename(frame.with_suffix(".JPG"))
    (small / "aligned_images_DB").rename(small / "frame_images_DB")
    assert len(read_ytf(small).frames(1)) == 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1, 3, Ann_Bee/0, Nobody/1, 1", "names Nobody/1, which is not in"),
        ("1, 3, Ann_Bee, Cy_Dee/2, 1", "line 5"),
        ("1, 3, Ann_Bee/0, Cy_Dee/2, yes", "line 5"),
        ("one, 3, Ann_Bee/0, Cy_Dee/2, 1", "line 5"),
        ("1, 2", "line 5"),
    ],
)
def test_a_wrong_line_is_named(small, text, says):
    with (small / "splits.txt").open("a") as file:
        file.write(text + "\n")
    with pytest.raises(AssetError, match=says):
        read_ytf(small)


def test_what_is_missing_is_named(small):
    for frame in (small / "aligned_images_DB/Cy_Dee/2").glob("*.jpg"):
        frame.unlink()
    with pytest.raises(AssetError, match="Cy_Dee/2 holds no frames"):
        read_ytf(small).frames(2)
    (small / "splits.txt").write_text(TITLES + "\n")
    with pytest.raises(AssetError, match="holds no pairs"):
        read_ytf(small)
    (small / "splits.txt").unlink()
    with pytest.raises(AssetError, match=r"Expected splits\.txt .*data_download get ytf"):
        read_ytf(small)
    with pytest.raises(AssetError, match="Expected aligned_images_DB"):
        read_ytf(small / "aligned_images_DB" / "Ann_Bee")
