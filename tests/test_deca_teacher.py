"""Pairs of pictures, analysis by synthesis, and bad input."""

from dataclasses import replace

import pytest
import torch
from test_deca import NARROW

from facenb.datasets.sets.augmentation import MIRRORED_68
from facenb.datasets.sets.faces import FaceSet, read_faces
from facenb.errors import RunError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.methods.deca.alone import fit_vectors
from facenb.methods.deca.pictures import LARGER, PicturePairs, build_pictures, vary
from facenb.methods.deca.plans import teacher_plan
from facenb.methods.deca.scene import landmarks_of, window_of
from facenb.methods.deca.teacher import (
    CoarseLoss,
    DetailLoss,
    Recogniser,
    Weights,
    every_second,
    start_detail,
    swap,
    to_picture,
    train_only,
    training_name,
)
from facenb.morphable.alignment import similarity
from facenb.networks.deca import UNITS, Deca
from facenb.photos.crops import crop_faces, five_of_68
from facenb.synthface import SynthFace
from facenb.synthface.photographs import photograph
from facenb.training import Settings

SIDE = 48


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return build_pictures(tmp_path_factory.mktemp("pictures") / "set", 0, [4, 2, 7], 2, SIDE, landmark_noise=0)


@pytest.fixture
def batch(pictures):
    return PicturePairs(pictures).load(torch.arange(3), torch.Generator().manual_seed(0))


@pytest.fixture
def network(stage):
    torch.manual_seed(0)
    options = {"channels": (4, 3, 2), "reach": 1.0, "window": window_of(stage.model)}
    return Deca(stage.layout, NARROW, 16, 8, options, scale=13.5, units=UNITS)


class TestPictures:
    def test_a_batch_is_pictures_and_then_their_partners(self, pictures):
        batch = PicturePairs(pictures).load(torch.tensor([0, 5, 3]), torch.Generator().manual_seed(0))
        assert batch["image"].shape == (6, 3, SIDE, SIDE) and batch["image"].abs().max() <= 1
        assert torch.equal(batch["subject"][:3], batch["subject"][3:])
        assert not torch.equal(batch["image"][0], batch["image"][3])

    def test_the_same_generator_gives_the_same_batch(self, pictures):
        rows = torch.arange(6)
        one, other = (PicturePairs(pictures).load(rows, torch.Generator().manual_seed(3)) for _ in range(2))
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_landmarks_lie_where_the_faces_are(self, pictures):
        """Made again from the truth: the camera is not stored, so up to the similarity that five numbers fix."""
        batch, synth, truth = pictures.load(torch.arange(6)), SynthFace(0), pictures.truth
        assert ((batch["landmarks"] > 0) & (batch["landmarks"] < SIDE)).float().mean() > 0.97
        for k in range(6):
            person = synth.subject(int(batch["subject"][k]))
            points = synth.landmarks.of(synth.shape(person, truth["expression"][k][None]))
            camera = WeakPerspective(euler_to_matrix(truth["angles"][k][None]), torch.ones(1), torch.zeros(1, 2))
            flat = camera.project(points)[..., :2]
            moved = similarity(flat, batch["landmarks"][k][None]).apply(flat.double())
            assert (moved[0] - batch["landmarks"][k]).norm(dim=-1).max() < 0.01

    def test_bare_is_the_head_without_hair(self, pictures):
        """Against the depth of the photographs, rendered once more: nothing outside the head, and less than it."""
        shots = photograph(SynthFace(0), [4, 4], [0, 1], (round(LARGER * SIDE),) * 2, 50.0, supersample=1)
        expected = (shots.mask & ~shots.hair).flatten(1).sum(1)
        inside = pictures.of([4]).read(["bare"])["bare"].flatten(1).sum(1)
        assert torch.equal(shots.bare, shots.mask & ~shots.hair)
        assert ((inside > 0.3 * SIDE**2) & (inside <= expected)).all()

    def test_read_again_and_by_people(self, pictures):
        again = read_faces(pictures.table.folder)
        assert again.of([7, 4]).people.tolist() == [4, 7]
        assert build_pictures(pictures.table.folder, 0, [4, 2, 7], 2, SIDE, landmark_noise=0).size == (SIDE, SIDE)

    def test_partners_are_all_the_other_pictures_and_equally_likely(self, pictures):
        pairs = PicturePairs(pictures.take(torch.tensor([2, 0, 1, 3])))  # persons 2, 4, 4, 2 in the order of the rows
        assert pairs.partners(torch.arange(4), torch.Generator()).tolist() == [3, 2, 1, 0]
        three = FaceSet.in_memory(image=torch.zeros(5, 2, 2, 3), subject=torch.tensor([7, 5, 7, 7, 5]))
        drawn = PicturePairs(three).partners(torch.full((3000,), 2), torch.Generator().manual_seed(0))
        counts = drawn.bincount(minlength=5)
        assert counts[[1, 2, 4]].sum() == 0 and counts[[0, 3]].min() > 1400

    def test_one_picture_of_a_person_makes_no_pair(self, pictures):
        alone = PicturePairs(pictures.take(torch.tensor([0, 2, 3])))
        with pytest.raises(RunError, match="one image only"):
            alone.load(torch.tensor([0]), torch.Generator())

    def test_landmarks_go_with_a_varied_picture(self):
        """A spot where the landmark between the eyes is stays there, turned, moved, scaled or mirrored."""
        generator = torch.Generator().manual_seed(1)
        landmarks = 12 + 24 * torch.rand(8, 68, 2, generator=generator)
        v, u = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
        spot = landmarks[:, 27, :, None, None]
        image = (-((u - spot[:, 0]) ** 2 + (v - spot[:, 1]) ** 2) / 8).exp()[:, None].expand(-1, 3, -1, -1)
        bare = (image[:, 0] > 0.5).to(torch.uint8)
        varied = vary({"image": image, "landmarks": landmarks, "bare": bare}, generator)
        weight = varied["image"][:, 0] / varied["image"][:, 0].sum((1, 2), keepdim=True)
        found = torch.stack([(weight * u).sum((1, 2)), (weight * v).sum((1, 2))], -1)
        torch.testing.assert_close(found, varied["landmarks"][:, 27], atol=0.3, rtol=0)
        assert (varied["image"][:, 0][varied["bare"]] > 0.4).all() and varied["bare"].flatten(1).any(1).all()
        assert (varied["landmarks"] - landmarks).norm(dim=-1).mean() > 1

    def test_mirrored_landmarks_are_those_of_the_other_side(self):
        points = SynthFace(0).landmarks.of(SynthFace(0).mean[None])[0]
        torch.testing.assert_close(points[MIRRORED_68] * torch.tensor([-1.0, 1, 1]), points, atol=0.01, rtol=0)

    def test_known_vectors_come_with_their_pictures(self, pictures):
        known = PicturePairs(pictures.of([4]), vectors=torch.tensor([[1.0], [2.0]]))
        batch = known.load(torch.arange(2), torch.Generator())
        assert batch["vector"][:, 0].tolist() == [1, 2, 2, 1] and batch["subject"].tolist() == [4] * 4
        with pytest.raises(ValueError, match="no longer fit"):
            replace(known, varied=True)

    def test_varied_pictures_are_loaded_so(self, pictures):
        plain, varied = (
            PicturePairs(pictures, varied=varied).load(torch.arange(3), torch.Generator().manual_seed(3))
            for varied in (False, True)
        )
        assert torch.equal(plain["subject"], varied["subject"]) and not torch.equal(plain["image"], varied["image"])


class TestSwap:
    def test_pairs_exchange_one_part(self, stage):
        flat = torch.randn(4, stage.layout.size, generator=torch.Generator().manual_seed(0))
        swapped = swap(stage.layout, flat)
        where = stage.layout.slices["identity"]
        assert torch.equal(swapped[:2, where], flat[2:, where]) and torch.equal(swapped[2:, where], flat[:2, where])
        assert torch.equal(swapped[:, where.stop :], flat[:, where.stop :])
        assert torch.equal(swap(stage.layout, swapped), flat)


def test_descent_finds_the_vector_a_picture_was_drawn_from(stage):
    """From the mean face: its landmarks within a tenth of a pixel or so, its colours, its open mouth."""
    parts = {name: torch.zeros(2, length) for name, length in stage.layout.parts.items()}
    parts["camera"][:, 0], parts["light"][:, :3] = 11.0, 3.0
    start = stage.layout.join(parts)
    true = {**parts, "jaw_pose": torch.tensor([[0.3, 0, 0], [0, 0, 0]]), "albedo": torch.tensor([[1.0, -1, 0]] * 2)}
    true["global_pose"] = torch.tensor([[0.1, 0.3, 0], [0, -0.2, 0.1]])
    true = stage.layout.join(true)
    drawn = stage.coarse(true, (SIDE, SIDE)).image
    images, landmarks = 2 * drawn.permute(0, 3, 1, 2) - 1, landmarks_of(stage.model, stage.layout, true, (SIDE, SIDE))
    bare = torch.ones(2, SIDE, SIDE, dtype=torch.uint8)
    found = fit_vectors(stage, images, landmarks, bare, start, (150, 20))
    places = landmarks_of(stage.model, stage.layout, found, (SIDE, SIDE))
    assert (places - landmarks).norm(dim=-1).mean() < 0.2 and (places - landmarks).norm(dim=-1).mean() > 0
    jaw = stage.layout.split(found)["jaw_pose"][:, 0]
    assert jaw[0] > 0.15 > 0.05 > jaw[1].abs()
    before, after = ((stage.coarse(one, (SIDE, SIDE)).image - drawn).abs().mean() for one in (start, found))
    assert after < 0.2 * before


def test_descent_of_a_picture_does_not_depend_on_its_neighbours(stage):
    size, layout = (SIDE, SIDE), stage.layout
    parts = {name: torch.zeros(2, length) for name, length in layout.parts.items()}
    parts["camera"][:, 0], parts["light"][:, :3] = torch.tensor([6.0, 12.0]), 3.0  # one face half as large
    start = layout.join(parts)
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    landmarks = landmarks_of(stage.model, layout, start, size)
    bare = torch.ones(2, *size, dtype=torch.uint8)
    together = fit_vectors(stage, images, landmarks, bare, start, (0, 4))
    alone = fit_vectors(stage, images[:1], landmarks[:1], bare[:1], start[:1], (0, 4))
    assert (together[:1] - start[:1]).abs().max() > 0.05
    torch.testing.assert_close(together[:1], alone, atol=1e-4, rtol=0)


def test_descent_refuses_landmarks_that_are_not_finite(stage):
    landmarks = torch.zeros(2, 68, 2)
    landmarks[1, 5] = torch.nan
    with pytest.raises(ValueError, match="image 1 are not finite"):
        start, bare = torch.zeros(2, stage.layout.size), torch.ones(2, 8, 8, dtype=torch.uint8)
        fit_vectors(stage, torch.zeros(2, 3, 8, 8), landmarks, bare, start, (1, 0))


class TestCoarse:
    def drawn(self, stage, network):
        """A batch whose pictures and landmarks are what the network itself says: nothing is left to explain."""
        with torch.no_grad():
            flat = network(torch.zeros(2, 3, SIDE, SIDE))
        image = stage.coarse(flat, (SIDE, SIDE)).image
        landmarks = landmarks_of(stage.model, stage.layout, flat, (SIDE, SIDE))
        bare = torch.ones(2, SIDE, SIDE, dtype=torch.uint8)
        return flat, {"image": 2 * image.permute(0, 3, 1, 2) - 1, "landmarks": landmarks, "bare": bare}

    def test_a_picture_drawn_from_the_vector_costs_nothing(self, stage, network, monkeypatch):
        flat, batch = self.drawn(stage, network.eval())
        monkeypatch.setattr(network, "forward", lambda images: flat)
        found = CoarseLoss(stage)(network, batch)
        assert all(found[name] < 1e-5 for name in ("landmarks", "parts", "eyes", "photometric")), found

    def test_colours_count_where_the_head_is_bare(self, stage, network, monkeypatch):
        flat, batch = self.drawn(stage, network.eval())
        monkeypatch.setattr(network, "forward", lambda images: flat)
        batch["image"][:, :, : SIDE // 2] = 1.0  # white hair over the upper half
        whole = CoarseLoss(stage)(network, batch)["photometric"]
        batch["bare"][:, : SIDE // 2] = 0
        assert CoarseLoss(stage)(network, batch)["photometric"] < 1e-5 < 0.01 < whole

    def test_consistency_asks_for_the_partners_identity(self, stage, network, batch):
        """With one identity for both pictures it costs as much as their landmarks themselves."""
        last = network.eval().coarse.layers[-1]
        with torch.no_grad():
            last.weight[stage.layout.slices["identity"]] = 0
        weights = Weights(prior_identity=0, prior_albedo=0, prior_expression=0)
        found = CoarseLoss(stage, weights, render=False)(network, batch)
        assert found["loss"].item() == pytest.approx(2 * found["consistency"].item(), rel=1e-5)

    def test_every_second_pair_is_drawn_with_exchanged_identities(self):
        values = torch.arange(8.0)[:, None]
        assert every_second(values)[:, 0].tolist() == [0, 5, 2, 7, 4, 1, 6, 3]

    def test_without_the_renderer_only_landmarks_count(self, stage, network, batch):
        assert "photometric" not in CoarseLoss(stage, render=False)(network, batch)

    @pytest.mark.parametrize("side", [64, 12], ids=["larger", "much smaller"])
    def test_a_recogniser_sees_the_face_as_it_was_taught_and_lets_gradients_through(self, pictures, side):
        batch = pictures.load(torch.arange(2))
        seen, network = [], torch.nn.Flatten()
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        recogniser = Recogniser(network, (side, side))
        image = to_picture(batch["image"]).requires_grad_()
        recogniser(image, batch["landmarks"]).sum().backward()
        assert seen[0].shape == (2, 3, side, side) and image.grad.abs().max() > 0
        expected = crop_faces(image.detach(), five_of_68(batch["landmarks"]), (side, side)).permute(0, 3, 1, 2)
        assert (seen[0].detach() - (expected / 127.5 - 1)).abs().max() < 0.01


class TestHalfPrecision:
    """Under bfloat16 only the networks are in 16 bits: geometry and pictures are as they were for the same words."""

    def losses(self, loss, network, batch, monkeypatch):
        """In 32 bits, and in bfloat16 with the networks' own words of before."""
        flat, code = network.eval()(batch["image"]).detach(), network.detail_code(batch["image"]).detach()
        maps = network.displacement(flat, code).detach()
        monkeypatch.setattr(network, "forward", lambda images: flat)
        monkeypatch.setattr(network, "detail_code", lambda images: code)
        monkeypatch.setattr(network, "displacement", lambda flat, code: maps)
        plain = loss(network, batch)
        with torch.autocast("cpu", torch.bfloat16):
            return plain, loss(network, batch)

    @pytest.mark.parametrize("kind", [CoarseLoss, DetailLoss])
    def test_geometry_stays_in_32_bits(self, stage, network, batch, monkeypatch, kind):
        plain, half = self.losses(kind(stage), network, batch, monkeypatch)
        assert all(torch.equal(half[name], plain[name]) for name in plain)


def test_another_training_has_another_name(network, stage, pictures):
    settings, recogniser = Settings(5, batch=2), torch.nn.Linear(2, 2)

    def named(pictures=pictures, settings=settings, **options):
        return training_name("coarse", network, CoarseLoss(stage, **options), PicturePairs(pictures), settings)

    name = named()
    assert name == named()
    others = [named(settings=Settings(5, batch=4)), named(pictures.of([4, 7])), named(weights=Weights(symmetry=0))]
    others += [named(render=False), named(recogniser=Recogniser(recogniser, (64, 64)))]
    others.append(training_name("coarse", network, DetailLoss(stage), PicturePairs(pictures), settings))
    for changed in (recogniser.bias, network.decoder.l1[0].bias):
        with torch.no_grad():
            changed[0] += 1
        others.append(named(recogniser=Recogniser(recogniser, (64, 64))))
    assert len({name, *others}) == 9


def test_a_training_of_other_modules_has_another_name(network, stage, pictures):
    def named(*modules):
        train_only(network, *modules)
        return training_name("details", network, DetailLoss(stage), PicturePairs(pictures), Settings(5, batch=2))

    assert named("fine", "decoder") != named("fine.layers", "decoder")


class TestDetail:
    def test_details_start_from_what_the_coarse_network_sees_with_codes_that_differ(self, network, pictures):
        images = pictures.load(torch.arange(6))["image"]
        codes = start_detail(network, images).detail_code(images)
        assert torch.allclose(codes.mean(0), torch.zeros(8), atol=1e-3)
        assert torch.allclose(codes.std(0, correction=0), torch.ones(8), atol=1e-3)
        assert torch.equal(network.fine.encoder(images), network.coarse.encoder(images))

    def test_a_number_that_never_moves_is_left_so(self, network, pictures):
        images = pictures.load(torch.arange(6))["image"]
        last = network.fine.layers[-1]
        with torch.no_grad():
            last.weight[3] = 0
        start_detail(network, images)
        assert last.weight[3].abs().max() == 0 and last.weight.abs().max() < 1e3
        assert torch.allclose(network.detail_code(images)[:, 3], torch.zeros(6), atol=1e-5)

    def test_the_encoder_stays_the_coarse_one_in_a_short_profile(self, network):
        """So a part that ships need not store it."""
        train_only(network, *teacher_plan("quick").detailed, "decoder")
        assert not any(value.requires_grad for value in network.fine.encoder.parameters())
        assert all(value.requires_grad for value in network.fine.layers.parameters())

    def test_only_the_details_learn(self, stage, network, batch):
        train_only(network, "fine", "decoder").train()
        found = DetailLoss(stage)(network, batch)
        found["loss"].backward()
        assert set(found) == {"loss", "photometric", "moving", "symmetry", "regularisation"}
        assert all(one.grad is None for one in network.coarse.parameters())
        assert network.fine.encoder.conv1.weight.grad.abs().max() > 0

    def test_a_picture_with_a_vector_of_its_own_is_drawn_there(self, stage, network, batch, monkeypatch):
        """Placed elsewhere the loss differs, the map does not; and not where the vector is the network's."""
        flat = network.eval()(batch["image"]).detach()
        plain, same, other = (
            DetailLoss(stage)(network, batch | more) for more in ({}, {"vector": flat}, {"vector": flat * 1.1})
        )
        assert plain["photometric"] == same["photometric"] != other["photometric"]
        assert plain["regularisation"] == other["regularisation"]

    def test_what_moves_is_what_differs_between_the_pictures_of_a_person(self, stage, network, batch, monkeypatch):
        maps = torch.arange(6.0)[:, None, None].expand(6, 8, 8)
        monkeypatch.setattr(network, "displacement", lambda flat, code: maps)
        assert DetailLoss(stage)(network.eval(), batch)["moving"] == 3.0

    def test_every_second_pair_has_its_codes_swapped(self, stage, network, batch, monkeypatch):
        given = []
        real = network.displacement
        monkeypatch.setattr(network, "displacement", lambda flat, code: given.append(code) or real(flat, code))
        code = network.eval().detail_code(batch["image"])
        DetailLoss(stage)(network, batch)
        order = [0, 4, 2, 3, 1, 5]
        torch.testing.assert_close(given[0], code[order])
