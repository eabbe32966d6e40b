"""Sets of faces: people apart, batches against slow twins, crops, SynthFace's sets, bad input."""

import json
import os
import shutil

import pytest
import torch
from helpers import truncated
from torch.nn import functional

from facenb.datasets.sets import build_synthetic as synthetic_sets
from facenb.datasets.sets.augmentation import MIRRORED_68, Augmentation, Draw, network_input
from facenb.datasets.sets.build_synthetic import build_synthetic, true_shapes
from facenb.datasets.sets.faces import FaceSet, describe, read_faces
from facenb.datasets.sets.table import build_table
from facenb.errors import AssetError, RunError
from facenb.fitting import fit
from facenb.photos.crops import MIDDLE, SPHEREFACE, crop_faces, crop_photos, five_of_68, template, to_template
from facenb.synthface import SynthFace, build_model
from facenb.synthface.people import VERSION
from facenb.synthface.photographs import photograph

SIZE = (32, 28)


def random_set(folder, counts=None, mirrored=True, card=None, pose=False) -> FaceSet:
    """People 10, 13, 16, ...; row r shows r in its first pixel."""
    counts = counts or [3, 2, 4, 2, 3, 2, 5, 2, 2, 3]
    generator = torch.Generator().manual_seed(0)
    subject = torch.repeat_interleave(10 + 3 * torch.arange(len(counts)), torch.tensor(counts))
    rows = len(subject)
    image = torch.randint(0, 256, (rows, *SIZE, 3), generator=generator).to(torch.uint8)
    image[:, 0, 0, 0] = torch.arange(rows)
    batch = {"image": image, "subject": subject}
    batch |= {name: torch.randn(rows, n, generator=generator) for name, n in (("identity", 4), ("expression", 3))}
    if mirrored:
        batch |= {"identity_mirrored": -batch["identity"], "expression_mirrored": 1 + batch["expression"]}
    if pose:
        batch |= {name: torch.randn(rows, 12, generator=generator) for name in ("pose", "pose_mirrored")}
    build_table(folder, card or {}, lambda first: [batch])
    return read_faces(folder)


@pytest.fixture
def small(tmp_path):
    return random_set(tmp_path / "set")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestSplit:
    def test_people_are_apart_and_all_there(self, small):
        split = small.split(validation=0.2, test=0.3, seed=4)
        parts = [set(part.subjects.tolist()) for part in (split.train, split.validation, split.test)]
        assert [len(part) for part in parts] == [5, 2, 3]
        assert set.union(*parts) == set(small.people.tolist())
        assert sum(map(len, (split.train, split.validation, split.test))) == len(small)

    def test_labels_have_no_gaps(self, small):
        split = small.split(seed=1)
        for part in (split.train, split.validation, split.test):
            assert part.labels.unique().tolist() == list(range(part.classes))
            pairs = {(int(label), int(subject)) for label, subject in zip(part.labels, part.subjects, strict=True)}
            assert len(pairs) == part.classes
        assert small.labels.unique().tolist() == list(range(10))

    def test_seed_decides(self, small):
        one, same, other = (small.split(seed=s).test.rows.tolist() for s in (0, 0, 1))
        assert one == same != other

    def test_people_named_are_in_no_part(self, tmp_path):
        """Their share is of those who remain; names count as the card lists them."""
        named = random_set(tmp_path / "set", card={"names": [f"person {k}" for k in range(40)]})
        split = named.split(validation=0.25, test=0.25, without=["person 13", "person 22", "nobody"])
        parts = [set(part.subjects.tolist()) for part in (split.train, split.validation, split.test)]
        assert [len(part) for part in parts] == [4, 2, 2]
        assert set.union(*parts) == set(named.people.tolist()) - {13, 22}

    def test_a_share_of_nothing_is_empty(self, small):
        split = small.split(validation=0.0, test=0.0)
        assert len(split.train) == len(small) and len(split.validation) == len(split.test) == 0
        assert split.test.classes == 0

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"test": 0.01}, "no test"),
            ({"validation": 0.01}, "no validation"),
            ({"test": 1.0, "validation": 0}, "no training"),
        ],
    )
    def test_a_split_that_leaves_nobody(self, small, options, message):
        with pytest.raises(RunError, match=message):
            small.split(**options)

    def test_people_and_rows_can_be_chosen(self, small):
        assert small.of([16, 10]).subjects.tolist() == [10] * 3 + [16] * 4
        assert small.of([16, 10]).take(torch.tensor([6, 0])).labels.tolist() == [1, 0]
        with pytest.raises(RunError, match="subject 11"):
            small.of([10, 11])


class TestBatches:
    def test_without_augmentation(self, small):
        part = small.split(seed=2).train
        rows = torch.tensor([5, 0, 3, 3])
        batch = part.load(rows, generator())
        whole = part.read(["image", "identity", "expression"], rows)
        assert set(batch) == {"image", "subject", "identity", "expression", "label", "row"}
        assert batch["image"].shape == (4, 3, *SIZE) and batch["image"].dtype == torch.float32
        torch.testing.assert_close(batch["image"], (whole["image"].permute(0, 3, 1, 2) / 255 * 2 - 1))
        assert torch.equal(batch["identity"], whole["identity"])
        assert torch.equal(batch["expression"], whole["expression"])
        assert batch["row"].tolist() == part.rows[rows].tolist()
        assert batch["label"].tolist() == part.labels[rows].tolist()

    def test_mirrored_pictures_have_mirrored_targets(self, small):
        part = small.split(seed=2).train.augmented(mirror=True)
        rows = torch.arange(len(part))
        batch, plain = part.load(rows, generator()), part.load(rows)
        flipped = (batch["image"] != plain["image"]).flatten(1).any(1)
        assert 0 < flipped.sum() < len(rows)
        torch.testing.assert_close(batch["image"][flipped], plain["image"][flipped].flip(3))
        sign = 1 - 2 * flipped.float()[:, None]  # random_set stores the negative as mirrored
        assert torch.equal(batch["identity"], sign * plain["identity"])

    def test_same_generator_same_batch(self, small):
        plain = small.split(seed=2).train
        part, rows = plain.augmented(mirror=True, shift=3, brightness=0.2, contrast=0.3), torch.arange(len(plain))
        one, same, other = (part.load(rows, generator(s))["image"] for s in (7, 7, 8))
        assert torch.equal(one, same) and not torch.equal(one, other)
        assert torch.equal(part.load(rows)["image"], plain.load(rows)["image"])  # without a generator, no change

    def test_pose_goes_with_shift_and_mirror(self, tmp_path):
        part = random_set(tmp_path / "set", pose=True).split(seed=2).train
        part = part.augmented(mirror=True, shift=3)
        rows = torch.arange(len(part))
        draw = part.augmentation.draw(len(rows), generator())
        matrix = part.load(rows, generator())["pose"].unflatten(1, (3, 4))
        kept = part.read(["pose", "pose_mirrored"])
        plain = torch.where(draw.flip[:, None], kept["pose_mirrored"], kept["pose"]).unflatten(1, (3, 4))
        assert 0 < int(draw.flip.sum()) < len(rows)
        torch.testing.assert_close(matrix[:, :, :3], plain[:, :, :3])
        torch.testing.assert_close(matrix[:, :2, 3] - plain[:, :2, 3], draw.shift.float())
        torch.testing.assert_close(part.load(rows)["pose"], kept["pose"])

    def test_landmarks_go_with_shift_and_mirror(self):
        """A bright pixel at each landmark stays under the landmark that it becomes."""
        landmarks = torch.stack([3.5 + torch.arange(68) % 22, 3.5 + torch.arange(68) // 22 * 4], 1)
        image = torch.zeros(40, *SIZE, 3, dtype=torch.uint8)
        u, v = landmarks[30].long()
        image[:, v, u] = 255
        faces = FaceSet.in_memory(image=image, subject=torch.arange(40), landmarks=landmarks.expand(40, -1, -1))
        batch = faces.augmented(mirror=True, shift=2).load(torch.arange(40), generator())
        u, v = batch["landmarks"][:, MIRRORED_68[30]].long().T
        assert (batch["image"][torch.arange(40), 0, v, u] == 1).all() and len(u.unique()) > 5

    def test_mirror_without_mirrored_targets(self, tmp_path):
        part = random_set(tmp_path / "set", mirrored=False).split().train
        with pytest.raises(RunError, match="no targets of mirrored faces"):
            part.augmented(mirror=True)


class TestAugmentation:
    @pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-4, 1), (0, 5)])
    @pytest.mark.parametrize("flip", [False, True])
    def test_shift_and_mirror_against_padding(self, shift, flip):
        images = torch.randint(0, 256, (1, 9, 7, 3), generator=generator()).to(torch.uint8)
        draw = Draw(torch.tensor([flip]), torch.tensor([shift]), torch.ones(1), torch.zeros(1))
        planes = images.permute(0, 3, 1, 2).float() / 127.5 - 1
        padded = functional.pad(planes.flip(3) if flip else planes, (5, 5, 5, 5), mode="replicate")
        expected = padded[:, :, 5 - shift[1] : 14 - shift[1], 5 - shift[0] : 12 - shift[0]]
        torch.testing.assert_close(network_input(images, draw), expected)

    def test_brightness_and_contrast(self):
        """Of a picture that does not reach the ends: mean and spread change by exactly what was drawn."""
        images = torch.randint(100, 150, (2, 8, 8, 3), generator=generator()).to(torch.uint8)
        same = Draw(torch.zeros(2).bool(), torch.zeros(2, 2).long(), torch.ones(2), torch.zeros(2))
        draw = same._replace(contrast=torch.tensor([1.3, 0.7]), brightness=torch.tensor([0.1, -0.05]))
        before, after = (network_input(images, one).flatten(1) for one in (same, draw))
        torch.testing.assert_close(after.mean(1) - before.mean(1), torch.tensor([0.2, -0.1]))  # in [-1, 1]: twice
        torch.testing.assert_close(after.std(1) / before.std(1), draw.contrast)

    def test_drawn_within_limits(self):
        draw = Augmentation(mirror=True, shift=2, brightness=0.1, contrast=0.2).draw(4000, generator())
        assert 0.45 < draw.flip.float().mean() < 0.55
        assert draw.shift.unique().tolist() == [-2, -1, 0, 1, 2]
        assert 0.09 < draw.brightness.abs().max() <= 0.1
        assert 0.8 <= draw.contrast.min() < 0.82 and 1.18 < draw.contrast.max() <= 1.2


class TestCrops:
    def test_each_pixel_shows_its_place_in_the_photo(self):
        """Colours that are linear in the position survive averaging and interpolation, at any size and turn."""
        v, u = torch.meshgrid(torch.arange(400) + 0.5, torch.arange(400) + 0.5, indexing="ij")
        images = torch.stack([u / 400, v / 400, (u + v) / 800], -1).expand(3, -1, -1, -1)
        target = torch.tensor(SPHEREFACE) + 0.5
        turn = torch.tensor([[0.95, -0.3], [0.3, 0.95]])
        points = torch.stack([target + 60, 2.4 * target @ turn.T + torch.tensor([100.0, 30.0]), 3.3 * target + 10])
        onto = to_template(points, (112, 96))
        rows, columns = torch.meshgrid(torch.arange(112) + 0.5, torch.arange(96) + 0.5, indexing="ij")
        centres = torch.stack([columns, rows], -1).double().flatten(0, 1) - onto.shift[:, None]
        source = (torch.linalg.inv(onto.rotation) @ centres.mT).mT / onto.scale[:, None, None]
        expected = torch.cat([source / 400, source.sum(-1, keepdim=True) / 800], -1).view(3, 112, 96, 3).float()
        torch.testing.assert_close(crop_faces(images, points) / 255, expected, atol=0.51 / 255 + 1e-3, rtol=0)

    def test_an_aligned_picture_gives_its_own_middle(self):
        image = torch.randint(0, 256, (1, 112, 112, 3), generator=generator()).to(torch.uint8)
        points = template((112, 112))[None]
        assert torch.equal(crop_faces(image / 255, points), image[:, :, 8:104])

    @pytest.mark.parametrize("size", [(112, 96), (64, 64), (64, 56)])
    def test_template_keeps_proportions(self, size):
        points, full = template(size), template((112, 96))
        ratio = torch.pdist(points) / torch.pdist(full)
        torch.testing.assert_close(ratio, torch.full_like(ratio, size[0] / 112))
        middle = points[:, 0].mean() - size[1] / 2
        torch.testing.assert_close(middle, (full[:, 0].mean() - 48) * size[0] / 112)

    def test_outside_repeats_the_edge(self):
        crop = crop_faces(torch.full((1, 40, 40, 3), 0.6), torch.tensor(SPHEREFACE)[None] - 60)
        assert crop.unique().tolist() == [153]

    def test_five_of_68_on_a_synthetic_face(self):
        """Eyes beside each other above nose above mouth, and left is the image's left."""
        shot = photograph(SynthFace(0), [0], [0], size=(64, 64), yaw_limit=20)
        left, right, nose, mouth_left, mouth_right = five_of_68(shot.landmarks)[0]
        assert left[0] < nose[0] < right[0] and mouth_left[0] < mouth_right[0]
        assert max(left[1], right[1]) < nose[1] < min(mouth_left[1], mouth_right[1])

    def test_centre_crop_is_centred(self):
        """The middle pixels of a cross stay in the middle, at the scale of MIDDLE."""
        image = torch.zeros(1, 100, 100, 3)
        image[:, 40:60, 40:60] = 1
        crop = crop_photos(list(image), torch.full((1, 5, 2), torch.nan), (56, 48))[0, :, :, 0] > 127
        rows, columns = crop.any(1).nonzero()[:, 0], crop.any(0).nonzero()[:, 0]
        assert (rows.min() + rows.max()) / 2 == 27.5 and (columns.min() + columns.max()) / 2 == 23.5
        assert abs(len(rows) - 20 * 56 / (100 * MIDDLE)) <= 1


@pytest.fixture(scope="module")
def model():
    return build_model(0, people=40, components=12, albedo_components=6)


@pytest.fixture(scope="module")
def synthetic(model, tmp_path_factory):
    return build_synthetic(tmp_path_factory.mktemp("sets") / "set", model, 0, [3, 4, 9], 4, (32, 32))


class TestSynthetic:
    def test_rows_and_fields(self, synthetic, model):
        assert synthetic.subjects.tolist() == [3] * 4 + [4] * 4 + [9] * 4
        assert synthetic.size == (32, 32) and synthetic.card["model"] == describe(model)
        batch = synthetic.load(torch.arange(2))
        shapes = {name: tuple(values.shape[1:]) for name, values in batch.items()}
        expected = {"image": (3, 32, 32), "identity": (12,), "expression": (len(model.expression_basis),)}
        assert shapes == {**expected, "pose": (12,), "subject": (), "label": (), "row": ()}  # and no truth

    def test_pose_leads_from_the_model_to_the_crop(self, synthetic, model):
        """The fit's landmarks by the stored pose lie on the true ones in the crop, as near as noise of 1.5 mm lets."""
        kept = synthetic.load(torch.arange(12))
        points = model.landmarks.of(model.shape(kept["identity"], kept["expression"]))
        matrix = kept["pose"].unflatten(1, (3, 4))
        placed = (points @ matrix[:, :, :3].mT + matrix[:, None, :, 3])[..., :2]
        off = (placed - synthetic.truth["landmarks"]).norm(dim=2)
        scale = matrix[:, 0, :3].norm(dim=1)  # pixels a mm
        assert float((off / scale[:, None]).mean()) < 4

    def test_true_landmarks_in_the_crop_without_noise(self, model, tmp_path):
        """Five of them, all the crop was made by, are then the template's but for the similarity's residual."""
        made = build_synthetic(tmp_path, model, 0, [4], 4, (32, 32), landmark_noise=0, yaw_limit=5)
        five = five_of_68(made.truth["landmarks"])
        torch.testing.assert_close(five.mean(1), template((32, 32)).mean(0).expand(4, 2), atol=1e-3, rtol=0)

    def test_targets_are_the_fit_not_the_truth(self, model, tmp_path):
        shots = photograph(SynthFace(0), [4] * 4, [0, 1, 2, 3], size=(74, 74), view=synthetic_sets.VIEW)
        exact = fit(model, shots.landmarks, shots.subject, contour="fixed")
        made = build_synthetic(tmp_path, model, 0, [4], 4, (32, 32), landmark_noise=0)
        kept = made.load(torch.arange(4))
        torch.testing.assert_close(kept["expression"], exact.expression, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(kept["identity"], exact.identity.expand(4, -1), atol=1e-3, rtol=1e-3)
        assert (kept["expression"] - shots.expression).abs().max() > 0.1

    def test_noise_of_landmarks_is_in_millimetres(self, model, tmp_path, monkeypatch):
        seen, plain = [], synthetic_sets.fit
        monkeypatch.setattr(
            synthetic_sets, "fit", lambda *given, **more: seen.append(given[1]) or plain(*given, **more)
        )
        build_synthetic(tmp_path, model, 0, [4, 5], 10, (32, 32), landmark_noise=2)
        shots = photograph(
            SynthFace(0), [4] * 10 + [5] * 10, list(range(10)) * 2, size=(74, 74), view=synthetic_sets.VIEW
        )
        noise = (seen[0] - shots.landmarks) / shots.camera.scale[:, None, None]
        assert abs(float(noise.std()) - 2) < 0.1 and abs(float(noise.mean())) < 0.1
        assert torch.corrcoef(noise.view(2, -1))[0, 1].abs() < 0.1  # another person, other noise

    def test_truth_is_the_photographs(self, synthetic):
        shots = photograph(SynthFace(0), [4, 9], [1, 3], size=(74, 74), view=synthetic_sets.VIEW)
        chosen = synthetic.take(torch.tensor([5, 11]))
        truth = chosen.truth
        torch.testing.assert_close(truth["angles"], shots.angles)
        torch.testing.assert_close(truth["expression"], shots.expression)
        torch.testing.assert_close(true_shapes(chosen), shots.shape)
        torch.testing.assert_close(true_shapes(chosen, neutral=True), shots.neutral)
        torch.testing.assert_close(synthetic.of([4]).truth["angles"][1], shots.angles[0])

    def test_crops_show_the_face(self, synthetic):
        """Eyes are where the template says: the noiseless crop of the same picture looks nearly the same."""
        shot = photograph(SynthFace(0), [4], [1], size=(74, 74), supersample=1, view=synthetic_sets.VIEW)
        crop = crop_faces(shot.image, five_of_68(shot.landmarks), (32, 32)).float()
        kept = synthetic.image[[5]].float()
        assert torch.corrcoef(torch.stack([crop.flatten(), kept.flatten()]))[0, 1] > 0.9

    def test_a_person_does_not_depend_on_the_others(self, synthetic, model, tmp_path):
        alone, ours = build_synthetic(tmp_path, model, 0, [9], 4, (32, 32)), synthetic.of([9])
        assert torch.equal(alone.image, ours.image)
        one, other = (faces.read(["identity"])["identity"] for faces in (alone, ours))
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)

    def test_made_once(self, synthetic, model, monkeypatch):
        monkeypatch.setattr(synthetic_sets, "photograph", None)  # nothing is photographed again
        again = build_synthetic(synthetic.table.folder, model, 0, [3, 4, 9], 4, (32, 32))
        assert torch.equal(again.image, synthetic.image)

    @pytest.mark.parametrize("population", [VERSION - 1, None])
    def test_a_set_of_other_people_is_refused(self, synthetic, model, tmp_path, population):
        """A folder made with another population of SynthFace, or by an edition that did not write it down."""
        folder = shutil.copytree(synthetic.table.folder, tmp_path / "old")
        card = json.loads((folder / "card.json").read_text())
        card["made"]["population"] = population
        (folder / "card.json").write_text(json.dumps(card))
        with pytest.raises(RunError, match=f"old holds .* population is {population}, not {VERSION}. Choose another"):
            build_synthetic(folder, model, 0, [3, 4, 9], 4, (32, 32))

    def test_an_interrupted_build_continues(self, synthetic, model, tmp_path, monkeypatch):
        """Stopped between blocks; the rest is made, and the whole is as if nothing had happened."""
        monkeypatch.setattr(synthetic_sets, "TOGETHER", 4)  # one person a block
        plain, calls = synthetic_sets.photograph, []

        def photograph_some(*arguments, **options):
            calls.append(arguments)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return plain(*arguments, **options)

        monkeypatch.setattr(synthetic_sets, "photograph", photograph_some)
        with pytest.raises(KeyboardInterrupt):
            build_synthetic(tmp_path, model, 0, [3, 4, 9], 4, (32, 32))
        with pytest.raises(AssetError, match="unfinished"):
            read_faces(tmp_path)
        whole = build_synthetic(tmp_path, model, 0, [3, 4, 9], 4, (32, 32))
        assert len(calls) == 3 + 1  # no block was made twice but the one that failed
        assert torch.equal(whole.image, synthetic.image)


class TestReading:
    @pytest.mark.parametrize(
        ("identity", "images", "message"), [(5, 4, r"'identity': 12.*not .*'identity': 5"), (12, 5, "is 4, not 5")]
    )
    def test_another_set_is_not_overwritten(self, synthetic, model, identity, images, message):
        with pytest.raises(RunError, match=message):
            build_synthetic(synthetic.table.folder, truncated(model, identity), 0, [3, 4, 9], images, (32, 32))

    def test_a_table_of_something_else(self, tmp_path):
        build_table(tmp_path, {}, lambda first: [{"image": torch.zeros(1, 2, 2, 3, dtype=torch.uint8)}])
        with pytest.raises(AssetError, match="holds no faces: it has no subject"):
            read_faces(tmp_path)

    def test_no_truth_of_photos(self, small):
        with pytest.raises(RunError, match="no ground truth"):
            small.split().test.truth  # noqa: B018

    def test_several_processes_make_the_same(self, synthetic, model, tmp_path, monkeypatch):
        monkeypatch.setattr(synthetic_sets, "TOGETHER", 8)  # two blocks
        shared = build_synthetic(tmp_path, model, 0, [3, 4, 9], 4, (32, 32), workers=2)
        assert torch.equal(shared.image, synthetic.image)


def test_a_worker_that_is_killed():
    with pytest.raises(RunError, match="workers=1"):
        list(synthetic_sets._in_order(os._exit, [1, 1], workers=2))
