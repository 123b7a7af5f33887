"""Packing: every element at its place, zeros where tiles lack some, whatever lies how."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aicc.pages import discard, loose_array
from aicc.tensor_ir import packing
from aicc.tensor_ir.packing import PackError, pack_array, pack_into, parse_layout


@st.composite
def layouts(draw):
    """A shape, and a layout of it."""
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    words = []
    for axis in range(len(shape)):
        tile = draw(st.sampled_from([None, None, 1, 2, 4, 16]))
        words += [f"{axis}"] if tile is None else [f"{axis}/{tile}", f"{axis}%{tile}"]
    return shape, " ".join(draw(st.permutations(words)))


@given(layouts(), st.integers(1, 300), st.randoms())
def test_every_element_at_its_place(case, slab, random):
    shape, layout = case
    data = np.arange(1, np.prod(shape, dtype=int) + 1, dtype=np.int32)
    order = random.sample(range(len(shape)), len(shape))
    back = list(np.argsort(order, kind="stable"))
    # The same elements, but any of the axes may be the one that is contiguous in memory.
    data = data.reshape(shape).transpose(order).copy(order="C").transpose(back)
    parts = parse_layout(layout, shape)
    made = np.full([p.extent for p in parts], -1, np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "SLAB", slab)
        seen = []
        pack_into(made, data, layout, seen.append)
    expected = np.zeros_like(made)
    for at in np.ndindex(*shape):
        expected[tuple(p.index(at[p.axis]) for p in parts)] = data[at]
    np.testing.assert_array_equal(made, expected)
    assert sorted(np.concatenate([s.ravel() for s in seen] or [[]])) == sorted(data.ravel())


def test_wide_transposed_matrices():
    data = np.arange(300 * 700, dtype=np.float32).reshape(700, 300)
    made = np.empty((300, 700), np.float32)
    pack_into(made, data.T, "")
    np.testing.assert_array_equal(made, data.T)


def test_slabs_are_small():
    data = np.zeros((64, 1 << 16), np.float32)
    sizes = []
    pack_into(np.empty((1, 1 << 16, 64), np.float32), data, "0/64 1 0%64", lambda s: None)
    pack_into(np.empty((1 << 16, 64), np.float32), data.T, "", lambda s: sizes.append(s.nbytes))
    assert sum(sizes) == data.nbytes and max(sizes) <= packing.SLAB


def test_bf16_and_scalars():
    data = np.arange(5).astype(ml_dtypes.bfloat16)
    assert pack_array(data, "0/4 0%4").astype(int).tolist() == [[0, 1, 2, 3], [4, 0, 0, 0]]
    one = np.empty((), ml_dtypes.bfloat16)
    pack_into(one, np.array(3, ml_dtypes.bfloat16), "")
    assert one == 3


@pytest.mark.parametrize("layout", ["0", "0 0", "0 2", "0/4 1", "0/4 0%8 1", "0/0 0%0 1", "x"])
def test_layouts_of_another_array(layout):
    with pytest.raises(PackError):
        pack_array(np.zeros((2, 3)), layout)


def test_pages_of_a_loose_array_go_as_it_is_packed():
    filters = loose_array((64, 36, 1024), np.float32)
    filters[...] = np.random.default_rng(0).standard_normal(filters.shape, np.float32)
    data = filters.transpose(1, 2, 0)
    expected = pack_array(data.copy(), "2/16 0 1 2%16")
    made = np.empty_like(expected)
    pack_into(made, data, "2/16 0 1 2%16", discard)
    assert np.array_equal(made, expected)
    assert not filters[1:-1].any()  # given back


def test_slabs_with_gaps_are_not_given_back():
    data = loose_array((36, 700, 60), np.float32)
    data[...] = np.random.default_rng(0).standard_normal(data.shape, np.float32)
    expected = pack_array(data.copy(), "2/16 0 1 2%16")
    made = np.empty_like(expected)
    pack_into(made, data, "2/16 0 1 2%16", discard)
    assert np.array_equal(made, expected)
