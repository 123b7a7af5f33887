"""Native code against the interpreter: every operation and every reduction on every type."""

from __future__ import annotations

import numpy as np
import pytest
from native_kernel import HOST, all_targets, check, loops, sample

from aicc.codegen.jit import compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.codegen.vecmath import supports
from aicc.dtypes import FLOATS, NUMERIC, is_float, nbytes, to_numpy
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Kernel, Op, call, select
from aicc.tensor_ir.scalar import OPS
from aicc.tensor_ir.schedule import Split, Step, Vectorize, schedule
from aicc.tensor_ir.schedule_stages import Rfactor
from aicc.tensor_ir.verify import _OPERANDS

N = sym("n", 1)


def extremes(dtype: str) -> np.ndarray:
    if dtype == "bool":
        return np.array([False, True])
    if is_float(dtype):
        large = 6e4 if dtype == "f16" else 1e30
        values = [0.0, -0.0, 1.0, -1.0, 2.5, -3.5, 0.5, np.inf, -np.inf, np.nan, 100.25, 1e-3]
        ends = [300.0, -129.0, 32768.0, 2.0**31, 2.0**63, large]
        with np.errstate(over="ignore"):
            return np.array([*values, *ends]).astype(to_numpy(dtype))
    info = np.iinfo(to_numpy(dtype))
    values = [0, 1, 2, 3, 7, 5, 8, info.max, info.max - 1, info.min, info.min + 1]
    values += [-1, -3] if info.min else []
    return np.array(values, to_numpy(dtype))


def operations(dtype: str) -> list[str]:
    """Everything that takes the dtype and is no function of vector math."""
    names = [o for o in OPS if dtype in _OPERANDS.get(o, FLOATS) and not supports(o, dtype)]
    names += [f"cast.{d}" for d in (*NUMERIC, "bool") if d != dtype]
    if dtype != "bool":
        same_width = (d for d in NUMERIC if nbytes(d) == nbytes(dtype) and d != dtype)
        names += [f"bitcast.{d}" for d in same_width]
    return names


def every_operation(dtype: str, names: list[str], lanes: int) -> tuple[Kernel, Kernel, dict]:
    """One result for each operation on all pairs of extremes; the kernel plain and in vectors."""
    values = extremes(dtype)
    n = len(values) ** 2
    b = KernelBuilder("k")
    x, y = b.input("x", dtype, (n,)), b.input("y", dtype, (n,))
    c = b.input("c", "bool", (n,))
    steps: list[Step] = []
    for number, name in enumerate(names):
        with b.loop(f"i{number}", 0, n) as i:
            if "." in name:
                value = Op(name, (x[i],), name.partition(".")[2])
            elif name == "select":
                value = select(c[i], x[i], y[i])
            else:
                value = call(name, *(x[i], y[i], x[i])[: OPS[name].arity])
            out = b.temp(f"{name}_out", value.dtype, (n,))
            b.store(out, [i], value)
        b.mark_output(out)
        steps.append(Split(f"i{number}", lanes, "mask"))
        steps += [Vectorize(f"i{number}.i")] if n >= lanes else []
        steps += [Vectorize(f"i{number}.m")] if n % lanes else []
    kernel = b.build()
    pairs = np.meshgrid(values, values)
    arrays = {"x": pairs[0].ravel().copy(), "y": pairs[1].ravel().copy()}
    arrays["c"] = np.arange(n) % 3 == 0
    for p in kernel.params[3:]:
        arrays[p.name] = np.zeros(n, to_numpy(p.dtype))
    return kernel, schedule(kernel, steps), arrays


@all_targets
@pytest.mark.parametrize("dtype", [*NUMERIC, "bool"])
def test_every_operation_on_every_type(dtype: str, target: Target) -> None:
    kernel, wide, arrays = every_operation(dtype, operations(dtype), 8)
    exact = {"f64": 1e-12, "f32": 1e-6, "f16": 2e-3, "bf16": 1e-2}.get(dtype, 0.0)
    rtol = exact if not target.has_fma or is_float(dtype) else 0.0  # fma rounds once
    check(kernel, target, arrays=arrays, rtol=rtol, guards=False)
    check(wide, target, original=kernel, arrays=arrays, rtol=rtol, guards=False)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16", "i8", "u64", "bool"])
def test_other_machines_get_object_code(dtype: str) -> None:
    target = Target.from_name("aarch64" if HOST.arch == "x86_64" else "x86-64-v3")
    for kernel in every_operation(dtype, operations(dtype), 8)[:2]:
        assert compile_object(lower_kernel(kernel, target), target)[:4] == b"\x7fELF"


REDUCED = [(op, d) for op in ("add", "mul", "max", "min") for d in NUMERIC]
REDUCED += [(op, "bool") for op in ("and", "or", "max", "min")]


def reduction(op: str, dtype: str, n: object, value: str = "x") -> Kernel:
    b = KernelBuilder("k")
    x = b.input("x", dtype, (3, n))
    make = {
        "x": lambda i, k: x[i, k],
        "row": lambda i, k: x[i, 0],
        "square": lambda i, k: x[i, k] * x[i, k],
    }[value]
    b.mark_output(b.reduce((3,), (n,), make, op=op, name="y"))
    return b.build()


@all_targets
def test_reductions_across_lanes(target: Target) -> None:
    for op, dtype in REDUCED:
        kernel = reduction(op, dtype, 13)
        arrays = sample(kernel, {})
        if op == "mul":
            arrays["x"] = np.where(arrays["x"] == 0, 1, np.clip(arrays["x"], 0, 2))
            arrays["x"] = np.where(np.arange(13) % 3 == 0, arrays["x"], 1).astype(to_numpy(dtype))
        wide = schedule(kernel, [Split("k0", 8, "mask"), Vectorize("k0.i"), Vectorize("k0.m")])
        check(wide, target, original=kernel, arrays=arrays, guards=False)


@all_targets
@pytest.mark.parametrize("value", ["row", "square"])
@pytest.mark.parametrize("dtype", ["f32", "i32"])
def test_reductions_of_products_and_of_equal_lanes(value: str, dtype: str, target: Target) -> None:
    for n in (4, 8, 13, N):
        kernel = reduction("add", dtype, n, value)
        wide = Split("k0", 8, "mask").apply(kernel)
        for name in {"k0.i", "k0.m"} & set(loops(wide)):
            wide = Vectorize(name).apply(wide)
        parts = schedule(kernel, [Rfactor("k0", 8)])
        for name in ("k0.s", "k0.i", "k0.f"):
            parts = Vectorize(name).apply(parts)
        for size in (3, 8, 21):
            check(wide, target, {"n": size}, original=kernel)
            check(parts, target, {"n": size}, original=kernel)


@all_targets
@pytest.mark.parametrize("op", ["max", "min"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_nan_wins_everywhere(op: str, dtype: str, target: Target) -> None:
    b = KernelBuilder("k")
    x = b.input("x", dtype, (16,))
    b.mark_output(b.reduce((1,), (16,), lambda _, k: x[k], op=op, name="y"))
    b.mark_output(b.compute((16,), lambda i: call(op, x[i], 0.0), name="low"))
    b.mark_output(b.compute((16,), lambda i: call(op, 1.0, x[i]), name="high"))
    b.mark_output(b.compute((16,), lambda i: call(op, x[i], x[15 - i]), name="two"))
    kernel = b.build()
    _, *inner = loops(kernel)  # the reduction stands in a loop that runs once
    vector = schedule(kernel, [Vectorize(n) for n in inner])
    arrays = sample(kernel, {})
    for at in (0, 7, 15, None):
        if at is not None:
            arrays["x"][:] = 1
            arrays["x"][at] = np.nan
        check(kernel, target, arrays=arrays, guards=False)
        check(vector, target, original=kernel, arrays=arrays, guards=False)
