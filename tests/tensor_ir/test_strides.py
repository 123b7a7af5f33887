"""Strides of parts: one form for equal layouts, and other shapes for the same elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aicc.symbolic import Size, sym
from aicc.tensor_ir.ir import Buffer
from aicc.tensor_ir.strides import even_runs, normal_pitch, reshaped, row_major, same_walk

N, M = sym("n", 1), sym("m", 1)


def walked(shape: Any, strides: Any) -> list[int]:
    """The places of the elements, in order."""
    places = np.zeros(shape, np.int64)
    for axis, stride in enumerate(strides):
        index = np.arange(shape[axis]) * stride
        places += index.reshape(-1, *(1,) * (len(shape) - axis - 1))
    return list(places.ravel())


@st.composite
def parts(draw: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A shape, and the strides of a part of that shape of a larger array."""
    shape = tuple(draw(st.lists(st.sampled_from((1, 2, 3, 4, 6)), max_size=4)))
    around = [d + draw(st.sampled_from((0, 0, 2))) for d in shape]
    return shape, tuple(int(s) for s in row_major(around))


def test_symbolic_strides() -> None:
    assert row_major((N, M, 3)) == (M * 3, 3, 1)
    assert normal_pitch((N, M, 3), (M * 8, 8, 1)) == (M * 8, 8, 1)
    assert even_runs((N, M, 3), (M * 8, 8, 1)) == [(N * M, 8), (3, 1)]
    assert reshaped((N, M, 12), (M * 40, 40, 1), (N, M, 3, 4)) == (M * 40, 40, 4, 1)
    assert reshaped((N, M, 12), (M * 40, 40, 1), (N * M, 12)) == (40, 1)


def test_axes_of_one_element_have_the_stride_that_goes_on() -> None:
    assert normal_pitch((1, 3, 4), (99, 4, 1)) == ()
    assert normal_pitch((2, 1, 4), (20, 7, 1)) == (20, 4, 1)
    assert normal_pitch((5, 1), (9, 1)) == normal_pitch((5, 1), (9, 3)) == (9, 1)


@given(parts())
def test_the_normal_form_walks_the_same_elements(part: Any) -> None:
    shape, strides = part
    made = normal_pitch(shape, strides)
    assert walked(shape, made or row_major(shape)) == walked(shape, strides)
    assert normal_pitch(shape, made or row_major(shape)) == made
    assert same_walk(shape, made, shape, strides)


@given(parts(), st.data())
def test_another_shape_walks_the_same_elements(part: Any, data: Any) -> None:
    shape, strides = part
    count, target = math.prod(shape), list[int]()
    while count > 1:
        factors = [d for d in range(2, count + 1) if count % d == 0]
        target.append(data.draw(st.sampled_from(factors)))
        count //= target[-1]
    found = reshaped(shape, strides, target)
    memory = np.lib.stride_tricks.as_strided(np.zeros(4000, np.int8), shape, strides)
    try:
        memory.view().shape = tuple(target)  # what numpy does without a copy
    except AttributeError:
        assert found is None
        return
    assert found is not None
    assert walked(target, found) == walked(shape, strides)
    assert same_walk(shape, strides, target, found)


@pytest.mark.parametrize(
    ("shape", "strides", "target"),
    [
        ((4, 6), (10, 1), (24,)),  # rows do not go on
        ((4, 6), (10, 1), (8, 3, 1, 1, 1, 2)),  # the wrong number of elements
        ((4, 6), (10, 1), (4, 4, 2)),
        ((4, 6), (10, 1), (2, 12)),
        ((N, 6), (10, 1), (N, 4)),
    ],
)
def test_shapes_that_no_strides_have(
    shape: tuple[Size, ...], strides: tuple[int, ...], target: tuple[Size, ...]
) -> None:
    assert reshaped(shape, strides, target) is None


def test_walks_that_differ() -> None:
    assert not same_walk((4, 6), (10, 1), (4, 6), ())
    assert not same_walk((4, 6), (10, 1), (4, 6), (12, 1))
    assert same_walk((4, 6), (10, 1), (2, 2, 6), (20, 10, 1))
    assert same_walk((4, 6), (), (24,), ())


def test_buffers_know_their_strides() -> None:
    b = Buffer("x", "f32", (N, 4, 6), "in")
    assert b.strides() == (24, 6, 1)
    part = b.with_pitch((80, 20, 1))
    assert part.strides() == part.pitch == (80, 20, 1)
    assert part.with_pitch((24, 6, 1)) == b
