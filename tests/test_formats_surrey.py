import re
import shutil
import struct

import numpy as np
import pytest
import torch

from facenb.errors import ModelFileError
from facenb.morphable.formats import read_surrey

NAMES = ("sfm_shape_3448.bin", "expression_blendshapes_3448.bin", "ibug_to_sfm.txt", "sfm_model_contours.json")


@pytest.fixture(scope="module")
def surrey(mirror):
    return read_surrey(mirror / "surrey" / NAMES[0])


@pytest.fixture
def copy(mirror, tmp_path):
    for name in NAMES:
        shutil.copyfile(mirror / "surrey" / name, tmp_path / name)
    return tmp_path


def write_cereal(path, mean, basis, variance, triangles, colours, uv):
    """A file as eos writes it: version, two PCA models around the triangle lists, texture coordinates."""

    def matrix(values):
        return struct.pack("<2i", *values.shape) + values.astype("<f4").tobytes("F")

    def rows(values, kind):
        return struct.pack("<Q", len(values)) + values.astype(kind).tobytes()

    data = struct.pack("<I", 1) + matrix(mean) + matrix(basis) + matrix(variance) + rows(triangles, "<i4")
    data += b"".join(map(matrix, colours)) + rows(triangles[: len(colours[0])], "<i4") + rows(uv, "<f8")
    path.write_bytes(data)


def test_the_basis_is_orthogonal_and_scaled_by_the_files_eigenvalues(surrey):
    flat = surrey.identity_basis.flatten(1).double()
    gram = flat @ flat.T
    assert (gram - gram.diagonal().diag()).abs().max() < 1e-5 * gram.max()
    assert gram.diagonal()[0].item() == pytest.approx(56502.367, rel=1e-4)  # the first eigenvalue, mm^2


def test_landmarks_are_eoss_mapping_and_a_jaw_line(surrey):
    assert surrey.landmarks.vertices[[8, 30, 36, 67], 0].tolist() == [33, 114, 177, 404]
    points = surrey.landmarks.of(surrey.mean)
    jaw = points[:17]
    assert (jaw[:8, 1].diff() < 0).all() and (jaw[9:, 1].diff() > 0).all()  # down to the chin and up again
    assert (jaw[1:, 0] - jaw[:-1, 0])[4:13].min() > 0  # from the viewer's left to the right
    spacing = jaw.diff(dim=0).norm(dim=1)
    assert spacing.max() < 2.5 * spacing.min()
    assert (jaw * torch.tensor([-1.0, 1, 1]) - jaw.flip(0)).abs().max() < 4  # nearly symmetric
    for inner, outer, centre in ((60, 48, 62), (64, 54, 62)):
        assert abs(points[outer, 0]) > abs(points[inner, 0]) > abs(points[centre, 0])


def test_blendshapes_are_named_and_move_the_mouth(surrey):
    assert surrey.expression_names == ("anger", "disgust", "fear", "happiness", "sadness", "surprise")
    smile, surprise = (surrey.landmarks.of(surrey.expression_basis[k]) for k in (3, 5))
    assert smile[[48, 54], 1].min() > 2 and surprise[57, 1] < -10


def test_texture_coordinates_have_their_origin_at_the_bottom(surrey):
    assert surrey.uv.shape == (3448, 2) and surrey.uv.min() >= 0 and surrey.uv.max() <= 1
    correlation = torch.corrcoef(torch.stack([surrey.uv[:, 1], surrey.mean[:, 1]]))[0, 1]
    assert correlation > 0.95


def test_without_companions_it_has_no_landmarks_and_no_expressions(mirror, tmp_path):
    shutil.copyfile(mirror / "surrey" / NAMES[0], tmp_path / "renamed.data")
    alone = read_surrey(tmp_path / "renamed.data")
    assert len(alone.landmarks) == 0 and alone.contour is None and len(alone.expression_basis) == 0


def test_a_file_of_this_layout_with_colours(tmp_path):
    rng = np.random.default_rng(0)
    mean, basis, variance = rng.normal(size=(15, 1)), rng.normal(size=(15, 2)), np.array([[4.0], [9.0]])
    colours = (rng.random((15, 1)), rng.normal(size=(15, 3)), np.ones((3, 1)))
    uv = rng.random((5, 2))
    write_cereal(tmp_path / "m.bin", mean, basis, variance, np.array([[0, 1, 2], [2, 3, 4]]), colours, uv)
    model = read_surrey(tmp_path / "m.bin")
    np.testing.assert_allclose(model.mean.numpy().reshape(-1, 1), mean, rtol=1e-6)
    np.testing.assert_allclose(model.identity_basis.numpy().reshape(2, 15).T, basis * [2, 3], rtol=1e-5)
    np.testing.assert_allclose(model.albedo_basis.numpy().reshape(3, 15).T, colours[1], rtol=1e-5)
    np.testing.assert_allclose(model.uv.numpy(), np.stack([uv[:, 0], 1 - uv[:, 1]], 1), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (NAMES[0], lambda whole: whole[:-1], "bytes are needed at byte"),
        (NAMES[0], lambda whole: whole[:100], "bytes are needed at byte 12"),
        (NAMES[0], lambda whole: whole + b"\0", "1 bytes are left over"),
        (NAMES[0], lambda whole: b"\x02" + whole[1:], "version is .*, but 1 is needed"),
        (NAMES[0], lambda whole: whole[:4] + struct.pack("<2i", -1, 1) + whole[12:], "a matrix of -1 x 1"),
        (NAMES[0], lambda whole: b"", "the file is empty"),
        (NAMES[1], lambda whole: whole[:21], "blendshapes_3448.bin is no blendshape file of eos"),
        (NAMES[2], lambda whole: b"9 = 33\n", "ibug_to_sfm.txt is no companion .*landmarks on the mesh is 1, but 50"),
        (NAMES[3], lambda whole: b"{}", "sfm_model_contours.json is no companion file"),
        (NAMES[3], lambda whole: b"{", "sfm_model_contours.json is no companion file"),
        (NAMES[3], lambda whole: re.sub(rb"\[\s*\d+", b"[999999", whole), "contours.json is .*999999"),
    ],
)
def test_damaged_files_are_named(copy, name, change, message):
    (copy / name).write_bytes(change((copy / name).read_bytes()))
    with pytest.raises(ModelFileError, match=message):
        read_surrey(copy / NAMES[0])
