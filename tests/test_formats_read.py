"""Model files are recognised by their content; whatever is wrong, a ModelFileError names the file (case 09)."""

import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from facenb.errors import ModelFileError
from facenb.morphable import Embedding, MorphableModel
from facenb.morphable.formats import read, read_bfm2009, read_bfm_grid, read_bfm_hdf5, read_flame, read_ict
from facenb.morphable.formats.basel import GRID
from facenb.morphable.formats.ict import NEEDED as ICT

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


@pytest.mark.parametrize(
    ("file", "sizes"),
    [
        ("ict-facekit/ict_face_head_11248.npz", (11248, 100, 57)),
        ("surrey/sfm_shape_3448.bin", (3448, 63, 6)),
        ("3ddfa-v2/bfm68.npz", (4096 + 68, 40, 10)),
        ("flame-2023-open-subset/flame_basis.npz", (5023, 60, 0)),
    ],
)
def test_it_is_a_face_in_mm_on_the_axes(file, sizes, mirror):
    embedding = {"embedding": mirror / "flame-landmarks" / "flame_landmark_embedding.npz"}
    model = read(mirror / file, **embedding if "flame" in file else {})
    assert (len(model.mean), len(model.identity_basis), len(model.expression_basis)) == sizes
    assert model.expression_basis.dtype == model.identity_basis.dtype == torch.float32
    points = model.landmarks.of(model.mean)
    assert 80 < (points[45] - points[36]).norm() < 100  # outer eye corners of an adult, mm
    assert points[45, 0] > 0 > points[36, 0]  # landmark 36 is on the viewer's left
    assert points[27, 1] > points[8, 1] and points[30, 2] == points[:, 2].max()  # bridge above chin, nose in front
    assert (points[:8, 1].diff() < 0).all() and (points[9:17, 1].diff() > 0).all()  # the jaw line
    corners = model.mean[model.triangles[(model.mean[model.triangles] - points[30]).norm(dim=2).amax(1) < 15]]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert normals[:, 2].sum() > 0.3 * normals.norm(dim=1).sum()  # the nose looks forward


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


# damaged files

READERS = {
    "bfm.mat": read_bfm2009,
    "bfm.h5": read_bfm_hdf5,
    "grid.npz": read_bfm_grid,
    "ict.npz": read_ict,
    "flame.npz": read_flame,
    "flame.pkl": read_flame,
}
MAT = ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl")
FLAME = ("v_template", "shapedirs", "faces")
PICKLE = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table")


def write(path, value):
    """A file of the right format and with the right names, each of which holds `value`."""
    if path.suffix == ".mat":
        savemat(path, dict.fromkeys(MAT, value), do_compression=True)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            for name in ("mean", "pcaBasis", "pcaVariance"):
                file[f"shape/model/{name}"] = value
            file["shape/representer/points"] = file["shape/representer/cells"] = value
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(dict.fromkeys(PICKLE, value)))
    else:
        np.savez_compressed(path, **dict.fromkeys({"grid": GRID, "ict": ICT, "flame": FLAME}[path.stem], value))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", READERS)
def test_right_names_with_impossible_contents(name, tmp_path):
    for value in (np.zeros((0, 3)), np.float64(1), np.arange(7.0), np.full((3, 3), np.nan), np.array([b"text"])):
        write(tmp_path / name, value)
        with pytest.raises(ModelFileError, match=name):
            READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_files_of_another_format(name, tmp_path):
    path = tmp_path / name
    np.save(tmp_path / "array.npy", np.arange(3))
    np.savez(tmp_path / "objects.npz", **dict.fromkeys((*GRID, *ICT, *FLAME), np.array([{}], dtype=object)))
    with h5py.File(tmp_path / "v73.mat", "w", userblock_size=512) as file:
        file["shapeMU"] = np.zeros(3)
    with (tmp_path / "v73.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM")
    contents = [
        b"",
        b"\0" * 300,
        b"PK\x03\x04" + b"\0" * 99,
        b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + b"\xff" * 64,
    ]
    contents += [(tmp_path / other).read_bytes() for other in ("array.npy", "objects.npz", "v73.mat")]
    for content in contents:
        path.write_bytes(content)
        for reader in (READERS[name], read):
            with pytest.raises(ModelFileError, match=name):
                reader(path)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", [*REAL, "bfm.mat", "flame.pkl"])
def test_damaged_bytes_give_a_model_or_an_error_that_names_the_file(name, mirror, tmp_path):
    path, rng = tmp_path / name.split("/")[-1], np.random.default_rng(0)
    if name in REAL:
        shutil.copyfile(mirror / name, path)
    else:
        write(path, np.arange(9.0).reshape(3, 3))
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for start in np.linspace(0, len(whole) - 9, 8).astype(int):
        damaged = whole.copy()
        damaged[start : start + 9] = rng.integers(0, 256, 9)
        path.write_bytes(damaged.tobytes())
        try:
            assert isinstance(read(path), MorphableModel)
        except ModelFileError as error:
            assert path.name in str(error)
