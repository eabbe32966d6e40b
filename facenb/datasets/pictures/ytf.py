"""YouTube Faces (Wolf, Hassner, Maoz 2011): a folder for each person, in it one for each video; splits.txt.

`splits.txt` has a line of titles, then lines `split, pair, first video, second video, same`, where a video is
`Name/number`. `splits_corrected.txt`, the authors' list of errors, has the corrected answer as a sixth column. (This
follows public readers of the file; we have not seen the set.) Frames are `aligned_images_DB/Name/number/*.jpg` or
`frame_images_DB/Name/number/*.jpg`; a frame's number is the last number in its name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from facenb.assets import asset
from facenb.datasets.layout import files_in, find_folder
from facenb.errors import AssetError

FOLDERS = ("aligned_images_DB", "frame_images_DB")
GET = "`python -m data_download get ytf` says how to get it"


@dataclass(frozen=True)
class YTF:
    """The videos that a pair names, in alphabetical order, and the pairs as rows of them."""

    folder: Path
    videos: tuple[str, ...]  # "Name/number"
    first: Int[Tensor, " pairs"]
    second: Int[Tensor, " pairs"]
    same: Bool[Tensor, " pairs"]
    fold: Int[Tensor, " pairs"]  # from 0

    def frames(self, video: int, most: int | None = None) -> list[Path]:
        """Return a video's frames in order of time, at most `most`, spread evenly. Raises AssetError for none."""
        folder = self.folder / self.videos[video]
        frames = sorted(files_in(folder), key=lambda path: (_number(path), path.name))
        if not frames:
            raise AssetError(f"{folder} holds no frames; {GET}")
        if most is None or len(frames) <= most:
            return frames
        return [frames[row] for row in torch.linspace(0, len(frames) - 1, most).round().long().tolist()]


def _number(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else 0


def read_ytf(folder: str | Path | None = None, corrected: bool = False) -> YTF:
    """Return YTF from the folder with the frames' folder and splits.txt, or one above. None: the asset `ytf`.

    `corrected` uses splits_corrected.txt. Raises AssetError naming what is missing, a line that is not a pair, and a
    video that is not there.
    """
    root = Path(folder) if folder is not None else asset("ytf")
    expected = f"{' or '.join(FOLDERS)} ({GET})"
    above = find_folder(root, lambda found: any((found / name).is_dir() for name in FOLDERS), expected)
    inner = next(above / name for name in FOLDERS if (above / name).is_dir())
    name = "splits_corrected.txt" if corrected else "splits.txt"
    path = find_folder(root, lambda found: (found / name).is_file(), f"{name} ({GET})") / name
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [_pair(line, path, number, corrected) for number, line in enumerate(lines, 1) if number > 1 and line.strip()]
    if not rows:
        raise AssetError(f"{path} holds no pairs")
    videos = sorted({video for _, first, second, _ in rows for video in (first, second)})
    absent = [video for video in videos if not (inner / video).is_dir()]
    if absent:
        raise AssetError(f"{path} names {absent[0]}, which is not in {inner} ({len(absent)} such videos); {GET}")
    row_of = {video: row for row, video in enumerate(videos)}
    fold, first, second, same = zip(*rows, strict=True)
    first, second = (torch.tensor([row_of[video] for video in side]) for side in (first, second))
    return YTF(inner, tuple(videos), first, second, torch.tensor(same), torch.tensor(fold))


def _pair(line: str, path: Path, number: int, corrected: bool) -> tuple[int, str, str, bool]:
    words = [word.strip() for word in line.split(",")]
    try:
        split, first, second, same = int(words[0]), words[2], words[3], words[5 if corrected else 4]
        if same not in ("0", "1") or first.count("/") != 1 or second.count("/") != 1 or split < 1:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise AssetError(f"{path}, line {number}, is not a pair of videos: {line[:80]!r}") from error
    return split - 1, first, second, same == "1"
