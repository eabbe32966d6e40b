"""Motion: what is lent and what stays, and morph targets that give the face back."""

import pytest
import torch
from test_deca import NARROW

from facenb.methods.deca.animate import at_rest, detailed_mesh, facing, morph_targets, moved_as, with_values
from facenb.methods.deca.scene import posed, window_of
from facenb.networks.deca import Deca


@pytest.fixture(scope="module")
def network(stage):
    torch.manual_seed(0)
    options = {"channels": (4, 3, 2), "reach": 1.0, "window": window_of(stage.model)}
    return Deca(stage.layout, NARROW, 16, 8, options).eval()


def vectors(stage, count):
    return torch.randn(count, stage.layout.size, generator=torch.Generator().manual_seed(count))


def test_expression_and_jaw_are_the_others_and_all_else_stays(stage):
    own, other = vectors(stage, 1), vectors(stage, 3)
    parts = stage.layout.split(moved_as(stage, own, other))
    mine, theirs = stage.layout.split(own), stage.layout.split(other)
    for name, value in parts.items():
        lent = name in ("expression", "jaw_pose")
        assert torch.equal(value, theirs[name] if lent else mine[name].expand(3, -1)), name


def test_facing_and_at_rest(stage):
    parts = stage.layout.split(at_rest(stage, vectors(stage, 1)))
    zero = {name for name, value in parts.items() if value.abs().max() == 0}
    assert zero == {"global_pose", "expression", "jaw_pose"}
    assert stage.layout.split(facing(stage.layout, vectors(stage, 2)))["jaw_pose"].abs().min() > 0


def test_wrinkles_follow_the_expression(stage, network):
    flat, code = vectors(stage, 1), torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    several = torch.cat([with_values(stage, flat, {}), with_values(stage, flat, {"mouthFrownLeft": 1.0})])
    smooth = stage.fine.at(posed(stage.model, stage.layout, several))
    relief = detailed_mesh(network, stage, several, code) - smooth
    depth = relief.norm(dim=-1)
    assert depth.max() <= 1.0 + 1e-5 and (depth[0] - depth[1]).abs().max() > 0


def test_a_morph_target_in_full_is_the_face_itself(stage, network):
    flat, code = vectors(stage, 1), torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    rest, targets = morph_targets(network, stage, flat, code)
    assert list(targets) == ["jaw", *stage.model.expression_names]
    for name in ("jaw", "mouthPucker"):
        expected = detailed_mesh(network, stage, with_values(stage, flat, {name: 1.0}), code)[0]
        torch.testing.assert_close(rest + targets[name], expected, atol=1e-3, rtol=1e-4)


def test_an_unknown_expression(stage):
    with pytest.raises(ValueError, match="'wink'"):
        with_values(stage, vectors(stage, 1), {"wink": 1.0})
