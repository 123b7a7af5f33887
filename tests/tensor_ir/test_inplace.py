from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_strategies import kernels, random_arrays

from aicc.errors import ExecutionError
from aicc.symbolic import evaluate, product
from aicc.tensor_ir.inplace import inplace_pairs
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import Fuse, Parallel, Reorder, Split, Step, Vectorize, schedule

ADD = """
kernel @add(n: 1.., m: 1..)
  in x: f32[n, m]
  in z: f32[m]
  out y: f32[n, m]
  for i in 0..n:
    for j in 0..m:
      y[i, j] = x[i, j] + z[j]
"""


def check(kernel: Kernel, sizes: dict[str, int], seed: int = 0) -> int:
    """For every pair that is claimed, the same results with shared memory; how many there are."""
    pairs = inplace_pairs(kernel)
    for operand, out in pairs:
        arrays = random_arrays(kernel, sizes, np.random.default_rng(seed))
        # What the result holds at first is no part of its meaning: the same in both runs.
        start = arrays[operand].reshape(arrays[out].shape).view(arrays[out].dtype)
        alone = {name: a.copy() for name, a in {**arrays, out: start}.items()}
        try:
            run(kernel, alone, sizes)
        except ExecutionError:
            continue
        shared = {**arrays, out: start}
        run(kernel, shared, sizes)
        assert shared[out].tobytes() == alone[out].tobytes(), f"{operand} -> {out} in\n{kernel}"
    return len(pairs)


SCHEDULES: list[list[Step]] = [
    [],
    [Parallel("i")],
    [Split("j", 4, "guard")],
    [Split("j", 4, "peel")],
    [Split("j", 4, "mask"), Vectorize("j.i"), Vectorize("j.m")],
    [Split("j", 4, "peel"), Split("i", 3, "peel"), Vectorize("j.i"), Parallel("i.o")],
    [Reorder(("j", "i"))],
]


def test_what_runs_twice_is_not_in_place() -> None:
    kernel = parse_kernel(
        ADD.replace("n, m", "n, 10").replace("f32[m]", "f32[10]").replace("0..m", "0..10")
    )
    assert inplace_pairs(kernel) == {("x", "y")}
    assert not inplace_pairs(Split("j", 4, "shift").apply(kernel))


@pytest.mark.parametrize("steps", SCHEDULES, ids=str)
def test_schedules_keep_what_is_in_place(steps: list[Step]) -> None:
    kernel = schedule(parse_kernel(ADD), steps)
    assert inplace_pairs(kernel) == {("x", "y")}
    for n, m in ((5, 11), (3, 4), (1, 1), (7, 3)):
        check(kernel, {"n": n, "m": m})


def test_fused_and_split_loops() -> None:
    """Quotients and remainders of one loop variable are digits that tell it."""
    text = ADD.replace("(n: 1.., m: 1..)", "()").replace("..n", "..6").replace("..m", "..8")
    kernel = parse_kernel(text.replace("[n, m]", "[6, 8]").replace("[m]", "[8]"))
    for steps in (
        [Fuse("i", "j")],
        [Fuse("i", "j"), Split("i.j", 4)],
        [Split("i", 2), Fuse("i.o", "i.i"), Parallel("i.o.i.i")],
    ):
        made = schedule(kernel, steps)
        assert inplace_pairs(made) == {("x", "y")}, made
        check(made, {})


def test_a_reshaped_result() -> None:
    kernel = parse_kernel("""
kernel @k()
  in x: f32[2, 6, 4]
  out y: f32[12, 4]
  for p in 0..48: y[p//4, p%4] = x[0, 0, 0] - x[0, 0, 0] + x[p//24, (p//4)%6, p%4]
""")
    assert not inplace_pairs(kernel)  # the first element is read again in every iteration
    kernel = parse_kernel("""
kernel @k()
  in x: f32[2, 6, 4]
  out y: f32[12, 4]
  for p in 0..48: y[p//4, p%4] = neg(x[p//24, (p//4)%6, p%4])
""")
    assert inplace_pairs(kernel) == {("x", "y")}
    check(kernel, {})


def test_two_operands_and_another_type() -> None:
    kernel = parse_kernel("""
kernel @k(n: 1..)
  in x: f32[n]
  in z: i32[n]
  in w: f64[n]
  out y: i32[n]
  for i in 0..n: y[i] = z[i] + cast.i32(x[i] + cast.f32(w[i]))
""")
    assert inplace_pairs(kernel) == {("x", "y"), ("z", "y")}


REFUSED = {
    "reversed": "for i in 0..8: y[i] = x[7 - i]",
    "shifted": "for i in 0..7: y[i] = x[i + 1]",
    "read again later": "for i in 0..8: y[i] = x[i]\n  for i in 0..8: z[i] = x[i]",
    "read before in another stage": "for i in 0..8: z[i] = x[i]\n  for i in 0..8: y[i] = z[i]",
    "stored in every iteration of a loop": "for i in 0..8: for j in 0..2: y[i] = x[i]*2.0",
    "stored by two overlapping stores": "for i in 0..8: y[i] = x[i]\n  for i in 0..4: y[i] = x[i]",
    "clamped": "for i in 0..9: y[min(i, 7)] = x[min(i, 7)]*2.0",
    "digits that overlap": "for i in 0..4: for j in 0..3: y[i*2 + j] = x[i*2 + j]*2.0",
    "reduced to": "for i in 0..8: y[i] = x[i]\n  for i in 0..8: y[i] += x[i]",
    "a remainder alone": "for i in 0..16: y[i%8] = x[i%8]*2.0",
    "through data": "for i in 0..8: y[i] = x[int(cast.i64(x[i]), 0..7)]",
    "a condition": "for i in 0..8:\n    if x[0] > 0.0:\n      y[i] = x[i]",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_not_in_place(body: str) -> None:
    lines = body.replace("for j in 0..2: y", "\n    for j in 0..2: y")
    lines = lines.replace("for j in 0..3: y", "\n    for j in 0..3: y")
    kernel = parse_kernel(
        f"kernel @k()\n  in x: f32[8]\n  temp z: f32[8]\n  out y: f32[8]\n  {lines}\n"
    )
    assert ("x", "y") not in inplace_pairs(kernel)


@given(kernels(), st.integers(1, 5), st.integers(2, 4), st.integers(0, 3), st.integers(0, 9))
def test_random_kernels(kernel: Kernel, n: int, m: int, odd: int, seed: int) -> None:
    """What is claimed holds in the interpreter."""
    sizes = {"n": n, "m": m, "odd name": odd}
    for operand, out in inplace_pairs(kernel):
        a, b = kernel.buffer(operand), kernel.buffer(out)
        assert evaluate(product(a.shape), sizes) == evaluate(product(b.shape), sizes)
    check(kernel, sizes, seed)


def test_parts_of_larger_arrays_neither_lend_nor_borrow() -> None:
    dense = parse_kernel(
        ADD.replace("f32[m]", "f32[5]").replace("m]", "5]").replace("0..m", "0..5")
    )
    assert inplace_pairs(dense) == {("x", "y")}
    for name in "xy":
        part = dense.with_buffer(dense.buffer(name).with_pitch((8, 1)))
        assert not inplace_pairs(part)
