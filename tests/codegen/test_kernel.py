"""Native code of kernels against the interpreter: masks, memory safety, checks, control flow."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from native_kernel import HOST, Guarded, Native, all_targets, check, expected, loops, same, sample

from aicc.codegen.jit import assembly, compile_object
from aicc.codegen.kernel import check_messages, lower_kernel
from aicc.dtypes import is_float, nbytes
from aicc.symbolic import Size, sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, Index, Kernel, as_index, call, const, select
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import Parallel, Split, Vectorize, schedule
from aicc.tensor_ir.schedule_text import parse_steps

N = sym("n", 1)
LLVM = {"f32": "float", "f64": "double", "u8": "i8"}


def vectors(kernel: Kernel, lanes: int, tail: str = "mask") -> Kernel:
    """The kernel with the innermost loop of its last nest in vectors."""
    name = loops(kernel)[-1]
    kernel = Split(name, lanes, tail).apply(kernel)
    for part in (f"{name}.i", f"{name}.m"):
        if part in loops(kernel):
            kernel = Vectorize(part).apply(kernel)
    return kernel


# --- vectors -------------------------------------------------------------------------------------


@all_targets
@pytest.mark.parametrize("lanes", [2, 3, 4, 7, 8, 16, 64])
def test_any_number_of_lanes(lanes: int, target: Target) -> None:
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (5, 101)), b.input("w", "i16", (101,))
    b.mark_output(b.compute((5, 101), lambda i, j: x[i, j] * call("cast.f32", w[j]) + 1.0))
    kernel = b.build()
    for tail in ("mask", "guard", "peel"):
        check(vectors(kernel, lanes, tail), target, original=kernel)


# --- masks and memory ----------------------------------------------------------------------------


@all_targets
@pytest.mark.parametrize("lanes", [3, 4, 8, 16])
@pytest.mark.parametrize("dtype", ["f32", "f64", "u8", "bool"])
def test_lanes_near_each_other_read_only_what_lies_between(
    dtype: str, lanes: int, target: Target
) -> None:
    """Picked from contiguous vectors that begin and end at elements that are read."""
    count = 2 * lanes
    for where in (
        lambda v: v // 2,
        lambda v: (v + 1) // 2,
        lambda v: v // 3 * 2,
        lambda v: v * 2,
        lambda v: v * 3,
        lambda v: v * 4,
        lambda v: count - 1 - v,
        lambda v: (count - 1 - v) * 2,
        lambda v: v % 2 * (lanes + 1),
        lambda v: v * 5,
    ):
        last = max(where(v) for v in range(count))
        b = KernelBuilder("k")
        x = b.input("x", dtype, (3, last + 1))
        b.mark_output(b.compute((3, count), lambda i, v, at=where, x=x: x[i, at(v)]))
        kernel = b.build()
        check(vectors(kernel, lanes, "exact"), target, original=kernel)


@all_targets
def test_elements_in_order_are_not_gathered(target: Target) -> None:
    """Every second element, and each element twice, comes from contiguous loads."""
    for up, down, lanes in ((2, 1, 16), (1, 2, 16), (3, 1, 12)):
        b = KernelBuilder("k")
        x = b.input("x", "f32", (48 * down,))
        b.mark_output(b.compute((48 * up,), lambda v, u=up, d=down, x=x: x[v // u * d]))
        text = lower_kernel(vectors(b.build(), lanes, "exact"), target)
        assert "shufflevector" in text and "gather" not in text


@all_targets
def test_lanes_that_a_condition_leaves_out_together_are_not_gathered(target: Target) -> None:
    """What lies beyond a border is not read: the address is that of zeros then."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (4, 24))

    def element(i: Size, v: Size) -> Expr:
        inside = call("and", call("ge", Index(i - 1), 0), call("lt", Index(i - 1), 4))
        return select(inside, x[i - 1, v // 2], 0.0)

    b.mark_output(b.compute((6, 48), element))
    made = vectors(b.build(), 16, "exact")
    check(made, target, original=b.build())
    assert "gather" not in lower_kernel(made, target)


@all_targets
def test_what_a_condition_has_read_needs_no_mask(target: Target) -> None:
    """Both sides of a selection may use what its condition loaded."""
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (64,)), b.input("w", "f32", (1,))
    b.mark_output(b.compute((64,), lambda i: select(call("isnan", x[i] * w[0]), 0.0, x[i] * w[0])))
    kernel = vectors(b.build(), 8)
    check(kernel, target, original=b.build())
    assert "masked" not in lower_kernel(kernel, target)


def padded(n: object, dtype: str = "f32") -> Kernel:
    """y[i] = x[i - 3], 0 outside: loads of the branch that is not taken leave the array."""
    b = KernelBuilder("k")
    x = b.input("x", dtype, (n,))
    inside = lambda i: call("and", call("ge", Index(i - 3), 0), call("lt", Index(i - 3), n))  # noqa: E731
    y = b.compute((n + 6,), lambda i: select(inside(i), x[i - 3], 0), name="y")
    b.mark_output(y)
    return b.build()


@all_targets
@pytest.mark.parametrize("dtype", ["f32", "i8", "bool", "f64", "f16"])
def test_loads_of_the_other_branch_are_not_performed(dtype: str, target: Target) -> None:
    for n in (1, 5, 1024 // nbytes(dtype)):
        kernel = padded(n, dtype)
        check(kernel, target)
        for lanes in (8, 16):
            check(vectors(kernel, lanes), target, original=kernel)
    kernel = padded(N, dtype)
    wide = vectors(kernel, 8)
    for n in (1, 7, 40):
        check(wide, target, {"n": n}, original=kernel)


@all_targets
@pytest.mark.parametrize("dtype", ["f32", "u8", "f64"])
@pytest.mark.parametrize("rest", [1, 5, 12, 15])
def test_the_end_of_a_local_row_is_written_whole(dtype: str, rest: int, target: Target) -> None:
    """In one store, for whose sake the row has room; elements that follow in it stay."""
    lanes = 64 // nbytes(dtype)
    n = 2 * lanes + rest % lanes
    text = f"""
kernel @k()
  in x: {dtype}[3, {n}]
  out y: {dtype}[3, {n}]
  stack t: {dtype}[2, {n}]
  for i in 0..3:
    for r in 0..2:
      for o in 0..2:
        vector v in 0..{lanes}: t[1 - r, o*{lanes} + v] = x[i, o*{lanes} + v]
      vector e in 0..{lanes}:
        if index(e + {2 * lanes}) < {n}:i64:
          t[1 - r, e + {2 * lanes}] = x[i, e + {2 * lanes}]
    for j in 0..{n}: y[i, j] = t[0, j]*t[1, j]
"""
    kernel = parse_kernel(text)
    check(kernel, target)
    row = parse_kernel(
        text.replace(f"[2, {n}]", f"[1, {n}]").replace("[1 - r", "[0").replace("t[1, j]", "t[0, j]")
    )
    check(row, target)
    # Of two rows the first has another behind it, and the second may begin in mid-line.
    whole, room = f"store <{lanes} x {LLVM[dtype]}>", -(-2 * n // lanes) * lanes
    assert lower_kernel(row, target).count(whole) == 6
    assert lower_kernel(kernel, target).count(whole) == 4 + (n + 3 * lanes <= room)


@all_targets
def test_a_fault_in_reach_is_seen(target: Target) -> None:
    """The pages beside arrays do fault: what the test above would see."""
    pages = Guarded()
    a = pages.place(np.zeros(4, np.float32), at_end=True)
    with open("/proc/self/maps") as maps:
        ranges = [line.split()[:2] for line in maps]
    behind = a.ctypes.data + a.nbytes
    found = [
        traits
        for span, traits in ranges
        if int(span.split("-")[0], 16) <= behind < int(span.split("-")[1], 16)
    ]
    assert found and found[0].startswith("---")


@all_targets
@pytest.mark.parametrize("dtype", ["f32", "i32", "i8", "f64", "bf16"])
@pytest.mark.parametrize("lanes", [7, 16])
def test_masked_loads_stay_masked(dtype: str, lanes: int, target: Target) -> None:
    """Also where the operation on what is loaded has the same mask: rows of lengths that are data,
    the last at the end of a page."""
    two, one = ("2.0", "1.0") if is_float(dtype) else ("2", "1")
    suffix = "" if dtype == "f32" else f":{dtype}"
    text = f"""
kernel @k(m: 1..)
  in x: {dtype}[m, 7]
  in size: i64[m]
  out y: {dtype}[m]
  for i in 0..m: y[i] = {two}{suffix} - {two}{suffix}
  parallel i in 0..m:
    vector j in 0..{lanes}:
      if index(j) < index(int(max(min(size[i], 7:i64), 0:i64), 0..7)):
        y[i] += x[i, j]*{two}{suffix} - {one}{suffix}
"""
    for opt in (1, 3):
        for seed in range(3):
            kernel = parse_kernel(text)
            arrays = sample(kernel, {"m": 19}, seed)
            check(kernel, target, {"m": 19}, arrays=arrays, opt=opt)


@all_targets
def test_flips_strides_and_transposes(target: Target) -> None:
    b = KernelBuilder("k")
    x = b.input("x", "f32", (37, 6))
    y = b.compute((6, 37), lambda i, j: x[36 - j, 5 - i], name="y")
    z = b.compute((18,), lambda i: x[2 * i + 1, 3] - x[36 - 2 * i, i % 6], name="z")
    b.mark_output(y)
    b.mark_output(z)
    kernel = b.build()
    check(kernel, target)
    check(vectors(kernel, 8), target, original=kernel)
    wide = schedule(kernel, [Split("i1", 16, "mask"), Vectorize("i1.i"), Vectorize("i1.m")])
    check(wide, target, original=kernel)


def gathered() -> Kernel:
    """y[i] = x[at[i]] where 0 <= at[i] < 9, else -1; z[at[i]] likewise written."""
    b = KernelBuilder("k")
    x, at = b.input("x", "f32", (9,)), b.input("at", "i32", (21,))
    ok = lambda i: call("and", call("ge", at[i], 0), call("lt", at[i], 9))  # noqa: E731
    y = b.compute((21,), lambda i: select(ok(i), x[as_index(at[i])], -1.0), name="y")
    z = b.temp("z", "f32", (9,))
    with b.loop("q", 0, 9) as q:
        b.store(z, [q], 0.0)
    with b.loop("s", 0, 21) as s, b.when(ok(s)):
        b.store(z, [as_index(at[s])], const(1.0, "f32"))
    b.mark_output(y)
    b.mark_output(z)
    return b.build()


@all_targets
def test_gathers_and_scatters_touch_only_chosen_elements(target: Target) -> None:
    kernel = gathered()
    arrays = sample(kernel, {})
    arrays["at"] = np.array([-(2**31), 2**31 - 1, -1, 9, *range(9), 3, 3, 0, 8, 9, -5, 10**6, 4])
    arrays["at"] = arrays["at"].astype(np.int32)
    check(kernel, target, arrays=arrays)
    wide = schedule(kernel, [Split("i0", 8, "mask"), Vectorize("i0.i"), Vectorize("i0.m")])
    check(wide, target, original=kernel, arrays=arrays)
    text = str(wide).replace("for s in", "vector s in")  # equal lanes store equal values
    check(parse_kernel(text), target, original=kernel, arrays=arrays)


@all_targets
def test_index_arithmetic_of_lanes_that_do_not_take_part_does_not_trap(target: Target) -> None:
    text = """
    kernel @k(n: 0..9)
      in x: i64[20]
      out y: i64[20]
      out z: i64[20]
      for i in 0..20:
        y[i] = select(n_is(i), x[min(19, i // n)] + index(i % n), 7:i64)
      vector j in 0..20:
        z[j] = select(n_is(j), x[min(19, j // n)] + index(j % n), 7:i64)
    """
    for v in "ij":
        text = text.replace(f"n_is({v})", f"index(n + {v}) > index({v})")
    kernel = parse_kernel("\n".join(line[4:] for line in text.splitlines()))
    for n in (1, 3):
        check(kernel, target, {"n": n})
    native = Native(kernel, target)
    arrays = sample(kernel, {"n": 1})
    assert native(arrays, {"n": 0}) == 0
    assert (arrays["y"] == 7).all() and (arrays["z"] == 7).all()
    native.close()


@all_targets
def test_conditional_statements_in_vectors(target: Target) -> None:
    text = """
kernel @k(n: 1..)
  in x: f32[40]
  in flag: bool[]
  out y: f32[40]
  out z: f32[2]
  z[0] = 0.0
  z[1] = 5.0
  for o in 0..5:
    vector i in 0..8:
      if x[o*8 + i] > 0.0:
        y[o*8 + i] = x[o*8 + i]*2.0
        z[0] += x[o*8 + i]
        if flag[]: z[1] max= x[o*8 + i]
      else:
        if index(o*8 + i) < index(n):
          y[o*8 + i] = -1.0
        else:
          y[o*8 + i] = x[39 - o*8 - i]
"""
    kernel = parse_kernel(text)
    arrays = sample(kernel, {"n": 1})
    for flag in (False, True):
        arrays["flag"] = np.array(flag)
        for n in (1, 13, 40):
            check(kernel, target, {"n": n}, arrays=arrays)


# --- checks --------------------------------------------------------------------------------------

CHECKED = """
kernel @k(n: 1..)
  in at: i64[n]
  in limit: i64[]
  out y: i64[n]
  check limit[] < 100:i64 "limit"
  {kind} i in 0..n:
    check at[i] >= 0:i64 "negative"
    y[i] = at[i]
    check at[i] < limit[] "too large"
"""


@all_targets
@pytest.mark.parametrize("kind", ["for", "parallel"])
@pytest.mark.parametrize("threads", [0, 2])
def test_checks_end_the_kernel(kind: str, threads: int, target: Target) -> None:
    kernel = parse_kernel(CHECKED.format(kind=kind))
    assert check_messages(kernel) == ["limit", "negative", "too large"]
    native = Native(kernel, target, threads)
    at = np.arange(50)
    for changed, limit, code in (({}, 50, 0), ({7: -1}, 50, 2), ({49: 50}, 50, 3), ({}, 100, 1)):
        values = at.copy()
        for place, value in changed.items():
            values[place] = value
        y = np.zeros(50, np.int64)
        arrays = {"at": values, "limit": np.array(limit), "y": y}
        assert native(arrays, {"n": 50}) == code
    native.close()


@all_targets
def test_checks_in_vectors_look_at_lanes_that_take_part(target: Target) -> None:
    text = """
kernel @k()
  in x: f32[8]
  in on: bool[8]
  out y: f32[8]
  vector i in 0..8:
    check x[i] < 5.0 "five"
    if on[i]:
      check x[i] < 3.0 "three"
    y[i] = x[i]
"""
    native = Native(parse_kernel(text), target)
    for x, on, code in ((2, 1, 0), (4, 0, 0), (4, 1, 2), (6, 0, 1), (np.nan, 0, 1)):
        arrays = {"x": np.zeros(8, np.float32), "on": np.zeros(8, bool)}
        arrays |= {"y": np.zeros(8, np.float32)}
        arrays["x"][5], arrays["on"][5] = x, on
        assert native(arrays, {}) == code
    native.close()


# --- control flow --------------------------------------------------------------------------------


@all_targets
def test_values_are_loaded_again_after_they_change(target: Target) -> None:
    text = """
kernel @k()
  in x: i64[4]
  out y: i64[6]
  for i in 0..6: y[i] = 0:i64
  while y[0] < 10:i64:
    y[0] = y[0] + x[1]*x[1] + 1:i64
    y[1] = y[0]
    if y[0] > 3:i64:
      y[0] = y[0] + 2:i64
      y[2] = y[0]
    for j in 0..int(y[3], 0..6):
      y[4] += 1:i64
    y[3] = 3:i64
    for j in int(y[3], 0..6)..6: y[5] += 1:i64
    for j in int(y[3], 0..6)..int(y[3], 0..6) + 1:
      y[3] = 2:i64
      y[5] += index(j)
    unroll j in int(y[3], 0..6)..int(y[3], 0..6) + 2:
      y[3] += 1:i64
      y[4] += index(j)
  if y[1] > 0:i64:
    y[1] = 0:i64
    y[3] = y[1]
"""
    check(parse_kernel(text), target)


@all_targets
@pytest.mark.parametrize("threads", [0, 2])
def test_loops_without_iterations_and_with_negative_counters(threads: int, target: Target) -> None:
    text = """
kernel @k(n: 0..9)
  out y: i64[10]
  for i in 0..10: y[i] = 0:i64
  for i in -3..2: y[i + 3] = index(i)
  for i in n..n - 2: y[9] = 1:i64
  for i in 5..6: y[i] = index(i + n)
  unroll i in 6..8: y[i] = index(i)
  vector i in 0..0: y[9] = 2:i64
  vector i in 0..1: y[8] = index(i + 3)
  parallel i in 9..n: y[9] = index(i)
"""
    for n in (0, 9):
        check(parse_kernel(text), target, {"n": n}, threads=threads)


# --- names and text ------------------------------------------------------------------------------


def test_names_need_not_be_identifiers() -> None:
    b = KernelBuilder('a "kernel"\\ of/ünï')
    x, y = b.input("x/1", "f32", (3,)), b.input("x_1", "f32", (3,))
    z: Tensor = b.compute((3,), lambda i: x[i] - y[i], name="z:0")
    b.mark_output(z)
    kernel = Parallel(loops(b.build())[0]).apply(b.build())
    arrays = sample(kernel, {})
    want = expected(kernel, arrays, {})
    text = lower_kernel(kernel, HOST)
    assert '@"a\\20\\22kernel\\22\\5C\\20of\\2F' in text
    compile_object(text, HOST)
    renamed = Kernel("plain", kernel.sizes, kernel.buffers, kernel.body)
    native = Native(renamed, HOST)
    assert native(arrays, {}) == 0
    assert same(want["z:0"], arrays["z:0"])
    native.close()


def test_an_index_takes_its_type() -> None:
    text = """
kernel @k()
  out y: u8[300]
  out z: i32[300]
  for i in 0..300: y[i] = index.u8(i)
  vector j in 0..300: z[j] = index.i32(j*1000000)
"""
    check(parse_kernel(text), HOST)


@pytest.mark.skipif(HOST.arch != "x86_64", reason="reads x86 assembly")
def test_the_inner_loop_of_a_matrix_product_is_multiply_adds() -> None:
    """Accumulators live in registers: no load or store of them inside the loop over k."""
    b = KernelBuilder("k")
    x, w = b.input("x", "f32", (8, 64)), b.constant("w", "f32", (64, 48))
    r = b.reduce((8, 48), (64,), lambda i, j, k: x[i, k] * w[k, j], name="r")
    b.mark_output(b.compute((8, 48), lambda i, j: call("max", r[i, j], 0.0), name="y"))
    steps = """
    split(i1_1, 48); reorder(i1_1.o, i0_1, i1_1.i); compute_at(r, i1_1.o, register)
    decompose_reduction(r.i1_1.o.0); reorder(r.i1_1.o.k0, r.i1_1.o.0, r.i1_1.o.1)
    unroll(r.i1_1.o.0.s); unroll(r.i1_1.o.0); unroll(i0_1)
    split(r.i1_1.o.1.s, 16); vectorize(r.i1_1.o.1.s.i); unroll(r.i1_1.o.1.s.o)
    split(r.i1_1.o.1, 16); vectorize(r.i1_1.o.1.i); unroll(r.i1_1.o.1.o)
    split(i1_1.i, 16); vectorize(i1_1.i.i); unroll(i1_1.i.o); split(r.i1_1.o.k0, 2)
    unroll(r.i1_1.o.k0.i)
    """
    kernel = schedule(b.build(), parse_steps(steps))
    target = Target.from_name("x86-64-v4")
    code = assembly(lower_kernel(kernel, target), target)
    bodies = [part for part in code.split(".LBB")[1:] if part.count("vfmadd") >= 48]
    assert len(bodies) == 1
    assert bodies[0].count("vfmadd") == 48
    assert "%rsp" not in bodies[0] and bodies[0].count("vmovup") <= 6
    assert ctypes.sizeof(ctypes.c_void_p) == 8
    if not target.missing_on_host():
        check(kernel, target, original=b.build())
