"""BU-3DFE's official layout, written here: VRML, landmarks, and which scans make the paper's two sets."""

import pytest
import torch
from PIL import Image

from facenb.datasets.scans.bu3dfe import expression_set, pose_set, read_bu3dfe
from facenb.datasets.scans.mesh_files import read_mesh
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


LINES = [f"{k}\t\t{k} {-k} 60.5" for k in range(83)]  # landmarks


@pytest.fixture
def tree(tmp_path):
    for person in ("F0001", "M0044"):
        (tmp_path / person).mkdir()
        for scan in ("NE00WH", "HA01WH", "HA02WH", "SU01WH", "AN04WH"):
            (tmp_path / person / f"{person}_{scan}_F3D.wrl").write_text(WRL)
            (tmp_path / person / f"{person}_{scan}_RAW.wrl").write_text("raw scans are not read")
            (tmp_path / person / f"{person}_{scan}_F3D.bnd").write_text("\n".join(LINES) + "\n")
    Image.new("RGB", (64, 64), (200, 10, 10)).save(tmp_path / "F0001" / "F0001_NE00WH_F3D.bmp")
    return tmp_path


def test_people_and_sets(tree):
    data = read_bu3dfe(tree)
    assert len(data) == 10
    assert [(s.person, s.expression) for s in pose_set(data)] == [("F0001", "neutral"), ("M0044", "neutral")]
    chosen = [(s.expression, s.level) for s in expression_set(data) if s.person == "F0001"]
    assert sorted(chosen) == [("happiness", 1), ("neutral", 0), ("surprise", 1)]


def test_a_scan_with_its_texture(tree):
    first, *_, other = pose_set(read_bu3dfe(tree))
    scan = first.scan()
    assert scan.unit == "mm" and scan.texture.name == "F0001_NE00WH_F3D.bmp" and other.scan().texture is None
    image = render_views(scan, (0.0,), (64, 64))[0]
    torch.testing.assert_close(image[32, 20], torch.tensor([200, 10, 10]) / 255)
    assert first.landmarks()[3].tolist() == [3, -3, 60.5]


def test_vertices_triangles_and_seams(tmp_path):
    """Six vertices with eight texture coordinates stay six vertices."""
    (tmp_path / "one.wrl").write_text(WRL)
    mesh = read_mesh(tmp_path / "one.wrl")
    vertices, triangles = mesh.vertices, mesh.triangles
    assert triangles.shape == (4, 3) and len(vertices) == 6
    area = torch.linalg.cross(*(vertices[triangles[:, k]] - vertices[triangles[:, 0]] for k in (1, 2)))[:, 2] / 2
    assert float(area.sum()) == pytest.approx(100 * 80) and (area > 0).all()
    places = {tuple(vertices[v].tolist()): set() for v in (1, 4)}
    for corners, texels in zip(triangles.flatten().tolist(), mesh.uv_triangles.flatten().tolist(), strict=True):
        if corners in (1, 4):
            places[tuple(vertices[corners].tolist())].add(tuple(mesh.uv[texels].tolist()))
    assert sorted(map(len, places.values())) == [2, 2]  # the seam
    assert vertices[:, 2].min() == pytest.approx(-0.25) and vertices[:, 2].max() == pytest.approx(2.0)


def test_a_scan_without_texture_coordinates(tmp_path):
    (tmp_path / "one.wrl").write_text(WRL.split("texCoord ")[0] + "} } ] }")
    mesh = read_mesh(tmp_path / "one.wrl")
    assert mesh.uv is None and len(mesh.vertices) == 6 and mesh.triangles[0].tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda text: text[:200], "lacks"),
        (lambda text: text.replace("1, 5, 4", "1, 5, 40"), "its 6 vertices"),
        (lambda text: text.replace("0 -40.0 2.0,", "0 -40.0,"), "size 17"),
        (lambda text: text.replace("4,6,7,-1", ""), "do not fit"),
        (lambda text: "an error page", "lacks"),
    ],
)
def test_files_that_are_no_scans(tmp_path, change, what):
    (tmp_path / "F0001_NE00WH_F3D.wrl").write_text(change(WRL))
    with pytest.raises(AssetError, match=rf"F0001_NE00WH_F3D\.wrl .*{what}"):
        read_mesh(tmp_path / "F0001_NE00WH_F3D.wrl")


@pytest.mark.parametrize("text", ["1 2 3 4\n" * 82, "1 2 3 nan\n" * 83, "1 2 x 4\n" * 83])
def test_wrong_landmark_files_are_named(tree, text):
    scan = read_bu3dfe(tree)[0]
    scan.path.with_suffix(".bnd").write_text(text)
    with pytest.raises(AssetError, match=rf"{scan.path.stem}\.bnd"):
        scan.landmarks()
    scan.path.with_suffix(".bnd").unlink()
    with pytest.raises(AssetError, match=rf"{scan.path.stem}\.bnd"):
        scan.landmarks()


def test_suffixes_in_capitals_in_a_folder_nested_once_more(tree, tmp_path_factory):
    root = tmp_path_factory.mktemp("bu") / "BU3DFE"
    tree.rename(root)
    for path in [*root.glob("*/*.wrl"), *root.glob("*/*.bnd")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    data = read_bu3dfe(root.parent)
    assert len(data) == 10 and data[0].landmarks().shape == (83, 3) and len(data[0].scan().vertices) == 6


def test_a_scan_with_another_name(tree):
    (tree / "F0001" / "F0002_NE00WH_F3D.wrl").write_text(WRL)
    with pytest.raises(AssetError, match="F0002_NE00WH_F3D.wrl is not named like a scan of BU-3DFE"):
        read_bu3dfe(tree)
