"""Clear and occluded pictures in pairs."""

import pytest
import torch
from test_occlusion import landmarks as landmarks_of_a_face

from facenb.datasets.sets.faces import FaceSet
from facenb.datasets.sets.occluded import CLEAR, Copies, join_faces, paint_copies
from facenb.errors import ImageError, LandmarkError
from facenb.imaging.occlusion import KINDS, occlude


@pytest.fixture(scope="module")
def faces() -> FaceSet:
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (6, 48, 48, 3), generator=generator, dtype=torch.uint8)
    landmarks = landmarks_of_a_face(48).expand(6, -1, -1).clone()
    return FaceSet.in_memory(image=image, landmarks=landmarks, subject=torch.arange(6) // 2)


@pytest.fixture(scope="module")
def copies(faces) -> Copies:
    return paint_copies(faces, KINDS, each=3, seed=5)


def test_copies_belong_to_their_faces(faces, copies):
    rows = torch.tensor([0, 4, 17])
    assert len(copies) == 18 and copies.row[rows].tolist() == [0, 1, 5]
    occluded, clear = copies.inputs(rows), faces.image[[0, 1, 5]].permute(0, 3, 1, 2) / 127.5 - 1
    assert (occluded != clear).flatten(1).any(1).all()
    seen = copies.hidden < 1
    assert seen.all() and torch.allclose(occluded, copies.image[rows].permute(0, 3, 1, 2) / 127.5 - 1, atol=1e-6)


def test_a_copy_depends_on_its_face_and_seed_alone(faces, copies):
    """Painted with others or by itself, it is the same."""
    alone = paint_copies(faces.take(torch.arange(2)), KINDS, each=3, seed=5)
    assert torch.equal(alone.image, copies.image[:6]) and torch.equal(alone.kind, copies.kind[:6])
    fewer = paint_copies(faces, KINDS, each=1, seed=5)
    assert torch.equal(fewer.image, copies.image[::3])


def test_another_seed_is_other_copies(faces, copies):
    assert not torch.equal(paint_copies(faces, KINDS, each=3, seed=6).image, copies.image)


def test_what_is_painted_is_the_occluder_that_is_named(faces):
    """Clear glasses hide nothing but their rims; a mask hides the mouth, dark glasses the eyes."""
    for kind, hidden, seen in (("mask", 66, 37), ("sunglasses", 40, 8)):
        painted = paint_copies(faces, [kind], sizes=(1.0,))
        assert (painted.kind == KINDS.index(kind)).all()
        changed = (painted.image != faces.image).any(-1)
        for point, expected in ((hidden, True), (seen, False)):
            u, v = faces.read(["landmarks"])["landmarks"][0, point].long().clamp(0, 47).tolist()
            assert (changed[:, v, u] == expected).all(), (kind, point)


def test_share_that_is_hidden_is_that_of_the_mask(faces):
    painted = paint_copies(faces, ["mask"], sizes=(1.0,), seed=1)
    _, mask = occlude(
        faces.image / 255, faces.read(["landmarks"])["landmarks"], "mask", 0, 1.0
    )  # a mask's place is not drawn
    hull_free = mask.float().mean((1, 2))  # of the whole picture: a face is less than that
    assert (painted.hidden > hull_free).all() and (painted.hidden < 0.9).all()


def test_clear_copies_are_left_as_they_are(faces):
    painted = paint_copies(faces, ["hand"], each=20, seed=2, clear=0.5)
    left = painted.kind == CLEAR
    assert 30 < int(left.sum()) < 90
    assert torch.equal(painted.image[left], faces.image[painted.row[left]]) and not painted.hidden[left].any()
    assert (painted.hidden[~left] > 0).any()


def test_kinds_are_only_those_asked_for(faces):
    painted = paint_copies(faces, ["hand", "glasses"], each=10)
    assert set(painted.kind.tolist()) == {KINDS.index("hand"), KINDS.index("glasses")}


def test_occluder_that_covers_everything(faces):
    with pytest.raises(ImageError, match="Face 0: in 20 tries the blocks hid"):
        paint_copies(faces, ["blocks"], sizes=(12.0,))


def test_occluder_that_covers_too_much_is_placed_anew(faces):
    """With a limit that some draws break, all copies keep it, and those that kept it anyway are what they were."""
    free = paint_copies(faces, ["blocks"], each=4, seed=9, most=1.0)
    limit = float(free.hidden.median())
    kept = paint_copies(faces, ["blocks"], each=4, seed=9, most=limit)
    assert (kept.hidden <= limit).all()
    fine = free.hidden <= limit
    assert 0 < int(fine.sum()) < len(fine) and torch.equal(kept.image[fine], free.image[fine])


def test_picture_without_a_face(faces):
    columns = faces.read(["image", "landmarks", "subject"])
    columns["landmarks"][4, 30] = torch.nan
    with pytest.raises(LandmarkError, match="1 of 6 images have no landmarks, the first is row 4"):
        paint_copies(FaceSet.in_memory(**columns), ["hand"])


def test_faces_of_two_sources_together(faces):
    both = join_faces(faces.take(torch.tensor([4, 5])), faces.take(torch.tensor([0])))
    assert both.subjects.tolist() == [2, 2, 0] and torch.equal(both.image, faces.image[[4, 5, 0]])
    assert torch.equal(
        both.read(["landmarks"])["landmarks"], faces.read(["landmarks"], torch.tensor([4, 5, 0]))["landmarks"]
    )
