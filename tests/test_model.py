import os
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.spatial.transform import Rotation

from facenb.errors import ModelFileError
from facenb.morphable import Embedding, Joints, MorphableModel
from facenb.morphable.model import axis_angle_to_matrix

VERTICES, IDENTITY, EXPRESSION = 40, 7, 4


@pytest.fixture
def model() -> MorphableModel:
    """A random model with every part a model can have."""
    generator = torch.Generator().manual_seed(3)
    draw, share = (partial(function, generator=generator) for function in (torch.randn, torch.rand))
    regressor, weights = share(5, VERTICES), share(VERTICES, 5)
    joints = Joints(
        names=("global", "neck", "jaw", "left_eye", "right_eye"),
        parents=(-1, 0, 1, 1, 1),
        regressor=regressor / regressor.sum(1, keepdim=True),
        weights=weights / weights.sum(1, keepdim=True),
        correctives=draw(36, VERTICES, 3),
    )
    triangles = torch.randint(0, VERTICES, (60, 3), generator=generator)
    return MorphableModel(
        name="random",
        mean=50 * draw(VERTICES, 3),
        triangles=triangles,
        identity_basis=draw(IDENTITY, VERTICES, 3),
        expression_basis=draw(EXPRESSION, VERTICES, 3),
        landmarks=Embedding(triangles[:20], share(20, 3)),
        expression_names=("smile", "jawOpen", "blink", "frown"),
        albedo_mean=share(VERTICES, 3),
        albedo_basis=0.1 * draw(3, VERTICES, 3),
        uv=share(50, 2),
        uv_triangles=torch.randint(0, 50, (60, 3), generator=generator),
        regions={"nose": torch.arange(5), "landmark.nose.tip": torch.tensor([3])},
        joints=joints,
        contour=torch.randint(0, VERTICES, (17, 6), generator=generator),
        source="made up, no licence",
    )


def tensors_of(item, prefix=""):
    """Every tensor in a model by its dotted name."""
    found = {}
    for spec in fields(item):
        value = getattr(item, spec.name)
        if isinstance(value, torch.Tensor):
            found[prefix + spec.name] = value
        elif isinstance(value, dict):
            found |= {f"{prefix}{spec.name}.{name}": part for name, part in value.items()}
        elif isinstance(value, (Embedding, Joints)):
            found |= tensors_of(value, f"{spec.name}.")
    return found


# rotations and embeddings


def test_axis_angle_agrees_with_scipy_also_near_zero_and_beyond_half_a_turn():
    vectors = torch.randn(50, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = torch.cat([vectors * 3, vectors * 1e-9, torch.zeros(1, 3, dtype=torch.float64)])
    expected = Rotation.from_rotvec(vectors.numpy()).as_matrix()
    np.testing.assert_allclose(axis_angle_to_matrix(vectors).numpy(), expected, atol=1e-12)


def test_axis_angle_has_a_finite_and_right_gradient_at_zero():
    at_zero = torch.autograd.functional.jacobian(axis_angle_to_matrix, torch.zeros(3))
    assert torch.allclose(at_zero[..., 0], torch.tensor([[0.0, 0, 0], [0, 0, -1], [0, 1, 0]]))


def test_embedding_weighs_vertices_of_meshes_and_bases(model):
    corners = model.mean[model.landmarks.vertices]
    expected = torch.einsum("pcx,pc->px", corners, model.landmarks.weights)
    assert torch.allclose(model.landmarks.of(model.mean), expected, atol=1e-4)
    assert model.landmarks.of(model.identity_basis).shape == (IDENTITY, 20, 3)
    assert torch.equal(Embedding.at([4, 0]).of(model.mean), model.mean[[4, 0]])


# shape and albedo


def test_shape_is_mean_plus_weighted_rows(model):
    identity, expression = torch.randn(3, IDENTITY), torch.randn(3, EXPRESSION)
    moved = torch.einsum("bk,kvc->bvc", identity, model.identity_basis)
    expected = model.mean + moved + torch.einsum("bk,kvc->bvc", expression, model.expression_basis)
    torch.testing.assert_close(model.shape(identity, expression), expected, rtol=0, atol=1e-4)


def test_shape_without_coefficients_is_the_mean_and_few_coefficients_use_the_first_rows(model):
    assert torch.equal(model.shape(), model.mean[None])
    few = torch.randn(2, 3)
    padded = torch.cat([few, torch.zeros(2, IDENTITY - 3)], 1)
    assert torch.allclose(model.shape(few), model.shape(padded), atol=1e-5)


@pytest.mark.parametrize("sizes", [(1, 5, 1), (5, 1, 1), (1, 1, 5), (5, 5, 5)])
def test_a_batch_of_one_is_shared(model, sizes):
    identity, expression = torch.randn(sizes[0], IDENTITY), torch.randn(sizes[1], EXPRESSION)
    pose = 0.3 * torch.randn(sizes[2], 5, 3)
    together = model.shape(identity, expression, pose)
    assert together.shape == (5, VERTICES, 3)
    for i in range(5):
        one = [part[min(i, len(part) - 1)][None] for part in (identity, expression, pose)]
        assert torch.allclose(together[i], model.shape(*one)[0], atol=1e-3)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda model: model.shape(torch.zeros(1, 8)), "random has 7 identity components, but 8 coefficients"),
        (lambda model: model.shape(None, torch.zeros(1, 9)), "4 expression components, but 9"),
        (lambda model: model.albedo(torch.zeros(1, 4)), "random has 3 albedo components, but 4 coefficients"),
        (lambda model: model.shape(pose=torch.zeros(1, 2, 3)), "2 rotations, 5 are needed"),
        (lambda model: replace(model, joints=None).shape(pose=torch.zeros(1, 5, 3)), "no joints.*turn the head"),
        (lambda model: replace(model, albedo_mean=None).albedo(), "no albedo"),
    ],
)
def test_too_many_coefficients_and_impossible_poses_are_refused(model, use, message):
    with pytest.raises(ValueError, match=message):
        use(model)


def test_albedo_is_mean_plus_weighted_rows(model):
    assert torch.equal(model.albedo(), model.albedo_mean[None])
    coefficients = torch.tensor([[2.0, -1.0]])
    expected = model.albedo_mean + 2 * model.albedo_basis[0] - model.albedo_basis[1]
    assert torch.allclose(model.albedo(coefficients)[0], expected, atol=1e-6)


# skinning (against smplx: test_formats_flame.py)


def test_skinning_by_the_root_alone_is_a_rotation_about_the_root(model):
    pose = torch.zeros(1, 5, 3)
    pose[0, 0] = torch.tensor([0.2, -0.5, 0.9])
    root = model.joints.regressor[0] @ model.mean
    expected = (model.mean - root) @ axis_angle_to_matrix(pose[0, 0]).T + root
    assert torch.allclose(model.shape(pose=pose)[0], expected, atol=1e-3)
    assert torch.allclose(model.shape(pose=torch.zeros(1, 5, 3))[0], model.mean, atol=1e-4)


# sampling, variance


def test_samples_are_standard_normal_and_repeat_with_the_generator(model):
    identity, expression = model.sample(20000, torch.Generator().manual_seed(5))
    together = torch.cat([identity, expression], 1)
    assert together.mean(0).abs().max() < 0.03
    assert (torch.cov(together.T) - torch.eye(IDENTITY + EXPRESSION)).abs().max() < 0.05
    again, _ = model.sample(20000, torch.Generator().manual_seed(5))
    assert torch.equal(identity, again)
    neutral = model.sample(3, expression=False)[1]
    assert torch.equal(neutral, torch.zeros(3, EXPRESSION))


def test_explained_variance_of_a_pca_is_that_of_numpys_svd(model):
    data = np.random.default_rng(0).normal(size=(30, 3 * VERTICES)) @ np.diag(np.linspace(3, 0.1, 3 * VERTICES))
    data -= data.mean(0)
    _, singular, right = np.linalg.svd(data, full_matrices=False)
    rows = (singular[:IDENTITY, None] * right[:IDENTITY]).reshape(IDENTITY, VERTICES, 3)
    pca = replace(model, identity_basis=torch.tensor(rows, dtype=torch.float32))
    expected = np.cumsum(singular[:IDENTITY] ** 2) / np.sum(singular[:IDENTITY] ** 2)
    np.testing.assert_allclose(pca.explained_variance().numpy(), expected, atol=1e-6)


def test_explained_variance_of_overlapping_components_is_what_projection_leaves(model):
    basis = model.identity_basis.clone()
    basis[1:] += 0.7 * basis[:-1]  # far from orthogonal
    overlapping = replace(model, identity_basis=basis)
    faces = overlapping.sample(20000, torch.Generator().manual_seed(2))[0].numpy() @ basis.flatten(1).numpy()
    explained = overlapping.explained_variance().numpy()
    for k in range(1, IDENTITY + 1):
        span, _ = np.linalg.qr(basis[:k].flatten(1).numpy().T)
        left = faces - faces @ span @ span.T
        assert abs(1 - (left**2).sum() / (faces**2).sum() - explained[k - 1]) < 0.01
    assert explained[-1] == pytest.approx(1)


# devices and files


@pytest.mark.parametrize(
    "device",
    ["meta", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)
def test_every_tensor_moves_to_the_device(model, device):
    moved = tensors_of(model.to(device))
    assert moved.keys() == tensors_of(model).keys()
    assert {tensor.device.type for tensor in moved.values()} == {device}
    assert model.device.type == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_computes_what_the_cpu_computes(model):
    identity, expression = model.sample(4, torch.Generator().manual_seed(0))
    pose = 0.3 * torch.randn(4, 5, 3)
    there = model.to("cuda")
    shapes = there.shape(identity.cuda(), expression.cuda(), pose.cuda())
    torch.testing.assert_close(shapes.cpu(), model.shape(identity, expression, pose), rtol=0, atol=1e-3)


@pytest.mark.parametrize("bare", [False, True])
def test_a_model_survives_its_file(model, bare, tmp_path):
    if bare:
        model = MorphableModel("bare", *(getattr(model, spec.name) for spec in fields(model)[1:6]))
    path = model.save(tmp_path / "new" / "model.safetensors")
    loaded = MorphableModel.load(path)
    ours, theirs = tensors_of(model), tensors_of(loaded)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in ours)
    assert all(getattr(loaded, name) == getattr(model, name) for name in ("name", "source", "expression_names"))
    assert bare or (loaded.joints.names, loaded.joints.parents) == (model.joints.names, model.joints.parents)
    assert (loaded.joints is None) == bare
    assert os.listdir(path.parent) == ["model.safetensors"]


def test_a_file_that_is_no_model_is_refused(tmp_path):
    save_file({"weight": torch.zeros(3)}, tmp_path / "network.safetensors")
    with pytest.raises(ModelFileError, match="network.safetensors holds 'no kind known here', not 'MorphableModel 2'"):
        MorphableModel.load(tmp_path / "network.safetensors")
