import json
import shutil
import tarfile

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from facenb.errors import ModelFileError
from facenb.morphable import formats
from facenb.morphable.formats import read, read_ict, read_ict_folder


@pytest.fixture(scope="module")
def folder(mirror, tmp_path_factory):
    """The seven original OBJ files."""
    into = tmp_path_factory.mktemp("ict")
    with tarfile.open(mirror / "ict-facekit" / "FaceXModel-sample.tar.xz") as archive:
        archive.extractall(into, filter="data")
    return into / "FaceXModel"


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """The folder of a model with three identities and three expressions, which those files are all of."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("whole") / "FaceXModel")
    indices = json.loads((copy / "vertex_indices.json").read_text())
    indices["expressions"] = ["eyeBlink_R", "jawOpen", "mouthSmile_L"]
    (copy / "vertex_indices.json").write_text(json.dumps(indices))
    return copy


def read_few(folder):
    """Read a folder of three identities and the expressions that its json names."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats.ict, "IDENTITIES", 3)
        patch.setattr(formats.ict, "UNLISTED", ())
        return read_ict_folder(folder)


@pytest.fixture(scope="module")
def original(whole):
    return read_few(whole)


def test_expressions_move_what_their_names_say(ict):
    points = {
        name: ict.landmarks.of(ict.expression_basis[ict.expression_names.index(name)])
        for name in ("jawOpen", "eyeBlink_R", "mouthSmile_L")
    }
    assert points["jawOpen"][8, 1] < -10  # chin down, mm
    assert points["eyeBlink_R"][[37, 38], 1].max() < -3 and points["eyeBlink_R"][[43, 44]].abs().max() < 0.1
    assert points["mouthSmile_L"][54, 1] > 3 > points["mouthSmile_L"][48].abs().max()


def test_regions_are_the_published_ranges(ict):
    assert len(ict.regions["face"]) == 9409
    assert ict.landmarks.vertices.max() < 9409  # all landmarks lie in the face
    assert torch.equal(torch.cat([ict.regions["face"], ict.regions["head_neck"]]), torch.arange(11248))


def test_contour_lines_pass_through_the_jaw_landmarks(ict):
    assert ict.contour.shape == (17, 26)
    for line, landmark in zip(ict.contour, ict.landmarks.vertices[:17, 0], strict=True):
        assert landmark in line


def test_identity_modes_overlap_and_are_kept_as_published(ict):
    flat = torch.nn.functional.normalize(ict.identity_basis.flatten(1), dim=1)
    assert 0.4 < (flat @ flat.T - torch.eye(100)).abs().max() < 0.5
    explained = ict.explained_variance()
    assert (explained.diff() > 0).all() and explained[-1] == pytest.approx(1, abs=1e-6)
    assert 0.85 < explained[9] < 0.95


def test_both_forms_agree_on_the_seven_files(ict, original):
    assert torch.allclose(original.mean, ict.mean, atol=1e-4)
    for name in ("triangles", "uv", "uv_triangles", "contour"):
        assert torch.equal(getattr(original, name), getattr(ict, name)), name
    assert torch.equal(original.landmarks.vertices, ict.landmarks.vertices)
    assert (original.identity_basis - ict.identity_basis[:3]).abs().max() < 0.0051  # float16, mm
    assert original.expression_names == ("eyeBlink_R", "jawOpen", "mouthSmile_L")
    for name, row in zip(original.expression_names, original.expression_basis, strict=True):
        assert (row - ict.expression_basis[ict.expression_names.index(name)]).abs().max() < 0.0101
    assert {name: len(part) for name, part in original.regions.items()} == {
        name: len(part) for name, part in ict.regions.items()
    }


@pytest.mark.filterwarnings("ignore::RuntimeWarning:trimesh")
def test_the_obj_reader_agrees_with_trimesh(original, folder):
    mesh = trimesh.load(folder / "identity001.obj", process=False, maintain_order=True, skip_materials=True)
    meshes = mesh.geometry.values() if isinstance(mesh, trimesh.Scene) else [mesh]
    theirs = np.concatenate([part.vertices for part in meshes])
    ours = (original.mean + original.identity_basis[1]).numpy() / 10  # cm
    distance, _ = cKDTree(theirs).query(ours)
    assert distance.max() < 1e-4


def test_missing_files_are_named(folder):
    with pytest.raises(ModelFileError, match=r"lacks 151 of 157 files: identity003.obj, identity004.obj"):
        read_ict_folder(folder)


def test_a_folder_with_one_file_missing_or_of_another_mesh(whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "copy")
    (copy / "jawOpen.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    with pytest.raises(ModelFileError, match=r"jawOpen.obj is no OBJ of ICT.*number of vertices is 3, but 26719"):
        read_few(copy)
    (copy / "jawOpen.obj").write_text("v 0 zero 0\n")
    with pytest.raises(ModelFileError, match="jawOpen.obj is no OBJ of ICT.*could not convert string to float"):
        read_few(copy)
    (copy / "generic_neutral_mesh.obj").unlink()
    with pytest.raises(ModelFileError, match="there is no ICT-FaceKit model at .*generic_neutral_mesh.obj"):
        read_few(copy)
    (copy / "vertex_indices.json").write_text("{")
    with pytest.raises(ModelFileError, match="vertex_indices.json is no ICT-FaceKit model, or a damaged one"):
        read(copy)
    with pytest.raises(ModelFileError, match="there is no ICT-FaceKit model at .*elsewhere"):
        read_ict_folder(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("id_basis"), "id_basis not in it"),
        (lambda x: x.update(faces=x["faces"] + 1), "triangles name vertices 1 to 11248, but there are 11248"),
        (lambda x: x.update(expr_basis=x["expr_basis"][:5]), "number of expression names is 57, but 5"),
        (lambda x: x.update(landmarks68=x["landmarks68"][1:]), "number of landmarks is 67, but 68"),
        (lambda x: x.update(v_template=x["v_template"][1:]), "number of vertices is 11247, but 11248"),
        (lambda x: x.update(v_template=np.nan * x["v_template"]), "numbers in mean are not finite"),
    ],
)
def test_damaged_compact_files_are_named(change, message, mirror, tmp_path):
    arrays = dict(np.load(mirror / "ict-facekit" / "ict_face_head_11248.npz"))
    arrays["id_basis"] = arrays["id_basis"][:2]
    change(arrays)
    np.savez(tmp_path / "ict.npz", **arrays)
    with pytest.raises(ModelFileError, match=message):
        read_ict(tmp_path / "ict.npz")
