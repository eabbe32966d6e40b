"""The rasteriser against an integer brute force, a ray caster and its own other backend."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facenb.imaging import raster
from facenb.imaging.raster import interpolate, rasterize

BACKENDS = ("torch", "numba")
backends = pytest.mark.parametrize("backend", BACKENDS)
cameras = pytest.mark.parametrize("perspective", [False, True])


def soup(seed=0, vertices=30, triangles=40, batch=2, extent=50.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    spread = torch.tensor([extent, extent, 80])
    projected = torch.rand(batch, vertices, 3, generator=generator) * spread - torch.tensor([5, 5, -10])
    return projected.to(dtype), torch.randint(0, vertices, (triangles, 3), generator=generator)


def one(*corners, dtype=torch.float64):
    """A single triangle."""
    return torch.tensor([corners], dtype=dtype), torch.tensor([[0, 1, 2]])


def brute_force(projected, triangles, size, perspective):
    """Return the triangle that each pixel sees, in Python's integers: the rules as the module states them."""
    seen = np.full(size, -1)
    for row, column in product(range(size[0]), range(size[1])):
        best = np.inf
        for index, corners in enumerate(projected[triangles].tolist()):
            points = [
                (round(u * 1024) - column * 1024 - 512, round(v * 1024) - row * 1024 - 512) for u, v, _ in corners
            ]
            depth = [corner[2] for corner in corners]
            area = sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, points[1:] + points[:1], strict=True))
            if area == 0:
                continue
            if area < 0:
                points, depth = [points[0], points[2], points[1]], [depth[0], depth[2], depth[1]]
            edges = []
            for k in range(3):
                (x, y), (x2, y2) = points[(k + 1) % 3], points[(k + 2) % 3]
                top_left = y2 < y or (y2 == y and x2 > x)
                edge = x * y2 - x2 * y
                edges.append(edge if edge > 0 or (edge == 0 and top_left) else None)
            if None in edges:
                continue
            order = [-1 / d if perspective else d for d in depth]
            value = sum(e * o for e, o in zip(edges, order, strict=True)) / abs(area)
            if value < best - 1e-12:
                best, seen[row, column] = value, index
    return seen


@backends
@cameras
@pytest.mark.parametrize("grid", [1024, 2])  # 2: vertices on pixel centres and corners, where the rules bite
def test_the_right_triangle_is_seen(backend, perspective, grid):
    projected, triangles = soup(vertices=12, triangles=9, extent=22.0)
    projected, triangles = (projected * grid).round() / grid, triangles.repeat(2, 1)  # a tie goes to the lowest index
    found = rasterize(projected, triangles, (11, 13), perspective, backend)
    for image in range(len(projected)):
        expected = brute_force(projected[image], triangles, (11, 13), perspective)
        np.testing.assert_array_equal(found.triangle[image].numpy(), expected)


nasty = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 0.5, 1e30, -1e30, 32768.0, 32769.0, 1e-30, 8.5])
numbers = st.one_of(st.floats(-10, 40, width=32), st.integers(-2, 20).map(lambda k: k / 2), nasty)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers, numbers), min_size=3, max_size=12),
    st.lists(st.tuples(*[st.integers(0, 2**30)] * 3), max_size=12),
    st.booleans(),
    st.sampled_from([(1, 1), (16, 16), (3, 29)]),
)
def test_backends_agree_on_any_input(vertices, triangles, perspective, size):
    projected = torch.tensor([vertices], dtype=torch.float32)
    triangles = torch.tensor(triangles, dtype=torch.int64).reshape(-1, 3) % len(vertices)
    a, b = (rasterize(projected, triangles, size, perspective, backend) for backend in BACKENDS)
    assert torch.equal(a.triangle, b.triangle)
    torch.testing.assert_close(a.barycentric, b.barycentric, atol=1e-5, rtol=0)
    torch.testing.assert_close(a.depth, b.depth, atol=1e-3, rtol=1e-5)
    hit = a.triangle >= 0
    for f in (a, b):
        assert (f.barycentric[hit] >= 0).all()
        torch.testing.assert_close(f.barycentric.sum(-1), hit.float(), atol=1e-5, rtol=0)
        assert f.depth[~hit].isinf().all()
        assert f.depth[hit].isfinite().all()


@cameras
def test_backends_agree_on_many_triangles(perspective):
    generator = torch.Generator().manual_seed(3)
    middle = torch.rand(3, 5000, 1, 3, generator=generator) * torch.tensor([100.0, 120, 80]) + torch.tensor([0, 0, 10])
    projected = (middle + torch.randn(3, 5000, 3, 3, generator=generator) * 2).flatten(1, 2)
    triangles = torch.arange(15000).view(-1, 3)
    a, b = (rasterize(projected, triangles, (112, 96), perspective, backend) for backend in BACKENDS)
    assert torch.equal(a.triangle, b.triangle)
    torch.testing.assert_close(a.barycentric, b.barycentric, atol=1e-5, rtol=0)


def test_chunks_do_not_change_the_result(monkeypatch):
    projected, triangles = soup(seed=4)
    whole = rasterize(projected, triangles, (40, 40), backend="torch")
    monkeypatch.setattr(raster, "PAIRS", 8 * 700)
    monkeypatch.setattr(raster, "TRIANGLES", 50)  # one image at a time
    assert torch.equal(whole.triangle, rasterize(projected, triangles, (40, 40), backend="torch").triangle)


@backends
@pytest.mark.parametrize("grid", [1, 2, 1000])
def test_a_closed_surface_covers_each_pixel_exactly_once(backend, grid):
    generator = torch.Generator().manual_seed(grid)
    n = 8  # a jittered sheet: (n - 1)^2 cells of two triangles, its rim outside the image
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    jitter = torch.rand(n * n, 2, generator=generator) * 2.4
    points = torch.stack([column, row], -1).view(-1, 2) * 4.0 - 4 + ((jitter * grid).round() / grid)
    projected = torch.cat([points, torch.zeros(n * n, 1)], -1)[None]
    corner = (row * n + column)[:-1, :-1].reshape(-1, 1)
    split = torch.rand(len(corner), 1, generator=generator) < 0.5
    triangles = torch.cat(
        [
            corner + torch.where(split, torch.tensor([0, 1, n]), torch.tensor([0, 1, n + 1])),
            corner + torch.where(split, torch.tensor([1, n + 1, n]), torch.tensor([0, n + 1, n])),
        ]
    )
    covered = sum(
        (rasterize(projected, triangles[k : k + 1], (18, 18), backend=backend).triangle >= 0).int()
        for k in range(len(triangles))
    )
    assert (covered == 1).all()


@backends
@cameras
def test_barycentrics_against_ray_casting(backend, perspective):
    """Three linear equations in numpy: the ray through the pixel centre meets the triangle in space."""
    projected, triangles = soup(seed=5)
    size, focal = (40, 40), 45.0
    found = rasterize(projected, triangles, size, perspective, backend)
    image, row, column = (x.numpy() for x in (found.triangle >= 0).nonzero(as_tuple=True))
    u, v = column + 0.5, row + 0.5
    corners = projected[image][np.arange(len(image))[:, None], triangles[found.triangle[image, row, column]]].numpy()
    if perspective:
        space = np.concatenate([corners[..., :2] * corners[..., 2:] / focal, corners[..., 2:]], -1)
        origin, ray = np.zeros((len(u), 3)), np.stack([u / focal, v / focal, np.ones(len(u))], -1)
    else:
        space, origin, ray = corners, np.stack([u, v, 0 * u], -1), np.tile([0.0, 0, 1], (len(u), 1))
    sides = np.stack([space[:, 1] - space[:, 0], space[:, 2] - space[:, 0], -ray], -1)
    b1, b2, depth = np.linalg.solve(sides, (origin - space[:, 0])[..., None])[..., 0].T
    expected = np.stack([1 - b1 - b2, b1, b2], -1)
    inside = (expected > 0).all(-1)  # the others are within half a snapping step of an edge
    assert inside.mean() > 0.99
    hit = found.barycentric[image, row, column].numpy()
    np.testing.assert_allclose(hit[inside], expected[inside], atol=1e-9)
    np.testing.assert_allclose(hit, expected, atol=1e-2)
    np.testing.assert_allclose(found.depth[image, row, column].numpy()[inside], depth[inside], rtol=1e-9)


LEFT_HALF = [(0.0, 0.0, 10.0), (8.0, 0.0, 10.0), (0.0, 8.0, 10.0)]


@backends
@pytest.mark.parametrize("flaw", [np.nan, np.inf, -np.inf, 32769.0, -1e30])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_triangle_with_an_unusable_vertex_is_dropped_and_nothing_else(backend, flaw, axis):
    good, triangles = one(*LEFT_HALF)
    bad = good.clone() - torch.tensor([0.0, 0, 5])
    bad[0, 1, axis] = flaw
    both = torch.cat([bad, good], 1)
    found = rasterize(both, torch.cat([triangles, triangles + 3]), (8, 8), backend=backend)
    expected = rasterize(good, triangles, (8, 8), backend=backend)
    assert torch.equal(found.triangle == 1, expected.triangle == 0)
    assert not (found.triangle == 0).any()
    assert torch.equal(found.barycentric, expected.barycentric)


@backends
@pytest.mark.parametrize("depth", [np.nan, np.inf, 1e13, -5.0, 0.0, 0.9])
def test_near_plane_and_depths_that_are_none(backend, depth):
    projected, triangles = one(LEFT_HALF[0], LEFT_HALF[1], (0.0, 8.0, depth))
    assert (rasterize(projected, triangles, (8, 8), True, backend).triangle == -1).all()
    dropped = (rasterize(projected, triangles, (8, 8), False, backend).triangle == -1).all()
    assert dropped == (not abs(depth) <= 1e12)  # without perspective a negative depth is a depth


@backends
@pytest.mark.parametrize(
    "corners",
    [
        [(2.0, 2.0, 1.0)] * 3,
        [(1.0, 1.0, 1.0), (3.0, 3.0, 1.0), (6.0, 6.0, 1.0)],
        [(1.0, 1.5, 1.0), (6.0, 1.5, 1.0), (1.0, 1.5 + 1e-6, 1.0)],  # thinner than the snapping
        [(-9.0, 0.0, 1.0), (-1.0, 0.0, 1.0), (-1.0, 8.0, 1.0)],  # off screen
        [(3.6, 3.6, 1.0), (4.4, 3.6, 1.0), (3.6, 4.4, 1.0)],  # between pixel centres
    ],
)
def test_what_covers_nothing(backend, corners):
    projected, triangles = one(*corners)
    found = rasterize(projected, triangles, (8, 8), backend=backend)
    assert (found.triangle == -1).all() and found.depth.isinf().all() and (found.barycentric == 0).all()


@backends
def test_a_triangle_far_larger_than_the_image_covers_it(backend):
    projected, triangles = one((-30000.0, -30000.0, 5.0), (32000.0, -30000.0, 5.0), (-30000.0, 32000.0, 5.0))
    found = rasterize(projected, triangles, (6, 7), backend=backend)
    assert (found.triangle == 0).all()
    torch.testing.assert_close(found.depth, torch.full((1, 6, 7), 5.0, dtype=torch.float64))


@backends
def test_nothing_to_draw_and_the_smallest_picture(backend):
    projected, triangles = one(*LEFT_HALF)
    empty = rasterize(projected.requires_grad_(), triangles[:0], (4, 5), backend=backend)
    assert empty.triangle.shape == (1, 4, 5) and (empty.triangle == -1).all()
    assert interpolate(empty, torch.ones(1, 3, 2).double(), triangles[:0], backend).abs().max() == 0
    assert rasterize(projected, triangles, (1, 1), backend=backend).triangle.tolist() == [[[0]]]
    assert rasterize(projected[:0], triangles, (4, 5), backend=backend).triangle.shape == (0, 4, 5)


@backends
@cameras
def test_gradients_by_finite_differences(backend, perspective):
    projected, triangles = soup(seed=6, vertices=9, triangles=9, batch=1, extent=20.0)
    attributes = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(7)).double()
    before = rasterize(projected, triangles, (7, 9), perspective, backend)
    assert (before.triangle >= 0).sum() > 25

    def draw(projected, attributes):
        found = rasterize(projected, triangles, (7, 9), perspective, backend)
        assert torch.equal(found.triangle, before.triangle)
        depth = torch.where(found.triangle >= 0, found.depth, 0)
        return found.barycentric, depth, interpolate(found, attributes, triangles, backend)

    assert torch.autograd.gradcheck(
        draw, (projected.requires_grad_(), attributes.requires_grad_()), eps=1e-7, atol=1e-4
    )


@cameras
def test_backends_have_the_same_gradients(perspective):
    projected, triangles = soup(seed=8, vertices=300, triangles=500)
    projected[0, 5] = np.nan
    weight = torch.randn(2, 40, 40, 4, generator=torch.Generator().manual_seed(9)).double()
    attributes, gradients = projected.nan_to_num(1).repeat(1, 1, 2)[..., :4], []
    for backend in BACKENDS:
        p, a = (values.clone().requires_grad_() for values in (projected, attributes))
        found = rasterize(p, triangles, (40, 40), perspective, backend)
        (interpolate(found, a, triangles, backend) * weight).sum().backward()
        gradients.append((p.grad, a.grad))
    assert gradients[0][0].isfinite().all()
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)


@backends
def test_a_triangle_of_missing_vertices_is_refused(backend):
    projected, triangles = one(*LEFT_HALF)
    with pytest.raises(ValueError, match="vertices 0 to 3, but there are only 3"):
        rasterize(projected, triangles + torch.tensor([0, 0, 1]), (8, 8), backend=backend)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_keep_their_precision_and_are_not_changed(dtype):
    projected, triangles = soup(dtype=dtype)
    copy = projected.clone()
    for backend in BACKENDS:
        found = rasterize(projected, triangles, (20, 20), backend=backend)
        assert found.barycentric.dtype == found.depth.dtype == dtype
        assert interpolate(found, projected, triangles, backend).dtype == dtype
    assert torch.equal(projected, copy)


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_threads_share_images_and_rows_without_changing_the_result(batch, three_threads):
    projected, triangles = soup(seed=10, batch=batch)
    for height in (1, 2, 40):  # one image or two: their rows are shared out, too
        a, b = (rasterize(projected, triangles, (height, 40), backend=backend) for backend in BACKENDS)
        assert torch.equal(a.triangle, b.triangle)
        torch.testing.assert_close(a.depth, b.depth)


def test_forked_data_loaders_draw_too(three_threads):
    """A loader's workers draw where the parent's threads do not exist."""
    projected, triangles = soup(batch=4, dtype=torch.float32)

    def draw(images):
        return rasterize(projected[images], triangles, (30, 30)).triangle

    expected = draw([0, 1, 2, 3])  # starts the parent's threads
    loader = torch.utils.data.DataLoader(
        range(4), batch_size=4, collate_fn=draw, num_workers=2, timeout=60, multiprocessing_context="fork"
    )
    assert torch.equal(next(iter(loader)), expected)
