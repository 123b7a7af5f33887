"""Native code of kernels: local buffers and parallel loops."""

from __future__ import annotations

import re

import numpy as np
import pytest
from native_kernel import HOST, Native, all_targets, check

from aicc.codegen.kernel import OUT_OF_MEMORY, STACK_LIMIT, lower_kernel
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import For, Kernel
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import Parallel, schedule
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.verify import verify

N = sym("n", 1)


# --- local buffers and parallel loops ------------------------------------------------------------


def scratch(scope: str, extent: object) -> Kernel:
    """Rows doubled by way of a buffer of each iteration."""
    text = f"""
kernel @k(n: 1.., m: 1..)
  in x: f32[n, m]
  out y: f32[n, m]
  {scope} t: f32[{extent}, 2]
  parallel i in 0..n:
    for j in 0..m: t[j, 1] = x[i, j]
    for j in 0..m: y[i, j] = t[j, 1] + t[m - 1 - j, 1]
"""
    return parse_kernel(text)


@all_targets
@pytest.mark.parametrize("threads", [0, 3])
def test_buffers_of_threads_on_stack_and_heap(threads: int, target: Target) -> None:
    for extent in (64, STACK_LIMIT // 8, STACK_LIMIT, "m"):
        check(scratch("stack", extent), target, {"n": 5, "m": 33}, threads=threads)


def test_a_tile_stays_in_registers_beside_buffers_that_fill_the_stack() -> None:
    text = f"""
kernel @k()
  in x: f32[64, 16]
  out y: f32[16]
  stack t: f32[{STACK_LIMIT // 4}]
  register sum: f32[16]
  for i in 0..1024: t[i] = x[i // 16, i % 16]
  for j_1 in 0..16: sum[j_1] = 0.0
  for k in 0..64:
    vector j_2 in 0..16: sum[j_2] += t[k*16 + j_2]
  for j_3 in 0..16: y[j_3] = sum[j_3]
"""
    made = lower_kernel(parse_kernel(text), HOST)
    assert "call ptr @malloc" not in made
    assert "alloca [16 x float]" in made


def test_a_parallel_loop_is_told_of_the_buffers_that_it_uses() -> None:
    """Sums of another loop whose address went elsewhere would stay in memory."""
    text = """
kernel @k()
  in x: f32[64, 16]
  out y: f32[64, 16]
  out z: f32[16]
  temp t: f32[64, 16]
  register sum: f32[16]
  parallel i in 0..64:
    for j in 0..16: t[i, j] = x[i, j] * 2.0
  for j_1 in 0..16: sum[j_1] = 0.0
  for k in 0..64:
    vector j_2 in 0..16: sum[j_2] += t[k, j_2]
  for j_3 in 0..16: z[j_3] = sum[j_3]
  for i_1 in 0..64:
    for j_4 in 0..16: y[i_1, j_4] = t[i_1, j_4]
"""
    made = lower_kernel(parse_kernel(text), HOST)
    (sums,) = re.findall(r"(%\w+) = alloca \[16 x float\]", made)
    (shared,) = re.findall(r"(%\w+) = alloca \[1024 x float\]", made)
    assert f"store ptr {shared}," in made and f"store ptr {sums}," not in made
    check(parse_kernel(text), HOST, threads=3)


def test_many_buffers_do_not_overflow_the_stack() -> None:
    lines = ["kernel @k()", "  out y: f32[8]"]
    lines += [f"  temp t{n}: f32[100000]" for n in range(60)]
    for n in range(60):
        before = f"t{n - 1}[i]" if n else "1.0"
        lines.append(f"  for i{n} in 0..8: t{n}[i{n}] = {before.replace('i]', f'i{n}]')} + 1.0")
    lines.append("  for i in 0..8: y[i] = t59[i]")
    check(parse_kernel("\n".join(lines)), HOST)


def test_a_heap_without_room_is_reported() -> None:
    text = """
kernel @k(n: 1..)
  out y: f32[1]
  temp t: f32[n, n]
  for i in 0..n: t[0, i] = 1.0
  y[0] = t[0, n - 1]
"""
    native = Native(parse_kernel(text), HOST)
    assert native({"y": np.zeros(1, np.float32)}, {"n": 2**29}) == OUT_OF_MEMORY
    native.close()
    native = Native(scratch("stack", "m"), HOST)
    arrays = {name: np.zeros((0, 0), np.float32) for name in "xy"}
    assert native(arrays, {"n": 2, "m": 2**58}) == OUT_OF_MEMORY
    native.close()


@all_targets
def test_parallel_loops_share_what_they_should(target: Target) -> None:
    b = KernelBuilder("k")
    x = b.input("x", "f32", (N, 20))
    t = b.compute((N, 20), lambda i, j: x[i, j] + 1.0, name="t")
    r = b.reduce((N,), (20,), lambda i, k: t[i, k], name="r")
    b.mark_output(b.compute((N, 20), lambda i, j: t[i, j] * r[i], name="y"))
    kernel = b.build()
    outer = [s.var.name for s in kernel.body if isinstance(s, For)]
    shared = schedule(kernel, [Parallel(n) for n in outer])
    for n in (1, 9):
        for threads in (0, 1, 4):
            check(shared, target, {"n": n}, original=kernel, threads=threads)


def shared(text: str, target: Target) -> re.Match[str]:
    """How a kernel hands its loop out: the pool, and the iterations taken at a time."""
    pattern = r"call void @aicc_parallel_for\(ptr (\S+), .*, i64 (\S+)\)"
    found = re.search(pattern, lower_kernel(parse_kernel(text), target))
    assert found is not None
    return found


@all_targets
def test_short_iterations_are_taken_together(target: Target) -> None:
    text = """
kernel @k()
  in x: f32[{n}, 16]
  out y: f32[{n}, 16]
  parallel i in 0..{n}:
    for j in 0..16: y[i, j] = x[i, j]*2.0
"""
    assert shared(text.format(n=64), target)[2] == "4"  # for any number of threads
    many = int(shared(text.format(n=100_000), target)[2])
    assert 100 < many < 100_000 / 16
    long = text.format(n=64).replace("16", "100000")
    assert shared(long, target)[2] == "1"


@all_targets
def test_a_run_tells_whether_a_loop_is_shared(target: Target) -> None:
    text = """
kernel @k(n: 1..)
  in x: f32[n, 16]
  out y: f32[n, 16]
  parallel i in 0..n:
    for j in 0..16: y[i, j] = x[i, j]*2.0
"""
    assert shared(text, target)[1] != "%pool"
    assert shared(text.replace("n: 1..", "n: 100000.."), target)[1] != "%pool"
    assert shared(text.replace("n,", "9,").replace("0..n", "0..9"), target)[1] == "%pool"


@all_targets
def test_a_parallel_loop_over_lanes_of_symbolic_size(target: Target) -> None:
    b = KernelBuilder("k")
    x, z = b.input("x", "f32", (N, sym("m", 1))), b.input("z", "f32", (sym("m", 1),))
    y = b.compute(x.shape, lambda i, j: x[i, j] * 2.0 - z[j], name="y")
    b.mark_output(y)
    kernel = b.build()
    steps = "split(i1, 8, mask); vectorize(i1.i); vectorize(i1.m); parallel(i0)"
    wide = schedule(kernel, parse_steps(steps))
    verify(wide)
    for n, m in ((1, 1), (3, 8), (2, 19), (4, 7)):
        check(wide, target, {"n": n, "m": m}, original=kernel)


NESTED = """
kernel @k(n: 1..)
  in x: f32[3, 2, n]
  out y: f32[3, 2, n]
  temp state: f32[n]
  stack t: f32[1]
  for a in 0..n: state[a] = 0.0
  for i in 0..3:
    for j in 0..2:
      for b in 0..n:
        t[0] = state[b] + x[i, j, b] + cast.f32(index(i*10 + j))
        state[b] = t[0]*0.5
      for c in 0..n: y[i, j, c] = state[c]
"""


@all_targets
def test_parallel_loops_inside_serial_ones(target: Target) -> None:
    """Their bodies know the variables of the loops around, and run anew in each iteration."""
    kernel = parse_kernel(NESTED.strip())
    shared = schedule(kernel, [Parallel("b"), Parallel("c")])
    verify(shared)
    for n in (1, 5):
        for threads in (0, 1, 3):
            check(shared, target, {"n": n}, original=kernel, threads=threads)
