import shutil
import struct

import h5py
import numpy as np
import pytest
import torch
from scipy.io import savemat

from facenb.errors import ModelFileError
from facenb.morphable.formats import read, read_bfm2009, read_bfm_grid, read_bfm_hdf5
from facenb.morphable.layouts import LUO19

COUNT, KEPT = 90, 80  # vertices of the made-up model, and of the part that expressions are made for


# BFM-2009


@pytest.fixture
def mat():
    """Arrays in the layout of 01_MorphableModel.mat: micrometres, indices from 1."""
    rng = np.random.default_rng(0)
    return {
        "shapeMU": rng.normal(scale=50e3, size=(3 * COUNT, 1)).astype(np.float32),
        "shapePC": rng.normal(size=(3 * COUNT, 6)).astype(np.float32),
        "shapeEV": np.array([[9e5, 5e5, 3e5, 2e5, 1e5, 5e4]]).T,
        "texMU": rng.uniform(0, 255, size=(3 * COUNT, 1)).astype(np.float32),
        "texPC": rng.normal(size=(3 * COUNT, 4)).astype(np.float32),
        "texEV": np.array([[900.0, 500, 300, 100]]).T,
        "tl": rng.integers(1, COUNT + 1, (70, 3)).astype(np.int32),
        "segbin": np.ones((COUNT, 4)),
    }


@pytest.fixture
def bfm(mat, tmp_path):
    """The folder of BFM-2009 with what circulates beside it."""
    rng = np.random.default_rng(1)
    savemat(tmp_path / "01_MorphableModel.mat", mat)
    kept = np.sort(rng.permutation(COUNT)[:KEPT]) + 1
    savemat(tmp_path / "model_info.mat", {"trimIndex": kept[:, None], "keypoints": np.arange(3, 71)[None]})
    expression = {
        "mu_exp": rng.normal(scale=300, size=(3 * KEPT, 1)),
        "w_exp": rng.normal(size=(3 * KEPT, 5)),
        "sigma_exp": np.array([[2e3, 1e3, 800.0, 500, 100]]).T,
    }
    savemat(tmp_path / "Model_Expression.mat", expression)
    table = np.concatenate([expression["mu_exp"].T, expression["w_exp"].T]).astype("<f4")
    (tmp_path / "Exp_Pca.bin").write_bytes(struct.pack("<i", 5) + table.tobytes())
    np.savetxt(tmp_path / "std_exp.txt", expression["sigma_exp"].T)
    return tmp_path, kept - 1, expression


def test_bfm2009_in_mm_and_standard_deviations(bfm, mat):
    model = read(bfm[0] / "01_MorphableModel.mat")
    # Person with 2 standard deviations of component 1 and -1 of component 3, as the model's own documentation has it.
    micrometres = mat["shapeMU"] + mat["shapePC"] @ (mat["shapeEV"] * np.array([[0, 2, 0, -1, 0, 0]]).T)
    shape = model.shape(torch.tensor([[0.0, 2, 0, -1]]))[0]
    np.testing.assert_allclose(shape.numpy().reshape(-1, 1), micrometres / 1000, rtol=1e-4, atol=1e-3)
    colour = mat["texMU"] + mat["texPC"] @ (mat["texEV"] * np.array([[1.5, 0, 0, 0]]).T)
    np.testing.assert_allclose(
        model.albedo(torch.tensor([[1.5]])).numpy().reshape(-1, 1), colour / 255, rtol=1e-4, atol=1e-5
    )
    assert set(map(frozenset, model.triangles.tolist())) == set(map(frozenset, (mat["tl"] - 1).tolist()))
    assert len(model.landmarks) == 0 and len(model.expression_basis) == 0 and "Basel" in model.source


@pytest.mark.parametrize("file", ["Model_Expression.mat", "Exp_Pca.bin"])
def test_bfm2009_with_expressions_on_the_kept_vertices(bfm, mat, file):
    folder, kept, expression = bfm
    model = read_bfm2009(folder / "01_MorphableModel.mat", folder / file, folder / "model_info.mat")
    # 3DDFA's basis comes with the offset of its neutral face; Exp_Pca.bin's mean is of expressive faces and left out.
    neutral = expression["mu_exp"].reshape(-1, 3) if file.endswith("mat") else 0
    expected = (mat["shapeMU"].reshape(-1, 3)[kept] + neutral) / 1000
    np.testing.assert_allclose(model.mean.numpy(), expected, rtol=1e-5, atol=1e-4)
    row = (expression["w_exp"][:, 1] * 1e3 / 1000).reshape(-1, 3)
    np.testing.assert_allclose(model.expression_basis[1].numpy(), row, rtol=1e-5)
    assert torch.equal(model.landmarks.vertices[:, 0], torch.arange(2, 70))
    old = [frozenset(kept[t].tolist()) for t in model.triangles.numpy()]
    whole = [frozenset(t) for t in (mat["tl"] - 1).tolist() if set(t) <= set(kept.tolist())]
    assert old == whole  # the same triangles, renumbered


def test_bfm2009_companions_of_another_mesh_and_damaged_ones_are_refused(bfm):
    folder, _, _ = bfm

    def check(message, expression=None, info="model_info.mat"):
        files = [name and folder / name for name in (expression, info)]
        with pytest.raises(ModelFileError, match=message):
            read_bfm2009(folder / "01_MorphableModel.mat", *files)

    check("made for 80 vertices, the model here has 90; give info=model_info", "Model_Expression.mat", None)
    whole = (folder / "Exp_Pca.bin").read_bytes()
    (folder / "Exp_Pca.bin").write_bytes(whole[:-40])
    check("Exp_Pca.bin is no expression basis .* bytes do not fit 5 components", "Exp_Pca.bin")
    (folder / "Exp_Pca.bin").write_bytes(whole)
    (folder / "std_exp.txt").unlink()
    check("there is no std_exp.txt", "Exp_Pca.bin")
    savemat(folder / "model_info.mat", {"trimIndex": np.array([[COUNT + 5]]), "keypoints": np.arange(1, 69)})
    check("trimIndex names vertices 94 to 94, but there are 90")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda mat: {"Shape_Para": np.zeros(9)}, r"no Basel Face Model 2009, .*: shapeMU.*\(it holds Shape_Para\)"),
        (lambda mat: mat | {"shapePC": mat["shapePC"][:-3]}, "rows of shapePC"),
        (lambda mat: mat | {"tl": mat["tl"] - 1}, "triangles name vertices -1 to 88, but there are 90"),
        (lambda mat: mat | {"shapeMU": mat["shapeMU"] * np.nan}, "numbers in mean are not finite"),
    ],
)
def test_bfm2009_damaged_and_foreign_files_are_named(change, message, mat, tmp_path):
    savemat(tmp_path / "bfm.mat", change(mat))
    with pytest.raises(ModelFileError, match=message):
        read(tmp_path / "bfm.mat")


# BFM-2017 and 2019


@pytest.mark.parametrize(("name", "expressions", "points"), [("random-l4", 0, 60), ("random-momo", 10, 5)])
def test_files_of_the_hdf5_layout(mirror, name, expressions, points):
    path = mirror / "basel-h5-fixtures" / f"{name}.h5"
    model = read(path)
    with h5py.File(path) as file:
        raw = {
            part: {key: file[f"{part}/model/{key}"][()] for key in ("mean", "pcaBasis", "pcaVariance")}
            for part in ("shape", "color", "expression")
            if part in file
        }
    identity, albedo = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.0, 1.0]])
    shape = raw["shape"]
    expected = shape["mean"] + shape["pcaBasis"][:, :3] @ (np.sqrt(shape["pcaVariance"][:3]) * [1.0, -2.0, 0.5])
    if expressions:
        expected += raw["expression"]["mean"]
        row = raw["expression"]["pcaBasis"][:, 4] * np.sqrt(raw["expression"]["pcaVariance"][4])
        np.testing.assert_allclose(model.expression_basis[4].numpy().reshape(-1), row, rtol=1e-4)
    np.testing.assert_allclose(model.shape(identity)[0].numpy().reshape(-1), expected, rtol=1e-4, atol=1e-4)
    colour = raw["color"]["mean"] + raw["color"]["pcaBasis"][:, 1] * np.sqrt(raw["color"]["pcaVariance"][1])
    np.testing.assert_allclose(model.albedo(albedo)[0].numpy().reshape(-1), colour, rtol=1e-4, atol=1e-4)
    assert len(model.expression_basis) == expressions and len(model.landmarks) == 0
    assert sum(region.startswith("landmark.") for region in model.regions) == points


def test_named_landmarks_of_the_real_reference_lie_where_their_names_say(mirror):
    path = mirror / "basel-h5-fixtures" / "random-l4.h5"
    model = read_bfm_hdf5(path)
    with h5py.File(path) as file:
        reference = file["shape/representer/points"][()].T
    nose, left, right = (
        reference[model.regions[f"landmark.{name}"].item()]
        for name in ("center.nose.tip", "left.eye.corner_outer", "right.eye.corner_outer")
    )
    assert nose[2] > 120 and left[0] > 30 > -30 > right[0]


@pytest.fixture
def hdf5(mirror, tmp_path):
    return shutil.copyfile(mirror / "basel-h5-fixtures" / "random-momo.h5", tmp_path / "model.h5")


def test_the_unit_and_the_old_scaled_bases_are_heeded(hdf5):
    before = read_bfm_hdf5(hdf5)
    with h5py.File(hdf5, "r+") as file:
        file["shape/representer/length-unit"] = 1.0  # metres
        deviation = np.sqrt(file["shape/model/pcaVariance"][()])
        file["shape/model/pcaBasis"][...] = file["shape/model/pcaBasis"][()] * deviation
        file["shape/version/minorVersion"][...] = 8  # statismo 0.8 wrote the basis like that
    after = read_bfm_hdf5(hdf5)
    torch.testing.assert_close(after.mean, 1e3 * before.mean)
    torch.testing.assert_close(after.identity_basis, 1e3 * before.identity_basis)


def test_a_mesh_stored_once_for_all_parts_is_found(hdf5):
    before = read_bfm_hdf5(hdf5)
    with h5py.File(hdf5, "r+") as file:
        file.move("shape/representer", "representer")
    after = read_bfm_hdf5(hdf5)
    assert torch.equal(after.triangles, before.triangles) and torch.equal(after.mean, before.mean)


def test_the_68_landmarks_can_be_given(mirror):
    model = read_bfm_hdf5(mirror / "basel-h5-fixtures" / "random-l4.h5", landmarks=[5, 7])
    assert torch.equal(model.landmarks.of(model.mean), model.mean[[5, 7]])
    with pytest.raises(ModelFileError, match="landmarks name vertices 1529 to 1529, but there are 1529"):
        read_bfm_hdf5(mirror / "basel-h5-fixtures" / "random-l4.h5", landmarks=[1529])


def test_hdf5_foreign_files_and_bases_of_another_mesh_are_named(hdf5, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(ModelFileError, match=r"other.h5 is no Basel Face Model.*shape.* \(it holds weights\)"):
        read(tmp_path / "other.h5")
    with h5py.File(hdf5, "r+") as file:
        del file["expression/model/pcaBasis"]
        file["expression/model/pcaBasis"] = np.zeros((72, 10))
    with pytest.raises(ModelFileError, match="rows of expression/model/pcaBasis is 72, but 75"):
        read_bfm_hdf5(hdf5)


# the grid of 3DDFA-V2


@pytest.fixture(scope="module")
def arrays(mirror):
    with np.load(mirror / "3ddfa-v2" / "bfm68.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def grid(mirror):
    return read(mirror / "3ddfa-v2" / "bfm68.npz")


def test_the_grids_landmarks_are_those_of_3ddfa(grid, arrays):
    rng = np.random.default_rng(0)
    vector = torch.tensor(rng.normal(size=(1, 62)) * arrays["v2_std"], dtype=torch.float32)  # raw, as the network's
    raw, deviation = LUO19.split(vector), LUO19.split(torch.tensor(arrays["v2_std"]))
    identity, expression = (raw[part] / deviation[part] for part in ("identity", "expression"))
    theirs = arrays["u_base"] + arrays["w_shp_base"] @ raw["identity"][0].numpy()
    theirs = (theirs + arrays["w_exp_base"] @ raw["expression"][0].numpy()).reshape(68, 3) / 1000
    ours = grid.landmarks.of(grid.shape(identity, expression))[0]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


def test_the_grids_landmarks_lie_on_it(grid):
    points, surface = grid.landmarks.of(grid.mean), grid.mean[grid.regions["grid"]]
    assert torch.cdist(points, surface).min(1).values.max() < 4  # half the grid's diagonal, mm
    assert grid.triangles.max() == 4095 and len(grid.triangles) == 2 * 63 * 63


def test_identity_of_grid_and_landmarks_is_the_same_movement(grid):
    nearest = torch.cdist(grid.mean[4096:], grid.mean[:4096]).argmin(1)
    moved = grid.shape(torch.randn(1, 40, generator=torch.Generator().manual_seed(0)))[0] - grid.mean
    assert (moved[nearest] - moved[4096:]).norm(dim=1).max() < 0.3 * moved[4096:].norm(dim=1).max()


def test_a_repeated_identity_basis_is_not_taken_for_expressions(grid, arrays, tmp_path):
    assert np.array_equal(arrays["paf_w_exp"], arrays["paf_w_shp"][:, :10])  # so it is in the released file
    assert grid.expression_basis[:, :4096].abs().max() == 0 < grid.expression_basis[:, 4096:].abs().max()
    assert "landmarks only" in grid.source
    right = arrays | {"paf_w_exp": np.random.default_rng(0).normal(size=(3 * 4096, 10)).astype(np.float32)}
    np.savez(tmp_path / "right.npz", **right)
    model = read_bfm_grid(tmp_path / "right.npz")
    row = (right["paf_w_exp"][:, 2] * arrays["v2_std"][54] / 1000).reshape(-1, 3)
    np.testing.assert_allclose(model.expression_basis[2, :4096].numpy(), row, rtol=1e-4)
    assert "landmarks only" not in model.source


def test_grids_of_another_size_are_named(arrays, tmp_path):
    np.savez(tmp_path / "size.npz", **arrays | {"paf_mu": arrays["paf_mu"][:-1]})
    with pytest.raises(ModelFileError, match="number of coordinates is 12489, but 12492"):
        read_bfm_grid(tmp_path / "size.npz")
