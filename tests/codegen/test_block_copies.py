"""Loops that copy elements side by side are copies of blocks."""

from __future__ import annotations

import pytest
from native_kernel import HOST, all_targets, check

from aicc.codegen.kernel import lower_kernel
from aicc.target import Target
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.parse import parse_kernel


def rows(
    value: str = "x[i, j + 3]",
    dtypes: tuple[str, str] = ("f32", "f32"),
    size: str = "300",
    lo: str = "0",
    sizes: str = "",
) -> Kernel:
    return parse_kernel(f"""
kernel @k({sizes})
  in x: {dtypes[0]}[4, 400]
  in z: {dtypes[1]}[4, 400]
  out y: {dtypes[1]}[4, 400]
  for h in 0..4:
    for l in 0..400: y[h, l] = z[h, l] + z[h, l]
  for i in 0..4:
    for j in {lo}..{size}: y[i, j] = {value}
""")


def copies(kernel: Kernel, target: Target = HOST) -> int:
    text = lower_kernel(kernel, target)
    return str(text).count("call void @llvm.memcpy")


@all_targets
@pytest.mark.parametrize("dtype", ["f32", "f16", "i64"])
@pytest.mark.parametrize("value", ["x[i, j + 3]", "x[3 - i, j]", "x[2, j]"])
def test_blocks(value: str, dtype: str, target: Target) -> None:
    kernel = rows(value, (dtype, dtype), "390")
    assert copies(kernel, target) == (1 if dtype != "f16" else 0)  # 780 bytes are few
    check(kernel, target)


@all_targets
@pytest.mark.parametrize("n", [0, 1, 7, 300])
def test_blocks_of_a_length_that_a_run_tells(n: int, target: Target) -> None:
    kernel = rows(size="n", lo="5", sizes="n: 0..390")
    assert copies(kernel, target) == 1
    check(kernel, target, {"n": n})


@pytest.mark.parametrize(
    "kernel",
    [
        rows(size="200"),  # short
        rows("x[i, 390 - j]"),
        rows("x[i, 5]"),
        rows("x[j//100, j]"),
        rows("z[i, j] + z[i, j]"),
        rows("cast.f64(x[i, j])", ("f32", "f64")),
        rows("y[i, j + 1]"),  # from itself, one after the other
    ],
)
def test_what_is_no_block(kernel: Kernel) -> None:
    assert copies(kernel) == 0
    check(kernel, HOST)


def test_what_is_stored_before_is_forgotten() -> None:
    kernel = parse_kernel("""
kernel @k()
  in x: f32[300]
  out y: f32[1]
  stack t: f32[300]
  for i in 0..300: t[i] = 1.0
  t[7] = 2.0
  for j in 0..300: t[j] = x[j]
  y[0] = t[7]
""")
    assert copies(kernel) == 1
    check(kernel, HOST)
