"""MICC Florence's official layout, small and written here."""

import pytest
from PIL import Image

from facenb.datasets.scans.micc import frames_of, read_micc
from facenb.errors import AssetError


def write(root, name, frames=2, texture=True, view="frontal1"):
    place = root / name / "Model" / view / "obj"
    place.mkdir(parents=True)
    lines = ["mtllib x.mtl", "v 0 0 0", "v 10 0 0", "v 0 10 0", "vt 0 0", "vt 1 0", "vt 0 1", "f 1/1 2/2 3/3"]
    (place / "110920150452.obj").write_text("\n".join(lines))
    if texture:
        Image.new("RGB", (40, 40)).save(place / "110920150452.bmp")
    for setting in ("PTZ-Outdoor", "Indoor-Cooperative")[: 1 if frames else 0]:
        (root / name / "Videos" / setting / "frames").mkdir(parents=True)
        for k in range(frames):
            Image.new("RGB", (40, 40)).save(root / name / "Videos" / setting / "frames" / f"frame{k:04d}.jpg")


def test_scans_and_frames(tmp_path):
    write(tmp_path, "subject_01")
    write(tmp_path, "subject_02", frames=3, texture=False)
    data = read_micc(tmp_path)
    first, second = data
    assert len(data) == 2 and first.name == "subject_01" and len(first.frames["PTZ-Outdoor"]) == 2
    scan = first.scan()
    assert scan.unit == "mm" and scan.texture.name == "110920150452.bmp" and second.scan().texture is None
    assert scan.vertices.tolist() == [[0, 0, 0], [10, 0, 0], [0, 10, 0]] and scan.uv.shape == (3, 2)
    paths, names = frames_of(data, "PTZ-Outdoor")
    assert names == ["subject_01"] * 2 + ["subject_02"] * 3 and paths == sorted(paths)


def test_the_second_frontal_scan_where_there_is_no_first(tmp_path):
    write(tmp_path, "subject_01", view="frontal2")
    assert "frontal2" in str(read_micc(tmp_path)[0].scans[0])


def test_settings(tmp_path):
    write(tmp_path, "subject_01")
    with pytest.raises(AssetError, match="no frames of PTZ-Indoor"):
        frames_of(read_micc(tmp_path), "PTZ-Indoor")


def test_a_subject_without_scans(tmp_path):
    (tmp_path / "subject_05").mkdir()
    with pytest.raises(AssetError, match="subject_05 has no scan"):
        read_micc(tmp_path)
    write(tmp_path, "subject_05")
    (tmp_path / "subject_05/Model/frontal1/obj/110920150452.obj").write_text("nothing")
    with pytest.raises(AssetError, match=r"110920150452\.obj"):
        read_micc(tmp_path)[0].scan()
