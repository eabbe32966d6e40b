"""SynthFace's people: the same anywhere, symmetric at rest, and moving as faces do."""

import runpy
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from facenb.assets import asset
from facenb.errors import AssetError
from facenb.morphable.formats.ict import read_ict
from facenb.synthface.expressions import EXPRESSIONS
from facenb.synthface.heads import lid_rims, load_heads, mean_head, regions
from facenb.synthface.people import SUBJECTS, SynthFace

GOLDEN = Path(__file__).parent / "data" / "synthface_people.npz"
SYNTH = SynthFace(0)
HEADS = load_heads()


def expression(**values: float) -> torch.Tensor:
    """One row of expression values; a name without its side sets both sides."""
    row = torch.zeros(1, len(EXPRESSIONS))
    for name, value in values.items():
        for k, full in enumerate(EXPRESSIONS):
            if full in (name, f"{name}Left", f"{name}Right"):
                row[0, k] = value
    return row


@pytest.fixture(scope="module")
def measuring() -> dict:
    """The names of the script that measured the landmarks."""
    return runpy.run_path(str(Path(__file__).parents[1] / "bake/landmarks.py"))


def golden() -> dict[str, np.ndarray]:
    """Every 15th vertex of three people, at rest and with two expressions."""
    mixed = torch.cat([expression(mouthSmile=0.8, jawOpen=0.4, eyeBlinkLeft=1.0), expression(browDown=1.0)])
    vertices = {}
    for seed, index in ((0, 0), (0, 20_007), (3, 5)):
        synth = SynthFace(seed)
        subject = synth.subject(index)
        heads = torch.cat([subject.neutral[None], synth.shape(subject, mixed)])
        vertices[f"{seed}-{index}"] = heads[:, ::15].numpy()
    return vertices


class TestSameAnywhere:
    def test_golden_vertices(self):
        stored = np.load(GOLDEN)
        for name, vertices in golden().items():
            np.testing.assert_allclose(vertices, stored[name], rtol=0, atol=1e-4)

    def test_in_any_order_and_batch(self):
        heads = SYNTH.neutrals([4, 2, 9])
        assert torch.equal(heads[1], SynthFace(0).subject(2).neutral)
        assert torch.equal(SYNTH.neutrals([9])[0], heads[2])

    def test_in_another_process(self):
        code = "from facenb.synthface.people import SynthFace; print(SynthFace(1).subject(6).neutral.double().sum())"
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert printed.strip() == str(SynthFace(1).subject(6).neutral.double().sum())

    def test_other_numbers_other_people(self):
        heads = [*SYNTH.neutrals([0, 1]), SynthFace(1).neutrals([0])[0]]
        assert all((a - b).norm(dim=1).mean() > 1.0 for a, b in combinations(heads, 2))

    def test_a_negative_number_is_refused(self):
        with pytest.raises(ValueError, match="non-negative"):
            SYNTH.subject(-1)


def test_ranges_of_subjects_never_meet():
    assert set(SUBJECTS) == {"exercises", "model", "training", "validation", "test"}
    assert not any(set(a) & set(b) for a, b in combinations(SUBJECTS.values(), 2))


class TestMesh:
    def test_mean_is_symmetric(self):
        mean = mean_head()
        np.testing.assert_allclose(mean[HEADS.mirror] * (-1, 1, 1), mean, atol=1e-4)
        mirrored = {tuple(sorted(t)) for t in HEADS.mirror[HEADS.triangles].tolist()}
        assert mirrored == {tuple(sorted(t)) for t in HEADS.triangles.tolist()}

    def test_every_edge_has_one_triangle_on_each_side(self):
        edges = np.concatenate([HEADS.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        assert len(np.unique(edges, axis=0)) == len(edges)

    def test_landmarks_are_symmetric(self, measuring):
        marks = SYNTH.landmarks.of(SYNTH.mean)
        flipped = marks[measuring["MIRRORED"]] * torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(flipped, marks, atol=1e-2, rtol=0)

    def test_landmarks_lie_in_their_regions(self):
        nearest = SYNTH.landmarks.vertices.gather(1, SYNTH.landmarks.weights.argmax(1, keepdim=True))[:, 0]
        for name, marks in {"lips": range(48, 68), "eyelids": range(36, 48), "nose": range(28, 34)}.items():
            assert set(nearest[list(marks)].tolist()) <= set(SYNTH.regions[name].tolist())

    def test_regions_and_lids_are_those_that_the_script_finds(self, measuring):
        for name, vertices in measuring["find_regions"]().items():
            np.testing.assert_array_equal(vertices, regions()[name])
        for eye, stored in zip(measuring["find_lid_rims"](), lid_rims(), strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(eye, stored, strict=True))

    def test_landmarks_against_those_of_ict_facekit(self, measuring):
        try:
            model = read_ict(asset("ict-facekit") / "ict_face_head_11248.npz")
        except AssetError as error:
            pytest.skip(str(error))
        vertices, weights, distances = measuring["measure"](model)
        assert distances[17:].mean() < 3.0  # the jaw line follows 300W instead
        measured = (mean_head()[vertices] * weights[..., None]).sum(1)
        np.testing.assert_allclose(SYNTH.landmarks.of(SYNTH.mean), measured, atol=0.5)


class TestExpressions:
    @pytest.mark.parametrize("index", [0, 3, 11])
    def test_a_blink_closes_the_eyes(self, index):
        subject = SYNTH.subject(index)
        closed = SYNTH.shape(subject, expression(eyeBlink=1.0))[0].numpy()
        for upper, lower in lid_rims():
            gap = closed[upper, 1] - np.interp(closed[upper, 0], closed[lower, 0], closed[lower, 1])
            assert np.abs(gap).max() < 1.5 and abs(gap.mean()) < 0.5

    def test_the_jaw_turns_on_its_hinge(self):
        subject, teeth = SYNTH.subject(1), HEADS.part("lower_teeth")
        opened = SYNTH.shape(subject, torch.cat([expression(jawOpen=v) for v in (0.0, 0.5, 1.0)]))[:, teeth, 1:]
        spread = torch.pdist(opened[0])
        for points in opened[1:]:
            torch.testing.assert_close(torch.pdist(points), spread, atol=1e-3, rtol=0)
        steps = (opened[1:] - opened[:-1]).norm(dim=-1)
        chord = (opened[2] - opened[0]).norm(dim=-1)
        assert (steps.sum(0) > chord + 0.05).all()  # an arc is longer than its chord

    def test_eyeballs_and_upper_teeth_stay(self):
        subject = SYNTH.subject(2)
        moved = SYNTH.shape(subject, torch.eye(len(EXPRESSIONS))) - subject.neutral
        for name in ("eye", "upper_teeth"):
            assert moved[:, HEADS.part(name)].abs().max() < 1e-4

    def test_nothing_moves_at_zero(self):
        subject = SYNTH.subject(5)
        torch.testing.assert_close(SYNTH.shape(subject, expression())[0], subject.neutral, atol=1e-4, rtol=0)

    def test_people_move_differently(self):
        smiles = [
            SYNTH.shape(SYNTH.subject(k), expression(mouthSmile=1.0))[0] - SYNTH.subject(k).neutral for k in (0, 1)
        ]
        assert (smiles[0] - smiles[1]).norm(dim=1).max() > 1.0


if __name__ == "__main__":  # after a change of the people that is meant
    np.savez_compressed(GOLDEN, **golden())
