"""IJB-A, B and C in the layouts that circulate, small and written here; then the whole way to its figures."""

import pytest
import torch

from facenb.datasets.pictures.ijb import read_ijb, read_ijba
from facenb.errors import AssetError
from facenb.evaluation.features import pool
from facenb.evaluation.identification import identify
from facenb.evaluation.recognition import area_under_roc, cosine

FACES = ["1.jpg 1 10", "2.jpg 1 10", "3.jpg 2 11", "4.jpg 3 12", "1.jpg 4 10", "5.jpg 5 13"]
PEOPLE = {1: 501, 2: 502, 3: 502, 4: 501, 5: 503}  # templates


@pytest.fixture(params=["ijbb", "ijbc"])
def small(tmp_path, request):
    name, meta = request.param, tmp_path / "meta"
    meta.mkdir()
    (meta / f"{name}_face_tid_mid.txt").write_text("\n".join(FACES) + "\n")
    (meta / f"{name}_template_pair_label.txt").write_text("1 4 1\n2 3 1\n1 3 0\n")
    for which, templates in zip(("S1", "S2") if name == "ijbb" else ("G1", "G2"), ((1, 1), (2,)), strict=True):
        rows = [f"{template},{PEOPLE[template]},img/{template}.jpg" for template in templates]
        (meta / f"{name}_1N_gallery_{which}.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *rows]))
    probes = [f"{template},{PEOPLE[template]},x" for template in (4, 3, 5)]
    (meta / f"{name}_1N_probe_mixed.csv").write_text("\n".join(["TEMPLATE_ID,SUBJECT_ID,FILENAME", *probes]))
    five = " ".join(str(k) for k in range(10))
    (meta / f"{name}_name_5pts_score.txt").write_text("".join(f"{face.split()[0]} {five} 0.9\n" for face in FACES))
    return tmp_path, name


def test_everything_is_where_it_belongs(small):
    ijb = read_ijb(*small)
    assert ijb.images.names == ("1.jpg", "2.jpg", "3.jpg", "4.jpg", "1.jpg", "5.jpg")
    assert ijb.images.template.tolist() == [1, 1, 2, 3, 4, 5] and ijb.images.media.tolist()[:3] == [10, 10, 11]
    assert ijb.pairs.same.tolist() == [True, True, False] and ijb.pairs.second.tolist() == [4, 3, 3]
    assert [gallery.template.tolist() for gallery in ijb.galleries] == [[1], [2]]  # rows of one template are one
    assert ijb.probes.person.tolist() == [501, 502, 503]
    assert ijb.images.points[0].tolist() == [[0.5, 1.5], [2.5, 3.5], [4.5, 5.5], [6.5, 7.5], [8.5, 9.5]]
    assert ijb.images.detector.tolist() == pytest.approx([0.9] * 6)


def test_from_pictures_to_figures(small):
    """Features that know the person: every pair is told right; the stranger to each gallery is refused."""
    ijb = read_ijb(*small)
    features = torch.eye(3)[torch.tensor([0, 0, 1, 1, 0, 2])] + 0.01
    templates = pool(features, ijb.images.template, ijb.images.media)
    one, two = (templates.features[templates.rows(rows)] for rows in (ijb.pairs.first, ijb.pairs.second))
    assert area_under_roc(cosine(one, two), ijb.pairs.same) == 1.0
    for gallery, known in zip(ijb.galleries, ([True, False, False], [False, True, False]), strict=True):
        rows, probes = templates.rows(gallery.template), templates.rows(ijb.probes.template)
        found = identify(templates.features[rows], gallery.person, templates.features[probes], ijb.probes.person)
        assert found.mated.tolist() == known and found.dir_at(0.0) == 1.0


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("template_pair_label", "1 9 1\n", "template 9, which has no image"),
        ("template_pair_label", "1 4 7\n", "expected 0 or 1 for a pair, got 7"),
        ("template_pair_label", "1 4\n", "expected 3 and found 2"),
        ("face_tid_mid", "1.jpg one 10\n", "face_tid_mid.txt is not a table .* 'one'"),
        ("face_tid_mid", "", "face_tid_mid.txt has no rows"),
        ("name_5pts_score", "8.jpg 0 1 2 3 4 5 6 7 8 9 1\n", "list different images"),
    ],
)
def test_a_wrong_file_is_named(small, file, text, says):
    folder, name = small
    (folder / "meta" / f"{name}_{file}.txt").write_text(text)
    with pytest.raises(AssetError, match=says):
        read_ijb(folder, name)


def test_what_is_missing_is_named(small):
    folder, name = small
    (folder / "meta" / f"{name}_1N_probe_mixed.csv").unlink()
    with pytest.raises(AssetError, match="probe_mixed"):
        read_ijb(folder, name)


TITLES = "TEMPLATE_ID,SUBJECT_ID,FILE,MEDIA_ID,SIGHTING_ID,FRAME,FACE_X,FACE_Y,FACE_WIDTH,FACE_HEIGHT"


def row(template, person, file):
    return f"{template},{person},{file},{template}7,1,,4.5,5,60,70"


@pytest.fixture
def ijba(tmp_path):
    one, many = tmp_path / "IJB-A_11_sets/split3", tmp_path / "IJB-A_1N_sets/split3"
    one.mkdir(parents=True)
    many.mkdir(parents=True)
    rows = [row(1, 7, "img/1.jpg"), row(1, 7, "frame/2.jpg"), row(2, 7, "img/3.jpg"), row(3, 8, "img/4.jpg")]
    (one / "verify_metadata_3.csv").write_text("\n".join([TITLES, *rows]))
    (one / "verify_comparisons_3.csv").write_text("1,2\n1,3\n")
    (many / "search_gallery_3.csv").write_text("\n".join([TITLES, *rows[:2]]))
    (many / "search_probe_3.csv").write_text("\n".join([TITLES, *rows[2:]]))
    return tmp_path


def test_a_split_of_ijb_a(ijba):
    split = read_ijba(ijba, 3)
    assert split.images.names == ("img/1.jpg", "frame/2.jpg", "img/3.jpg", "img/4.jpg")
    assert split.pairs.same.tolist() == [True, False]
    assert split.images.box[0].tolist() == [4.5, 5, 60, 70]
    assert [(one.template.tolist(), one.person.tolist()) for one in split.galleries] == [([1], [7])]
    assert split.probes.person.tolist() == [7, 8] and len(split.search_images.names) == 4


def test_what_is_wrong_with_ijb_a_is_named(ijba):
    with pytest.raises(AssetError, match="verify_metadata_4"):
        read_ijba(ijba, 4)
    metadata = ijba / "IJB-A_11_sets/split3/verify_metadata_3.csv"
    (ijba / "IJB-A_11_sets/split3/verify_comparisons_3.csv").write_text("1,99\n")
    with pytest.raises(AssetError, match="template 99"):
        read_ijba(ijba, 3)
    metadata.write_text(metadata.read_text().replace("SUBJECT_ID", "WHO"))
    with pytest.raises(AssetError, match=r"verify_metadata_3.csv .* not found: \['SUBJECT_ID'\]"):
        read_ijba(ijba, 3)
