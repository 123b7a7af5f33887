"""Blocks that are transposed in registers: unrolled loops over vectors that read across."""

from __future__ import annotations

import re

import pytest
from native_kernel import TARGETS, all_targets, check

from aicc.codegen.kernel import lower_kernel
from aicc.target import Target
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps


def transpose(
    dtype: str = "f32", value: str = "x[j, i]", rows: int = 32, columns: int = 35
) -> Kernel:
    """y[i, j] = value, of which x is read along the outer loop."""
    return parse_kernel(
        f"""
kernel @turn()
  in x: {dtype}[{columns}, {rows}]
  in z: {dtype}[{rows}, {columns}]
  out y: {dtype}[{rows}, {columns}]
  for i in 0..{rows}:
    for j in 0..{columns}: y[i, j] = {value}
"""
    )


def blocks(kernel: Kernel, size: int) -> Kernel:
    """Squares of `size`, the last ones shifted."""
    steps = f"""split(i, {size}, shift); reorder(j, i.i); split(j, {size}, shift);
        reorder(i.i, j.i); unroll(i.i); vectorize(j.i)"""
    return schedule(kernel, parse_steps(steps))


def lane_by_lane(kernel: Kernel, target: Target) -> bool:
    """Whether vectors are put together from elements that are apart."""
    text = lower_kernel(kernel, target)
    return (
        "gather" in text or re.search(r"insertelement .*, i64 1$", text, re.MULTILINE) is not None
    )


@all_targets
@pytest.mark.parametrize("size", [2, 4, 8, 16])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i64", "i16", "u8", "f16"])
def test_transposes(dtype: str, size: int, target: Target) -> None:
    kernel = transpose(dtype)
    scheduled = blocks(kernel, size)
    check(scheduled, target, original=kernel)
    assert not lane_by_lane(scheduled, target)


@all_targets
def test_operands_of_both_kinds(target: Target) -> None:
    kernel = transpose(value="max(x[j, i]*2.0 + z[i, j], x[j, i])")
    scheduled = blocks(kernel, 8)
    check(scheduled, target, original=kernel)
    assert not lane_by_lane(scheduled, target)


@all_targets
def test_lines_that_repeat_at_the_border_are_blocks_too(target: Target) -> None:
    kernel = transpose(value="x[min(j, 11), i]")
    scheduled = blocks(kernel, 8)
    check(scheduled, target, original=kernel)
    assert not lane_by_lane(scheduled, target)


@all_targets
def test_what_a_condition_guards_is_not_read_ahead(target: Target) -> None:
    kernel = transpose(value="select(index(i) < 19:i64, x[j, i], z[i, j])")
    scheduled = blocks(kernel, 8)
    check(scheduled, target, original=kernel)
    assert lane_by_lane(scheduled, target)


def test_loops_of_unequal_extents_are_no_block() -> None:
    steps = (
        "split(i, 4); reorder(j, i.i); split(j, 5); reorder(i.i, j.i); unroll(i.i); vectorize(j.i)"
    )
    scheduled = schedule(transpose(), parse_steps(steps))
    check(scheduled, TARGETS[0], original=transpose())
    assert lane_by_lane(scheduled, TARGETS[0])
