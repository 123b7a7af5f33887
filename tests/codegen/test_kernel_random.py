"""Random kernels and random schedules as native code against the interpreter."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from native_kernel import check, sample

from aicc.dtypes import FLOATS
from aicc.target import Target
from aicc.tensor_ir.dependence import why_not_lanes, why_not_threads
from aicc.tensor_ir.ir import Expr, For, Kernel, Op, Stmt
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.text import print_kernel
from aicc.tensor_ir.walk import map_body, map_expr, map_exprs

sys.path.append(str(Path(__file__).parent.parent / "tensor_ir"))
from kernel_strategies import kernels, random_arrays
from larger_arrays import parted
from schedule_strategies import Drawn, apply_random, operators

HOST = Target.host()
LEVELS = ("native", "x86-64-v3", "x86-64") if HOST.arch == "x86_64" else ("native",)
TARGETS = [Target.from_name(n) for n in LEVELS if not Target.from_name(n).missing_on_host()]
EXACT = {"exp": "abs", "tanh": "neg", "erf": "floor"}


@settings(max_examples=60)
@given(
    st.data(), operators(), st.sampled_from(TARGETS), st.integers(0, 99), st.sampled_from((0, 2))
)
def test_schedules(data: Any, drawn: Drawn, target: Target, seed: int, threads: int) -> None:
    kernel, _, _ = apply_random(data.draw, drawn.kernel, 14)
    arrays = sample(drawn.kernel, drawn.sizes, seed)
    check(kernel, target, drawn.sizes, drawn.kernel, arrays, threads=threads)


@settings(max_examples=60)
@given(
    operators(extents=(1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 48, 50)),
    st.sampled_from(TARGETS),
    st.integers(0, 99),
    st.sampled_from((0, 2)),
)
def test_recipes(drawn: Drawn, target: Target, seed: int, threads: int) -> None:
    kernel, steps = scheduled(drawn.kernel, target)
    assert schedule(drawn.kernel, parse_steps(print_steps(steps))) == kernel
    arrays = sample(drawn.kernel, drawn.sizes, seed)
    check(kernel, target, drawn.sizes, drawn.kernel, arrays, threads=threads)


@settings(max_examples=60)
@given(
    st.data(),
    operators(extents=(1, 2, 3, 5, 7, 8, 13, 16, 17, 31, 32, 48, 50)),
    st.sampled_from(TARGETS),
    st.integers(0, 99),
    st.sampled_from((0, 2)),
)
def test_parts_of_larger_arrays(
    data: Any, drawn: Drawn, target: Target, seed: int, threads: int
) -> None:
    """Nothing between the elements is written, and nothing beyond the last one read."""
    kernel, _ = scheduled(parted(data.draw, drawn.kernel), target)
    assert parse_kernel(print_kernel(kernel)) == kernel
    arrays = sample(drawn.kernel, drawn.sizes, seed)
    check(kernel, target, drawn.sizes, drawn.kernel, arrays, threads=threads)


def plain(kernel: Kernel) -> Kernel:
    """The kernel with legal kinds of loops only, and operations whose results are exact: functions
    and the quotients of floats, which tell 0 from -0, become others."""

    def one(e: Expr) -> Expr | None:
        if not isinstance(e, Op):
            return None
        name = "sub" if e.name == "div" and e.dtype in FLOATS else EXACT.get(e.name)
        if name is None:
            return None
        return Op(name, tuple(map_expr(a, one, lambda s: s) for a in e.args), e.dtype)

    def kind(s: Stmt) -> tuple[Stmt, ...]:
        if isinstance(s, For):
            bad_vector = s.kind == "vector" and (s.lo != 0 or why_not_lanes(s))
            if bad_vector or (s.kind == "parallel" and why_not_threads(s, frozenset())):
                return (replace(s, kind="for"),)
        return (s,)

    buffers = tuple(replace(b, pack="") for b in kernel.buffers)
    body = map_body(map_exprs(kernel.body, one), kind)
    return replace(kernel, buffers=buffers, body=body)


@pytest.mark.skipif(HOST.arch != "x86_64", reason="needs a target that does not fuse operations")
@settings(max_examples=80)
@given(
    kernels(locals_=False), st.integers(1, 5), st.integers(2, 4), st.integers(0, 3), st.integers(0)
)
def test_kernels_of_all_statements(kernel: Kernel, n: int, m: int, odd: int, seed: int) -> None:
    kernel = plain(kernel)
    assume(not re.search(r"\d{10,}", str(kernel)))  # index arithmetic has 64 bits
    sizes = {"n": n, "m": m, "odd name": odd}
    arrays = random_arrays(kernel, sizes, np.random.default_rng(seed % 1000))
    for name, a in arrays.items():
        if a.dtype.kind in "iu":
            arrays[name] = np.asarray(np.minimum(a, 50).astype(a.dtype))
    check(kernel, Target.from_name("x86-64"), sizes, arrays=arrays)
