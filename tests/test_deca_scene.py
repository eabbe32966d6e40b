"""Flat vectors as scenes: DECA's conventions by hand, SynthFace's jaw against its true expressions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from test_deca import model

from facenb.methods.deca.scene import Stage, camera_of, landmarks_of, neutral, posed, window_of
from facenb.morphable.layouts import DECA
from facenb.morphable.mesh import cut, landmark_vertices
from facenb.networks.deca import layout_of
from facenb.networks.detail import DetailDecoder, LinearDecoder
from facenb.synthface import SynthFace, build_model, with_jaw


def vector(layout, **parts) -> torch.Tensor:
    """One flat vector, everything else at rest and the camera as it starts."""
    whole = {name: torch.zeros(1, length) for name, length in layout.parts.items()}
    whole |= {"camera": torch.tensor([[9.0, 0, 0]]), "light": torch.tensor([[3.0] * 3 + [0.0] * 24])}
    return layout.join(whole | {name: torch.tensor([value]) for name, value in parts.items()})


def test_the_camera_is_decas():
    """u = s (x + t) on a picture from -1 to 1, y up, x in metres: written out for one point."""
    flat = vector(DECA, camera=[8.0, 0.01, -0.02])
    found = camera_of(DECA, flat, (224, 224)).project(torch.tensor([[[30.0, 50.0, 7.0]]]))[0, 0]
    u = 112 * (1 + 8.0 * (0.030 + 0.01))
    v = 112 * (1 - 8.0 * (0.050 - 0.02))
    torch.testing.assert_close(found[:2], torch.tensor([u, v]))


@pytest.mark.parametrize("size", [(120, 200), (200, 120)])
def test_the_camera_of_a_picture_that_is_not_square(size):
    """-1 to 1 is the shorter side, 120 pixels, about the picture's middle."""
    flat = vector(DECA, camera=[8.0, 0.01, -0.02])
    found = camera_of(DECA, flat, size).project(torch.tensor([[[30.0, 50.0, 7.0]]]))[0, 0]
    u = size[1] / 2 + 60 * 8.0 * (0.030 + 0.01)
    v = size[0] / 2 - 60 * 8.0 * (0.050 - 0.02)
    torch.testing.assert_close(found[:2], torch.tensor([u, v]))


def test_the_head_turns_about_the_middle_of_its_landmarks(jaw_model):
    layout = layout_of(jaw_model)
    turned = posed(jaw_model, layout, vector(layout, global_pose=[0.0, 0.5, 0.0]))
    c, s = torch.tensor(0.5).cos(), torch.tensor(0.5).sin()
    middle = jaw_model.landmarks.of(jaw_model.mean[None]).mean(1)[0]
    x, y, z = (jaw_model.mean - middle).unbind(-1)
    expected = middle + torch.stack([c * x + s * z, y, c * z - s * x], -1)
    torch.testing.assert_close(turned[0], expected, atol=1e-3, rtol=1e-4)


def test_the_jaw_opens_as_synthface_does(jaw_model):
    """Against a true head with an open mouth; what is left is that the true chin also comes forward, and blending."""
    synth, layout = SynthFace(0), layout_of(jaw_model)
    person = synth.subject(3)
    half = torch.zeros(1, len(synth.expression_names))
    half[0, synth.expression_names.index("jawOpen")] = 0.5
    true = synth.shape(person, half) - person.neutral
    opened = posed(jaw_model, layout, vector(layout, jaw_pose=[0.18, 0.0, 0.0])) - jaw_model.mean
    chin = jaw_model.landmarks.of(true)[0, 8]
    assert chin[1] < -8  # it does open
    moved = jaw_model.landmarks.of(opened)[0]
    assert (moved[8] - chin).norm() < 0.2 * chin.norm()
    assert moved[[36, 45, 27]].norm(dim=-1).max() < 0.5  # eyes and nose stay


def test_expressions_of_the_jaw_are_gone(jaw_model):
    plain = build_model(people=8, components=4, albedo_components=3)
    assert set(plain.expression_names) - set(jaw_model.expression_names) == {"jawOpen", "jawLeft", "jawRight"}
    with pytest.raises(ValueError, match="jawOpen"):
        with_jaw(jaw_model)


def test_neutral_ignores_all_but_the_identity(jaw_model):
    layout = layout_of(jaw_model)
    own = [1.0, -1.0, 0.5, 0.2]
    flat = vector(layout, identity=own, jaw_pose=[0.3, 0.1, 0.0], global_pose=[0.1, 0.9, 0.2])
    torch.testing.assert_close(neutral(jaw_model, layout, flat), jaw_model.shape(torch.tensor([own])))


def test_landmarks_of_a_part_are_those_of_the_whole(jaw_model):
    layout = layout_of(jaw_model)
    flat = vector(layout, identity=[1.0, -1, 0.5, 0.2], jaw_pose=[0.3, 0, 0.1], global_pose=[0.1, 0.9, 0.2])
    part = cut(jaw_model, landmark_vertices(jaw_model))
    assert len(part.mean) < 160
    own = landmarks_of(part, layout, flat, (112, 112))
    torch.testing.assert_close(own, landmarks_of(jaw_model, layout, flat, (112, 112)), atol=1e-3, rtol=1e-4)


def test_a_model_without_a_jaw():
    toy = model()
    with pytest.raises(ValueError, match="no joints 'global' and 'jaw'"):
        posed(replace(toy, joints=None), layout_of(toy), vector(layout_of(toy)))


class TestStage:
    def test_no_displacement_is_the_smooth_face(self, stage):
        flat = vector(stage.layout)
        vertices = posed(stage.model, stage.layout, flat)
        relief = stage.relief(vertices, torch.zeros(1, len(stage.uv)))
        torch.testing.assert_close(relief, stage.fine.at(vertices))

    def test_displacement_goes_along_the_normals(self, stage):
        vertices = posed(stage.model, stage.layout, vector(stage.layout))
        moved = stage.relief(vertices, torch.full((1, len(stage.uv)), 0.7)) - stage.fine.at(vertices)
        torch.testing.assert_close(moved.norm(dim=-1), torch.full((1, len(stage.uv)), 0.7))
        nose = int(stage.model.landmarks.vertices[30, 0])
        assert moved[0, nose, 2] > 0.6  # the nose's tip looks at the viewer

    def test_both_pictures_show_the_same_skin(self, stage):
        flat, size = vector(stage.layout), (48, 48)
        smooth = stage.coarse(flat, size)
        fine = stage.detailed(flat, torch.zeros(1, len(stage.uv)), size)
        assert (stage.skin_mask(smooth) != stage.skin_mask(fine)).float().mean() < 0.01
        assert (smooth.image - fine.image).abs().mean() < 0.01
        assert 0.2 < stage.skin_mask(smooth).float().mean() < 0.9

    def test_even_skin_has_no_lips_and_no_rim(self, stage):
        flat, size = vector(stage.layout), (96, 96)
        drawn = stage.coarse(flat, size)
        skin, even = stage.skin_mask(drawn), stage.skin_mask(drawn, even=True)
        assert (even & ~skin).sum() == 0 and 0.2 < even.sum() / skin.sum() < 0.9
        u, v = landmarks_of(stage.model, stage.layout, flat, size)[0, [51, 57]].long().unbind(-1)
        assert skin[0, v, u].all() and not even[0, v, u].any()
        sides = np.sort(trimesh.Trimesh(process=False, faces=stage.model.triangles, vertices=stage.model.mean).edges, 1)
        edges, count = np.unique(sides, axis=0, return_counts=True)
        assert not np.isin(stage.model.triangles[stage.even], edges[count == 1]).any()

    def test_every_part_of_the_vector_moves_the_picture(self, stage):
        flat = vector(stage.layout).requires_grad_()
        generator = torch.Generator().manual_seed(0)
        weight = torch.rand(40, 40, 3, generator=generator)
        (weight * stage.coarse(flat, (40, 40)).image).sum().backward()
        for name, gradient in stage.layout.split(flat.grad).items():
            assert gradient.abs().max() > 0, name

    def test_the_window_holds_the_whole_part(self, stage):
        decoder = DetailDecoder(4, (3, 2), window=window_of(stage.model))
        assert decoder.at(torch.ones(1, 16, 16), stage.uv).min() > 0.99

    def test_a_linear_decoder_displaces_as_well(self, stage):
        decoder = LinearDecoder(4, 16, window=window_of(stage.model))
        assert stage.displacement(decoder, torch.ones(1, 16, 16)).max() == pytest.approx(1)

    def test_displacements_fade_out_at_the_border_of_the_face(self, stage, jaw_model):
        """On the part as on the whole head, whose other vertices none reaches."""
        decoder = DetailDecoder(4, (3, 2))
        part, whole = (
            one.displacement(decoder, torch.ones(1, 16, 16))[0, : len(one.model.mean)]
            for one in (stage, Stage.of(jaw_model, stage.layout))
        )
        kept = torch.cat([jaw_model.regions["face"], landmark_vertices(jaw_model)]).unique()
        others = torch.ones(len(whole), dtype=torch.bool).index_fill(0, kept, False)
        assert torch.equal(part, whole[kept]) and whole[others].max() == 0
        forehead = int(stage.model.mean[:, 1].argmax())
        assert part[forehead] == 0 and part.max() == pytest.approx(1) and (part > 0.99).float().mean() > 0.5

    def test_a_finer_mesh_alone_is_no_relief(self, stage):
        """Shading is that of the smooth face, not of the facets that a subdivided mesh keeps."""
        flat, size = vector(stage.layout, light=[3.0] * 3 + [2.0] * 3 + [1.0] * 21), (64, 64)
        smooth, fine = stage.coarse(flat, size), stage.detailed(flat, torch.zeros(1, len(stage.uv)), size)
        inside = stage.skin_mask(smooth) & stage.skin_mask(fine)
        assert (smooth.image - fine.image)[inside].abs().mean() < 1e-3
