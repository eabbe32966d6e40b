import pickle
import sys
import types

import numpy as np
import pytest
import torch
from helpers import Hostile, python2_pickle
from scipy import sparse
from test_formats_flame_texture import by_smplx, flame_arrays

from facenb.errors import ModelFileError
from facenb.morphable.formats import read, read_flame
from facenb.morphable.formats.safe_pickle import ADMITTED, read_plain


@pytest.fixture
def arrays():
    return flame_arrays()


def check_against_smplx(model, arrays):
    """Compare shape and pose of the model with smplx on the raw arrays."""
    generator = torch.Generator().manual_seed(0)
    coefficients = torch.randn(4, 350, generator=generator)
    pose = 0.5 * torch.randn(4, 5, 3, generator=generator)
    ours = model.shape(coefficients[:, :300], coefficients[:, 300:], pose) / 1e3
    torch.testing.assert_close(ours, by_smplx(arrays, coefficients, pose), rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["python2", 0, 1, 2, 3, 4, 5])
def test_a_published_file_of_any_python_skins_as_smplx_does(form, arrays, tmp_path, monkeypatch):
    """With the chumpy arrays that the published files hold. chumpy is there to write them, and gone when we read."""

    class Ch:
        def __init__(self, x):
            self.x, self._dirty_vars, self._itr = x, set(), None

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    content = arrays | {
        "shapedirs": Ch(arrays["shapedirs"]),
        "v_template": Ch(arrays["v_template"].astype(">f8")),
        "posedirs": np.asfortranarray(arrays["posedirs"]),
        "J_regressor": sparse.csc_matrix(arrays["J_regressor"]),
        "bs_type": "lrotmin",
    }
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
        patch.setitem(sys.modules, "chumpy.ch", types.SimpleNamespace(Ch=Ch))
        data = python2_pickle(content) if form == "python2" else pickle.dumps(content, protocol=form)
    (tmp_path / "flame.pkl").write_bytes(data)
    model = read(tmp_path / "flame.pkl")
    assert (len(model.identity_basis), len(model.expression_basis)) == (300, 50)
    assert model.joints.names[2] == "jaw" and model.joints.parents == (-1, 0, 1, 1, 1)
    check_against_smplx(model, arrays)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_come_back_as_numpy_would_load_them(protocol, tmp_path):
    content = {
        "big": np.arange(6, dtype=">i4").reshape(2, 3),
        "fortran": np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4))),
        "half": np.ones((2, 0, 3), np.float16),
        "scalar": np.float32(2.5),
        "flag": np.array([True, False]),
        "sparse": sparse.csr_matrix(np.diag([1.0, 0, 3])),
        "text": "lbs",
    }
    path = tmp_path / "p"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    found = read_plain(path)
    for name in ("big", "fortran", "half", "flag"):
        np.testing.assert_array_equal(found[name], content[name])
        assert found[name].dtype == content[name].dtype
    assert found["scalar"] == np.float32(2.5) and found["text"] == "lbs"
    np.testing.assert_array_equal(found["sparse"].toarray(), content["sparse"].toarray())


# hostile files

RAN: list[str] = []


def trap(*arguments):
    """What a hostile pickle wants to be called."""
    RAN.append(str(arguments))


def hostile_files():
    import os
    import subprocess

    yield "trap", pickle.dumps({"v_template": Hostile(trap, "x")})
    yield "system", pickle.dumps(Hostile(os.system, "touch PROOF"))
    yield "eval", pickle.dumps(Hostile(eval, "open('PROOF', 'w')"))
    yield "subprocess", pickle.dumps(Hostile(subprocess.check_output, ["touch", "PROOF"]))
    yield "getattr", pickle.dumps(Hostile(getattr, [], "append"))
    yield "numpy-load", pickle.dumps(Hostile(np.load, "x.npy", None, True))
    yield "numpy-savetxt", pickle.dumps(Hostile(np.savetxt, "PROOF", [1]))
    yield "frombuffer", pickle.dumps(Hostile(np.frombuffer, b"abc"))
    yield "runstring", b'cnumpy.testing._private.utils\nrunstring\n(S\'open("PROOF", "w")\'\n(dtR.'
    yield "old-style", b"cos\nsystem\n(S'touch PROOF'\ntR."
    yield "inst", b"(S'touch PROOF'\nios\nsystem\n."
    yield "dotted", b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__class__\x93."
    yield "builtins-numpy", b'cnumpy\nexec\n(S\'open("PROOF", "w")\'\ntR.'
    yield "reconstructor", b"ccopy_reg\n_reconstructor\n(cos\nsystem\nS'x'\nNtR."
    yield "persistent", b"Pfile:///etc/passwd\n."
    yield "extension", b"\x80\x02\x82\x01."
    yield "object-array", pickle.dumps({"v_template": np.array([trap, None], dtype=object)})
    yield "object-dtype", pickle.dumps({"v_template": np.array([{}, None], dtype=object)})


@pytest.mark.parametrize(
    ("name", "data"), list(hostile_files()), ids=lambda item: item if isinstance(item, str) else ""
)
def test_a_pickle_that_tries_to_run_code_runs_nothing(name, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    RAN.clear()
    path = tmp_path / "evil.pkl"
    path.write_bytes(data)
    with pytest.raises(ModelFileError, match="evil.pkl"):
        read_flame(path)
    assert not RAN and [file.name for file in tmp_path.iterdir()] == ["evil.pkl"]


def test_only_names_of_arrays_are_admitted_and_each_is_a_stand_in():
    assert all(kind.__module__ == "facenb.morphable.formats.safe_pickle" for kind in ADMITTED.values())
    roots = {module.split(".")[0] for module, _ in ADMITTED}
    assert roots == {"numpy", "scipy", "chumpy", "copy_reg", "copyreg", "__builtin__", "builtins", "_codecs"}


def numpy_shell(dtype: bytes, shape: bytes, data: bytes) -> bytes:
    """A hand-written pickle of one array, whose parts need not fit."""
    shell = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    kind = b"cnumpy\ndtype\n(S'" + dtype + b"'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    return b"(dS'v_template'\n" + shell + b"(I1\n" + shape + kind + b"I0\n" + data + b"tbs."


def test_arrays_whose_parts_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "a.pkl"
    path.write_bytes(numpy_shell(b"f8", b"(I2\nt", b"S'0123456789abcdef'\n"))
    assert read_plain(path)["v_template"].shape == (2,)  # the hand-written form itself is right
    for dtype, shape, data in (
        (b"f8", b"(I2000000000\nt", b"S'0123456789abcdef'\n"),  # claims more than there is
        (b"f8", b"(I-1\nI-1\nt", b"S'0123456789abcdef'\n"),
        (b"O8", b"(I2\nt", b"S'0123456789abcdef'\n"),  # bytes taken for pointers
        (b"V16", b"(I1\nt", b"S'0123456789abcdef'\n"),
        (b"f8,O", b"(I1\nt", b"S'0123456789abcdef'\n"),
        (b"f8", b"(I2\nt", b"I1000000000000\n"),  # bytes(10**12) would fill the memory
        (b"f8", b"(I2\nt", b"(lI1\na"),
    ):
        path.write_bytes(numpy_shell(dtype, shape, data))
        with pytest.raises(ModelFileError, match="a.pkl"):
            read_plain(path)


def test_a_sparse_matrix_that_points_outside_itself_is_refused(arrays, tmp_path):
    bad = sparse.csc_matrix(arrays["J_regressor"])
    bad.indices[0] = 10**6
    path = tmp_path / "flame.pkl"
    path.write_bytes(pickle.dumps(arrays | {"J_regressor": bad}))
    with pytest.raises(ModelFileError, match=r"flame.pkl is a damaged pickle.*indices"):
        read_flame(path)


def test_a_pickle_that_holds_itself_is_refused(tmp_path):
    ring: dict = {}
    ring["v_template"] = [ring]
    (tmp_path / "ring.pkl").write_bytes(pickle.dumps(ring))
    with pytest.raises(ModelFileError, match="ring.pkl is a damaged pickle"):
        read_flame(tmp_path / "ring.pkl")


# damaged and foreign files


def test_truncated_and_foreign_pickles_are_named(arrays, tmp_path):
    whole, path = pickle.dumps(arrays), tmp_path / "flame.pkl"
    for cut in (1, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ModelFileError, match="flame.pkl is a damaged pickle"):
            read_flame(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(ModelFileError, match="no FLAME model, .*: what it holds is list, but dict is needed"):
        read_flame(path)
    path.write_bytes(pickle.dumps({"weights": np.zeros(3), "epoch": 4}))
    with pytest.raises(ModelFileError, match=r"no FLAME model, .*: v_template.* not in it \(it holds epoch, weights\)"):
        read_flame(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posedirs": np.zeros((162, 3, 35))}, "size of posedirs is 17010, but 17496"),
        ({"weights": np.zeros((162, 4))}, r"shape of weights is \(162, 4\), but \(162, 5\)"),
        ({"shapedirs": np.zeros((161, 3, 350))}, "vertices of shapedirs is 161, but 162"),
        ({"kintree_table": np.array([[-1, 0, 4, 1, 1], [0, 1, 2, 3, 4]])}, r"parents of its 5 joints are \[-1, 0, 4"),
        ({"f": np.full((320, 3), 162)}, "triangles name vertices 162 to 162"),
    ],
)
def test_parts_that_do_not_fit_are_named(change, message, arrays, tmp_path):
    (tmp_path / "flame.pkl").write_bytes(pickle.dumps(arrays | change))
    with pytest.raises(ModelFileError, match=message):
        read_flame(tmp_path / "flame.pkl")


# the real mean and landmarks


@pytest.fixture(scope="module")
def real(mirror):
    embedding = mirror / "flame-landmarks" / "flame_landmark_embedding.npz"
    return read_flame(mirror / "flame-2023-open-subset" / "flame_basis.npz", embedding)


def test_landmarks_are_the_tables_barycentric_points(real, mirror):
    table = np.load(mirror / "flame-landmarks" / "flame_landmark_embedding.npz")
    basis = np.load(mirror / "flame-2023-open-subset" / "flame_basis.npz")
    corners = 1e3 * basis["v_template"][basis["faces"][table["static_face_idx"]]]
    expected = (corners * table["static_bary"][..., None]).sum(1)
    np.testing.assert_allclose(real.landmarks.of(real.mean)[17:].numpy(), expected, atol=1e-3)


def test_the_contour_follows_the_table_of_the_jaw_line(real, mirror):
    table = np.load(mirror / "flame-landmarks" / "flame_landmark_embedding.npz")
    basis = np.load(mirror / "flame-2023-open-subset" / "flame_basis.npz")
    corners = 1e3 * basis["v_template"][basis["faces"][table["dynamic_face_idx"]]]
    moving = torch.tensor((corners * table["dynamic_bary"][..., None]).sum(2)).float()  # (79, 17, 3)
    lines = real.mean[real.contour]
    for j in range(17):
        distance = torch.cdist(moving[:, j], lines[j]).min(1).values
        assert distance.max() < 8  # mm; the table's points lie on triangles, the candidates are their corners
    sides = [j for j in range(17) if abs(j - 8) > 2]
    assert (lines[sides, 0, 2] > lines[sides, -1, 2] + 20).all()  # from the cheek in front to the jaw behind


def test_an_embedding_beside_the_model_is_found_and_a_damaged_one_named(mirror, tmp_path):
    model = tmp_path / "any-name"
    model.write_bytes((mirror / "flame-2023-open-subset" / "flame_basis.npz").read_bytes())
    assert len(read(model).landmarks) == 0
    beside = tmp_path / "flame_landmark_embedding.npz"
    beside.write_bytes((mirror / "flame-landmarks" / "flame_landmark_embedding.npz").read_bytes())
    assert len(read(model).landmarks) == 68
    arrays = dict(np.load(beside))
    np.savez(beside, **arrays | {"static_face_idx": arrays["static_face_idx"] + 9000})
    with pytest.raises(ModelFileError, match=r"points name triangles \d+ to \d+, but there are 9976"):
        read(model)
    np.savez(beside, **arrays | {"static_face_idx": arrays["static_face_idx"][:50]})
    with pytest.raises(ModelFileError, match="points is 67, but 68"):
        read(model)
    beside.write_bytes(beside.read_bytes()[:300])
    with pytest.raises(ModelFileError, match="flame_landmark_embedding.npz is no FLAME landmark embedding"):
        read(model)
