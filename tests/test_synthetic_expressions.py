"""Expressions and wrinkles: the jaw turns on its hinge, lids close, wrinkles move with the muscles."""

import numpy as np
import pytest
import torch

from facenb.morphable.synthetic import SynthFace
from facenb.morphable.synthetic.expressions import JAW_ANGLE, expression_masks
from facenb.morphable.synthetic.topology import EYE, topology
from facenb.morphable.synthetic.wrinkles import DEEPEST

SYNTH = SynthFace(0)
PERSON = SYNTH.subject(2)
NAMES = SYNTH.expression_names


def face(wrinkles: bool = False, **values: float) -> torch.Tensor:
    expression = torch.zeros(1, len(NAMES))
    for name, value in values.items():
        expression[0, NAMES.index(name)] = value
    return SYNTH.shape(PERSON, expression, wrinkles)[0]


def landmarks(**values: float) -> torch.Tensor:
    return SYNTH.landmarks.of(face(**values))


def test_no_expression_is_the_neutral_face():
    assert len(NAMES) >= 12
    torch.testing.assert_close(face(), PERSON.neutral, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_expression_moves_the_face(name):
    moved = (face(**{name: 1.0}) - face()).norm(dim=-1)
    skull = torch.from_numpy(np.flatnonzero(topology().level < 4))
    assert moved.max() > 1.5
    assert moved[skull].max() < 0.05


def test_the_jaw_turns_as_a_rigid_body_about_its_hinge():
    rest, opened = face(), face(jaw_open=1.0)
    inside = {int(i) for i in SYNTH.regions["mouth_inside"]}
    mandible = np.flatnonzero(expression_masks()["jaw"] > 0.9995)
    mandible = torch.tensor([int(i) for i in mandible if i not in inside])
    assert len(mandible) > 40
    a, b = rest[mandible].double(), opened[mandible].double()
    torch.testing.assert_close(torch.cdist(b, b), torch.cdist(a, a), atol=0.05, rtol=0)
    u, _, v = torch.linalg.svd((a - a.mean(0)).T @ (b - b.mean(0)))
    angle = torch.arccos((((u @ v).trace() - 1) / 2).clamp(-1, 1))
    assert angle == pytest.approx(JAW_ANGLE, abs=0.01)
    fixed = torch.from_numpy(np.flatnonzero(expression_masks()["jaw"] < 1e-5))
    fixed = torch.tensor([i for i in fixed.tolist() if i not in inside])
    torch.testing.assert_close(opened[fixed], rest[fixed], atol=1e-4, rtol=0)


def test_the_mouth_opens_and_shows_its_inside():
    closed, opened = landmarks(), landmarks(jaw_open=1.0)
    assert (closed[62] - closed[66]).norm() < 1.0
    assert 25 < (opened[62] - opened[66]).norm() < 60  # mm; people open their mouths about 45 mm wide
    for left, right in ((60, 64), (48, 54)):
        assert abs((opened[left] - opened[right]).norm() - (closed[left] - closed[right]).norm()) < 4


@pytest.mark.parametrize("side, column", [("left", 1), ("right", -1)])
def test_a_blink_closes_the_lids_of_one_eye(side, column):
    top, rest, shut = topology(), face(), face(**{f"blink_{side}": 1.0})
    for c in range(EYE[0] + 2, EYE[1] - 1):
        upper, lower = (top.grid[(top.eye_row, column * c, *tag)] for tag in ((), ("lower",)))
        assert (shut[upper] - shut[lower]).norm() < 1.0 or (shut[upper] - shut[lower]).norm() < 0.2 * (
            rest[upper] - rest[lower]
        ).norm()
    other = -column
    upper = top.grid[top.eye_row, other * 14]
    torch.testing.assert_close(shut[upper], rest[upper], atol=1e-4, rtol=0)


def test_muscles_pull_the_way_they_should():
    rest = landmarks()
    smile, frown, pucker = landmarks(smile_left=1.0), landmarks(frown=1.0), landmarks(pucker=1.0)
    assert smile[54, 1] > rest[54, 1] + 5 and smile[54, 0] > rest[54, 0] + 4  # the person's left is at +x
    assert (smile[48] - rest[48]).norm() < 1.5
    assert frown[48, 1] < rest[48, 1] - 4 and frown[54, 1] < rest[54, 1] - 4
    assert pucker[54, 0] - pucker[48, 0] < 0.75 * (rest[54, 0] - rest[48, 0])
    assert pucker[51, 2] > rest[51, 2] + 3
    raised, lowered = landmarks(brow_raise_left=1.0), landmarks(brow_lower=1.0)
    assert (raised[22:27, 1] > rest[22:27, 1] + 1.5).all() and (raised[17:21] - rest[17:21]).norm(dim=-1).max() < 1
    assert (lowered[[19, 21, 22, 24], 1] < rest[[19, 21, 22, 24], 1] - 1.5).all()
    stretched = landmarks(stretch=1.0)
    assert stretched[54, 0] - stretched[48, 0] > rest[54, 0] - rest[48, 0] + 8


def test_expressions_do_not_add_up():
    both = face(smile_left=1.0, pucker=1.0) - face()
    apart = face(smile_left=1.0) + face(pucker=1.0) - 2 * face()
    assert (both - apart).norm(dim=-1).max() > 2
    half = face(jaw_open=0.5) - face()
    assert (face(jaw_open=1.0) - face() - 2 * half).norm(dim=-1).max() > 1  # points move on circles


def test_wrinkles_are_along_the_normals_and_bounded():
    rng = np.random.default_rng(0)
    expression = torch.from_numpy(rng.random((6, len(NAMES))).astype(np.float32))
    depth = SYNTH.wrinkles(PERSON, expression)
    plain, creased = SYNTH.shape(PERSON, expression, False), SYNTH.shape(PERSON, expression)
    torch.testing.assert_close((creased - plain).norm(dim=-1), depth.abs(), atol=1e-3, rtol=0)
    assert depth.abs().max() <= DEEPEST
    assert depth.min() < -0.2


@pytest.mark.parametrize(
    "muscle, region, side",
    [("brow_raise_left", "forehead", 1), ("brow_raise_right", "forehead", -1), ("smile_left", "cheeks", 1),
     ("brow_lower", "face", 0), ("sneer", "nose", 0)],
)  # fmt: skip
def test_wrinkles_deepen_with_their_muscle(muscle, region, side):
    expression = torch.zeros(2, len(NAMES))
    expression[1, NAMES.index(muscle)] = 1.0
    rest, moved = SYNTH.wrinkles(PERSON, expression)
    where = SYNTH.regions[region]
    change = (moved - rest)[where]
    assert change.min() < -0.15  # mm deeper
    if side:
        x = SYNTH.mean[where, 0] * side
        assert change[x > 12].min() < 3 * change[x < -12].min() - 0.1


def test_wrinkles_deepen_with_age_and_are_the_persons_own():
    people = [SYNTH.subject(k) for k in range(40)]
    neutral = torch.zeros(1, len(NAMES))
    depth = torch.tensor([float(SYNTH.wrinkles(p, neutral).abs().max()) for p in people])
    age = torch.tensor([p.traits["age"] for p in people])
    assert torch.corrcoef(torch.stack([depth, age]))[0, 1] > 0.7
    old = sorted(people, key=lambda p: -p.traits["age"])[:2]
    first, second = (SYNTH.wrinkles(p, neutral)[0] for p in old)
    assert torch.corrcoef(torch.stack([first, second]))[0, 1] < 0.95
