"""NoW's official layout, small and written here; the submission folder written and read; a submission scored."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from test_evaluation_now import HEAD, LANDMARKS, TRIANGLES, head, moved

from facenb.datasets.scans.now import Mesh7, Submission, condition_of, read_now, read_picked_points
from facenb.errors import AssetError
from facenb.evaluation.now import score

SUBJECTS = ("FaMoS_180424_03335_TA", "FaMoS_180425_03336_TA")
IMAGES = [
    f"{SUBJECTS[0]}/multiview_neutral/IMG_0041.jpg",
    f"{SUBJECTS[0]}/selfie/IMG_0052.jpg",
    f"{SUBJECTS[1]}/multiview_expressions/IMG_0003.jpg",
]
POINT = '<point x="{}" y="{}" z="{}" active="1" name="{}"/>'


def picked_points(points) -> str:
    lines = "\n".join(POINT.format(*point, row) for row, point in enumerate(points))
    head = '<!DOCTYPE PickedPoints>\n<PickedPoints>\n<DocumentData><DateTime time="1"/></DocumentData>\n'
    return f"{head}{lines}\n</PickedPoints>"


@pytest.fixture
def layout(tmp_path):
    """The set as it is handed out: two people, three pictures."""
    root = tmp_path / "now"
    for subject in SUBJECTS:
        scan, marks = root / "scans" / subject, root / "scans_lmks_onlypp" / subject
        scan.mkdir(parents=True), marks.mkdir(parents=True)
        trimesh.Trimesh(HEAD.numpy(), TRIANGLES.numpy(), process=False).export(scan / "natural_head.000001.obj")
        (marks / "natural_head.000001_picked_points.pp").write_text(picked_points(LANDMARKS.tolist()))
    for image in IMAGES:
        (root / "iphone_pictures" / image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(root / "iphone_pictures" / image)
    (root / "imagepathsvalidation.txt").write_text("\n".join(IMAGES) + "\n")
    (root / "imagepathstest.txt").write_text("someone/selfie/IMG_0001.jpg\n")
    return root


@pytest.fixture
def submission(tmp_path):
    """Each face predicted 0.5 % too long, turned and in metres, by another mesh than the scan's."""
    vertices, triangles = head(subdivisions=3)
    predictions = Submission(tmp_path / "method")
    for image in IMAGES:
        vertices = moved(vertices * torch.tensor([1, 1.005, 1])) * 0.001
        predictions.write(image, Mesh7(vertices, triangles, moved(LANDMARKS) * 0.001))
        vertices, _ = head(subdivisions=3)
    return predictions


class TestLayout:
    def test_pictures_and_scans(self, layout):
        data = read_now(layout)
        assert data.images == tuple(IMAGES) and data.photo(IMAGES[1]).is_file()
        scan = data.scan(SUBJECTS[0])
        torch.testing.assert_close(scan.landmarks, LANDMARKS)
        torch.testing.assert_close(scan.vertices, HEAD.float(), atol=1e-4, rtol=0)
        assert len(scan.triangles) == len(TRIANGLES)

    @pytest.mark.parametrize("inside", [("imagepathsvalidation.txt", "scans", "scans_lmks_onlypp"), ("scans",), ()])
    def test_parts_lie_where_the_archives_unpack_them(self, layout, tmp_path, inside):
        """Photos below NoW_Dataset/final_release_version; lists, scans and landmarks beside it or in it."""
        inner = tmp_path / "home" / "NoW_Dataset" / "final_release_version"
        inner.mkdir(parents=True)
        for part in sorted(layout.iterdir()):
            part.rename((inner if part.name in (*inside, "iphone_pictures") else tmp_path / "home") / part.name)
        data = read_now(tmp_path / "home")
        assert data.photo(IMAGES[0]).is_file() and len(data.scan(SUBJECTS[1]).landmarks) == 7

    def test_the_test_split_gives_no_scans(self, layout):
        data = read_now(layout, "test")
        with pytest.raises(AssetError, match="not given out; send a submission"):
            data.scan("someone")

    def test_conditions(self):
        assert condition_of(IMAGES[1]) == "selfie"
        for name in ("a/outdoor/1.jpg", "selfie/1.jpg", "a/selfie/../1.jpg", "../selfie/1.jpg", "a/selfie/"):
            with pytest.raises(ValueError, match="is not subject/condition/picture.jpg"):
                condition_of(name)

    @pytest.mark.parametrize(
        "text, why",
        [("x.jpg\n", "line 1"), ("", "lists 0 images"), (f"{IMAGES[0]}\n{IMAGES[0]}\n", "2 images, 1 of them")],
    )
    def test_damaged_list(self, layout, text, why):
        (layout / "imagepathsvalidation.txt").write_text(text)
        with pytest.raises(AssetError, match=why):
            read_now(layout)

    def test_missing_files(self, layout):
        data = read_now(layout)
        (layout / "iphone_pictures" / IMAGES[0]).unlink()
        with pytest.raises(AssetError, match="IMG_0041.jpg"):
            data.photo(IMAGES[0])
        next((layout / "scans" / SUBJECTS[0]).glob("*.obj")).unlink()
        with pytest.raises(AssetError, match=r"one file \*.obj in .*found 0"):
            data.scan(SUBJECTS[0])

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<PickedPoints>",
            '<a><point x="1"/></a>',
            picked_points([["nan"] * 3] * 7),
            picked_points(LANDMARKS[:6].tolist()),
        ],
    )
    def test_damaged_landmarks(self, tmp_path, text):
        (tmp_path / "x.pp").write_text(text)
        with pytest.raises(AssetError, match="x.pp"):
            read_picked_points(tmp_path / "x.pp")


class TestSubmission:
    def test_round_trip(self, submission):
        found = submission.prediction(IMAGES[0])
        assert (submission.folder / IMAGES[0]).with_suffix(".obj").is_file()
        torch.testing.assert_close(found.landmarks, moved(LANDMARKS) * 0.001)
        assert found.triangles.shape == (1280, 3) and not submission.missing(IMAGES)

    def test_ply_and_txt_of_another_method(self, tmp_path):
        stem = tmp_path / IMAGES[0].removesuffix(".jpg")
        stem.parent.mkdir(parents=True)
        trimesh.Trimesh(HEAD.numpy(), TRIANGLES.numpy(), process=False).export(f"{stem}.ply")
        np.savetxt(f"{stem}.txt", LANDMARKS.numpy())
        found = Submission(tmp_path).prediction(IMAGES[0])
        torch.testing.assert_close(found.landmarks, LANDMARKS)
        torch.testing.assert_close(found.vertices, HEAD.float(), atol=1e-4, rtol=0)

    def test_another_programs_prediction_is_not_replaced(self, tmp_path):
        predictions, mesh = Submission(tmp_path), Mesh7(HEAD.float(), TRIANGLES, LANDMARKS)
        file = predictions.write(IMAGES[0], mesh)
        predictions.write(IMAGES[0], mesh)  # its own may be replaced
        file.rename(file.with_suffix(".ply"))
        with pytest.raises(FileExistsError, match=r"IMG_0041\.ply"):
            predictions.write(IMAGES[0], mesh)
        assert sorted(path.name for path in file.parent.iterdir()) == ["IMG_0041.npy", "IMG_0041.ply"]

    def test_missing_says_what(self, submission):
        mesh = (submission.folder / IMAGES[0]).with_suffix(".obj")
        mesh.unlink()
        mesh.with_suffix(".npy").unlink()
        (submission.folder / IMAGES[1]).with_suffix(".npy").unlink()
        assert submission.missing(IMAGES) == {IMAGES[0]: "no mesh and no landmarks", IMAGES[1]: "no landmarks"}
        with pytest.raises(AssetError, match="no landmarks"):
            submission.prediction(IMAGES[1])

    def test_not_finite_is_not_written(self, tmp_path):
        with pytest.raises(ValueError, match="is not finite. Leave it out"):
            Submission(tmp_path).write(IMAGES[0], Mesh7(HEAD.float() * torch.nan, TRIANGLES, LANDMARKS))

    @pytest.mark.parametrize("points", [np.zeros((68, 3)), np.full((7, 3), np.nan), np.array([{}] * 21).reshape(7, 3)])
    def test_landmarks_of_another_kind(self, submission, points):
        """68 instead of seven, NaN, and pickled objects, which are never loaded."""
        np.save((submission.folder / IMAGES[0]).with_suffix(".npy"), points, allow_pickle=True)
        with pytest.raises(AssetError, match="IMG_0041.npy"):
            submission.prediction(IMAGES[0])

    def test_damaged_mesh(self, submission):
        (submission.folder / IMAGES[0]).with_suffix(".obj").write_text("nothing")
        with pytest.raises(AssetError, match="IMG_0041.obj"):
            submission.prediction(IMAGES[0])

    def test_no_way_out_of_the_folder(self, tmp_path):
        with pytest.raises(ValueError, match="is not subject/condition"):
            Submission(tmp_path).write("../selfie/x.jpg", Mesh7(HEAD.float(), TRIANGLES, LANDMARKS))


class TestScore:
    def test_both_variants(self, layout, submission):
        data = read_now(layout)
        table = score(data, submission)
        assert table.all.images == 3 and 0 < table.all.median < 0.4
        assert score(data, submission, metrical=True, unit="m").all.mean == pytest.approx(table.all.mean, abs=0.2)

    def test_metres_unsaid_name_the_picture(self, layout, submission):
        with pytest.raises(ValueError, match=f"{IMAGES[0]}: .*its unit seems to be m, not mm"):
            score(read_now(layout), submission, metrical=True)

    def test_a_missing_prediction_stops_it(self, layout, submission):
        (submission.folder / IMAGES[2]).with_suffix(".obj").unlink()
        with pytest.raises(ValueError, match=f"lacks 1 of 3 images: {IMAGES[2]} .no mesh."):
            score(read_now(layout), submission)
        table = score(read_now(layout), submission, allow_missing=True)
        assert table.missing == (IMAGES[2],) and table.all.missed == 1
