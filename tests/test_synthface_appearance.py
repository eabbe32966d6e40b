"""How SynthFace's people look: the atlas, skin, hair and wrinkles."""

import runpy
from pathlib import Path

import igl
import numpy as np
import pytest
import torch

from facenb.imaging.raster import rasterize
from facenb.synthface import atlas, hair, skin, wrinkles
from facenb.synthface.expressions import EXPRESSIONS
from facenb.synthface.heads import load_heads, mean_head
from facenb.synthface.people import SynthFace

SYNTH, HEADS = SynthFace(0), load_heads()
PEOPLE = [SYNTH.subject(k) for k in range(60)]
SMALL = 208


def expression(**values: float) -> torch.Tensor:
    row = torch.zeros(1, len(EXPRESSIONS))
    for name, value in values.items():
        row[0, EXPRESSIONS.index(name)] = value
    return row


def test_the_face_has_two_texels_per_mm():
    """Smallest singular value of each triangle's map from mm to texels, over the area of the face."""
    points, texels = mean_head()[HEADS.triangles], HEADS.uv[HEADS.uv_triangles] * atlas.SIZE
    front = np.isin(HEADS.triangles, SYNTH.regions["face"]).all(1)
    points, texels = points[front], texels[front].astype(float)
    first, second = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    normal = np.cross(first, second)
    area = np.linalg.norm(normal, axis=1)
    x = first / np.linalg.norm(first, axis=1, keepdims=True)
    y = np.cross(normal / area[:, None], x)
    flat = np.stack([np.stack([(e * axis).sum(1) for e in (first, second)], -1) for axis in (x, y)], 1)
    edges = np.stack([texels[:, 1] - texels[:, 0], texels[:, 2] - texels[:, 0]], -1)
    density = np.linalg.svd(edges @ np.linalg.inv(flat), compute_uv=False)
    assert area[density[:, 1] >= 2].sum() / area.sum() > 0.9
    assert area[density.prod(1) >= 4].sum() / area.sum() > 0.93


def test_charts_do_not_overlap_and_keep_their_orientation():
    """Where two triangles cover a texel, the rasteriser's answer depends on their order."""
    at = np.stack([HEADS.uv[:, 0], 1 - HEADS.uv[:, 1], np.ones(len(HEADS.uv))], -1)[None] * (atlas.SIZE, atlas.SIZE, 1)
    at, corners = torch.from_numpy(at).float(), torch.from_numpy(HEADS.uv_triangles)
    size = (atlas.SIZE, atlas.SIZE)
    first = rasterize(at, corners, size).triangle
    last = rasterize(at, corners.flip(0), size).triangle
    covered = first >= 0
    assert torch.equal(first[covered], len(corners) - 1 - last[covered])
    a, b, c = (HEADS.uv[HEADS.uv_triangles[:, k]].astype(float) for k in range(3))
    turn = np.linalg.det(np.stack([b - a, c - a], -1))
    skin_only = HEADS.component[HEADS.triangles[:, 0]] == atlas.SKIN
    assert (turn[skin_only] > 0).all()
    for box in (atlas.HAIR, atlas.CLOTH):
        assert not covered[0][atlas.tile(box, atlas.SIZE)].any()


def test_skin_is_darker_with_more_melanin_and_redder_with_more_blood():
    tones = skin.skin_colour(np.linspace(0, 2, 9), np.full(9, 0.3))
    assert (np.diff(tones, axis=0) < 0).all() and (tones[:, 0] > tones[:, 2]).all()
    pale, flushed = skin.skin_colour(np.array([0.2, 0.2]), np.array([0.1, 0.6]))
    assert flushed[0] / flushed[1] > pale[0] / pale[1]


def test_colouring_goes_with_ancestry_sex_and_age():
    melanin = np.array([p.look.melanin for p in PEOPLE])
    african = np.array([p.traits["african"] for p in PEOPLE])
    assert np.corrcoef(melanin, african)[0, 1] > 0.7 and melanin.min() < 0.2 and melanin.max() > 0.9
    female = np.array([p.traits["sex"] > 0.5 for p in PEOPLE])
    assert all((p.look.beard == 0) == f for p, f in zip(PEOPLE, female, strict=True))
    assert all(p.look.recession == 0 for p, f in zip(PEOPLE, female, strict=True) if f)
    greyness = np.array([1 - np.ptp(p.look.hair) / p.look.hair.max() for p in PEOPLE])
    age = np.array([p.traits["age"] for p in PEOPLE])
    assert greyness[age > 60].mean() > greyness[age < 30].mean() + 0.1


def test_textures_are_colours_and_belong_to_the_person():
    first, again, other = (skin.paint(PEOPLE[k].look, SMALL) for k in (0, 0, 1))
    assert first.shape == (SMALL, SMALL, 3) and first.dtype == np.float32
    assert first.min() > 0 and first.max() < 1
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02


def test_a_smaller_texture_is_about_the_average_of_a_large_one():
    large, small = skin.paint(PEOPLE[2].look, 2 * SMALL), skin.paint(PEOPLE[2].look, SMALL)
    averaged = large.reshape(SMALL, 2, SMALL, 2, 3).mean((1, 3))
    assert np.abs(averaged - small).mean() < 0.01


def test_only_beard_and_make_up_change_between_photographs():
    generator = np.random.default_rng(0)
    for person in PEOPLE[:6]:
        bare = skin.paint(person.look, SMALL)
        days = [skin.dress(bare, person.look, skin.Styling.draw(person.look, generator), "bald") for _ in range(4)]
        at = skin.layers(SMALL)
        eyes = at["part"] == atlas.EYE
        forehead = (at["front"] > 0.9) & (at["y"] > 35) & (at["y"] < 60)
        for day in days:
            np.testing.assert_allclose(day[eyes | forehead], bare[eyes | forehead], atol=1e-4)
    assert np.abs(np.diff([day.mean() for day in days])).max() > 1e-4


@pytest.mark.parametrize("name", hair.STYLES)
def test_hair_lies_outside_the_head(name):
    growth = hair.grow(hair.STYLES.index(name))
    template = atlas.template()
    strands = growth.points[: 2 * hair.RIBBONS * (hair.STEPS + 1)]
    strands = strands[np.isfinite(strands).all(1)]
    if name in ("bald", "buzz"):
        assert len(strands) == 0
        return
    skin_triangles = HEADS.triangles[HEADS.component[HEADS.triangles[:, 0]] == atlas.SKIN]
    distance, face, closest = igl.point_mesh_squared_distance(strands, template, skin_triangles)
    a, b, c = (template[skin_triangles[face, k]] for k in range(3))
    inside = ((strands - closest) * np.cross(b - a, c - a)).sum(1) < 0
    deep = inside & (np.sqrt(distance) > 4.0) & (np.abs(strands[:, 0]) < 70)  # not: within the ears
    assert deep.mean() < 0.03
    roots = strands.reshape(-1, hair.STEPS + 1, 2, 3)[:, 0].mean(1)
    assert (skin.into_hair(roots) > -8).mean() > 0.8


@pytest.mark.parametrize("name", ["afro", "pony tail"])
def test_stored_hair_is_what_the_script_grows(name):
    points, tint = runpy.run_path(str(Path(__file__).parents[1] / "bake/hair.py"))["grow"](name)
    stored = hair.grow(hair.STYLES.index(name))
    np.testing.assert_allclose(stored.points, points, rtol=0, atol=1e-4)
    np.testing.assert_allclose(stored.tint, tint, rtol=1e-3)


def test_mirrored_hair_is_the_mirror_image():
    plain, mirrored = (hair.grow(hair.STYLES.index("side part") + k) for k in (0, len(hair.STYLES)))
    count = 2 * hair.RIBBONS * (hair.STEPS + 1)
    swapped = mirrored.points[:count].reshape(-1, 2, 3)[:, ::-1].reshape(-1, 3) * (-1, 1, 1)
    np.testing.assert_allclose(swapped, plain.points[:count])


def test_hair_follows_the_head():
    growth = hair.grow(hair.STYLES.index("crop"))
    at_rest, moved = hair.follow(growth, mean_head()), hair.follow(growth, mean_head() + (3.0, -2.0, 5.0))
    np.testing.assert_allclose(moved - at_rest, np.broadcast_to((3.0, -2.0, 5.0), at_rest.shape), atol=1e-3)


def test_people_change_their_hair_and_many_styles_are_worn():
    styles = [hair.choose(p.traits, p.look.recession, SYNTH.generator(p.index, 11)) for p in PEOPLE]
    assert len({name for worn in styles for name in worn}) >= 10
    assert np.mean([len(set(worn)) > 1 for worn in styles]) > 0.7


def test_wrinkles_are_grooves_that_move_with_the_expression():
    person = PEOPLE[int(np.argmax([p.traits["age"] for p in PEOPLE]))]
    young = PEOPLE[int(np.argmin([p.traits["age"] for p in PEOPLE]))]
    rest, smile = expression(), expression(mouthSmileLeft=1.0)
    depth = wrinkles.displacement(SYNTH, person, rest, SMALL)[0].numpy()
    assert -wrinkles.DEEPEST <= depth.min() < -0.3 and depth.max() < 0.3
    assert np.abs(depth).mean() > 2 * wrinkles.displacement(SYNTH, young, rest, SMALL).abs().mean()
    change = np.abs(wrinkles.displacement(SYNTH, person, smile, SMALL)[0].numpy() - depth)
    x = skin.layers(SMALL)["x"]
    assert change[x > 12].max() > 0.2 and change[x < -12].max() < 1e-6  # left is x > 0
    raised = np.abs(wrinkles.displacement(SYNTH, person, expression(browInnerUp=1.0), SMALL)[0].numpy() - depth)
    y = skin.layers(SMALL)["y"]
    assert raised[y > 25].max() > 0.2 and raised[y < 10].max() < 1e-6


def test_values_at_vertices_are_those_of_the_map():
    both = torch.cat([expression(), expression(browDownLeft=1.0, browDownRight=1.0)])
    maps = wrinkles.displacement(SYNTH, PEOPLE[3], both)
    values = atlas.at_vertices(maps[..., None])[..., 0]
    assert values.shape == (2, len(SYNTH.mean))
    vertex_uv = np.zeros((len(HEADS.component), 2))
    vertex_uv[HEADS.triangles] = HEADS.uv[HEADS.uv_triangles]
    assert maps.amin() - 1e-6 <= values.amin() and values.amax() <= maps.amax() + 1e-6
    size = maps.shape[1]
    column, row = (vertex_uv * (1, -1) + (0, 1)).T * size - 0.5
    nearest = maps[:, np.rint(row).clip(0, size - 1).astype(int), np.rint(column).clip(0, size - 1).astype(int)]
    assert (values - nearest).abs().median() < 0.02
