"""BU-3DFE's official layout, written here: VRML, landmarks, and which scans make the paper's two sets."""

import numpy as np
import pytest
import torch
from PIL import Image

from facenb.datasets.scans.bu3dfe import PARTS, corners_of_83, read_bnd, read_bu3dfe, read_wrl
from facenb.datasets.scans.views import render_views
from facenb.errors import AssetError

# Two square cells with a seam between them: the vertices 1 and 4 have two texture places each.
WRL = """#VRML V2.0 utf8
# a comment with [ brackets ] and point [ in it
Transform { children [ Shape {
  appearance Appearance { texture ImageTexture { url "F0001_NE00WH_F3D.bmp" } }
  geometry IndexedFaceSet {
    coord Coordinate { point [
      -50.0 -40.0 1.5e0,
      0 -40.0 2.0,
      50.0 -40.0 0.0,
      -50.0 40.0 0.0,
      0.0 40.0 -2.5E-1,
      5.0e1 40.0 0.0
    ] }
    coordIndex [
      0, 1, 4, 3, -1,
      1, 2, 5, -1,
      1, 5, 4, -1
    ]
    texCoord TextureCoordinate { point [ 0 0, 0.5 0, 0.5 1, 0 1, 0.6 0, 1 0, 1 1, 0.6 1 ] }
    texCoordIndex [ 0,1,2,3,-1, 4,5,6,-1, 4,6,7,-1 ]
  }
} ] }
"""


def face() -> np.ndarray:
    """83 points by part, in any order within a part."""
    points = np.zeros((83, 3))
    middle = {"right_eye": (-30, 30), "left_eye": (30, 30), "right_brow": (-30, 45), "left_brow": (30, 45),
              "nose": (0, 0), "outer_mouth": (0, -30), "inner_mouth": (0, -30), "jaw": (0, -60)}  # fmt: skip
    rng = np.random.default_rng(0)
    for part, where in PARTS.items():
        count = where.stop - where.start
        turn = 2 * np.pi * rng.permutation(count) / count
        points[where] = np.stack([14 * np.cos(turn), 5 * np.sin(turn), 0 * turn], 1) + [*middle[part], 60]
    return points


@pytest.fixture
def tree(tmp_path):
    for person in ("F0001", "M0044"):
        (tmp_path / person).mkdir()
        for scan in ("NE00WH", "HA01WH", "HA02WH", "SU01WH", "AN04WH"):
            (tmp_path / person / f"{person}_{scan}_F3D.wrl").write_text(WRL)
            (tmp_path / person / f"{person}_{scan}_RAW.wrl").write_text("raw scans are not read")
            rows = [f"{k}\t\t{x} {y} {z}" for k, (x, y, z) in enumerate(face())]
            (tmp_path / person / f"{person}_{scan}_F3D.bnd").write_text("\n".join(rows) + "\n")
    Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / "F0001" / "F0001_NE00WH_F3D.bmp")
    return tmp_path


def test_people_and_sets(tree):
    data = read_bu3dfe(tree)
    assert len(data) == 10 and data.people == ("F0001", "M0044")
    assert [(s.person, s.expression) for s in data.pose_set()] == [("F0001", "neutral"), ("M0044", "neutral")]
    chosen = [(s.expression, s.level) for s in data.expression_set() if s.person == "F0001"]
    assert sorted(chosen) == [("happiness", 1), ("neutral", 0), ("surprise", 1)]


def test_a_scan_with_its_texture(tree):
    first, *_, other = read_bu3dfe(tree).pose_set()
    scan = first.scan()
    assert scan.unit == "mm" and scan.texture.name == "F0001_NE00WH_F3D.bmp" and other.scan().texture is None
    image = render_views(scan, (0.0,), (64, 64)).image[0]
    torch.testing.assert_close(image[32, 20], torch.tensor([200, 10, 10]) / 255)
    assert first.landmarks().shape == (83, 3)


def test_vertices_triangles_and_seams(tmp_path):
    (tmp_path / "one.wrl").write_text(WRL)
    vertices, triangles, uv, picture = read_wrl(tmp_path / "one.wrl")
    assert triangles.shape == (4, 3) and len(vertices) == 8 and picture == "F0001_NE00WH_F3D.bmp"
    area = torch.linalg.cross(*(vertices[triangles[:, k]] - vertices[triangles[:, 0]] for k in (1, 2)))[:, 2] / 2
    assert float(area.sum()) == pytest.approx(100 * 80) and (area > 0).all()
    left = vertices[:, 0] < 0
    assert set(map(tuple, uv[left].tolist())) == {(0.0, 0.0), (0.0, 1.0)}
    assert vertices[:, 2].min() == pytest.approx(-0.25) and vertices[:, 2].max() == pytest.approx(2.0)


def test_a_scan_without_texture_places(tmp_path):
    (tmp_path / "one.wrl").write_text(WRL.split("texCoord ")[0] + "} } ] }")
    vertices, triangles, uv, _ = read_wrl(tmp_path / "one.wrl")
    assert uv is None and len(vertices) == 6 and triangles[0].tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text[:200], "lacks"),
        (lambda text: text.replace("1, 5, 4", "1, 5, 40"), "on 6 vertices"),
        (lambda text: text.replace("0 -40.0 2.0,", "0 -40.0,"), "no coordinates"),
        (lambda text: text.replace("4,6,7,-1", ""), "do not fit"),
        (lambda text: "an error page", "lacks"),
    ],
)
def test_files_that_are_no_scans(tmp_path, change, what):
    (tmp_path / "F0001_NE00WH_F3D.wrl").write_text(change(WRL))
    with pytest.raises(AssetError, match=rf"F0001_NE00WH_F3D\.wrl .*{what}"):
        read_wrl(tmp_path / "F0001_NE00WH_F3D.wrl")


def test_landmark_files_that_are_none(tmp_path):
    with pytest.raises(AssetError, match=r"x\.bnd is no readable landmark file"):
        read_bnd(tmp_path / "x.bnd")
    (tmp_path / "x.bnd").write_text("1 2 3 4\n" * 82)
    with pytest.raises(AssetError, match="82 landmarks, not 83"):
        read_bnd(tmp_path / "x.bnd")
    (tmp_path / "x.bnd").write_text("1 2 3 nan\n" * 83)
    with pytest.raises(AssetError, match="not 83"):
        read_bnd(tmp_path / "x.bnd")


def test_corners_do_not_depend_on_the_order_within_a_part():
    points = torch.from_numpy(face()).float()
    corners = corners_of_83(points)
    x = corners[:, 0].tolist()
    assert x == sorted(x[:4]) + x[4:] and x[0] == pytest.approx(-44, abs=1.5) and x[5] == pytest.approx(14, abs=1)
    shuffled = points.clone()
    for part in PARTS.values():
        shuffled[part] = points[part].flip(0)
    torch.testing.assert_close(corners_of_83(shuffled), corners)


def test_folders_without_scans_or_with_other_names(tmp_path, tree):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AssetError, match="data_download get bu-3dfe"):
        read_bu3dfe(tmp_path / "empty")
    (tree / "F0001" / "F0002_NE00WH_F3D.wrl").write_text(WRL)
    with pytest.raises(AssetError, match="F0002_NE00WH_F3D.wrl is no scan of BU-3DFE"):
        read_bu3dfe(tree)
