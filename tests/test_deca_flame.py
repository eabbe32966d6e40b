"""The released route: DECA's file and FLAME's, a picture's coarse code, posed vertices, displacement, a GLB."""

import pickle

import numpy as np
import pytest
import test_deca
import test_formats_flame_texture
import torch
import trimesh
from test_formats_flame_texture import ball, flame_arrays, template

from facenb.methods.deca.animate import detailed_mesh, morph_targets
from facenb.methods.deca.scene import Stage, camera_of, posed
from facenb.morphable.formats import read
from facenb.morphable.layouts import DECA
from facenb.networks.deca import layout_of, load_deca
from facenb.networks.detail import OPEN
from facenb.photos.animated import save_animated_glb

DEPTH = 1.0  # mm, all over the map that the written decoder makes


def coefficients() -> torch.Tensor:
    """What the written coarse network says of any picture."""
    parts = {name: torch.zeros(1, size) for name, size in DECA.parts.items()}
    generator = torch.Generator().manual_seed(0)
    parts["identity"], parts["expression"] = (torch.randn(1, n, generator=generator) for n in (100, 50))
    parts["global_pose"] = torch.tensor([[0.1, 0.4, -0.2]])
    parts["jaw_pose"] = torch.tensor([[0.25, 0.02, 0.0]])
    parts["camera"] = torch.tensor([[8.0, 0.01, -0.02]])
    return DECA.join(parts)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """DECA from its folder: a file of the released layout whose last layers say the same of every picture."""
    content = {
        part: {name: torch.full(shape, float(name.endswith("running_var"))) for name, shape in names.items()}
        for part, names in test_deca.TestReleased.shapes().items()
    }
    content["E_flame"]["layers.2.bias"] = coefficients()[0]
    content["D_detail"]["conv_blocks.21.bias"] = torch.tensor([DEPTH / 10]).atanh()  # times 0.01 m
    path = tmp_path_factory.mktemp("deca") / "deca_model.tar"
    torch.save(content, path)
    network = load_deca(path.parent)
    path.unlink()
    return network


@pytest.fixture(scope="module")
def flame(tmp_path_factory):
    folder = tmp_path_factory.mktemp("flame-2020")
    (folder / "generic_model.pkl").write_bytes(pickle.dumps(flame_arrays()))
    (folder / "head_template.obj").write_text(template(*ball()[1:]))
    return read(folder / "generic_model.pkl")


@pytest.fixture(scope="module")
def stage(flame, network):
    return Stage.of(flame, network.layout)


def by_smplx(parts: dict[str, torch.Tensor]) -> np.ndarray:
    """Vertices in mm of the written arrays, for coefficients in DECA's parts."""
    betas = torch.zeros(1, 350)
    betas[:, :100], betas[:, 300:] = parts["identity"], parts["expression"]
    none = torch.zeros(1, 3)
    pose = torch.cat([parts["global_pose"], none, parts["jaw_pose"], none, none], 1)  # the neck and the eyes rest
    return 1000 * test_formats_flame_texture.by_smplx(flame_arrays(), betas, pose)[0].double().numpy()


def moved_out(vertices: np.ndarray, edges: np.ndarray, depth: float) -> np.ndarray:
    """Vertices and middles of edges, moved along normals: of triangles by their area, then of the two ends."""
    faces = ball()[1]
    a, b, c = vertices[faces].transpose(1, 0, 2)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, faces[:, k], np.cross(b - a, c - a))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    points, normals = (np.concatenate([x, x[edges].mean(1)]) for x in (vertices, normals))
    return points + depth * normals / np.linalg.norm(normals, axis=1, keepdims=True)


@torch.no_grad()
def test_a_pictures_vertices_are_flames_with_the_jaw_open(network, stage):
    flat = network(torch.rand(1, 3, 64, 64) * 2 - 1)
    torch.testing.assert_close(flat, coefficients())
    vertices = posed(stage.model, stage.layout, flat)[0]
    np.testing.assert_allclose(vertices, by_smplx(DECA.split(coefficients())), atol=1e-3)
    shut = by_smplx(DECA.split(coefficients()) | {"jaw_pose": torch.zeros(1, 3)})
    assert np.abs(vertices.numpy() - shut).max() > 1  # the jaw does something here


@torch.no_grad()
def test_where_a_vertex_is_drawn_is_what_decas_camera_says(network, stage):
    """s (x + t) on a picture from -1 to 1, y up, x in metres."""
    vertices = posed(stage.model, stage.layout, coefficients())
    found = camera_of(stage.layout, coefficients(), (224, 224)).project(vertices)[0, :, :2]
    x, y = by_smplx(DECA.split(coefficients()))[:, :2].T / 1000
    expected = np.stack([112 * (1 + 8 * (x + 0.01)), 112 * (1 - 8 * (y - 0.02))], -1)
    np.testing.assert_allclose(found, expected, atol=1e-3)


@torch.no_grad()
def test_a_map_of_one_millimetre_moves_every_vertex_by_it_along_its_normal(network, stage):
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    fine = detailed_mesh(network, stage, network(images), network.detail_code(images))[0]
    expected = moved_out(by_smplx(DECA.split(coefficients())), stage.fine.edges.numpy(), DEPTH)
    assert len(fine) == len(ball()[0]) + len(trimesh.Trimesh(*ball()[:2]).edges_unique)
    np.testing.assert_allclose(fine, expected, atol=2e-3)
    plain = moved_out(by_smplx(DECA.split(coefficients())), stage.fine.edges.numpy(), 0)
    np.testing.assert_allclose(np.linalg.norm(fine.numpy() - plain, axis=1), DEPTH, atol=2e-3)


@torch.no_grad()
def test_the_glb_holds_the_displaced_face_at_rest_and_its_jaw(network, stage, tmp_path):
    images = torch.rand(1, 3, 64, 64) * 2 - 1
    rest, targets = morph_targets(network, stage, network(images), network.detail_code(images))
    grey = torch.full_like(rest, 0.7)
    motionless = torch.zeros(2, len(targets))
    path = save_animated_glb(tmp_path / "face.glb", rest, stage.fine.triangles, grey, targets, motionless)
    (mesh,) = trimesh.load(path, process=False).geometry.values()
    edges, own = stage.fine.edges.numpy(), DECA.split(coefficients())
    still = {name: torch.zeros_like(own[name]) for name in ("global_pose", "jaw_pose", "expression")}
    np.testing.assert_allclose(1000 * mesh.vertices, moved_out(by_smplx(own | still), edges, DEPTH), atol=2e-3)
    assert np.array_equal(mesh.faces, stage.fine.triangles) and mesh.is_watertight
    assert list(targets) == ["jaw"]  # FLAME's expressions have no names
    opened = own | still | {"jaw_pose": torch.tensor([[OPEN, 0.0, 0.0]])}
    np.testing.assert_allclose(rest + targets["jaw"], moved_out(by_smplx(opened), edges, DEPTH), atol=2e-3)


def test_every_vertex_takes_the_map_where_a_triangle_of_its_own_lies(network, stage):
    """At the seam too: no vertex of the back takes what lies between its two sides, the front. A ramp from the left."""
    ramp = ((torch.arange(256) + 0.5) / 256).expand(1, 256, 256)
    found = stage.displacement(network.decoder, ramp)[0]
    vertices, faces, vt, ft = ball()
    fine = stage.fine.triangles.reshape(-1, 4, 3).numpy()
    u = vt[ft, 0]
    middles = np.stack([(u[:, k] + u[:, (k + 1) % 3]) / 2 for k in range(3)], 1)
    allowed = [set() for _ in found]
    for k in range(3):
        for corner, middle, place, between in zip(fine[:, k, k], fine[:, 3, k], u[:, k], middles[:, k], strict=True):
            allowed[corner].add(place)
            allowed[middle].add(between)
    apart = [min(abs(value - place) for place in places) for value, places in zip(found.tolist(), allowed, strict=True)]
    assert max(map(len, allowed)) > 1 and max(apart) < 1e-4


def test_flames_own_layout_lacks_the_albedo_only(flame):
    assert dict(layout_of(flame).parts) == dict(DECA.parts) | {"albedo": 0}


def test_the_open_subset_is_told_to_have_no_jaw_and_who_has(mirror):
    subset = read(mirror / "flame-2023-open-subset" / "flame_basis.npz")
    for needs_a_jaw in (lambda: layout_of(subset), lambda: posed(subset, DECA, coefficients())):
        with pytest.raises(ValueError, match="flame has no .*FLAME's own .pkl file .the npz of FLAME 2023 Open"):
            needs_a_jaw()
