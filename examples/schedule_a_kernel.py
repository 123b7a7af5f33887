"""Schedules a matrix product by hand, step by step, and shows what each stage costs.

    python examples/schedule_a_kernel.py
    python examples/schedule_a_kernel.py --rows 512 --depth 1024 --columns 1024

The kernel is written as text, and so are the schedules: a schedule is a list of steps, each a
rewrite of the kernel that does not change its meaning. After each stage this prints the steps, the
kernel's text, the machine code of its innermost loop, and how fast that is beside the most that one
core can do. Everything runs on one core.
"""

from __future__ import annotations

import argparse
import ctypes
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from aicc.codegen.jit import NativeLibrary, assembly, compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.codegen.limits import fma_limit
from aicc.target import Target
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes.tiles import Problem, Tile, choose_tile
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps
from aicc.tensor_ir.verify import verify

Array = np.ndarray[Any, Any]

KERNEL = """\
kernel @matmul()
  in a: f32[{rows}, {depth}]
  const b: f32[{depth}, {columns}]
  out y: f32[{rows}, {columns}]
  for i in 0..{rows}:
    for j in 0..{columns}:
      y[i, j] = 0.0
      for k in 0..{depth}: y[i, j] += a[i, k]*b[k, j]
"""


@dataclass(frozen=True)
class Stage:
    """A schedule with a name and the reason for it."""

    name: str
    why: str
    steps: list[str]


def stages(tile: Tile) -> list[Stage]:
    """Schedules of the kernel, each faster than the one before."""
    rows, columns, lanes = tile.rows, tile.columns, tile.lanes
    tiled = [
        "decompose_reduction(i)",
        f"split(i, {rows}); split(j, {columns}); reorder(j.o, i.o, k, i.i, j.i)",
    ]
    vectors = [f"split({loop}, {lanes}); vectorize({loop}.i)" for loop in ("j.s", "j.i")]
    acc = "y.acc.i.w.o"  # the accumulator's name once it is computed inside the loop i.w.o
    register = [
        "cache_write(y)",
        f"split(i.w, {rows}); split(j.w, {columns}); reorder(j.w.o, i.w.o, i.w.i, j.w.i)",
        "compute_at(y.acc, i.w.o, register)",
        f"decompose_reduction({acc}.0); reorder({acc}.k0, {acc}.0, {acc}.1)",
    ]
    for row, column in ((f"{acc}.0.s", f"{acc}.1.s"), (f"{acc}.0", f"{acc}.1"), ("i.w.i", "j.w.i")):
        vector = f"split({column}, {lanes}); unroll({column}.o); vectorize({column}.i)"
        register.append(f"unroll({row}); {vector}")
    return [
        Stage(
            "naive",
            "The loops as they stand. Each multiply-add waits for the one before.",
            [],
        ),
        Stage(
            "tiled",
            f"Tiles of {rows} x {columns} results: a row of b is used {rows} times while it is in "
            "the first cache.",
            tiled,
        ),
        Stage(
            "vectorised",
            f"{lanes} neighbouring results at once. Each is still read and written in memory at "
            "every step of k.",
            tiled + vectors,
        ),
        Stage(
            "register tile",
            "A tile is summed in registers and written once. The loop over k holds nothing but "
            "multiply-adds and loads.",
            register,
        ),
        Stage(
            "packed",
            f"b is constant: compiling lays it out as the loop reads it, {columns} columns of one "
            "k after the other.",
            [f'pack(b, "1/{columns} 0 1%{columns}")', *register],
        ),
    ]


def native(kernel: Kernel, target: Target) -> tuple[Callable[[Array, Array, Array], None], str]:
    """The kernel's machine code as a function of a, b and y, and its assembly."""
    text = lower_kernel(kernel, target)
    library = NativeLibrary([compile_object(text, target)], target)
    # i32 @matmul(ptr pool, ptr a, ptr b, ptr y); only parallel loops use the pool of threads.
    entry = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 4)(library.address(kernel.name))

    def run(a: Array, b: Array, y: Array, _keeps_the_code: NativeLibrary = library) -> None:
        entry(None, a.ctypes.data, b.ctypes.data, y.ctypes.data)

    return run, assembly(text, target)


def inner_loop(asm: str) -> list[str]:
    """The instructions of the loop that multiplies most and contains no other loop."""
    lines = [re.sub(r"\s+(#|//)\s.*", "", line).rstrip() for line in asm.splitlines()]
    lines = [line for line in lines if line and not re.match(r"\s+\.|\s*//", line)]
    labels = {line.split(":")[0]: n for n, line in enumerate(lines) if re.match(r"[.\w]+:", line)}
    loops: list[list[str]] = []
    for n, line in enumerate(lines):
        jump = re.match(r"\s+(?:j\w+|b\.?\w*|cbn?z\s+\w+,)\s+([.\w]+)$", line)
        start = labels.get(jump[1], n) if jump else n
        if start < n:
            loops.append([s.strip() for s in lines[start : n + 1] if not s.endswith(":")])
    inner = [a for a in loops if not any(b != a and set(b) < set(a) for b in loops)]
    return max(inner or [[]], key=lambda body: sum("mul" in s or "fma" in s for s in body))


def best_seconds(run: Callable[[], None], seconds: float) -> float:
    """The fastest of the calls within `seconds`, and of three at least."""
    fastest, calls, end = float("inf"), 0, time.perf_counter() + seconds
    while calls < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        run()
        fastest, calls = min(fastest, time.perf_counter() - start), calls + 1
    return fastest


def main(argv: list[str] | None = None) -> None:
    """Prints every stage."""
    p = argparse.ArgumentParser(description="A matrix product, scheduled by hand.")
    p.add_argument("--rows", type=int, default=128)
    p.add_argument("--depth", type=int, default=768)
    p.add_argument("--columns", type=int, default=3072)
    p.add_argument("--seconds", type=float, default=0.5, help="of measuring per stage")
    o = p.parse_args(argv)

    target = Target.host()
    problem = Problem(o.rows, o.columns, o.depth, row_stride=4 * o.depth)
    tile = choose_tile(target, "f32", problem)
    # Whole tiles keep the schedules short. docs/schedule.md shows what split does with a rest.
    rows = -(-o.rows // tile.rows) * tile.rows
    columns = -(-o.columns // tile.columns) * tile.columns
    rng = np.random.default_rng(0)
    a = rng.standard_normal((rows, o.depth)).astype(np.float32)
    b = rng.standard_normal((o.depth, columns)).astype(np.float32)
    expected = a @ b
    limit = fma_limit(target)
    print(f"[{rows}, {o.depth}] x [{o.depth}, {columns}] on {target.cpu}: one core does at most")
    print(f"{limit:.1f} GFLOP/s of f32 multiply-adds when all operands are in registers.")

    kernel = parse_kernel(KERNEL.format(rows=rows, depth=o.depth, columns=columns))
    for stage in stages(tile):
        scheduled = schedule(kernel, parse_steps("\n".join(stage.steps)))
        verify(scheduled)
        run, asm = native(scheduled, target)
        layout = scheduled.buffer("b").pack
        data = pack_array(b, layout) if layout else b
        y = np.empty_like(expected)
        seconds = best_seconds(partial(run, a, data, y), o.seconds)
        if not np.allclose(y, expected, rtol=1e-4, atol=1e-4 * float(np.abs(expected).max())):
            raise SystemExit(f"{stage.name}: the result is wrong")
        show(stage, scheduled, asm)
        speed = 2 * rows * columns * o.depth / seconds / 1e9
        print(f"\n{stage.name}: {seconds * 1e3:.2f} ms, {speed:.1f} GFLOP/s, ", end="")
        print(f"{speed / limit:.1%} of the limit")


def show(stage: Stage, kernel: Kernel, asm: str, most: int = 24) -> None:
    """Prints the steps, the kernel and the innermost loop of a stage."""
    print(f"\n{'-' * 100}\n{stage.name}. {stage.why}")
    if stage.steps:
        print("\nsteps:")
        print("\n".join(f"  {line}" for line in stage.steps))
    print(f"\n{str(kernel).rstrip()}")
    loop = inner_loop(asm)
    print(f"\nmachine code of the innermost loop, {len(loop)} instructions:")
    shown = loop if len(loop) <= most else [*loop[: most - 2], "...", loop[-1]]
    print("\n".join(f"  {line}" for line in shown))


if __name__ == "__main__":
    main()
