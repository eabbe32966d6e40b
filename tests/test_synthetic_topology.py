"""SynthFace's mesh: closed but for the neck, outward, symmetric, and landmarks where anatomy has them."""

from collections import Counter

import numpy as np
import pytest
import torch

from facenb.morphable.synthetic import SynthFace
from facenb.morphable.synthetic.head import mean_head
from facenb.morphable.synthetic.topology import topology


def edges(triangles) -> Counter:
    return Counter((a, b) for t in triangles.tolist() for a, b in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0])))


def test_it_is_a_manifold_closed_but_for_the_neck():
    top, directed = topology(), edges(topology().triangles)
    assert max(directed.values()) == 1
    border = {e for e in directed if e[::-1] not in directed}
    on_border = np.unique(list(border))
    assert len(border) == len(on_border) > 0  # one ring
    assert (top.level[on_border] == top.levels[-1]).all()
    assert 8_000 <= len(top.triangles) <= 10_000
    assert set(np.unique(top.triangles)) == set(range(len(top.level)))  # no vertex is idle


def test_it_has_three_parts_of_the_right_genus():
    import scipy.sparse.csgraph as graph
    from scipy.sparse import coo_matrix

    pairs = np.array(list(edges(topology().triangles)))
    count = len(topology().level)
    parts, label = graph.connected_components(coo_matrix((np.ones(len(pairs)), pairs.T), (count, count)))
    assert parts == 3  # the head and two eyeballs
    undirected = {tuple(sorted(e)) for e in edges(topology().triangles)}
    characteristic = count - len(undirected) + len(topology().triangles)
    assert characteristic == 1 + 2 + 2  # a disc (open at the neck) and two spheres


def test_the_mean_head_is_symmetric_exactly():
    top, mean = topology(), mean_head()
    assert (top.mirror[top.mirror] == np.arange(len(mean))).all()
    np.testing.assert_array_equal(mean[top.mirror] * [-1, 1, 1], mean)
    there = {tuple(sorted(t)) for t in top.triangles.tolist()}
    assert {tuple(sorted(t)) for t in top.mirror[top.triangles].tolist()} == there


def test_triangles_face_outward():
    mean, triangles = mean_head(), topology().triangles
    corner = mean[triangles]
    volume = np.einsum("ij,ij->", corner[:, 0], np.cross(corner[:, 1], corner[:, 2])) / 6
    assert 3.5e6 < volume < 6.5e6  # a head with its neck has 4 to 6 litres


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    synth = SynthFace(0)
    return synth.landmarks.of(synth.mean).numpy()


def test_landmarks_are_in_the_order_of_ibug(places):
    x, y, z = places.T
    assert len(places) == 68
    assert (np.diff(x[:17]) > -0.5).all() and y[:17].argmin() == 8  # jaw, left to right in the picture, chin lowest
    assert (np.diff(x[17:27]) > 0).all()
    assert (np.diff(y[27:31]) < 0).all() and z.argmax() == 30  # down the nose to its tip
    assert (np.diff(x[31:36]) > 0).all()
    for outer, inner in ((36, 39), (45, 42)):
        assert abs(x[outer]) > abs(x[inner])
    assert (y[[37, 38, 43, 44]] > y[[41, 40, 47, 46]] + 5).all()  # upper lids over lower ones
    assert x[48] == x[48:60].min() and x[54] == x[48:60].max()
    assert y[51] > y[62] >= y[66] > y[57]  # upper lip, seam, seam, lower lip
    eyes = [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
    lips = [54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65]
    twins = [*range(16, -1, -1), *range(26, 16, -1), 27, 28, 29, 30, 35, 34, 33, 32, 31, *eyes, *lips]
    np.testing.assert_array_equal(places[twins] * [-1, 1, 1], places)


def test_landmarks_lie_in_their_regions():
    synth = SynthFace(0)
    vertex = synth.landmarks.vertices[:, 0]
    regions = {name: set(index.tolist()) for name, index in synth.regions.items()}
    for first, last, name in ((17, 27, "brows"), (27, 36, "nose"), (36, 48, "eyelids"), (48, 68, "lips")):
        inside = [int(v) in regions[name] for v in vertex[first:last]]
        assert all(inside), f"landmarks {[first + k for k, i in enumerate(inside) if not i]} are outside {name}"


def test_regions_share_out_the_skin():
    regions = SynthFace(0).regions
    for name in ("nose", "brows", "lips", "ears", "neck", "scalp", "face", "left_eye", "right_eye", "mouth_inside"):
        assert len(regions[name]) > 30, name
    mean = torch.from_numpy(mean_head())
    assert mean[regions["left_eye"], 0].min() > 0 > mean[regions["right_eye"], 0].max()
    assert not set(regions["face"].tolist()) & set(regions["scalp"].tolist())
    assert not set(regions["skin"].tolist()) & set(regions["mouth_inside"].tolist())


def test_texture_triangles_are_unfolded():
    synth = SynthFace(0)
    uv, triangles = synth.uv.double(), synth.uv_triangles
    assert uv.min() >= 0 and uv.max() <= 1 and triangles.max() < len(uv)
    a, b, c = uv[triangles].unbind(1)
    assert (torch.stack([a, b, c]).max(0).values - torch.stack([a, b, c]).min(0).values).max() < 0.6
    area = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]
    assert (area > 0).float().mean() > 0.9
