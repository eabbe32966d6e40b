"""YouTube Faces in its official layout (Wolf, Hassner, Maoz 2011): a folder a person, in it one a video; splits.txt.

`splits.txt` has a line of titles, then lines `split, pair, first video, second video, same`, where a video is
`Name/number`; `splits_corrected.txt`, the authors' list of errors, has the corrected answer as a sixth column (assumed
from public readers of the file: we have not seen the set). Frames are `aligned_images_DB/Name/number/*.jpg` or
`frame_images_DB/Name/number/*.jpg`; a frame's number is the last one in its name before the ending.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from facenb.assets import asset
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

    def person(self, video: int) -> str:
        """Who is on a video."""
        return self.videos[video].split("/")[0]

    def frames(self, video: int, most: int | None = None) -> list[Path]:
        """A video's frames in order of time; `most`: so many, spread evenly over it. AssetError where it has none."""
        folder = self.folder / self.videos[video]
        frames = sorted(folder.glob("*.jpg"), key=lambda path: (_number(path), path.name))
        if not frames:
            raise AssetError(f"{folder} holds no frames; {GET}")
        if most is None or len(frames) <= most:
            return frames
        return [frames[row] for row in torch.linspace(0, len(frames) - 1, most).round().long().tolist()]


def _number(path: Path) -> int:
    numbers = re.findall(r"\d+", path.stem)
    return int(numbers[-1]) if numbers else 0


def read_ytf(folder: str | Path | None = None, corrected: bool = False) -> YTF:
    """YTF from the folder that holds the frames' folder and splits.txt; None: the asset `ytf`.

    `corrected`: by splits_corrected.txt. Raises AssetError naming what is missing, a line that is no pair, and a pair
    whose video is not there.
    """
    root = Path(folder) if folder is not None else asset("ytf")
    inner = next((root / name for name in FOLDERS if (root / name).is_dir()), None)
    if inner is None:
        raise AssetError(f"{root} holds none of {', '.join(FOLDERS)}; {GET}")
    path = root / ("splits_corrected.txt" if corrected else "splits.txt")
    if not path.is_file():
        raise AssetError(f"there is no {path}; {GET}")
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [_pair(line, path, number, corrected) for number, line in enumerate(lines, 1) if number > 1 and line.strip()]
    if not rows:
        raise AssetError(f"{path} holds no pairs")
    videos = tuple(sorted({video for _, first, second, _ in rows for video in (first, second)}))
    absent = [video for video in videos if not (inner / video).is_dir()]
    if absent:
        raise AssetError(f"{path} names {absent[0]}, which is not in {inner} ({len(absent)} such videos); {GET}")
    place = {video: row for row, video in enumerate(videos)}
    columns = [torch.tensor(column) for column in zip(*[(fold, place[one], place[two], same) for fold, one, two, same
                                                        in rows], strict=True)]  # fmt: skip
    return YTF(inner, videos, columns[1], columns[2], columns[3], columns[0])


def _pair(line: str, path: Path, number: int, corrected: bool) -> tuple[int, str, str, bool]:
    words = [word.strip() for word in line.split(",")]
    try:
        split, first, second, same = int(words[0]), words[2], words[3], words[5 if corrected else 4]
        if same not in ("0", "1") or first.count("/") != 1 or second.count("/") != 1 or split < 1:
            raise ValueError
    except (ValueError, IndexError) as error:
        raise AssetError(f"{path}, line {number}, is no pair of videos: {line[:80]!r}") from error
    return split - 1, first, second, same == "1"
