"""Photographs of SynthFace: the ground truth is the truth, and a picture is always the same."""

import hashlib
import re
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from facenb.imaging.camera import euler_to_matrix
from facenb.imaging.render import render
from facenb.synthface.people import SynthFace
from facenb.synthface.photographs import Photographs, concatenate, photograph

SYNTH = SynthFace(0)


@pytest.fixture(scope="module", params=["weak", "perspective"])
def photos(request) -> Photographs:
    return photograph(SYNTH, [0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 0, 1, 2, 3], camera=request.param)


def fingerprint(picture: int) -> str:
    one = photograph(SynthFace(2), [5], [picture], size=(64, 56))
    rounded = [np.round(x.numpy(), 3) + 0.0 for x in (one.image, one.landmarks, one.light)]
    return hashlib.sha256(rounded[1].tobytes() + rounded[2].tobytes()).hexdigest() + str(rounded[0].mean())[:5]


def test_landmarks_are_projections_of_the_true_shape(photos):
    """By hand, from the conventions at the top of camera.py."""
    points, camera = SYNTH.landmarks.of(photos.shape).double(), photos.camera
    rotations = Rotation.from_euler("ZYX", photos.angles.double().numpy()[:, [2, 0, 1]])
    for i, rotation in enumerate(rotations):
        turned = rotation.apply(points[i].numpy())
        if camera.is_perspective:
            turned = turned + camera.position[i].numpy()
            flat = turned[:, :2] * [1, -1] / -turned[:, 2:] * float(camera.focal[i]) + camera.principal[i].numpy()
        else:
            flat = turned[:, :2] * [1, -1] * float(camera.scale[i]) + camera.translation[i].numpy()
        np.testing.assert_allclose(photos.landmarks[i].numpy(), flat, atol=2e-3)


def test_shapes_are_those_of_the_subjects(photos):
    for i in range(0, 8, 3):
        person = SYNTH.subject(int(photos.subject[i]))
        torch.testing.assert_close(photos.neutral[i], person.neutral)
        torch.testing.assert_close(photos.shape[i], SYNTH.shape(person, photos.expression[i : i + 1])[0])
    for values in (photos.expression, photos.image):
        assert 0 <= values.min() and values.max() <= 1
    assert photos.image.shape == (8, 112, 112, 3) and photos.image.dtype == torch.float32


def test_visible_landmarks_lie_on_the_depth_buffer(photos):
    projected = photos.camera.project(SYNTH.landmarks.of(photos.shape))
    seen = 0
    for i, k in photos.visible.nonzero().tolist():
        u, v, depth = projected[i, k].tolist()
        row, column = int(v), int(u)
        near = photos.depth[i, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        strands = photos.hair[i, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
        if torch.isinf(near).any() or strands.any():
            continue  # on the outline or between strands, where depth changes faster than the pixels show
        scale = photos.camera.focal[i] / depth if photos.camera.is_perspective else photos.camera.scale[i]
        assert near.min() - 2.0 / scale - 4.0 < depth < near[near.isfinite()].max() + 2.0 / scale + 2.5, (i, k)
        seen += 1
    assert seen > 150


def test_hidden_landmarks_are_hidden():
    """On a profile, the far eye and the far side of the jaw are not seen, whatever the face."""
    many = photograph(SYNTH, list(range(48)), [0] * 48, size=(64, 64))
    yaw = many.angles[:, 0]
    right, left = many.visible[yaw > np.radians(70)], many.visible[yaw < -np.radians(70)]
    assert len(right) and len(left)
    assert not right[:, 45].any() and not left[:, 36].any()  # outer corner of the eye that is turned away
    assert right[:, 36].float().mean() > 0.8 and left[:, 45].float().mean() > 0.8
    frontal = many.visible[yaw.abs() < np.radians(15)]
    assert frontal[:, 27:48].float().mean() > 0.9


def test_depth_mask_and_normals_agree(photos):
    seen = photos.depth.isfinite()
    assert (photos.hair <= photos.mask).all() and (photos.mask <= seen).all()  # the shirt is in no mask
    length = photos.normals.norm(dim=-1)
    torch.testing.assert_close(length[seen], torch.ones(int(seen.sum())), atol=1e-4, rtol=0)
    assert (length[~seen] == 0).all()
    assert 0.2 < photos.mask.float().mean() < 0.9
    if photos.camera.is_perspective:
        return
    # The normals are the slope of the depth: compare away from the edges, on smooth skin.
    i = int(photos.angles[:, 0].abs().argmin())
    depth, mm = photos.depth[i], 1 / photos.camera.scale[i]
    across = -(depth[1:-1, 2:] - depth[1:-1, :-2]) / (2 * mm)  # dz/dx, z towards the camera
    down = -(depth[2:, 1:-1] - depth[:-2, 1:-1]) / (2 * mm)  # dz/d(-y)
    normal = torch.stack([-across, down, torch.ones_like(across)], -1)
    normal = normal / normal.norm(dim=-1, keepdim=True)
    inner = (photos.mask & ~photos.hair)[i, 1:-1, 1:-1] & (across.abs() < 1) & (down.abs() < 1)  # not: inf, NaN
    cosine = (normal * photos.normals[i, 1:-1, 1:-1]).sum(-1)[inner]
    assert cosine.median() > 0.98


def test_the_image_is_near_the_rendering_of_the_truth():
    """Without supersampling and noise, skin looks like a plain rendering of the colours at the vertices."""
    photos = photograph(SYNTH, [3, 9], [4, 1], supersample=1, noise=0.0)
    albedo = torch.stack([SYNTH.subject(k).albedo for k in (3, 9)])
    plain = render(photos.shape, SYNTH.triangles, albedo, photos.camera, (112, 112), photos.light)
    skin = photos.mask & ~photos.hair
    difference = (photos.image - plain.image.clamp(0, 1)).abs().mean(-1)[skin]
    assert difference.median() < 0.02 and difference.mean() < 0.06
    torch.testing.assert_close(photos.depth[skin], plain.depth[skin])
    assert photos.image[photos.depth.isinf()].std() > 0.01  # a background, not a plain one
    fine = photograph(SYNTH, [3, 9], [4, 1], supersample=3, noise=0.0)
    assert (fine.image - photos.image).abs().mean() < 0.04
    torch.testing.assert_close(fine.depth, photos.depth)


def test_hair_hides_what_lies_below_it():
    people = list(range(40))
    photos = photograph(SYNTH, people, [0] * 40, size=(96, 96), yaw_limit=50, supersample=1)
    covered = photos.hair.float().mean((1, 2))
    assert covered.min() == 0 and covered.max() > 0.2  # from bald to long
    row, column = (photos.landmarks[..., k].long().clamp(0, 95) for k in (1, 0))
    thick = -torch.nn.functional.max_pool2d(-photos.hair[:, None].float(), 3, 1, 1)[:, 0]  # hair on all pixels around
    under = thick[torch.arange(40)[:, None], row, column] > 0
    assert under.any() and photos.visible[under].float().mean() < 0.25


def test_a_picture_is_the_same_in_any_batch_and_process():
    several = photograph(SYNTH, [4, 5, 4, 6], [0, 0, 7, 1], size=(48, 40))
    alone = photograph(SYNTH, [4], [7], size=(48, 40))
    for name in ("image", "landmarks", "shape", "expression", "angles", "light", "visible"):
        torch.testing.assert_close(getattr(several, name)[2], getattr(alone, name)[0], atol=1e-5, rtol=0)
    code = "import test_synthface_photographs as t; print(t.fingerprint(3))"
    there = subprocess.run([sys.executable, "-c", code], cwd=__file__.rsplit("/", 1)[0], capture_output=True, text=True)
    assert there.stdout.strip() == fingerprint(3), there.stderr[-500:]
    assert fingerprint(4) != fingerprint(3)


def test_pose_does_not_depend_on_size_or_camera():
    small, large = (photograph(SYNTH, [2], [3], size=s) for s in ((32, 32), (64, 64)))
    torch.testing.assert_close(large.landmarks, 2 * small.landmarks, atol=1e-3, rtol=0)
    far = photograph(SYNTH, [2], [3], camera="perspective")
    assert torch.equal(far.angles, small.angles) and torch.equal(far.shape, small.shape)


def test_poses_and_faces_vary_as_asked():
    many = photograph(SYNTH, [0] * 40, list(range(40)), size=(16, 16), supersample=1)
    yaw = many.angles[:, 0]
    assert yaw.max() > np.radians(75) and yaw.min() < -np.radians(75) and yaw.abs().max() <= np.radians(90)
    assert (many.expression.max(1).values > 0.5).float().mean() > 0.4
    straight = photograph(SYNTH, [0] * 9, list(range(9)), size=(16, 16), yaw_limit=20, expressive=False)
    assert straight.angles[:, 0].abs().max() <= np.radians(20) and (straight.expression == 0).all()
    torch.testing.assert_close(euler_to_matrix(straight.angles), straight.camera.rotation)
    assert 0.15 < many.image[many.mask].mean() < 0.7
    inside = ((many.landmarks >= 0) & (many.landmarks <= 16)).all(-1)
    assert inside.float().mean() > 0.97


def test_batches_join():
    parts = [photograph(SYNTH, [k], [0], size=(16, 16)) for k in (1, 2)]
    joined = concatenate(parts)
    assert len(joined) == 2 and joined.subject.tolist() == [1, 2]
    for f in fields(Photographs):
        if f.name != "camera":
            torch.testing.assert_close(getattr(joined, f.name)[1:], getattr(parts[1], f.name))
    torch.testing.assert_close(joined.camera.scale[1:], parts[1].camera.scale)


def test_bad_requests_are_refused():
    for subjects, pictures in (([0, 1], [0]), ([], []), ([0], [-1])):
        with pytest.raises(ValueError, match=re.escape(f"got {subjects}, {pictures}")):
            photograph(SYNTH, subjects, pictures)
    with pytest.raises(ValueError, match="fisheye"):
        photograph(SYNTH, [0], [0], camera="fisheye")


def test_skin_and_hair_of_another_person():
    synth, [a, b], size = SynthFace(0), [3, 8], (64, 64)
    own, other = photograph(synth, [a, b], [0, 0], size), photograph(synth, [a], [0], size, looks={a: b})
    assert torch.equal(other.shape[0], own.shape[0])
    assert torch.equal(photograph(synth, [a], [0], size, looks={a: a}).image[0], own.image[0])
    assert (other.image[0] - own.image[0]).abs().mean() > 0.01
