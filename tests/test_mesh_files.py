"""OBJ and PLY files: each vertex once, so that pooled errors do not depend on the form of the file."""

import numpy as np
import pytest
import torch
import trimesh
from helpers import tensors

from facenb.datasets.scans.mesh_files import read_mesh
from facenb.errors import AssetError
from facenb.evaluation.micc import scan_errors

SEAM = """v 0 0 0
v 10 0 0
v 0 10 0
v 10 10 0
v 50 50 0
vt 0 0
vt 1 0
vt 0 1
vt 1 1
vt .2 .2
vt .7 .2
f 1/1 2/2 3/3
f 2/5 4/4 3/6
"""


def test_a_texture_seam_and_a_loose_vertex(tmp_path):
    (tmp_path / "seam.obj").write_text(SEAM)
    mesh = read_mesh(tmp_path / "seam.obj")
    assert mesh.vertices.tolist() == [[0, 0, 0], [10, 0, 0], [0, 10, 0], [10, 10, 0], [50, 50, 0]]
    assert mesh.triangles.tolist() == [[0, 1, 2], [1, 3, 2]]
    corners = torch.tensor([[[0, 0], [1, 0], [0, 1]], [[0.2, 0.2], [1, 1], [0.7, 0.2]]])
    torch.testing.assert_close(mesh.uv[mesh.uv_triangles], corners)


@pytest.mark.parametrize(
    "face",
    ["f 1 2 4 3", "f 1/1 2/2 4/4 3/3", "f 1//1 2//2 4//1 3//2", "f 1/1/1 2/2/2 4/4/1 3/3/2", "f -5 -4 -2 \\\n -3"],
)
def test_all_ways_to_write_a_face(tmp_path, face):
    text = SEAM.split("f 1")[0].replace("v 0 0 0", "v 0 0 0 0.5 0.5 0.5")  # a colour behind a vertex is not read
    (tmp_path / "face.obj").write_text(f"{text}vn 0 0 1\nvn 0 1 0\n{face}\n")
    mesh = read_mesh(tmp_path / "face.obj")
    assert len(mesh.vertices) == 5 and mesh.triangles.tolist() == [[0, 1, 3], [0, 3, 2]]


def test_an_independent_reader_sees_the_same_surface(real_asset):
    """trimesh repeats vertices at seams: the corners of the triangles agree, the number of vertices does not."""
    path = real_asset("scan-james") / "james.obj"
    mesh, other = read_mesh(path), trimesh.load(path, process=False, force="mesh")
    assert len(mesh.vertices) == 6393 < len(other.vertices)
    np.testing.assert_allclose(mesh.vertices[mesh.triangles], other.vertices[other.faces], atol=1e-6)
    np.testing.assert_allclose(mesh.uv[mesh.uv_triangles], other.visual.uv[other.faces], atol=1e-6)


@pytest.fixture(scope="module")
def forms(tmp_path_factory):
    """One scan of a head's size in five forms: plain, with texture, with a normal per corner, both, and as PLY."""
    ball = trimesh.creation.icosphere(subdivisions=3, radius=80.0)
    folder = tmp_path_factory.mktemp("forms")
    vertices = "".join(f"v {x} {y} {z}\n" for x, y, z in ball.vertices)
    extra = "".join(f"vt {k % 7 / 7} {k % 5 / 5}\nvn 0 0 {k % 3 + 1}\n" for k in range(3 * len(ball.faces)))

    def face(number, corners, form):
        return "f " + " ".join(form.format(v=v + 1, k=3 * number + k + 1) for k, v in enumerate(corners))

    for name, form in {"plain": "{v}", "uv": "{v}/{k}", "normals": "{v}//{k}", "both": "{v}/{k}/{k}"}.items():
        faces = "\n".join(face(number, corners, form) for number, corners in enumerate(ball.faces))
        (folder / f"{name}.obj").write_text(vertices + extra + faces)
    ball.export(folder / "scan.ply")
    return sorted(folder.iterdir())


def test_errors_do_not_depend_on_the_form(forms):
    surface = tensors(trimesh.creation.icosphere(subdivisions=2, radius=79.0))
    landmarks = torch.tensor([[0.0, 0, 80]]) + torch.randn(68, 3, generator=torch.Generator().manual_seed(0))
    errors = []
    for path in forms:
        mesh = read_mesh(path)
        errors.append(scan_errors(mesh.vertices, landmarks, *surface, landmarks).distances)
    assert len(forms) == 5 and all(len(one) == len(errors[0]) for one in errors)
    for other in errors[1:]:
        torch.testing.assert_close(other, errors[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "v 1 2 3\nv 1 2 4\n",
        "v 1 2\n",
        "v 1 2 x\nf 1 1 1\n",
        "v 1 2 3\nf 1 2 3\n",
        "v nan 2 3\nf 1 1 1\n",
    ],
)
@pytest.mark.parametrize("name", ["scan.obj", "scan.ply"])
def test_a_damaged_file_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(AssetError, match=name):
        read_mesh(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(AssetError, match=r"no mesh .*scan\.obj"):
        read_mesh(tmp_path / "scan.obj")
