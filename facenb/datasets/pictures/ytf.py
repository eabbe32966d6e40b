"""YouTube Faces (Wolf, Hassner, Maoz 2011): a folder for each person, in it one for each video; splits.txt.

`splits.txt` has a header, then lines `split, pair, first video, second video, same`, where a video is
`Name/number`. `splits_corrected.txt`, the authors' list of errors, has the corrected answer as a sixth column. (This
follows public readers of the file; we have not seen the set.) Frames are `aligned_images_DB/Name/number/*.jpg` or
`frame_images_DB/Name/number/*.jpg`; a frame's number is the last number in its name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch

from facenb.datasets.folders import AGAIN, files_in, find_folder
from facenb.datasets.pictures.lfw import Pairs
from facenb.errors import AssetError

FOLDERS = ("aligned_images_DB", "frame_images_DB")


@dataclass(frozen=True)
class YTF:
    """The videos that occur in a pair, in alphabetical order, and the pairs."""

    folder: Path
    videos: tuple[str, ...]  # "Name/number"
    pairs: Pairs  # of videos

    def frames(self, video: int, most: int | None = None) -> list[Path]:
        """Return at most `most` evenly spaced frames of a video, in order of time. Raises AssetError for no frames."""
        folder = self.folder / self.videos[video]
        frames = sorted(files_in(folder), key=lambda path: [int(word) for word in re.findall(r"\d+", path.stem)][-1:])
        if not frames:
            raise AssetError(f"{folder} holds no frames. {AGAIN}")
        count = min(most or len(frames), len(frames))
        return [frames[row] for row in torch.linspace(0, len(frames) - 1, count).round().long().tolist()]


def read_ytf(folder: str | Path | None = None, corrected: bool = False) -> YTF:
    """Return YTF from the folder with the frames' folder and splits.txt (`corrected`: splits_corrected.txt).

    Raises AssetError naming a line that is not a pair, and a video that is not there.
    """
    inner = find_folder(folder, "ytf", lambda inner: inner.name in FOLDERS, " or ".join(FOLDERS))
    name = "splits_corrected.txt" if corrected else "splits.txt"
    path = find_folder(folder, "ytf", lambda inner: (inner / name).is_file(), name) / name
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    rows = [_pair(line, path, number, corrected) for number, line in lines if number > 1 and line.strip()]
    if not rows:
        raise AssetError(f"{path} holds no pairs")
    videos = sorted({video for _, first, second, _ in rows for video in (first, second)})
    absent = [video for video in videos if not (inner / video).is_dir()]
    if absent:
        raise AssetError(f"{path} names {absent[0]}, which is not in {inner} ({len(absent)} such videos). {AGAIN}")
    row_of = {video: row for row, video in enumerate(videos)}
    pairs = [(row_of[first], row_of[second], same, fold) for fold, first, second, same in rows]
    return YTF(inner, tuple(videos), Pairs(*(torch.tensor(column) for column in zip(*pairs, strict=True))))


def _pair(line: str, path: Path, number: int, corrected: bool) -> tuple[int, str, str, bool]:
    """Return fold, first video, second video, and whether they show the same person."""
    pattern = r"([1-9]\d*),[^,]*,([^/,]+/[^/,]+),([^/,]+/[^/,]+)," + ("[^,]*," if corrected else "") + "([01])(,.*)?"
    match = re.fullmatch(pattern, re.sub(r"\s*,\s*", ",", line.strip()))
    if match is None:
        raise AssetError(f"{path}, line {number}, is not a pair of videos: {line[:80]!r}")
    return int(match[1]) - 1, match[2], match[3], match[4] == "1"
