"""Kernels as bytes between processes: what is read is what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from kernel_strategies import kernels

from aicc.symbolic import Dim, maximum, minimum, sym
from aicc.tensor_ir.ir import (
    Buffer,
    Check,
    For,
    Index,
    Kernel,
    Load,
    Reduce,
    Stmt,
    Store,
    as_index,
    call,
    const,
)
from aicc.tensor_ir.transfer import from_bytes, to_bytes
from aicc.tensor_ir.walk import walk_stmts


def wrapped(*body: Stmt) -> Kernel:
    n = sym("n", 1, 64)
    (size,) = n.terms[0][0]
    buffers = (
        Buffer("x", "f32", (n, 8), "in", "", (16, 1)),
        Buffer("i", "i32", (n,), "in"),
        Buffer("w", "f32", (4, 8), "const", "1/4 0 1%4"),
        Buffer("y", "f32", (n,), "out"),
    )
    return Kernel("k", (size,), buffers, body)


@given(kernels())
def test_random_kernels(kernel: Kernel) -> None:
    again = from_bytes(to_bytes(kernel))
    assert again == kernel and hash(again) == hash(kernel)
    assert to_bytes(again) == to_bytes(kernel)


def test_every_kind_of_size() -> None:
    n, k = sym("n", 1, 64), sym("k", 0, 7)
    (var,) = k.terms[0][0]
    index = as_index(Load("i", (k,), "i32"), 0, 63)
    sizes = [
        (n + k) // 3 + 2,
        (n * n - 1) % (k + 1),
        minimum(n, k * 5),
        maximum(n - 9, k),
        index * 2 + (index + n) // 4,
        -n,
    ]
    for s in sizes:
        assert isinstance(s, Dim)
        value = call("add", Index(s), const(1, "i64"))
        kernel = wrapped(
            For(var, 0, n, "for", (Check(call("lt", value, Index(n)), "too large"),)),
            Reduce("y", (s,), "max", Load("x", (0, s), "f32")),
        )
        assert from_bytes(to_bytes(kernel)) == kernel


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-45, float("inf"), float("-inf"), float("nan")])
def test_every_float(value: float) -> None:
    kernel = wrapped(Store("y", (0,), const(value, "f32")))
    assert from_bytes(to_bytes(kernel)) == kernel


def test_equal_statements_stay_apart() -> None:
    s = Store("y", (0,), const(1.0, "f32"))
    one, other = walk_stmts(from_bytes(to_bytes(wrapped(s, s))).body)
    assert one == other and one is not other


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"[3]", b'[["int",3]]', b'[["what",3]]', b'[["dim",0,1]]', b'[["op","a"]]'],
)
def test_other_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"no kernel|Expecting|zip"):
        from_bytes(data)
