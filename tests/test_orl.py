"""ORL's official layout, small and written here, and the real one where the mirror is."""

import pytest
import torch
from PIL import Image

from facenb.datasets.pictures.orl import read_orl
from facenb.errors import AssetError
from facenb.photos.images import read_image


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    root = tmp_path_factory.mktemp("orl")
    for person in range(1, 41):
        (root / "att_faces" / f"s{person}").mkdir(parents=True)
        for photo in range(1, 11):
            Image.new("L", (92, 112), person * 5 + photo).save(root / "att_faces" / f"s{person}" / f"{photo}.pgm")
    return root


def test_people_are_in_the_order_of_their_numbers(small):
    images = torch.stack([read_image(path) for path in read_orl(small)[9]])  # s10
    assert images.shape == (10, 112, 92, 3)
    torch.testing.assert_close(images[:, 0, 0, 0] * 255, torch.arange(51.0, 61.0))


def test_a_missing_photo_is_named(small):
    path = small / "att_faces/s7/3.pgm"
    path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(AssetError, match=r"s7/3\.pgm is missing"):
            read_orl(small)
    finally:
        path.with_suffix(".away").rename(path)


def test_the_real_one(real_asset):
    people = read_orl(real_asset("orl"))
    assert len(people) == 40
    images = torch.stack([torch.stack([read_image(path) for path in photos]) for photos in people[:8]])
    faces = images[:, :, ::4, ::4, 0].flatten(2)  # (8, 10, D)
    within = torch.cdist(faces, faces).mean()
    assert within < torch.cdist(faces[:1].flatten(0, 1), faces[1:].flatten(0, 1)).mean()  # people look like themselves
