import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from facenb.morphable.layouts import DECA, DENG, LAYOUTS, LIU18, LUO19, Layout


def test_sizes_are_those_of_the_papers():
    sizes = {"LIU18": 228, "LUO19": 62, "DECA": 236, "DENG": 257}
    assert {name: layout.size for name, layout in LAYOUTS.items()} == sizes


@pytest.mark.parametrize(
    ("layout", "part", "first", "last"),
    [
        (LIU18, "expression", 199, 227),
        (LUO19, "identity", 12, 51),
        (DECA, "expression", 150, 199),
        (DECA, "jaw_pose", 203, 205),
        (DECA, "light", 209, 235),
        (DENG, "albedo", 144, 223),
        (DENG, "rotation", 224, 226),
        (DENG, "translation", 254, 256),
    ],
)
def test_parts_lie_where_the_papers_put_them(layout, part, first, last):
    flat = torch.arange(float(layout.size))
    values = layout.split(flat)[part]
    assert (values[0], values[-1]) == (first, last)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 7), min_size=1, max_size=6), st.randoms())
def test_any_layout_round_trips_in_any_order_of_parts(parts, shuffler):
    layout = Layout("made up", parts)
    flat = torch.randn(2, 3, layout.size)
    named = list(layout.split(flat).items())
    shuffler.shuffle(named)
    assert torch.equal(layout.join(dict(named)), flat)


def test_join_broadcasts_a_part_shared_by_the_batch_and_keeps_gradients():
    identity = torch.randn(199, requires_grad=True)
    flat = LIU18.join({"expression": torch.zeros(4, 29), "identity": identity})
    assert flat.shape == (4, 228)
    flat.sum().backward()
    assert torch.equal(identity.grad, torch.full((199,), 4.0))


def test_a_wrong_length_names_the_layout_meant_and_the_one_that_fits():
    with pytest.raises(ValueError, match=r"DECA \(236 = 100 identity.*257 long, the length of DENG \(257 = 80 ident"):
        DECA.split(torch.zeros(2, 257))
    with pytest.raises(ValueError, match=r"LIU18 \(228.*is 17 long;"):
        LIU18.split(torch.zeros(17))


def test_join_names_missing_unknown_and_misfitting_parts():
    with pytest.raises(ValueError, match=r"LIU18 .*29 expression.* joined from parts .*'expresion': 29"):
        LIU18.join({"identity": torch.zeros(199), "expresion": torch.zeros(29)})
    with pytest.raises(ValueError, match=r"LIU18 .*29 expression.* joined from parts .*'expression': 30"):
        LIU18.join({"identity": torch.zeros(199), "expression": torch.zeros(30)})


def test_a_layout_is_its_name_and_its_parts_in_order():
    assert Layout("X", {"a": 1, "b": 2}) == Layout("X", {"a": 1, "b": 2}) != Layout("Y", {"a": 1, "b": 2})
    one, other = Layout("X", {"a": 1, "b": 1}), Layout("X", {"b": 1, "a": 1})
    assert one != other
