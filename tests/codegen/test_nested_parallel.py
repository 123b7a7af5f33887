"""Parallel loops inside parallel loops: which iteration has which buffers, what is computed."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernel import Native, check

from aicc.errors import IRError, ScheduleError
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import For, Kernel, call, const, select
from aicc.tensor_ir.ir import Index as Position
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.recipes.sharing import FEW
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import walk_stmts
from aicc.tensor_ir.work import SHARED_CYCLES, loop_cycles

HOST = Target.host()
COPY = """
kernel @k(n: 1.., m: 1..)
  in x: f32[n, m]
  out y: f32[n, m]
  {scope} row: f32[{extent}]
  {scope} one: f32[2]
  for i in 0..n:
    for j in 0..{extent}: row[j] = x[i, j]*2.0
    for k in 0..{extent}:
      one[0] = row[{extent} - 1 - k]
      one[1] = one[0] + 1.0
      y[i, k] = one[1] - x[i, k]
"""
STACK = COPY.format(scope="stack", extent="m").strip()
REGISTER = COPY.format(scope="register", extent="4").replace("n, m]", "n, 4]").strip()


def parallel_loops(kernel: Kernel) -> dict[str, list[str]]:
    """The names of parallel loops, and of those inside each."""

    def inside(body: tuple[object, ...]) -> list[str]:
        found = [s for s in walk_stmts(body) if isinstance(s, For) and s.kind == "parallel"]
        return [s.var.name for s in found]

    loops = [s for s in walk_stmts(kernel.body) if isinstance(s, For) and s.kind == "parallel"]
    return {s.var.name: inside(s.body) for s in loops}


@pytest.mark.parametrize("steps", ["parallel(i); parallel(k)", "parallel(i); parallel(j)"])
def test_loops_inside_share_what_an_iteration_around_uses_elsewhere(steps: str) -> None:
    kernel = parse_kernel(STACK)
    both = schedule(kernel, parse_steps(steps))
    verify(both)
    for n, m in ((1, 1), (1, 50), (3, 7), (8, 40)):
        for threads in (0, 1, 2, 3):
            check(both, HOST, {"n": n, "m": m}, original=kernel, threads=threads)


def test_two_loops_inside() -> None:
    """One writes a row, the other reads it: neither has the row for itself."""
    kernel = parse_kernel(STACK)
    for steps in ("parallel(j); parallel(k)", "parallel(k); parallel(j)"):
        both = schedule(kernel, parse_steps(f"parallel(i); {steps}"))
        verify(both)
        assert parallel_loops(both) == {"i": ["j", "k"], "j": [], "k": []}
        for n, m in ((1, 60), (5, 9)):
            for threads in (0, 2, 3):
                check(both, HOST, {"n": n, "m": m}, original=kernel, threads=threads)


def test_what_an_iteration_has_for_itself_is_undefined_in_the_next() -> None:
    text = """
kernel @k()
  in x: f32[2, 3]
  out y: f32[2, 3]
  stack t: f32[3]
  stack s: f32[1]
  parallel i in 0..2:
    t[i] = x[i, 0]
    parallel j in 0..3:
      if index(j) == 0:i64: s[0] = 5.0
      y[i, j] = t[i] + t[0] + s[0]
"""
    kernel = parse_kernel(text.strip())
    x, y = np.ones((2, 3), np.float32), np.zeros((2, 3), np.float32)
    run(kernel, {"x": x, "y": y}, {})
    defined = y == 1.0 + 1.0 + 5.0
    assert defined.tolist() == [[True, False, False], [False, False, False]]


def test_a_register_is_not_shared() -> None:
    kernel = schedule(parse_kernel(REGISTER), parse_steps("parallel(i)"))
    with pytest.raises(ScheduleError, match="row is used outside of the loop too"):
        schedule(kernel, parse_steps("parallel(j)"))
    with pytest.raises(ScheduleError, match="row is used outside of the loop too"):
        schedule(kernel, parse_steps("parallel(k)"))
    text = str(kernel).replace("for j in", "parallel j in")
    with pytest.raises(IRError, match="row is used inside a parallel loop and outside"):
        verify(parse_kernel(text))


def test_iterations_that_share_a_buffer_write_to_different_elements() -> None:
    text = STACK.replace("row[j] =", "row[j//2] =")
    kernel = schedule(parse_kernel(text), parse_steps("parallel(i)"))
    with pytest.raises(ScheduleError, match=r"may write the same element at row\[j//2\]"):
        schedule(kernel, parse_steps("parallel(j)"))


def test_a_check_inside_ends_the_kernel() -> None:
    text = """
kernel @k(n: 1..)
  in x: i64[n, 4]
  out y: i64[n, 4]
  parallel i in 0..n:
    parallel j in 0..4:
      check x[i, j] >= 0:i64 "negative"
      y[i, j] = x[i, j]
"""
    kernel = parse_kernel(text.strip())
    for threads in (0, 1, 3):
        native = Native(kernel, HOST, threads)
        for n in (1, 6):
            x = np.arange(4 * n).reshape(n, 4)
            y = np.zeros_like(x)
            assert native({"x": x, "y": y}, {"n": n}) == 0
            assert (y == x).all()
            x[n - 1, 2] = -1
            assert native({"x": x, "y": y}, {"n": n}) == 1
        native.close()


def test_functions_of_loops_have_names_of_their_own() -> None:
    nest = """
  parallel a{n} in 0..2:
    for b{n} in 0..3:
      parallel c{n} in 0..4:
        parallel d{n} in 0..2: y[{n}, a{n}, b{n}, c{n}, d{n}] = x[{n}, a{n}, b{n}, c{n}, d{n}] + 1.0
      parallel e{n} in 0..4: y[{n}, a{n}, b{n}, e{n}, 2] = x[{n}, a{n}, b{n}, e{n}, 2]"""
    text = "kernel @k()\n  in x: f32[5, 2, 3, 4, 3]\n  out y: f32[5, 2, 3, 4, 3]"
    kernel = parse_kernel(text + "".join(nest.format(n=n) for n in range(5)))
    for threads in (0, 2):
        check(kernel, HOST, threads=threads)


def convolution(length: int, channels: int, filters: int) -> Kernel:
    """[n, length, channels] with windows of three, padded, of constant length."""
    b = KernelBuilder("k")
    n = sym("n", 1)
    x = b.input("x", "f32", (n, length, channels))
    w = b.constant("w", "f32", (3, channels, filters))

    def inside(i, t, c):
        at = Position(t - 1)
        there = call("and", call("ge", at, const(0, "i64")), call("lt", at, Position(length)))
        return select(there, x[i, t - 1, c], const(0.0, "f32"))

    padded = b.compute((n, length + 2, channels), inside, name="padded")
    total = b.reduce(
        (n, length, filters),
        (3, channels),
        lambda i, t, o, k, c: padded[i, t + k, c] * w[k, c, o],
        name="total",
    )
    b.mark_output(b.compute(total.shape, lambda i, t, o: call("max", total[i, t, o], 0.0)))
    return b.build()


def test_what_is_done_for_one_image_is_shared_out() -> None:
    made, _ = scheduled(convolution(200, 32, 64), HOST)
    loops = parallel_loops(made)
    (batch,) = (name for name, inside in loops.items() if inside)
    for name in loops[batch]:
        loop = next(s for s in walk_stmts(made.body) if isinstance(s, For) and s.var.name == name)
        cycles = loop_cycles(made, loop, HOST.lanes("f32"))
        assert loop.extent >= FEW
        assert not isinstance(cycles, int) or cycles >= SHARED_CYCLES


def test_a_convolution_of_few_images_and_of_many() -> None:
    kernel = convolution(80, 32, 48)
    made, _ = scheduled(kernel, HOST)
    assert any(parallel_loops(made).values())
    for n, threads in ((1, 0), (1, 2), (3, 2)):
        check(made, HOST, {"n": n}, original=kernel, threads=threads, rtol=1e-5)


def test_little_work_inside_is_not_shared_out() -> None:
    made, _ = scheduled(convolution(20, 8, 16), HOST)
    assert not any(parallel_loops(made).values())


@pytest.mark.parametrize("times", [1, 2])
def test_loops_of_one_iteration_hinder_no_sharing(times: int) -> None:
    kernel = parse_kernel(
        f"""
kernel @k(n: 1..)
  in x: f32[n, 48]
  out y: f32[n, 48]
  for i in 0..n*2:
    for o in 0..{times}:
      for j in 0..16: y[i//2, o*16 + (i%2)*16 + j] = x[i//2, o*16 + j]
""".strip()
    )
    if times == 1:
        assert parallel_loops(schedule(kernel, parse_steps("parallel(i)"))) == {"i": []}
    else:  # the halves overlap
        with pytest.raises(ScheduleError, match="same element"):
            schedule(kernel, parse_steps("parallel(i)"))
