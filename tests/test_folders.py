"""Folders of images, empty ones too; photographs as training sets, against the parts they are made of."""

from dataclasses import replace

import pytest
import torch
from helpers import truncated
from PIL import Image

from facenb.datasets.folders import read_folder
from facenb.datasets.pictures.aflw2000 import read_aflw2000
from facenb.datasets.pictures.lfw import LFW, Pair, read_lfw
from facenb.datasets.pictures.orl import read_orl
from facenb.datasets.pictures.w300lp import read_w300lp
from facenb.datasets.pictures.ytf import read_ytf
from facenb.datasets.scans.bu3dfe import read_bu3dfe
from facenb.datasets.scans.micc import read_micc
from facenb.datasets.scans.now import read_now
from facenb.datasets.sets.build_photos import build_folder, lfw_test_crops, people_of_folds
from facenb.datasets.sets.build_synthetic import blocks_of
from facenb.errors import AssetError, RunError
from facenb.photos.canonical import mirrored_landmarks
from facenb.photos.crops import crop_faces, crop_photos
from facenb.photos.images import read_image
from facenb.photos.landmarks import MESH, central, detect, five_points
from facenb.photos.photo import fit_photos, ict_fitter
from facenb.photos.store import prepare_photos

SIZE = (64, 56)


def paint(path, size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (90, 120, 60)).save(path)


@pytest.mark.parametrize(
    ("read", "expected", "name"),
    [
        (read_lfw, r"folders of people with images like Ann_Bee/Ann_Bee_0001\.jpg", "lfw"),
        (read_orl, "folders s1 to s40", "orl"),
        (read_aflw2000, r"images like AFLW2000/image00002\.jpg", "aflw2000-3d"),
        (read_w300lp, "AFW, HELEN, IBUG, LFPW", "300w-lp"),
        (read_ytf, "aligned_images_DB or frame_images_DB", "ytf"),
        (read_bu3dfe, r"folders like F0001 with scans F0001_NE00WH_F3D\.wrl", "bu-3dfe"),
        (read_micc, "folders subject_01, subject_02, ...", "micc"),
        (read_now, r"imagepathsvalidation\.txt", "now"),
    ],
)
def test_no_reader_takes_an_empty_folder(tmp_path, read, expected, name):
    with pytest.raises(AssetError, match=f"Expected {expected} in .*data_download get {name}`.; it is empty"):
        read(tmp_path)


class TestFolder:
    def test_people_and_pictures(self, tmp_path):
        for name in ("b/2.png", "b/1.JPG", "a/x.jpeg", ".hidden/1.png"):
            paint(tmp_path / name)
        (tmp_path / "a" / "notes.txt").write_text("no picture")
        (tmp_path / "a" / ".cache.png").write_text("hidden")
        found = read_folder(tmp_path)
        assert {name: [p.name for p in some] for name, some in found.items()} == {
            "a": ["x.jpeg"],
            "b": ["1.JPG", "2.png"],
        }

    def test_what_is_missing(self, tmp_path):
        with pytest.raises(AssetError, match="there is no such folder"):
            read_folder(tmp_path / "nothing")
        with pytest.raises(AssetError, match="no directories"):
            read_folder(tmp_path)
        (tmp_path / "ann").mkdir()
        with pytest.raises(AssetError, match="ann holds no images"):
            read_folder(tmp_path)

    def test_a_folder_nested_once_more(self, tmp_path):
        for name in ("a/x.png", "b/y.png"):
            paint(tmp_path / "outer" / "inner" / name)
        assert list(read_folder(tmp_path / "outer")) == ["a", "b"]

    def test_pictures_below_a_persons_directory_are_never_another_person(self, tmp_path):
        for name in ("ann/first/x.png", "bob/first/y.png"):
            paint(tmp_path / name)
        with pytest.raises(AssetError, match="ann holds no images"):
            read_folder(tmp_path)

    def test_pictures_beside_the_people(self, tmp_path):
        paint(tmp_path / "ann" / "1.png")
        paint(tmp_path / "loose.png")
        with pytest.raises(AssetError, match=r"loose\.png lies beside"):
            read_folder(tmp_path)


@pytest.fixture
def lfw(real_asset):
    """Three of LFW's people with their first three photos, and two folds of pairs that name two of them."""
    pytest.importorskip("mediapipe")
    whole = read_lfw(real_asset("lfw"))
    people = {name: some[:3] for name, some in list(whole.with_at_least(3).items())[:3]}
    return Small(people, whole.pairs_file)


class Small(LFW):
    def pairs(self):
        (a, b, *_), (c, *_), _ = self.people.values()
        return [Pair(a, b, True, 0), Pair(a, c, False, 0), Pair(c, b, False, 1)]


@pytest.fixture
def fitter(lfw):
    """A part of ICT-FaceKit, quick to fit."""
    whole = ict_fitter(64)
    return replace(whole, model=truncated(whole.model, 20, 12), errors=None)


@pytest.fixture
def built(lfw, fitter, tmp_path):
    return build_folder(tmp_path / "set", lfw.people, 2, SIZE, fitter)


class TestLFW:
    def test_rows_are_the_photos_fits(self, built, lfw, fitter):
        """The second person's rows against a fit and crops made here. A fit stops earlier or later in company."""
        name, paths = list(lfw.people.items())[1]
        assert built.card["names"] == list(lfw.people) and built.subjects.tolist() == [0] * 3 + [1] * 3 + [2] * 3
        points = torch.stack([central(detect(image), image) for image in map(read_image, paths)])
        found = fit_photos(fitter, points[:, :MESH], torch.zeros(3, dtype=torch.int64))
        kept = built.read(["identity", "expression", "image"], torch.arange(3, 6))
        torch.testing.assert_close(kept["identity"], found.identity.expand(3, -1), atol=0.03, rtol=0)
        torch.testing.assert_close(kept["expression"], found.expression, atol=0.03, rtol=0)
        assert torch.equal(kept["image"], prepare_photos(paths).crops(SIZE))

    def test_mirrored_targets_are_the_mirrored_shape(self, lfw, tmp_path):
        """The whole model's mesh is symmetric: the shape of the mirrored targets is the mirror image, by vertex."""
        fitter, people = ict_fitter(64), dict(list(lfw.people.items())[:2])
        built = build_folder(tmp_path, people, 2, SIZE, fitter)
        model = fitter.model
        flip = torch.tensor([-1.0, 1.0, 1.0])
        partner = torch.cat([torch.cdist(part * flip, model.mean).argmin(1) for part in model.mean.split(2000)])
        kept = built.table.read(torch.arange(6))
        shape = model.shape(kept["identity"], kept["expression"])
        other = model.shape(kept["identity_mirrored"], kept["expression_mirrored"])
        away = (shape[:, partner] * flip - other).norm(dim=-1).mean()
        assert away < 0.1 < (shape - other).norm(dim=-1).mean()  # mm

    def test_people_of_the_pairs_are_not_in_the_training(self, built, lfw):
        test_people, names = people_of_folds(lfw.pairs(), [1]), list(lfw.people)
        assert test_people == set(names[:2])
        split = built.split(validation=0.0, test=0.0, without=test_people)
        assert {names[k] for k in split.train.people.tolist()} == set(names[2:])

    def test_a_photo_without_a_face_is_left_out_and_counted(self, lfw, fitter, tmp_path):
        """And the person of whom one photo is left."""
        names = list(lfw.people)
        paint(tmp_path / "photos" / "wall.jpg", (250, 250))
        wall = tmp_path / "photos" / "wall.jpg"
        people = {names[0]: (*lfw.people[names[0]], wall), names[1]: (lfw.people[names[1]][0], wall)}
        made = build_folder(tmp_path / "set", people, 2, SIZE, fitter)
        assert len(made) == 3 and made.left_out == (3, [names[1]])

    def test_crops_of_the_pairs(self, lfw, fitter, tmp_path):
        crops = lfw_test_crops([0, 1], SIZE, lfw, fitter)
        pairs = crops.pairs
        assert crops.image.shape == (3, *SIZE, 3)
        assert pairs.same.tolist() == [True, False, False] and pairs.fold.tolist() == [0, 0, 1]
        for k, pair in enumerate(lfw.pairs()):
            assert (crops.photos[pairs.first[k]], crops.photos[pairs.second[k]]) == pair[:2]
        image = read_image(lfw.pairs()[0].second)
        points = central(detect(image), image)
        alone = fit_photos(fitter, points[None, :MESH], None).identity[0]
        torch.testing.assert_close(crops.identity[pairs.second[0]], alone, atol=2e-3, rtol=1e-2)
        only = lfw_test_crops([1], SIZE, lfw, fitter)
        assert only.pairs.fold.tolist() == [1] and len(only.image) == 2

    def test_a_photo_of_a_pair_without_a_face(self, lfw, fitter, tmp_path, monkeypatch):
        """Its crop is the photo's middle, and its coefficients say nothing."""
        paint(tmp_path / "photos" / "wall.jpg", (250, 250))
        a, b = lfw.people[list(lfw.people)[0]][:2]
        three = [Pair(a, tmp_path / "photos" / "wall.jpg", False, 0), Pair(a, b, True, 0)]
        monkeypatch.setattr(Small, "pairs", lambda self: three)
        crops = lfw_test_crops([0], SIZE, lfw, fitter)
        wall = crops.pairs.second[0]
        middle = crop_photos([read_image(three[0].second)], torch.full((1, 5, 2), torch.nan), SIZE)[0]
        assert (crops.image[wall].int() - middle.int()).abs().max() <= 1
        torch.testing.assert_close(crops.identity[wall], crops.identity[torch.arange(3) != wall].mean(0))

    def test_a_fold_that_is_not_there(self, lfw, fitter, tmp_path):
        with pytest.raises(ValueError, match=r"folds \[7\] are not in"):
            lfw_test_crops([0, 7], SIZE, lfw, fitter)


class TestMirror:
    def test_twice_is_once(self, real_asset):
        points, width = torch.rand(3, MESH, 2) * 100, torch.tensor([100.0, 250.0, 64.0])
        torch.testing.assert_close(mirrored_landmarks(mirrored_landmarks(points, width), width), points)

    def test_the_detector_finds_them_on_the_mirrored_photo(self, real_asset):
        """To within what the detector itself differs on a photo and its mirror image."""
        pytest.importorskip("mediapipe")
        image = read_image(real_asset("astronaut") / "astronaut.png")
        points = detect(image)[:1, :MESH]
        turned = detect(image.flip(1).contiguous())[0, :MESH]
        away = (mirrored_landmarks(points, torch.tensor([float(image.shape[1])]))[0] - turned).norm(dim=1)
        size = (turned.amax(0) - turned.amin(0)).max()
        assert away.mean() < 0.02 * size and away.max() < 0.08 * size


class TestBuildFolder:
    def test_aligned_pictures_keep_their_middle(self, lfw, fitter, tmp_path):
        """112x112 pictures on InsightFace's five points, as sets circulate: two people, two each."""
        folder = tmp_path / "aligned"
        for name, some in list(lfw.people.items())[:2]:
            for path in some[:2]:
                image = read_image(path)
                five = five_points(central(detect(image), image))
                crop = crop_faces(image[None], five[None], (112, 112))[0]
                (folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(crop.numpy()).save(folder / name / f"{path.stem}.png")
        made = build_folder(tmp_path / "set", read_folder(folder), 2, (112, 96), fitter, aligned=True)
        assert made.size == (112, 96) and made.subjects.tolist() == [0, 0, 1, 1]
        first = sorted((folder / made.card["names"][0]).iterdir())[0]
        whole = (read_image(first) * 255).round().to(torch.uint8)
        assert torch.equal(made.image[0], whole[:, 8:104])

    def test_no_faces_at_all(self, real_asset, fitter, tmp_path):
        for k in range(2):
            paint(tmp_path / "walls" / "ann" / f"{k}.png", (120, 120))
        with pytest.raises(RunError, match="No rows"):
            build_folder(tmp_path / "set", read_folder(tmp_path / "walls"), 2, SIZE, fitter)


def test_blocks_hold_whole_people():
    assert blocks_of([150, 40, 60, 300, 10]) == [[0, 1], [2], [3], [4]]
