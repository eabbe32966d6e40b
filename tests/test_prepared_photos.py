"""Prepared photos: decoded once, known by their content, resumed after a kill, read where nothing may be written."""

import os
import shutil
import tempfile

import pytest
import torch
from PIL import Image
from torch.nn import functional

from facenb import savefile
from facenb.errors import ImageError, ModelFileError
from facenb.photos import cache, store
from facenb.photos.crops import crop_faces, crop_photos, template
from facenb.photos.images import read_image, read_photo
from facenb.photos.landmarks import detect, five_points, to_68
from facenb.photos.photo import ict_fitter
from facenb.photos.store import prepare_images, prepare_photos

pytest.importorskip("mediapipe")


@pytest.fixture
def photos(real_asset, tmp_path, monkeypatch):
    """The portrait, a grey wall, and two of ORL; the caches belong to this test."""
    (tmp_path / "photos").mkdir()
    portrait = shutil.copy(real_asset("astronaut") / "astronaut.png", tmp_path / "photos" / "portrait.png")
    Image.new("RGB", (120, 100), "grey").save(tmp_path / "photos" / "wall.png")
    others = sorted(real_asset("orl").rglob("s1/*.pgm"))[:2]
    monkeypatch.setattr(cache, "data_folder", lambda: tmp_path / "shared")
    monkeypatch.setattr(cache, "cache_folders", lambda: [tmp_path / "own"])
    return [portrait, tmp_path / "photos" / "wall.png", *others]


@pytest.fixture
def decoded(monkeypatch):
    """The names of the photos that are decoded from now on."""
    names = []
    monkeypatch.setattr(store, "read_photo", lambda path, limit: names.append(path.name) or read_photo(path, limit))
    return names


def test_fields_are_what_the_detector_gives(photos):
    prepared = prepare_photos(photos)
    [points] = detect(read_image(photos[0]))
    assert torch.equal(prepared.points[0], points) and torch.equal(prepared.five[0], five_points(points))
    assert torch.equal(prepared.landmarks[0], to_68(points)) and torch.equal(prepared.mesh[0], points[:468])
    assert prepared.faces.tolist()[:2] == [1, 0] and prepared.size.tolist()[:2] == [[512, 512], [100, 120]]
    assert not prepared.found[1] and prepared.points[1].isnan().all() and prepared.five[1].isnan().all()


def test_crops_are_cut_from_the_photo(photos):
    """At 112 x 112 exactly; at 64 x 56 like a crop that is made four times as large and averaged."""
    prepared = prepare_photos(photos)
    image = read_image(photos[0])[None]
    assert torch.equal(prepared.crops((112, 112))[0], crop_faces(image, prepared.five[:1], (112, 112))[0])
    assert torch.equal(prepared.crops((112, 96))[0], prepared.crops((112, 112))[0, :, 8:104])
    large = crop_faces(image, prepared.five[:1], (256, 224)).permute(0, 3, 1, 2).float()
    small = prepared.crops((64, 56))[0].permute(2, 0, 1).float()
    assert (functional.avg_pool2d(large, 4)[0] - small).abs().mean() < 4  # of 255
    assert torch.equal(
        prepared.crops((112, 112))[1],
        crop_photos([read_image(photos[1])], torch.full((1, 5, 2), torch.nan), (112, 112))[0],
    )


def test_a_photo_is_decoded_once(photos, decoded):
    first = prepare_photos(photos[:2])
    again = prepare_photos(photos[::-1])
    assert decoded == ["portrait.png", "wall.png", photos[3].name, photos[2].name]
    assert torch.equal(again.points[3], first.points[0]) and torch.equal(
        again[2:3].crops((64, 64)), first[1:].crops((64, 64))
    )
    prepare_photos([shutil.copy(photos[0], photos[0].parent / "renamed.png")])
    assert len(decoded) == 4


def test_a_file_that_changes_is_decoded_again(photos, decoded):
    """Even if its name, size and time stay."""
    Image.new("RGB", (120, 100), "grey").save(photos[1], compress_level=0)
    facts = os.stat(photos[1])
    prepare_photos(photos[:2])
    Image.new("RGB", (120, 100), "white").save(photos[1], compress_level=0)
    os.utime(photos[1], ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert os.stat(photos[1]).st_size == facts.st_size
    prepare_photos(photos[:2])
    assert decoded == ["portrait.png", "wall.png", "wall.png"]


def test_a_killed_run_continues(photos, decoded, monkeypatch):
    prepare = store._prepare_file

    def killed(path, aligned):
        if path == photos[2]:
            raise KeyboardInterrupt
        return prepare(path, aligned)

    monkeypatch.setattr(store, "_prepare_file", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_photos(photos)
    monkeypatch.setattr(store, "_prepare_file", prepare)
    assert len(prepare_photos(photos)) == 4
    assert decoded == [path.name for path in photos]


def test_what_another_prepared_may_be_read_only(photos, decoded, monkeypatch, tmp_path):
    """A class shares the data folder's store; what is missing there goes to the user's own cache folder."""
    shared = prepare_photos(photos[:2])
    before = sorted((tmp_path / "shared").rglob("*"))
    save = savefile.save

    def refuses(path, *content):
        if "shared" in path.parts:
            raise ModelFileError(f"cannot write {path}")
        return save(path, *content)

    monkeypatch.setattr(savefile, "save", refuses)
    everything = prepare_photos(photos)
    assert decoded == [path.name for path in photos] and sorted((tmp_path / "shared").rglob("*")) == before
    assert torch.equal(everything.points[0], shared.points[0])
    assert len(prepare_photos(photos)) == 4 and len(decoded) == 4


def test_a_damaged_file_of_the_cache_is_made_again(photos, decoded, tmp_path):
    prepare_photos(photos[:1])
    [file] = (tmp_path / "shared").rglob("*.safetensors")
    file.write_bytes(file.read_bytes()[:100])
    prepare_photos(photos[:1])
    prepare_photos(photos[:1])
    assert len(decoded) == 2


def test_fits_are_kept_for_each_model(photos, monkeypatch):
    fitter, prepared = ict_fitter(64), prepare_photos(photos[:1])
    fitted, again = prepared.fit(fitter), store.fit_photos(fitter, prepared.mesh)
    torch.testing.assert_close(fitted.identity, again.identity)
    torch.testing.assert_close(fitted.camera.rotation, again.camera.rotation)
    monkeypatch.setattr(store, "fit_photos", None)
    assert torch.equal(prepared.fit(fitter).expression, fitted.expression)


def test_images_in_memory(photos):
    prepared = prepare_images([read_image(path) for path in photos[:2]])
    kept = prepare_photos(photos[:2])
    assert torch.equal(prepared.crops((64, 64)), kept.crops((64, 64))) and torch.equal(prepared.five[0], kept.five[0])


def test_aligned_images_are_kept_as_they_are(photos, tmp_path):
    crop = prepare_photos(photos[:1]).crops((112, 112))[0]
    Image.fromarray(crop.numpy()).save(tmp_path / "aligned.png")
    prepared = prepare_photos([tmp_path / "aligned.png"], aligned=True)
    assert torch.equal(prepared.crops((112, 112))[0], crop) and prepared.faces.tolist() == [1]
    torch.testing.assert_close(prepared.five[0], template((112, 112)))
    with pytest.raises(ImageError, match=r"wall\.png is 120 x 100 pixels; aligned images have 112 x 112"):
        prepare_photos(photos[1:2], aligned=True)


def test_points_of_a_large_photo_are_in_its_own_pixels(photos, tmp_path):
    Image.open(photos[0]).resize((2048, 2048)).save(tmp_path / "large.png")
    small, large = prepare_photos([photos[0], tmp_path / "large.png"]).five
    torch.testing.assert_close(large, 4 * small, atol=8, rtol=0)


def test_a_photo_that_is_not_there(photos, tmp_path):
    with pytest.raises(ImageError, match=r"none\.jpg cannot be read: No such file"):
        prepare_photos([tmp_path / "none.jpg"])


def test_folders_of_caches(monkeypatch, tmp_path):
    """The data folder if it can be written to, then the user's own, then the temporary one; without any, no cache."""
    (tmp_path / "file").write_text("")
    variables = ("FACENB_DATA", "XDG_CACHE_HOME", "TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", None)
    for name in variables:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in variables:
        made = []
        for _ in range(2):
            cache.kept(f"a/{name}", lambda made=made: made.append(1) or {"x": torch.ones(2)})
        assert made == [1] and len(list((tmp_path / name).rglob(f"{name}.safetensors"))) == 1
        monkeypatch.setenv(name, str(tmp_path / "file"))
        monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert torch.equal(cache.kept("b", lambda: {"x": torch.ones(2)})["x"], torch.ones(2))
