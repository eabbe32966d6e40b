"""Every kind of image file that a person may have leads to the image or to a clear error."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from facenb.errors import ImageError
from facenb.photos.images import LARGEST, read_image, read_photo

RGB = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def saved(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return read_image(tmp_path / name)


def test_rgb_is_exact(tmp_path):
    image = saved(tmp_path, Image.fromarray(RGB))
    assert image.dtype == torch.float32 and image.shape == (48, 64, 3)
    assert np.array_equal((image.numpy() * 255).round(), RGB)


TURNS = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a),
    9: lambda a: a,  # no such orientation
}


@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
@pytest.mark.parametrize("tag", TURNS)
def test_exif_orientation(tmp_path, tag, name):
    """Tag n says how the camera was held; numpy's turns are the independent answer."""
    exif = Image.Exif()
    exif[0x0112] = tag
    image = saved(tmp_path, Image.fromarray(RGB), name, exif=exif)
    assert np.array_equal((image.numpy() * 255).round(), TURNS[tag](RGB))
    assert read_photo(tmp_path / name, 40)[1] == image.shape[:2]


ODD_TAGS = {
    "rational -1/0": struct.pack("<HHIIii", 0x011A, 10, 1, 38, -1, 0),
    "negative byte count": struct.pack("<HHIi", 0x0100, 8, 1, -5),
    "signed long": struct.pack("<HHIi", 0xC4A5, 9, 1, -5),
    "unknown type": struct.pack("<HHII", 0x0100, 77, 1, 5),
    "value outside the data": struct.pack("<HHII", 0x010F, 2, 4000, 90000),
}


@pytest.mark.parametrize("kind", ODD_TAGS)
def test_odd_exif_tags_do_not_matter(tmp_path, kind):
    """The orientation (6) stands before a tag that cannot be written again, so that nobody may rewrite the EXIF."""
    orientation, tag = struct.pack("<HHII", 0x0112, 3, 1, 6), ODD_TAGS[kind]
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + orientation + tag[:12] + b"\0" * 4 + tag[12:]
    image = saved(tmp_path, Image.fromarray(RGB), "a.jpg", exif=exif, quality=95)
    assert (
        np.abs(image.numpy() - np.rot90(RGB, -1) / 255).mean() < 0.25
    )  # noise as JPEG; unrelated noise differs by 0.33
    assert image.shape == (64, 48, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0rubbish"])
def test_an_image_with_broken_exif_is_read_as_it_is(tmp_path, exif):
    assert saved(tmp_path, Image.fromarray(RGB), "a.jpg", exif=exif).shape == (48, 64, 3)


def test_grey_becomes_three_alike(tmp_path):
    image = saved(tmp_path, Image.fromarray(RGB[..., 0]))
    assert torch.equal(image[..., 0], image[..., 2])
    assert np.array_equal((image[..., 1].numpy() * 255).round(), RGB[..., 0])


def test_sixteen_bits_keep_their_depth(tmp_path):
    deep = np.arange(40 * 40, dtype=np.uint16).reshape(40, 40) * 40
    image = saved(tmp_path, Image.fromarray(deep))
    np.testing.assert_allclose(image[..., 0].numpy(), deep / 65535, atol=1e-6)


def test_transparent_pixels_lie_on_white(tmp_path):
    alpha = np.full((48, 64, 1), 255, np.uint8)
    alpha[:, :32], alpha[:, 32:40] = 0, 51
    image = saved(tmp_path, Image.fromarray(np.concatenate([RGB, alpha], -1)))
    assert torch.equal(image[:, :32], torch.ones(48, 32, 3))
    np.testing.assert_allclose(image[:, 32:40].numpy(), 0.2 * RGB[:, 32:40] / 255 + 0.8, atol=1e-6)
    assert np.array_equal((image[:, 40:].numpy() * 255).round(), RGB[:, 40:])


def test_palette_with_and_without_transparency(tmp_path):
    flat = np.zeros((40, 40, 3), np.uint8)
    flat[:, 20:] = (255, 0, 0)
    palette = Image.fromarray(flat).quantize(2)
    assert torch.equal(saved(tmp_path, palette)[0, 30], torch.tensor([1.0, 0.0, 0.0]))
    black = palette.getpixel((0, 0))
    image = saved(tmp_path, palette, transparency=black)
    assert torch.equal(image[0, 0], torch.ones(3)) and torch.equal(image[0, 30], torch.tensor([1.0, 0.0, 0.0]))


def test_cmyk_bilevel_and_animation(tmp_path):
    white = Image.new("CMYK", (40, 40), (0, 0, 0, 0))
    assert saved(tmp_path, white, "a.jpg").min() > 0.98
    assert saved(tmp_path, Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "b.tiff")[0, 0].tolist() == [1, 0, 0]
    assert saved(tmp_path, Image.new("1", (40, 40), 1)).min() == 1
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert read_image(tmp_path / "c.gif")[0, 0].tolist() == [1, 0, 0]


def test_a_large_one_is_scaled_to_the_limit(tmp_path):
    picture = Image.fromarray(RGB).resize((1600, 1200), Image.Resampling.BICUBIC)
    picture.save(tmp_path / "a.jpg", quality=95)
    image = read_image(tmp_path / "a.jpg", limit=400)
    assert image.shape == (300, 400, 3)
    small = np.asarray(picture.resize((400, 300), Image.Resampling.BOX), np.float32) / 255
    assert np.abs(image.numpy() - small).mean() < 0.02
    assert read_image(tmp_path / "a.jpg", limit=5000).shape == (1200, 1600, 3)


def test_tiny_names_the_file_and_the_size(tmp_path):
    Image.new("RGB", (31, 200)).save(tmp_path / "tiny.png")
    with pytest.raises(ImageError, match=r"tiny\.png is 31 x 200"):
        read_image(tmp_path / "tiny.png")


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """A PNG header may claim any size; the pixels need not be there."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, format="PNG")
    data = bytearray(buffer.getvalue())
    data[16:24] = struct.pack(">II", 60_000, LARGEST // 50_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ImageError, match=r"bomb\.png .*(million|pixels)"):
        read_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff", "a.webp"])
def test_truncated(tmp_path, name):
    Image.fromarray(np.tile(RGB, (4, 4, 1))).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for share in (0.2, 0.6):
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"just words", b"<html></html>", b"%PDF-1.4 ...", b"\xff\xd8\xff"])
def test_no_image(tmp_path, content):
    (tmp_path / "me.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=r"me\.jpg"):
        read_image(tmp_path / "me.jpg")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match=r"x\.jpg .*No such file"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(ImageError, match="Is a directory"):
        read_image(tmp_path)
