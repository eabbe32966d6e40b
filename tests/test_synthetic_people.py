"""SynthFace's people: the same anywhere, human in their measures, and no linear family."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from facenb.morphable.synthetic import MODEL, SynthFace
from facenb.morphable.synthetic.albedo import skin_colour
from facenb.morphable.synthetic.anatomy import ASYMMETRIES, NAMES, RELIEF, draw_parameters, shape_heads
from facenb.morphable.synthetic.head import mean_head
from facenb.morphable.synthetic.topology import EYEBALL, topology

SYNTH = SynthFace(0)
NEUTRAL = torch.zeros(1, len(SYNTH.expression_names))


@pytest.fixture(scope="module")
def heads() -> torch.Tensor:
    return SYNTH.neutrals(list(range(200)))


def fingerprint(seed: int, index: int) -> str:
    """A hash of everything about a person, to a hundredth of a millimetre."""
    synth = SynthFace(seed)
    person = synth.subject(index)
    smile = NEUTRAL.clone()
    smile[0, synth.expression_names.index("smile_left")] = 0.7
    rounded = [np.round(x.numpy(), 2) + 0.0 for x in (person.neutral, person.albedo, synth.shape(person, smile))]
    return hashlib.sha256(b"".join(x.astype(np.float32).tobytes() for x in rounded)).hexdigest()


def test_a_person_is_the_same_in_another_process():
    code = "import test_synthetic_people as t; print(t.fingerprint(3, 11), t.fingerprint(3, 12))"
    there = subprocess.run([sys.executable, "-c", code], cwd=__file__.rsplit("/", 1)[0], capture_output=True, text=True)
    assert there.stdout.split() == [fingerprint(3, 11), fingerprint(3, 12)], there.stderr[-500:]


def test_a_person_does_not_depend_on_order_or_batch(heads):
    assert torch.equal(SYNTH.subject(150).neutral, heads[150])
    assert torch.equal(SYNTH.neutrals([7, 150, 3]), heads[[7, 150, 3]])
    rng = np.random.default_rng(0)
    expression = torch.from_numpy(rng.random((5, NEUTRAL.shape[1])).astype(np.float32)) * 0.6
    person = SYNTH.subject(4)
    together = SYNTH.shape(person, expression)
    for k in range(5):
        torch.testing.assert_close(SYNTH.shape(person, expression[k : k + 1])[0], together[k], atol=1e-4, rtol=0)


def test_seeds_streams_and_subjects_are_different_people(heads):
    others = [SynthFace(1).neutrals([0])[0], SynthFace(0, MODEL).neutrals([0])[0], heads[1]]
    for other in others:
        assert (other - heads[0]).norm(dim=-1).mean() > 1.0


def test_unknown_people_and_expressions_are_refused():
    with pytest.raises(ValueError, match="-1"):
        SYNTH.subject(-1)
    with pytest.raises(ValueError, match="3 expression values"):
        SYNTH.shape(SYNTH.subject(0), torch.zeros(1, 3))


def test_there_are_over_forty_parameters_and_each_matters():
    assert len(NAMES) >= 40
    rest = np.zeros((1, len(NAMES)))
    rest[0, NAMES.index("dorsal_hump")] = 1.0  # without a hump it does not matter where the hump is
    rest, moved = shape_heads(rest), shape_heads(rest + np.eye(len(NAMES)))
    change = np.linalg.norm(moved - rest, axis=-1).max(1)
    weak = [name for name, most in zip(NAMES, change, strict=True) if most < 0.3]
    assert not weak, f"parameters that move nothing by 0.3 mm: {weak}"
    size = change[NAMES.index("size")]
    assert size == pytest.approx(np.linalg.norm(mean_head(), axis=1).max() * np.expm1(0.017 * 1.2), rel=0.03)


def test_parameters_keep_the_symmetry_but_for_those_that_break_it():
    top, rng = topology(), np.random.default_rng(1)
    parameters = rng.normal(size=(1, len(NAMES)))
    parameters[:, [NAMES.index(n) for n in ASYMMETRIES]] = 0
    even = shape_heads(parameters)[0]
    np.testing.assert_allclose(even[top.mirror] * [-1, 1, 1], even, atol=1e-9)
    for name in ASYMMETRIES:
        parameters[0, NAMES.index(name)] = 1.5
        odd = shape_heads(parameters)[0]
        assert np.abs(odd[top.mirror] * [-1, 1, 1] - odd).max() > 0.5, name
        parameters[0, NAMES.index(name)] = 0


def test_parameters_do_not_act_linearly():
    rng = np.random.default_rng(2)
    a, b, zero = rng.normal(size=(3, 1, len(NAMES))) * np.array([1, 1, 0])[:, None, None]
    rest, one, two, both = (shape_heads(x) for x in (zero, a, b, a + b))
    assert np.linalg.norm(both - (one + two - rest), axis=-1).mean() > 0.2  # mm
    assert np.linalg.norm(shape_heads(2 * a) - (2 * one - rest), axis=-1).mean() > 0.2


def test_irregularities_lie_where_they_are_put():
    relief = np.zeros((1, RELIEF, 4))
    relief[:, :, 2] = 10.0
    relief[0, 0] = (40.0, 12.0, 10.0, 2.0)  # one swelling of 2 mm on the viewer's right cheek
    parameters = np.zeros((1, len(NAMES)))
    moved = np.linalg.norm(shape_heads(parameters, relief) - shape_heads(parameters), axis=-1)[0]
    top = topology()
    assert abs(top.azimuth[moved.argmax()] - 40) < 6 and abs(top.level[moved.argmax()] - 12) < 0.6
    assert 1.7 < moved.max() <= 2.0 + 1e-6
    assert moved[top.azimuth < -20].max() < 0.01


# Means and standard deviations in mm: about what surveys of adults of both sexes find (such as Farkas 1994), with room
# for peoples to differ and for where exactly a landmark is set.
MEASURES = {
    "face height, nasion to menton": (27, 8, (110, 124), (4.5, 9)),
    "nose height": (27, 33, (47, 57), (2.5, 6)),
    "mouth width": (48, 54, (47, 55), (2.5, 5.5)),
    "outer canthi": (36, 45, (85, 96), (3, 6.5)),
    "inner canthi": (39, 42, (30, 37), (2, 4.5)),
    "eye width": (36, 39, (26, 33), (1, 2.8)),
    "eye opening": (37, 41, (7.5, 12), (0.7, 2)),
    "philtrum": (33, 51, (11, 19), (1.5, 3.5)),
}


@pytest.mark.parametrize("name", MEASURES)
def test_faces_have_human_measures(name, heads):
    first, second, mean, spread = MEASURES[name]
    points = SYNTH.landmarks.of(heads)
    measured = (points[:, first] - points[:, second]).norm(dim=-1)
    assert mean[0] < measured.mean() < mean[1]
    assert spread[0] < measured.std() < spread[1]


def test_skulls_have_human_measures(heads):
    skull = heads[:, SYNTH.regions["scalp"]]
    above = torch.where(skull[..., 1] > 50, skull[..., 0], 0)
    breadth = above.amax(1) - above.amin(1)
    glabella = heads[:, SYNTH.landmarks.vertices[27, 0], 2]
    length = glabella - skull[..., 2].amin(1)
    assert 148 < breadth.mean() < 162 and 4 < breadth.std() < 8
    assert 180 < length.mean() < 205 and 6 < length.std() < 11


def test_sexes_and_ages_differ_as_people_do(heads):
    traits = np.array([SYNTH.parameters(k)[0] for k in range(200)])
    points = SYNTH.landmarks.of(heads)
    height = (points[:, 27] - points[:, 8]).norm(dim=-1).numpy()
    assert height[traits[:, 0] > 0].mean() > height[traits[:, 0] < 0].mean() + 2
    lips = (points[:, 51] - points[:, 57]).norm(dim=-1).numpy()
    assert np.corrcoef(lips, traits[:, 1])[0, 1] < -0.2  # lips thin with age
    years = 40 + 15 * traits[:, 1]
    assert 17 < years.min() and years.max() < 72


def test_parameters_are_drawn_as_stated():
    drawn = np.array([draw_parameters(np.random.default_rng(k))[1] for k in range(1500)])
    assert np.abs(drawn.mean(0)).max() < 0.25
    assert 0.75 < drawn.std(0).min() and drawn.std(0).max() < 1.1
    assert np.abs(drawn).max() <= 2.4


def test_eyeballs_are_balls_behind_the_lids(heads):
    top = topology()
    for side in ("left", "right"):
        ball = heads[:, SYNTH.regions[f"{side}_eye"]]
        middle = (ball.amax(1) + ball.amin(1)) / 2
        radius = (ball - middle[:, None]).norm(dim=-1)
        assert (radius - 12).abs().max() < 0.5  # the extremes of a ball of few vertices are not quite its own
        skin = torch.from_numpy(np.flatnonzero(top.part < 5))
        pupil = heads[:, top.grid["eye", 1 if side == "left" else -1, 0, 0]]
        centre = pupil - torch.tensor([0.0, 0.0, 12.0])
        assert (heads[:, skin] - centre[:, None]).norm(dim=-1).min() > 12.0
    assert (top.part == EYEBALL).sum() == len(SYNTH.regions["left_eye"]) + len(SYNTH.regions["right_eye"])


def test_skin_has_the_human_range_and_darkens_with_melanin():
    cheeks = SYNTH.regions["cheeks"]
    tones = torch.stack([SYNTH.subject(k).albedo[cheeks].mean(0) for k in range(60)])
    luminance = tones @ torch.tensor([0.2126, 0.7152, 0.0722])
    assert luminance.min() < 0.25 and luminance.max() > 0.65
    assert (tones[:, 0] > tones[:, 1]).all() and (tones[:, 1] > tones[:, 2]).all()  # red > green > blue, as skin is
    ramp = skin_colour(np.linspace(0, 2, 9), np.full(9, 0.3))
    assert (np.diff(ramp, axis=0) < 0).all()
    flushed = skin_colour(np.full(2, 0.3), np.array([0.2, 0.6]))
    assert flushed[1, 1] / flushed[1, 0] < flushed[0, 1] / flushed[0, 0]  # blood reddens


def test_colours_are_where_they_belong():
    regions = SYNTH.regions
    for k in range(20):
        albedo = SYNTH.subject(k).albedo
        assert 0 <= albedo.min() and albedo.max() <= 1
        mean = {name: albedo[index].mean(0) for name, index in regions.items()}
        assert mean["brows"].sum() < mean["forehead"].sum() + 0.05, k
        lips, cheeks = mean["lips"], mean["cheeks"]
        assert lips[1] / lips[0] < cheeks[1] / cheeks[0], f"the lips of {k} are no redder than the cheeks"
        pupil = albedo[topology().grid["eye", 1, 0, 0]]
        assert pupil.max() < 0.05 < albedo[topology().grid["eye", 1, 6, 0]].min()


def test_nothing_turns_inside_out():
    """Triangles keep their side: all of the face, and all but a few folds of the throat under an open mouth."""
    triangles, level = SYNTH.triangles.numpy(), topology().level
    skin = (topology().part[triangles] <= 4).all(1)
    face = skin & (level[triangles] < 17).all(1)
    rest = _normals(SYNTH.mean.numpy(), triangles)
    rng = np.random.default_rng(0)
    folded = total = 0
    for k in range(25):
        expression = (rng.random((4, NEUTRAL.shape[1])) < 0.12) * rng.random((4, NEUTRAL.shape[1]))
        expression[0] = 0
        shapes = SYNTH.shape(SYNTH.subject(k), torch.from_numpy(expression).float()).numpy()
        cosine = (_normals(shapes, triangles) * rest).sum(-1)
        assert (cosine[0, face] > 0).all(), f"subject {k} at rest"
        folded, total = folded + (cosine[:, skin] < 0).sum(), total + cosine[:, skin].size
    assert folded < 1e-3 * total


def _normals(points, triangles):
    a, b, c = (points[..., triangles[:, k], :] for k in range(3))
    normal = np.cross(b - a, c - a)
    return normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
