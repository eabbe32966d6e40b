"""The command line as a person meets it: exit codes, what it says, what it leaves alone."""

import shutil
import subprocess
import sys

import pytest
import torch

from facenb.__main__ import main
from facenb.photos import photo
from facenb.photos.export import save_image
from facenb.photos.images import read_image

pytest.importorskip("mediapipe")


@pytest.fixture
def portrait(real_asset, tmp_path):
    return shutil.copy(real_asset("astronaut") / "astronaut.png", tmp_path / "me.png")


def test_photo_to_files_and_not_twice(portrait, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["photo", str(portrait), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "face.glb" in said and "landmark error" in said
    assert all((out / name).stat().st_size > 0 for name in photo.FILES)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main(["photo", str(portrait), "--out", str(out)]) == 1
    assert "--force" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert main(["photo", str(portrait), "--out", str(out), "--force"]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before  # the same photo, the same bytes


def test_two_faces_are_said(portrait, tmp_path, capsys):
    head = read_image(portrait)[:240, 110:350]
    save_image(tmp_path / "two.png", torch.cat([head, head.flip(1)], 1))
    assert main(["photo", str(tmp_path / "two.png"), "--out", str(tmp_path / "out")]) == 0
    assert "shows 2 faces. The largest one was used" in capsys.readouterr().out


def test_bad_photos_end_with_1_and_one_line(portrait, tmp_path, capsys):
    save_image(tmp_path / "wall.png", torch.full((200, 200, 3), 0.5))
    (tmp_path / "words.jpg").write_text("no image")
    for name in ("wall.png", "words.jpg", "missing.jpg"):
        assert main(["photo", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        error = capsys.readouterr().err
        assert name in error and error.count("\n") == 1 and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_without_the_model_it_names_the_command(portrait, tmp_path, monkeypatch, capsys):
    photo.ict_fitter.cache_clear()
    monkeypatch.delenv("FACENB_MIRROR")
    monkeypatch.setenv("FACENB_DATA", str(tmp_path / "empty"))
    assert main(["photo", str(portrait), "--out", str(tmp_path / "out")]) == 1
    assert "python -m data_download get ict-facekit" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[], ["foto"], ["photo", "me.jpg"], ["photo", "me.jpg", "--out", "x", "--face", "left"]]
)
def test_a_misspelt_command_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and "usage" in capsys.readouterr().err


def test_the_command_line_loads_nothing_heavy():
    """`--help` and a misspelt option answer at once."""
    code = (
        "import sys, facenb.__main__; print([name for name in ('torch', 'papermill', 'pandas') if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
