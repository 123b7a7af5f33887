"""Random legal steps on random kernels: the interpreter sees no difference."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from larger_arrays import GAP, gaps, memory_of, parted, seen
from schedule_strategies import Drawn, apply_random, backwards, operators

from aicc.dtypes import to_numpy
from aicc.errors import ScheduleError
from aicc.symbolic import evaluate
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_axes import FuseAxes, SplitAxis
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.verify import verify

Array = np.ndarray[Any, Any]
APPLIED: Counter[str] = Counter()


def sample(drawn: Drawn, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    made = {}
    for b in drawn.kernel.params:
        shape = tuple(evaluate(d, drawn.sizes) for d in b.shape)
        made[b.name] = rng.integers(-4, 5, shape).astype(to_numpy(b.dtype))
    return made


def result(kernel: Kernel, arrays: dict[str, Array], sizes: dict[str, int]) -> dict[str, Array]:
    given_ = {}
    for b in kernel.params:
        a = pack_array(arrays[b.name], b.pack) if b.pack else arrays[b.name].copy()
        given_[b.name] = a.reshape(tuple(evaluate(d, sizes) for d in b.shape))
    run(kernel, given_, sizes)
    return {b.name: given_[b.name].ravel() for b in kernel.params if b.scope == "out"}


def assert_same(want: dict[str, Array], got: dict[str, Array], kernel: Kernel) -> None:
    for name, a in want.items():
        assert np.array_equal(a, got[name]), f"{name}: {a} expected, {got[name]} found in\n{kernel}"


def random_axes(draw: Any, kernel: Kernel, count: int) -> Kernel:
    """Axes of operands and results joined and split."""
    names = [b.name for b in kernel.params if b.scope != "const" and b.shape]
    for _ in range(count if names else 0):
        name, axis = draw(st.sampled_from(names)), draw(st.integers(0, 2))
        step = draw(st.sampled_from((FuseAxes(name, axis), SplitAxis(name, axis, 2))))
        try:
            kernel = step.apply(kernel)
            APPLIED[f"{type(step).__name__} of a part"] += bool(kernel.buffer(name).pitch)
        except ScheduleError:
            APPLIED["refused"] += 1
    return kernel


@settings(max_examples=150)
@given(st.data(), operators(), st.integers(0, 99))
def test_steps_find_parts_of_larger_arrays_where_they_are(
    data: Any, drawn: Drawn, seed: int
) -> None:
    before = parted(data.draw, drawn.kernel)
    kernel = random_axes(data.draw, before, 4)
    kernel, _, _ = apply_random(data.draw, kernel, 8)
    verify(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel
    arrays = sample(drawn, seed)
    held = {b.name: memory_of(b, arrays[b.name], drawn.sizes) for b in before.params}
    views = {}
    for b in kernel.params:
        if b.scope == "const":
            a = pack_array(arrays[b.name], b.pack) if b.pack else arrays[b.name]
            views[b.name] = a.reshape(tuple(evaluate(d, drawn.sizes) for d in b.shape))
        else:
            views[b.name] = seen(b, held[b.name], to_numpy(b.dtype), drawn.sizes)
    run(kernel, views, drawn.sizes)
    want = result(drawn.kernel, arrays, drawn.sizes)
    for b in before.params:
        if b.scope == "out":
            dtype = to_numpy(b.dtype)
            got = seen(b, held[b.name], dtype, drawn.sizes).ravel()
            assert_same(want, {**want, b.name: got}, kernel)
            assert (gaps(b, held[b.name], dtype, drawn.sizes) == GAP).all(), kernel


def test_axes_of_parts_were_joined_and_split() -> None:
    """Runs after the test above, on what it counted."""
    if APPLIED:
        assert all(APPLIED[f"{kind} of a part"] for kind in ("FuseAxes", "SplitAxis")), APPLIED


@settings(max_examples=200)
@given(st.data(), operators(), st.integers(0, 99))
def test_random_schedules_keep_the_meaning(data: Any, drawn: Drawn, seed: int) -> None:
    kernel, steps, refused = apply_random(data.draw, drawn.kernel, 14)
    APPLIED.update(type(s).__name__ for s in steps)
    APPLIED["refused"] += refused
    verify(kernel)
    assert parse_kernel(print_kernel(kernel)) == kernel
    text = print_steps(steps)
    assert parse_steps(text) == tuple(steps)
    assert schedule(drawn.kernel, parse_steps(text)) == kernel
    arrays = sample(drawn, seed)
    want = result(drawn.kernel, arrays, drawn.sizes)
    assert_same(want, result(kernel, arrays, drawn.sizes), kernel)
    reverse = backwards(kernel)
    if reverse != kernel:
        assert_same(want, result(reverse, arrays, drawn.sizes), kernel)


def test_every_kind_of_step_was_applied() -> None:
    """Runs after the test above, on what it counted."""
    if not APPLIED["Split"]:
        return
    words = """Split Fuse Reorder Unroll Vectorize Parallel DecomposeReduction Inline ComputeAt
        CacheWrite CacheRead Pack Rfactor FuseAxes SplitAxis PadAxis PermuteAxes Partition Within
        Outline"""
    kinds = words.split()
    assert not [k for k in kinds if not APPLIED[k]], APPLIED
    done = sum(APPLIED[k] for k in kinds)
    assert done > 0.3 * (done + APPLIED["refused"]), APPLIED
