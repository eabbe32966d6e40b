"""The command line as a person meets it: exit codes, what it says, what it leaves alone."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
import trimesh

from facenb.__main__ import main
from facenb.methods.liu18.photo import synthetic_network
from facenb.networks.joint import Codes
from facenb.photos import photo
from facenb.photos.crops import five_of_68
from facenb.photos.export import save_image
from facenb.photos.images import read_image
from facenb.photos.landmarks import detect, five_points
from facenb.synthface import course_model

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


def test_photos_of_one_person_give_one_identity(portrait, tmp_path, capsys):
    """The identity is that of a fit to all photos; each photo keeps its own camera and expression."""
    image, out = read_image(portrait), tmp_path / "out"
    save_image(tmp_path / "near.png", image[:300, 60:360])
    save_image(tmp_path / "turned.png", image.rot90())
    paths = [portrait, tmp_path / "near.png", tmp_path / "turned.png"]
    assert main(["photo", *map(str, paths), "--person", "--out", str(out)]) == 0
    assert capsys.readouterr().out.count("landmark error") == 3
    points = torch.stack([detect(read_image(path), closer=True)[0, : photo.MESH] for path in paths])
    shared = photo.fit_photos(photo.ict_fitter(), points, torch.zeros(3, dtype=torch.int64))
    content = json.loads((out / "coefficients.json").read_text())
    torch.testing.assert_close(torch.tensor(content["identity"]), shared.identity[0], atol=1e-3, rtol=0)
    assert [about["image"]["width"] for about in content["photos"]] == [512, 300, 512]
    rotation = torch.tensor([about["camera"]["rotation"] for about in content["photos"]])
    torch.testing.assert_close(rotation, shared.camera.rotation, atol=1e-3, rtol=0)
    rest = photo.ict_fitter().model.shape(shared.identity)[0]
    vertices = torch.tensor(trimesh.load(out / "face.ply", process=False).vertices).float()
    torch.testing.assert_close(vertices[: len(rest)], rest, atol=1e-2, rtol=0)


def test_the_network_predicts_a_shape_and_the_landmarks_place_it(portrait, tmp_path, capsys):
    """The written mesh is the decoders' sum for the written codes; its camera puts the eyes on the photo's eyes."""
    assert main(["photo", str(portrait), "--method", "network", "--out", str(tmp_path / "out")]) == 0
    assert "landmark error" in capsys.readouterr().out
    content, network = json.loads((tmp_path / "out/coefficients.json").read_text()), synthetic_network()
    codes = Codes(torch.tensor(content["c_id"])[None], torch.tensor(content["c_res"])[None])
    vertices = torch.tensor(trimesh.load(tmp_path / "out/face.ply", process=False).vertices).float()
    whole = vertices[: network.vertices]
    torch.testing.assert_close(whole, network.shape(codes).whole[0].detach(), atol=1e-2, rtol=0)
    camera = {key: torch.tensor(content["camera"][key]) for key in ("P", "rotation", "scale", "translation")}
    seen = camera["scale"] * whole @ camera["rotation"].T @ camera["P"].float().T + camera["translation"]
    eyes, marks = (five[:2] for five in (five_of_68(course_model().landmarks.of(seen)[None])[0], marks_of(portrait)))
    assert (eyes - marks).norm(dim=1).max() < 0.1 * (marks[0] - marks[1]).norm()


def marks_of(path):
    return five_points(detect(read_image(path), closer=True)[0])


def test_the_network_takes_one_photo(portrait, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["photo", str(portrait), "--person", "--method", "network", "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and "--method fit" in capsys.readouterr().err


def test_several_photos_need_a_word(portrait, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["photo", str(portrait), str(portrait), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and "--person" in capsys.readouterr().err


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
