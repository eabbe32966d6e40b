import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from facenb.errors import ModelFileError
from facenb.morphable import Embedding, MorphableModel
from facenb.morphable.formats import read

REAL = {
    "ict-facekit/ict_face_head_11248.npz": "ict-facekit",
    "surrey/sfm_shape_3448.bin": "surrey",
    "basel-h5-fixtures/random-l4.h5": "bfm-hdf5",
    "basel-h5-fixtures/random-momo.h5": "bfm-hdf5",
    "3ddfa-v2/bfm68.npz": "bfm-grid",
    "flame-2023-open-subset/flame_basis.npz": "flame",
}


@pytest.mark.parametrize("file", REAL)
def test_a_renamed_file_is_recognised_by_its_content(file, mirror, tmp_path):
    renamed = shutil.copyfile(mirror / file, tmp_path / "holiday.jpg")
    model = read(renamed)
    assert model.name == REAL[file]
    assert model.mean.abs().max() < 300 and model.source  # mm, with a source and a licence


def test_the_librarys_own_file_is_recognised(tmp_path):
    triangle = MorphableModel(
        "tri", torch.eye(3), torch.tensor([[0, 1, 2]]), torch.zeros(1, 3, 3), torch.zeros(0, 3, 3), Embedding.at([0])
    )
    renamed = triangle.save(tmp_path / "m.safetensors").rename(tmp_path / "m.dat")
    assert read(renamed).name == "tri"


@pytest.mark.parametrize("file", REAL)
@pytest.mark.parametrize("share", [0.02, 0.5, 0.999])
def test_a_truncated_file_is_named(file, share, mirror, tmp_path):
    whole = (mirror / file).read_bytes()
    (tmp_path / "cut.bin").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelFileError, match="cut.bin"):
        read(tmp_path / "cut.bin")


def test_foreign_files_say_what_they_are(mirror, tmp_path):
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("../evil.txt", "x")
    (tmp_path / "folder").mkdir()
    for name, content, message in (
        ("page.pkl", b"<!DOCTYPE html><html>Sign in</html>", "page.pkl is a web page: .* login"),
        ("page.html", b"<html>Sign in</html>", "is a web page"),
        ("pointer.npz", b"version https://git-lfs.github.com/spec/v1\noid sha256:12", "is a pointer of Git LFS"),
        ("model.tar.gz", b"\x1f\x8b\x08\x00abcdefghi", "is a gzip or xz archive: unpack it first"),
        ("empty.h5", b"", "empty.h5 is no model file.*the file is empty"),
        ("picture.png", b"\x89PNG\r\n\x1a\n0000", "is no model file known here .*known are BFM-2009"),
        ("words.txt", b"hello", "is no model file known here"),
        ("other.npz", None, r"an npz or zip file of no model known here \(it holds weights\)"),
        ("archive.zip", None, "archive.zip is "),
        ("folder", None, "there is no ICT-FaceKit model at .*folder/vertex_indices.json"),
        ("gone.mat", None, "there is no model file at .*gone.mat"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelFileError, match=message):
            read(tmp_path / name)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_file_that_may_not_be_read_is_named(mirror, tmp_path, monkeypatch):
    path = shutil.copyfile(mirror / "3ddfa-v2" / "bfm68.npz", tmp_path / "locked.npz")

    def refuse(self, *_):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # chmod does not stop a root user
    with pytest.raises(ModelFileError, match="locked.npz cannot be read .*Permission denied"):
        read(path)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_any_pickle_goes_to_the_guarded_reader(protocol, tmp_path):
    (tmp_path / "network.pth").write_bytes(pickle.dumps({"weights": [1, 2]}, protocol=protocol))
    with pytest.raises(ModelFileError, match=r"network.pth is no FLAME model.*it holds weights"):
        read(tmp_path / "network.pth")


def test_networks_and_pictures_of_the_mirror_are_no_models(mirror):
    for file in (
        "3ddfa-v2/mb05_120x120.pth",
        "mobilefacenet/MobileFaceNet.onnx",
        "mediapipe/face_landmarker.task",
        "surrey/image_0010.png",
        "surrey/expression_blendshapes_3448.bin",
        "scan-james/james.obj",
        "aflw2000-3d/reannotated68.npz",
        "flame-landmarks/flame_landmark_embedding.npz",
    ):
        with pytest.raises(ModelFileError, match=file.split("/")[1]):
            read(mirror / file)
