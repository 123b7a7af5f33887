"""The interpreter against a plain walk over the tree, and against numpy on known kernels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_strategies import kernels, random_arrays

from aicc.dtypes import NUMERIC, is_float, to_numpy
from aicc.errors import ExecutionError, IRError
from aicc.symbolic import Size, sym
from aicc.symbolic import evaluate as evaluate_size
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.interp import poison, run
from aicc.tensor_ir.ir import (
    REDUCTIONS,
    Buffer,
    Const,
    Expr,
    For,
    If,
    Index,
    Kernel,
    Load,
    Op,
    Reduce,
    Stmt,
    Store,
    While,
    as_index,
    call,
    cast,
    const,
    select,
)
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.scalar import OPS, cast_value, evaluate, result_type
from aicc.tensor_ir.verify import verify


class Walk:
    """Every node evaluated where it stands, each operation by `scalar.evaluate`."""

    def __init__(self, kernel: Kernel, arrays: dict[str, np.ndarray], env: dict[str, int]) -> None:
        self.arrays = dict(arrays)
        self.env = dict(env)
        for b in kernel.buffers:
            if b.name not in arrays:
                shape = tuple(self.size(d) for d in b.shape)
                self.arrays[b.name] = np.full(shape, poison(b.dtype), to_numpy(b.dtype))
        self.body(kernel.body)

    def size(self, s: Size) -> int:
        return evaluate_size(s, self.env, lambda payload: int(self.expr(payload)))

    def expr(self, e: Expr):
        if isinstance(e, Const):
            return to_numpy(e.dtype).type(e.value)
        if isinstance(e, Load):
            return self.arrays[e.buffer][tuple(self.size(i) for i in e.indices)]
        if isinstance(e, Index):
            return cast_value(np.int64(self.size(e.size)), e.dtype)
        assert isinstance(e, Op)
        if e.name == "select":
            return self.expr(e.args[1] if self.expr(e.args[0]) else e.args[2])
        return evaluate(e.name, [self.expr(a) for a in e.args], e.dtype)

    def body(self, body: tuple[Stmt, ...]) -> None:
        for s in body:
            if isinstance(s, For):
                for value in range(self.size(s.lo), self.size(s.hi)):
                    self.env[s.var.name] = value
                    self.body(s.body)
            elif isinstance(s, Store | Reduce):
                at, array = tuple(self.size(i) for i in s.indices), self.arrays[s.buffer]
                value = self.expr(s.value)
                if isinstance(s, Reduce):
                    value = evaluate(s.op, [array[at], value], s.value.dtype)
                array[at] = value
            elif isinstance(s, If):
                self.body(s.then if self.expr(s.cond) else s.orelse)
            elif isinstance(s, While):
                while self.expr(s.cond):
                    self.body(s.body)
            else:
                assert self.expr(s.cond)


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bit for bit, all NaNs being one."""
    if a.dtype.kind in "fV" or a.dtype == to_numpy("bf16"):
        x, y = a.astype(np.float64), b.astype(np.float64)
        return bool(np.array_equal(x, y, equal_nan=True)) and bool(
            np.array_equal(np.signbit(x[x == x]), np.signbit(y[y == y]))
        )
    return bool(np.array_equal(a, b))


@given(kernels(), st.integers(1, 5), st.integers(2, 4), st.integers(0, 3), st.integers(0, 9))
def test_random_kernels(kernel: Kernel, n: int, m: int, odd: int, seed: int) -> None:
    verify(kernel)
    sizes = {"n": n, "m": m, "odd name": odd}
    arrays = random_arrays(kernel, sizes, np.random.default_rng(seed))
    expected = {name: a.copy() for name, a in arrays.items()}
    Walk(kernel, expected, sizes)
    run(kernel, arrays, sizes)
    for name, a in arrays.items():
        assert same(a, expected[name]), name


def _accepted(name: str, dtype: str) -> bool:
    arity = OPS[name].arity
    operand = Load("x", (), dtype)
    args = (operand,) * arity
    if name == "select":
        args = (const(True, "bool"), operand, operand)
    buffers = (Buffer("x", dtype, (), "in"),)
    try:
        value = Op(name, args, result_type(name, args))
        y = Buffer("y", value.dtype, (), "out")
        verify(Kernel("k", (), (*buffers, y), (Store("y", (), value),)))
    except IRError:
        return False
    return True


CASES = [(o, d) for o in OPS for d in (*NUMERIC, "bool") if _accepted(o, d)]


@pytest.mark.parametrize(("name", "dtype"), CASES, ids=[f"{o}-{d}" for o, d in CASES])
def test_every_operation_on_every_type(name: str, dtype: str) -> None:
    values: list[float] = [0, 1, 2, 3, 5, 7]
    if dtype == "bool":
        values = [0, 1]
    elif is_float(dtype):
        values += [-0.0, -2, 0.3, -0.7, np.inf, -np.inf, np.nan]
    elif dtype.startswith("i"):
        values += [-1, -5, np.iinfo(to_numpy(dtype)).min, np.iinfo(to_numpy(dtype)).max]
    if name in ("shl", "shr"):
        values = [v for v in values if 0 <= v < 8]
    data = np.array(values, to_numpy(dtype))
    size, arity = len(data), OPS[name].arity
    b = KernelBuilder("k")
    x = b.input("x", dtype, (size,))

    def value(i: Size, j: Size) -> Expr:
        if name == "select":
            return select(cast(x[i], "bool"), x[i], x[j])
        return call(name, *(x[i], x[j], x[j])[:arity])

    y = b.mark_output(b.compute((size, size), value))
    out = np.zeros((size, size), to_numpy(y.dtype))
    kernel = b.build()
    run(kernel, {"x": data, "t": out}, {})
    expected = np.zeros_like(out)
    for i in range(size):
        for j in range(size):
            args = [data[i], data[j], data[j]][:arity]
            if name == "select":
                args = [np.bool_(data[i] != 0), data[i], data[j]]
            expected[i, j] = evaluate(name, args, y.dtype)
    assert same(out, expected)
    assert parse_kernel(str(kernel)) == kernel


@pytest.mark.parametrize("op", ["add", "mul", "max", "min"])
@pytest.mark.parametrize("dtype", ["f32", "f64", "i32", "u8"])
def test_reductions(op: str, dtype: str) -> None:
    b = KernelBuilder("k")
    n, m = sym("n", 1), sym("m", 0)
    x = b.input("x", dtype, (n, m))
    b.mark_output(b.reduce((n,), (m,), lambda i, k: x[i, k], op=op))
    kernel = b.build()
    assert op in REDUCTIONS
    for columns in (0, 1, 5):
        rng = np.random.default_rng(columns)
        data = rng.integers(0, 4, (3, columns)).astype(to_numpy(dtype))
        out = np.zeros(3, to_numpy(dtype))
        run(kernel, {"x": data, "r": out}, {"n": 3, "m": columns})
        if columns:
            ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[op]
            assert np.array_equal(out, ufunc.reduce(data, axis=1, dtype=to_numpy(dtype)))
        else:
            bottom = {"add": 0, "mul": 1}.get(op)
            assert bottom is None or (out == bottom).all()


def test_matrix_product() -> None:
    b = KernelBuilder("matmul")
    n, k = sym("n", 1), sym("k", 1)
    x, w = b.input("x", "f32", (n, k)), b.constant("w", "f32", (k, 4))
    b.mark_output(b.reduce((n, 4), (k,), lambda i, j, p: x[i, p] * w[p, j], name="y"))
    rng = np.random.default_rng(0)
    data = {
        "x": rng.normal(size=(3, 5)).astype("f4"),
        "w": rng.normal(size=(5, 4)).astype("f4"),
        "y": np.zeros((3, 4), "f4"),
    }
    run(b.build(), data, {"n": 3, "k": 5})
    np.testing.assert_allclose(data["y"], data["x"] @ data["w"], rtol=1e-5)


def test_integers_wrap_and_divide_as_in_c() -> None:
    text = """\
kernel @k()
  in x: i8[4]
  in z: i8[4]
  out s: i8[4]
  out q: i8[4]
  out m: i8[4]
  out f: i8[4]
  for i in 0..4:
    s[i] = x[i] + z[i]
    q[i] = x[i]/z[i]
    m[i] = mod(x[i], z[i])
    f[i] = floormod(x[i], z[i])
"""
    arrays = {
        "x": np.array([127, -7, 7, -8], "i1"),
        "z": np.array([1, 2, -2, 2], "i1"),
        **{name: np.zeros(4, "i1") for name in "sqmf"},
    }
    run(parse_kernel(text), arrays, {})
    assert arrays["s"].tolist() == [-128, -5, 5, -6]
    assert arrays["q"].tolist() == [127, -3, -3, -4]
    assert arrays["m"].tolist() == [0, -1, 1, 0]
    assert arrays["f"].tolist() == [0, 1, -1, 0]


def run_text(text: str, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
    run(parse_kernel(text), arrays, sizes)


def test_select_does_not_touch_what_it_does_not_choose() -> None:
    text = """\
kernel @shift(n: 1..)
  in x: f32[n]
  out y: f32[n]
  for i in 0..n: y[i] = select(index(i) < 1:i64, 0.0, x[i - 1])
"""
    y = np.full(3, 9, "f4")
    run_text(text, {"x": np.array([1, 2, 3], "f4"), "y": y}, {"n": 3})
    assert y.tolist() == [0, 1, 2]
    with pytest.raises(IRError, match=r"index \[-1\] is outside x"):
        run_text(text.replace("< 1:i64", "< 0:i64"), {"x": y, "y": y}, {"n": 3})


HEAD = "kernel @k(n: 1..9)\n  in x: f32[n]\n  in ix: i64[2]\n  out y: f32[n]\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("for i in 0..n: y[i] = x[i + 1]", "index 3 is out of bounds"),
        ("for i in 0..n: y[i] = x[i - 1]", r"index \[-1\] is outside x"),
        ("for i in 0..n: y[i - 1] = x[i]", r"index \[-1\] is outside y"),
        ("for i in 0..n: y[i + 1] += x[i]", "index 3 is out of bounds"),
        ("for i in 0..n: y[i] = x[int(ix[1])]", r"index \[-1\] is outside x"),
        ("for i in 0..n: y[i] = x[int(ix[0])]", "index 7 is out of bounds"),
        ("for i in 0..n: y[i] = x[int(ix[0], 0..5)]", "index 7 is outside its bounds 0..5"),
        ("for i in 0..n: y[i//int(ix[0]*0:i64)] = 0.0", "division or modulo by zero"),
    ],
)
def test_accesses_outside_a_buffer_are_refused(line: str, message: str) -> None:
    x = np.zeros(3, "f4")
    kernel = parse_kernel(f"{HEAD}  if x[0] == 0.0:\n    y[0] = 1.0\n    {line}\n")
    with pytest.raises(IRError, match=message) as caught:
        run(kernel, {"x": x, "ix": np.array([7, -1]), "y": x.copy()}, {"n": 3})
    (marked,) = [t for t in str(caught.value).split("\n") if t.startswith(">>")]
    assert line.split(": ")[1] in marked


@pytest.mark.parametrize("source", ["f64", "f32", "f16", "bf16"])
def test_a_float_that_an_integer_cannot_hold_saturates(source: str) -> None:
    def converted(value: float, dtype: str) -> int:
        return int(cast_value(to_numpy(source).type(value), dtype))

    for dtype in ("i8", "u8", "i32", "u64", "i64"):
        info = np.iinfo(to_numpy(dtype))
        assert converted(np.inf, dtype) == info.max
        assert converted(-np.inf, dtype) == info.min
        assert converted(np.nan, dtype) == 0
        assert converted(-1.75, dtype) == (0 if dtype.startswith("u") else -1)
        assert converted(100.5, dtype) == 100
    assert converted(300, "u8") == 255
    assert converted(-300, "i8") == -128


def test_a_failed_check_ends_the_run() -> None:
    text = HEAD + '  y[0] = 5.0\n  check ix[0] < 3:i64 "node g: 7 is too large"\n  y[1] = 5.0\n'
    x, y = np.zeros(3, "f4"), np.zeros(3, "f4")
    with pytest.raises(ExecutionError, match=r"^node g: 7 is too large$"):
        run_text(text, {"x": x, "ix": np.array([7, 0]), "y": y}, {"n": 3})
    assert y.tolist() == [5, 0, 0]
    run_text(text, {"x": x, "ix": np.array([2, 0]), "y": y}, {"n": 3})
    assert y.tolist() == [5, 5, 0]


def test_while_loop() -> None:
    text = """\
kernel @power(n: 1..9)
  in x: i32[n]
  out y: i32[n]
  for i in 0..n:
    y[i] = 1:i32
    while y[i] < x[i]:
      y[i] *= 2:i32
"""
    y = np.zeros(4, "i4")
    run_text(text, {"x": np.array([1, 2, 5, 64], "i4"), "y": y}, {"n": 4})
    assert y.tolist() == [1, 2, 8, 64]


def test_a_read_before_the_write_shows() -> None:
    text = """\
kernel @k()
  out y: f32[4]
  out z: i64[4]
  temp t: f32[4]
  stack a: f32[1]
  stack b: i64[1]
  for i in 0..2: t[i] = 1.0
  parallel i in 0..4:
    if index(i) < 1:i64:
      a[0] = 2.0
      b[0] = 2:i64
    y[i] = t[i] + a[0]
    z[i] = b[0]
"""
    y, z = np.zeros(4, "f4"), np.zeros(4, "i8")
    run_text(text, {"y": y, "z": z}, {})
    assert y[0] == 3
    assert np.isnan(y[1:]).all()
    assert z[0] == 2
    assert (z[1:] == poison("i64")).all()


def test_scalars_have_their_exact_type() -> None:
    text = "kernel @k()\n  in x: f16[]\n  out y: f16[]\n  y[] = (x[] + 1.0:f16)*3.0:f16\n"
    x = np.array(2048, "f2")
    y = np.zeros((), "f2")
    run_text(text, {"x": x, "y": y}, {})
    assert y == np.float16(6144)  # 2049 is no f16: it rounds to 2048


def test_expressions_deeper_than_python_nests() -> None:
    b = KernelBuilder("deep")
    x = b.input("x", "f32", (3,))

    def value(i: Size) -> Expr:
        e = x[i]
        for _ in range(100):
            e = call("max", e + 1.0, -9.0)
        return e

    b.mark_output(b.compute((3,), value, name="z"))
    out = np.zeros(3, "f4")
    run(b.build(), {"x": np.arange(3, dtype="f4"), "z": out}, {})
    assert out.tolist() == [100, 101, 102]


def test_more_loops_than_python_nests() -> None:
    lines = ["kernel @k()", "  out y: i64[]", "  y[] = 0:i64"]
    depth = 26
    for n in range(depth):
        lines.append(f"{'  ' * (n + 1)}for i{n} in 0..{2 if n in (0, 13, 25) else 1}:")
    lines.append(f"{'  ' * (depth + 1)}y[] += index(i0 + i13*2 + i25*4)")
    y = np.zeros((), "i8")
    run_text("\n".join(lines), {"y": y}, {})
    assert y == sum(range(8))


def test_operands_are_checked() -> None:
    kernel = parse_kernel(HEAD + "  y[0] = x[0]\n")
    good = {"x": np.zeros(3, "f4"), "ix": np.zeros(2, "i8"), "y": np.zeros(3, "f4")}
    run(kernel, good, {"n": 3})
    for arrays, sizes, message in [
        ({**good, "x": np.zeros(4, "f4")}, {"n": 3}, r"x is float32\[3\], the array is float32\[4"),
        ({**good, "x": np.zeros(3, "f8")}, {"n": 3}, r"the array is float64"),
        ({"x": good["x"]}, {"n": 3}, "no array for the parameter ix"),
        (good, {}, "no value for the size n"),
        (good, {"n": 0}, "n = 0 is outside 1..9"),
    ]:
        with pytest.raises(IRError, match=message):
            run(kernel, arrays, sizes)


def test_gather_through_a_data_index() -> None:
    b = KernelBuilder("gather")
    n = sym("n", 1)
    x, ix = b.input("x", "f32", (n, 2)), b.input("ix", "i32", (4,))
    b.mark_output(b.compute((4, 2), lambda i, j: x[as_index(ix[i]), j], name="y"))
    x_data, indices = np.arange(6, dtype="f4").reshape(3, 2), np.array([2, 0, 1, 2], "i4")
    out = np.zeros((4, 2), "f4")
    run(b.build(), {"x": x_data, "ix": indices, "y": out}, {"n": 3})
    assert np.array_equal(out, x_data[indices])
