"""Photo to 3D: texture against a known paint, holes closed, files read back by other readers, bad photos named."""

import functools
import io
import json

import igl
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image, ImageDraw

from facenb.errors import RunError
from facenb.imaging.camera import WeakPerspective, euler_to_matrix
from facenb.imaging.lighting import ambient
from facenb.imaging.render import render
from facenb.photos import photo
from facenb.photos.export import save_glb, save_obj
from facenb.photos.texture import Surface, close, fill, lay_out, project_photo, vertex_colours

pytest.importorskip("mediapipe")
SIDE = 256


@pytest.fixture(scope="module")
def closed(ict):
    surface = close(ict)
    return surface, lay_out(surface, ict, SIDE)


@pytest.fixture
def fitter(real_asset):
    return photo.ict_fitter(SIDE)


@pytest.fixture
def face(fitter, real_asset):
    return face_of(real_asset("astronaut") / "astronaut.png")


@functools.cache
def face_of(path):
    return photo.photo_to_face(path, fitter=photo.ict_fitter(SIDE))


def glb(path):
    """The JSON of a binary glTF, and a function that returns an attribute (name, columns) of its first mesh."""
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    content, binary = json.loads(data[20 : 20 + length]), data[28 + length :]
    attributes = content["meshes"][0]["primitives"][0]["attributes"]

    def accessor(name, columns):
        spec = content["accessors"][attributes[name]]
        start = content["bufferViews"][spec["bufferView"]].get("byteOffset", 0) + spec.get("byteOffset", 0)
        return np.frombuffer(binary, np.float32, spec["count"] * columns, start).reshape(-1, columns)

    return content, accessor


class TestSurface:
    def test_eyes_and_mouth_are_closed_and_the_neck_is_not(self, ict, closed):
        surface, _ = closed
        vertices = surface.complete(ict.mean)
        assert len(surface.holes) == 3 and len(igl.boundary_loop_all(ict.triangles.numpy())) == 4
        rest = igl.boundary_loop_all(surface.triangles.numpy())
        assert len(rest) == 1 and vertices[rest[0], 1].max() < -100  # mm: the neck's end
        mesh = trimesh.Trimesh(vertices.numpy(), surface.triangles.numpy(), process=False)
        assert mesh.is_winding_consistent

    def test_caps_follow_the_face(self, ict, closed):
        """Closing commutes with a turn and a shift."""
        surface, _ = closed
        rotation = euler_to_matrix(torch.tensor([0.5, -0.3, 0.2]))
        moved = surface.complete(ict.mean @ rotation.mT + 7)
        torch.testing.assert_close(moved, surface.complete(ict.mean) @ rotation.mT + 7, atol=1e-3, rtol=0)

    def test_partners_lie_at_the_mirrored_place(self, ict, closed):
        surface, texels = closed
        place = texels.embedding.of(surface.complete(ict.mean))
        paired = texels.partner >= 0
        away = place[paired] * torch.tensor([-1.0, 1.0, 1.0]) - place[texels.partner[paired]]
        assert paired.float().mean() > 0.95 and away.norm(dim=1).max() <= 3.0


class TestTexture:
    def test_fill_keeps_the_known_and_spreads_it(self):
        colours = torch.zeros(64, 64, 3)
        weight = torch.zeros(64, 64)
        colours[:, :20], weight[:, :20] = torch.tensor([0.8, 0.4, 0.2]), 1
        filled = fill(colours, weight, torch.tensor([0.8, 0.4, 0.2]))
        torch.testing.assert_close(filled, torch.tensor([0.8, 0.4, 0.2]).expand(64, 64, 3), atol=1e-5, rtol=0)
        nothing = fill(colours, torch.zeros(64, 64), torch.tensor([0.1, 0.2, 0.3]))
        torch.testing.assert_close(nothing[5, 5], torch.tensor([0.1, 0.2, 0.3]))

    def taken_back(self, vertices, closed, paint, yaw):
        """The image of a painted face, and the paint at the vertices by the texture taken from the image."""
        surface, texels = closed
        rotation = euler_to_matrix(torch.tensor([[yaw, 0.0, 0.0]]))
        camera = WeakPerspective(rotation, torch.tensor([2.0]), torch.full((1, 2), 300.0))
        light = ambient(torch.ones(1, 3))
        image = render(vertices[None], surface.triangles, paint[None], camera, (600, 600), light=light).image[0]
        return image, vertex_colours(project_photo(image, vertices, camera, surface, texels), surface, len(vertices))

    @pytest.mark.parametrize("yaw", [0.0, 0.5, -0.5])
    def test_paint_comes_back(self, ict, closed, yaw):
        """Painted by height and by side: as it was where it was seen, mirrored on the hidden cheek."""
        x, y, z = (vertices := closed[0].complete(ict.mean)).unbind(1)
        paint = torch.stack([y / 300 + 0.5, x.abs() / 200, torch.full_like(x, 0.5)], 1)
        _, back = self.taken_back(vertices, closed, paint, yaw)
        middle = (z > 60) & (y.abs() < 60) & (x.abs() < 45)
        assert (back - paint)[middle].abs().mean() < 0.02
        assert (back - paint)[ict.landmarks.vertices[17:, 0]].abs().median() < 0.02

    def test_it_is_not_mirrored(self, ict, closed):
        x, _, z = (vertices := closed[0].complete(ict.mean)).unbind(1)
        paint = torch.where(x[:, None] > 0, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
        image, back = self.taken_back(vertices, closed, paint, 0.0)
        assert image[300, 380, 0] > 0.9  # the model's right is the picture's right
        right = (x > 10) & (x < 40) & (z > 70)
        assert back[right, 0].median() > 0.95 and back[right, 2].median() < 0.05


class TestExport:
    @pytest.fixture
    def quad(self):
        """Two triangles with a seam, a texture with four colours: red top left, green top right, blue, white."""
        vertices = torch.tensor([[0.0, 0, 0], [100, 0, 0], [100, 100, 0], [0, 100, 0]])
        triangles = torch.tensor([[0, 1, 2], [0, 2, 3]])
        uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.001, 0.001]])
        texture = torch.zeros(64, 64, 3)
        texture[:32, :32, 0], texture[:32, 32:, 1], texture[32:, :32, 2], texture[32:, 32:] = 1, 1, 1, 1
        return vertices, Surface(triangles, uv, torch.tensor([[0, 1, 2], [4, 2, 3]]), ()), texture

    def check(self, mesh, unit):
        """Corner positions and the colour that the reader's own lookup gives there."""
        vertices, colours = np.asarray(mesh.vertices) / unit, mesh.visual.to_color().vertex_colors[:, :3] > 127
        seen = {tuple(v.round(3)[:2]): tuple(map(int, c)) for v, c in zip(vertices, colours, strict=True)}
        assert seen == {(0, 0): (0, 0, 1), (1, 0): (1, 1, 1), (1, 1): (0, 1, 0), (0, 1): (1, 0, 0)}
        assert np.allclose(mesh.face_normals, [0, 0, 1])

    def test_obj(self, quad, tmp_path):
        save_obj(tmp_path / "q.obj", *quad)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["q.mtl", "q.obj", "q.png"]
        self.check(trimesh.load(tmp_path / "q.obj", force="mesh", process=False), 100)

    def test_glb_is_in_metres_and_embeds_its_texture(self, quad, tmp_path):
        save_glb(tmp_path / "q.glb", *quad)
        self.check(trimesh.load(tmp_path / "q.glb", force="mesh", process=False), 0.1)

    def test_glb_by_the_standard_without_a_library(self, quad, tmp_path):
        """glTF 2.0 itself: magic, length, v down (0, 0 is the picture's top left), a picture as JPEG or PNG."""
        path = tmp_path / "q.glb"
        save_glb(path, *quad)
        data, (content, accessor) = path.read_bytes(), glb(path)
        assert data[:4] == b"glTF" and int.from_bytes(data[8:12], "little") == len(data)
        points, uv = accessor("POSITION", 3), accessor("TEXCOORD_0", 2)
        view = content["bufferViews"][content["images"][0]["bufferView"]]
        start = 28 + int.from_bytes(data[12:16], "little") + view.get("byteOffset", 0)
        picture = Image.open(io.BytesIO(data[start : start + view["byteLength"]])).convert("RGB")
        top_left = np.abs(points - [0, 0.1, 0]).sum(1).argmin()
        pixel = [min(int(x * 64), 63) for x in uv[top_left]]
        red = picture.getpixel(tuple(pixel))
        assert red[0] > 200 and red[1] < 60 and red[2] < 60

    def test_normals_are_smooth_across_a_seam_of_the_texture(self, quad, tmp_path):
        """Two triangles folded by 90 degrees, the texture cut at vertex 0: on the fold the normal lies between both."""
        vertices = torch.tensor([[0.0, 0, 0], [100, 0, 0], [100, 100, 0], [0, 0, 100]])
        first, second = np.array([0.0, 0, 1]), np.array([1.0, -1, 0]) / np.sqrt(2)
        fold = first + np.sqrt(2) * second  # weighted by area
        expected = np.stack([fold / np.linalg.norm(fold), first, fold / np.linalg.norm(fold), second])
        save_obj(tmp_path / "q.obj", vertices, *quad[1:])
        lines = [line.split() for line in (tmp_path / "q.obj").read_text().splitlines()]
        normals = np.array([line[1:] for line in lines if line[0] == "vn"], float)
        assert np.allclose(normals, expected, atol=1e-3)
        corners = [corner.split("/") for line in lines if line[0] == "f" for corner in line[1:]]
        assert [corner[0] for corner in corners] == [corner[2] for corner in corners]
        save_glb(tmp_path / "q.glb", vertices, *quad[1:])
        content, accessor = glb(tmp_path / "q.glb")
        points, normals = accessor("POSITION", 3), accessor("NORMAL", 3)
        assert len(points) == 5  # vertex 0 twice
        nearest = np.linalg.norm(points[:, None] * 1000 - vertices.numpy(), axis=-1).argmin(1)
        assert np.allclose(normals, expected[nearest], atol=1e-5)


class TestPhoto:
    def test_a_portrait_is_fitted_closely(self, face):
        size = (face.landmarks.amax(0) - face.landmarks.amin(0)).prod().sqrt()
        assert face.faces == 1 and float(face.fit.error[0]) < 0.02 * float(size)
        assert face.fit.identity.abs().max() < 3

    def test_the_textured_face_looks_like_the_photo(self, face):
        """Rendered from the fitted camera with its own colours it must repeat the photo within the face."""
        size = (face.image.shape[0], face.image.shape[1])
        shown = render(
            face.vertices[None],
            face.fitter.surface.triangles,
            face.colours()[None],
            face.fit.camera,
            size,
            light=ambient(torch.ones(1, 3)),
        )
        low, high = face.landmarks.amin(0).long() + 8, face.landmarks.amax(0).long() - 8
        rows, columns = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
        difference = (shown.image[0, rows, columns] - face.image[rows, columns]).abs().mean()
        assert difference < 0.05
        shuffled = (shown.image[0, rows, columns].flip(1) - face.image[rows, columns]).abs().mean()
        assert shuffled > 1.3 * difference

    def test_files_are_whole_and_nothing_is_left_beside(self, face, tmp_path):
        folder = photo.save(face, tmp_path / "out")
        assert sorted(path.name for path in folder.iterdir()) == sorted(photo.FILES)
        meshes = [
            trimesh.load(folder / name, force="mesh", process=False) for name in ("face.obj", "face.ply", "face.glb")
        ]
        assert {len(mesh.faces) for mesh in meshes} == {len(face.fitter.surface.triangles)}
        heights = [np.ptp(mesh.vertices[:, 1]) for mesh in meshes]
        assert heights[0] == pytest.approx(heights[1], rel=1e-4) == pytest.approx(1000 * heights[2], rel=1e-4)
        assert 200 < heights[0] < 450  # mm
        assert np.allclose(meshes[1].vertices, face.vertices) and np.array_equal(
            meshes[1].faces, face.fitter.surface.triangles
        )
        assert np.abs(meshes[1].visual.vertex_colors[:, :3] / 255 - face.colours().numpy()).max() < 0.003
        content = json.loads((folder / "coefficients.json").read_text())
        assert len(content["identity"]) == 100 and "jawOpen" in content["expression"]
        width, height = Image.open(folder / "overlay.png").size
        assert (width, height) == (2 * face.image.shape[1], face.image.shape[0])

    def test_the_file_of_coefficients_places_the_mesh(self, ict, face, tmp_path):
        """Its formulas and numbers alone give the vertices of the PLY, and the outline that the overlay shows."""
        folder = photo.save(face, tmp_path / "out")
        content = json.loads((folder / "coefficients.json").read_text())
        mesh = trimesh.load(folder / "face.ply", process=False)
        values = np.array([*content["identity"], *content["expression"].values()])
        bases = np.concatenate([ict.identity_basis, ict.expression_basis])
        x = ict.mean.numpy() + np.tensordot(values, bases, 1)
        np.testing.assert_allclose(mesh.vertices[: len(x)], x, atol=1e-3)
        camera = {name: np.array(value) for name, value in content["camera"].items()}
        u = camera["scale"] * mesh.vertices @ camera["rotation"].T @ camera["P"].T + camera["translation"]
        width, height = content["image"]["width"], content["image"]["height"]
        drawn = Image.new("1", (width, height))
        for corners in u[mesh.faces] - 0.5:  # Pillow counts from the centre of the first pixel
            ImageDraw.Draw(drawn).polygon([tuple(corner) for corner in corners], fill=1)
        overlay = np.asarray(Image.open(folder / "overlay.png"), dtype=np.float32)[:, width:] / 255
        shown = np.abs(overlay - face.image.numpy()).max(-1) > 0.01
        assert (shown & np.asarray(drawn)).sum() / (shown | np.asarray(drawn)).sum() > 0.97

    def test_a_large_photo_names_its_own_size(self, fitter, face, real_asset, tmp_path):
        """Pixels divided by the factor are those of the original, here the portrait enlarged four times."""
        image = Image.open(real_asset("astronaut") / "astronaut.png").convert("RGB")
        exif = Image.Exif()
        exif[0x0112] = 6
        image.resize((2048, 2048)).crop((0, 0, 2048, 2000)).transpose(Image.Transpose.ROTATE_90).save(
            tmp_path / "a.jpg", exif=exif
        )
        content = photo.coefficients(photo.photo_to_face(tmp_path / "a.jpg", fitter=fitter))
        about = content["image"]
        assert (about["original_width"], about["original_height"]) == (2048, 2000) and about["width"] == photo.LIMIT
        assert about["factor"] == pytest.approx(1600 / 2048)
        translation = np.array(content["camera"]["translation"]) / about["factor"]
        np.testing.assert_allclose(translation, 4 * face.fit.camera.translation[0], atol=12)

    @pytest.mark.parametrize("degrees", [80, 120, 180, 200])
    def test_a_photo_that_is_not_upright(self, fitter, face, real_asset, tmp_path, degrees):
        """The same face as in the upright portrait, rolled by as much as the photo."""
        image = Image.open(real_asset("astronaut") / "astronaut.png").convert("RGB")
        image.rotate(degrees, Image.Resampling.BICUBIC).save(tmp_path / "a.png")
        other = photo.photo_to_face(tmp_path / "a.png", fitter=fitter)
        assert (other.fit.identity - face.fit.identity).abs().mean() < 0.15
        roll = euler_to_matrix(torch.tensor([0.0, 0.0, degrees]).deg2rad())
        difference = other.fit.camera.rotation[0] @ (roll @ face.fit.camera.rotation[0]).mT
        assert torch.rad2deg(torch.acos(((difference.trace() - 1) / 2).clamp(-1, 1))) < 5

    def test_an_earlier_result_is_not_overwritten(self, face, tmp_path):
        (tmp_path / "face.ply").write_text("mine")
        with pytest.raises(RunError, match=r"face\.ply already"):
            photo.save(face, tmp_path)
        assert (tmp_path / "face.ply").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
        photo.save(face, tmp_path, force=True)
        assert (tmp_path / "face.ply").read_bytes()[:3] == b"ply"

    def test_a_full_disk_leaves_nothing(self, face, tmp_path, monkeypatch):
        def fails(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(photo, "save_glb", fails)
        with pytest.raises(RunError, match=f"Cannot write to {tmp_path}.*No space left.*Free some space"):
            photo.save(face, tmp_path / "out")
        assert list((tmp_path / "out").iterdir()) == []

    def test_a_folder_that_cannot_be_made(self, face, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(RunError, match="Cannot write to .*file/out"):
            photo.save(face, tmp_path / "file" / "out")

    @pytest.mark.parametrize("mode", ["L", "RGBA"])
    def test_the_same_face_from_other_files(self, fitter, face, real_asset, tmp_path, mode):
        """Grey or transparent: coefficients move by less than 40 % of their mean size."""
        Image.open(real_asset("astronaut") / "astronaut.png").convert("RGB").convert(mode).save(tmp_path / "a.png")
        other = photo.photo_to_face(tmp_path / "a.png", fitter=fitter)
        assert (other.fit.identity - face.fit.identity).abs().mean() < 0.4 * face.fit.identity.abs().mean()
        turned = other.fit.camera.rotation[0] @ face.fit.camera.rotation[0].mT
        assert torch.rad2deg(torch.acos(((turned.trace() - 1) / 2).clamp(-1, 1))) < 3
