"""The open scans: what the files hold, seen with another reader; damaged and missing ones."""

import numpy as np
import pytest
import torch

from facenb.datasets.scans.open_scans import SCANS, read_scan
from facenb.errors import AssetError
from facenb.photos.images import read_image

COUNTS = {"james": (6393, 12228), "leeperrysmith": (8844, 17684), "fran": (2205, 4224), "headsq": (29061, 57678)}


@pytest.mark.parametrize("name", SCANS)
def test_the_real_ones(real_asset, name):
    scan = read_scan(name, real_asset(SCANS[name][0]))
    assert (len(scan.vertices), len(scan.triangles)) == COUNTS[name]
    assert int(scan.triangles.max()) < len(scan.vertices) and int(scan.triangles.min()) >= 0
    assert torch.isfinite(scan.vertices).all()
    if scan.uv is not None:
        assert scan.uv.min() >= -0.01 and scan.uv.max() <= 1.01


def test_uv_of_james_fit_his_texture(real_asset):
    """Skin at the nose tip, and the image-left eye's white next to its dark pupil: the texture is not upside down."""
    scan = read_scan("james", real_asset("scan-james"))
    image = read_image(scan.texture)
    height, width = image.shape[:2]

    def colour(point):
        nearest = torch.cdist(point[None], scan.vertices)[0].argmin()
        u, v = scan.uv[scan.uv_triangles[scan.triangles == nearest][0]].tolist()
        return image[min(int((1 - v) * height), height - 1), min(int(u * width), width - 1)]

    nose, lip = colour(scan.landmarks[30]), colour(scan.landmarks[57])
    assert nose[0] > nose[2] and nose.mean() > 0.3  # reddish, not background
    assert lip[0] > lip[1]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"groups": {}}', '{"groups": {"A": {"landmarks": {"points": [[1, 2]]}}}}']
)
def test_no_landmark_file(tmp_path, text):
    (tmp_path / "james.ljson").write_text(text)
    with pytest.raises(AssetError, match=r"james\.ljson is not a landmark file"):
        read_scan("james", tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(AssetError, match=r"james\.ljson"):
        read_scan("james", tmp_path)
    (tmp_path / "LeePerrySmith.obj").write_text("v 1 2 3\nv 1 2 4\n")
    with pytest.raises(AssetError, match=r"LeePerrySmith\.obj"):
        read_scan("leeperrysmith", tmp_path)
    (tmp_path / "headsq_skin.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(AssetError, match=r"headsq_skin\.npz is damaged"):
        read_scan("headsq", tmp_path)
    np.savez(tmp_path / "headsq_skin.npz", other=np.zeros(3))
    with pytest.raises(AssetError, match=r"headsq_skin\.npz, got other"):
        read_scan("headsq", tmp_path)
