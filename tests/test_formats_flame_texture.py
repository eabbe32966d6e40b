"""FLAME's texture coordinates: of the template mesh, of the texture space, and of a mesh that is not the model's."""

import pickle
import re

import numpy as np
import pytest
import torch
import trimesh
from smplx.lbs import lbs

from facenb.errors import ModelFileError
from facenb.morphable.formats import read, read_flame


def ball() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (metres), triangles, texture coordinates with a seam at the back, and their triangles."""
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=0.1)
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
    around = np.arctan2(vertices[:, 0], vertices[:, 2]) / (2 * np.pi) + 0.5  # 0.5 in front
    u = around[faces]
    u = u + (np.ptp(u, axis=1, keepdims=True) > 0.5) * (u < 0.5)  # whole triangles, beyond 1 behind the seam
    v = np.broadcast_to(0.5 + 4 * vertices[:, 1], (len(faces), len(vertices)))[np.arange(len(faces))[:, None], faces]
    corners = np.stack([faces, 0.02 + 0.75 * u, v], -1).reshape(-1, 3).round(6)
    places, which = np.unique(corners, axis=0, return_inverse=True)
    return vertices, faces, places[:, 1:], which.reshape(-1, 3)


def flame_arrays() -> dict[str, np.ndarray]:
    """A model in FLAME's layout on that ball: 300 identities, 50 expressions, five joints."""
    rng = np.random.default_rng(0)
    vertices, faces, _, _ = ball()
    count = len(vertices)
    regressor, weights = rng.random((5, count)), rng.random((count, 5))
    return {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "shapedirs": 0.0003 * rng.normal(size=(count, 3, 350)),
        "posedirs": 0.0005 * rng.normal(size=(count, 3, 36)),
        "J_regressor": regressor / regressor.sum(1, keepdims=True),
        "weights": weights / weights.sum(1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], dtype=np.uint32),
    }


def by_smplx(arrays: dict[str, np.ndarray], betas: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """Vertices in metres of those arrays, by smplx."""
    tensor = {name: torch.tensor(value, dtype=torch.float32) for name, value in arrays.items() if name[0] != "k"}
    correctives = tensor["posedirs"].reshape(-1, 36).T
    mean, parents = tensor["v_template"][None], torch.tensor([-1, 0, 1, 1, 1])
    regressor, weights = tensor["J_regressor"], tensor["weights"]
    return lbs(betas, pose.flatten(1), mean, tensor["shapedirs"], correctives, regressor, parents, weights)[0]


def template(faces, vt, ft, vertices=None) -> str:
    """The text of an OBJ as Blender writes DECA's head_template.obj, whose vertices lie elsewhere than the model's."""
    vertices = ball()[0] + [0, 1.5, 0] if vertices is None else vertices
    lines = ["# Blender v2.80 (sub 75) OBJ File: 'flame.blend'", "# www.blender.org", "mtllib template.mtl"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices] + [f"vt {u:.6f} {v:.6f}" for u, v in vt]
    corners = np.stack([faces, ft], -1).reshape(-1, 6) + 1
    lines += ["s off"] + [f"f {a}/{p} {b}/{q} {c}/{r}" for a, p, b, q, c, r in corners]
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "generic_model.pkl").write_bytes(pickle.dumps(flame_arrays()))
    return tmp_path


def check_corners(model):
    """The texture coordinates at every corner of every triangle, as they were written."""
    _, faces, vt, ft = ball()
    assert np.array_equal(model.triangles, faces)
    np.testing.assert_allclose(model.uv[model.uv_triangles], vt[ft], atol=1e-6)


def test_without_such_a_file_there_are_none(folder):
    model = read(folder / "generic_model.pkl")
    assert model.uv is None and model.uv_triangles is None


def test_a_template_beside_the_model_or_given_one_with_normals_is_read(folder):
    text = template(*ball()[1:])
    (folder / "any.obj").write_text(re.sub(r"(\d+/\d+)", r"\1/1", text))
    check_corners(read(folder / "generic_model.pkl", texture=folder / "any.obj"))
    (folder / "head_template.obj").write_text(text)
    check_corners(read(folder / "generic_model.pkl"))


@pytest.mark.parametrize("beside", [True, False])
def test_of_the_texture_space_the_coordinates_only_are_read(folder, beside):
    """Its other arrays are large; here one could not be read at all."""
    path = folder / ("FLAME_texture.npz" if beside else "other.npz")
    np.savez(path, tex_dir=np.array([{}], dtype=object), ft=ball()[3].astype(np.uint32), vt=ball()[2])
    check_corners(read_flame(folder / "generic_model.pkl", texture=None if beside else path))


def test_where_triangles_are_turned_over_their_coordinates_are_too(folder):
    _, faces, vt, ft = ball()
    inside_out = flame_arrays() | {"f": faces[:, ::-1].astype(np.uint32)}
    (folder / "generic_model.pkl").write_bytes(pickle.dumps(inside_out))
    (folder / "head_template.obj").write_text(template(faces[:, ::-1], vt, ft[:, ::-1]))
    check_corners(read(folder / "generic_model.pkl"))


def swapped(faces):
    return np.concatenate([faces[[1, 0]], faces[2:]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda f, vt, ft: template(swapped(f), vt, swapped(ft)), r"2 of 320 triangles are not the model"),
        (lambda f, vt, ft: template(np.roll(f, 1, 1), vt, np.roll(ft, 1, 1)), "320 of 320 triangles are not the model"),
        (lambda f, vt, ft: template(f[1:], vt, ft[1:]), "number of triangles is 319, but 320"),
        (lambda f, vt, ft: template(f, vt[:9], ft), r"name texture coordinates 0 to \d+, but there are 9"),
        (lambda f, vt, ft: template(f, vt[:0], ft), "needs lines vt"),
        (lambda f, vt, ft: template(f, vt, ft).replace("/", "//"), "head_template.obj is no file of FLAME's texture"),
        (lambda f, vt, ft: template(f, vt, ft).replace("f ", "f 1/1 "), "vertex/texture at each of three corners"),
        (lambda f, vt, ft: template(f, vt, ft).replace("vt 0", "vt nan 0", 1), "not finite"),
        (lambda f, vt, ft: template(f, vt, ft).replace("vt 0", "vt none 0", 1), "could not convert string to float"),
        (lambda f, vt, ft: "", "head_template.obj.* the file is empty"),
        (lambda f, vt, ft: "<html>", "needs lines vt"),
    ],
    ids=["order", "corners", "count", "outside", "no vt", "no texture", "quads", "nan", "words", "empty", "page"],
)
def test_a_template_that_does_not_fit_is_named(folder, text, message):
    (folder / "head_template.obj").write_text(text(*ball()[1:]))
    with pytest.raises(ModelFileError, match=message):
        read(folder / "generic_model.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vt, ft: {"vt": vt, "ft": ft[::-1]}, "not the model's in the same order"),
        (lambda vt, ft: {"vt": vt, "ft": ft[1:]}, r"ft is \(319, 3\), but \(320, 3\)"),
        (lambda vt, ft: {"vt": vt[:, :1], "ft": ft}, r"columns of vt is 1, but 2"),
        (lambda vt, ft: {"vt": vt}, "ft not in it"),
    ],
)
def test_a_texture_space_that_does_not_fit_is_named(folder, change, message):
    np.savez(folder / "FLAME_texture.npz", **change(*ball()[2:]))
    with pytest.raises(ModelFileError, match=message):
        read(folder / "generic_model.pkl")


def test_a_file_that_is_not_there(folder):
    with pytest.raises(ModelFileError, match="no file of FLAME's texture coordinates at .*nothing.obj; get it from"):
        read_flame(folder / "generic_model.pkl", texture=folder / "nothing.obj")
