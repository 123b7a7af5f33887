"""Each schedule step on a small kernel: the text before and after, and what both compute."""

from __future__ import annotations

import numpy as np
import pytest
from buffer_step_cases import BUFFER_STEPS
from loop_step_cases import LOOP_STEPS
from schedule_kernels import (
    BORDERS,
)

from aicc.dtypes import to_numpy
from aicc.symbolic import evaluate, maximum, sym
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import Kernel
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import Split, schedule
from aicc.tensor_ir.schedule_partition import Decide, Partition
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.verify import verify

CASES = LOOP_STEPS + BUFFER_STEPS


def results(kernel: Kernel, arrays: dict[str, np.ndarray], sizes: dict[str, int]) -> dict:
    """What the kernel's results hold after a run on copies of the arrays, packed as it asks."""
    given = {}
    for b in kernel.params:
        shape = tuple(evaluate(d, sizes) for d in b.shape)
        if b.scope == "out":
            given[b.name] = np.zeros(shape, to_numpy(b.dtype))
        else:
            given[b.name] = pack_array(arrays[b.name], b.pack) if b.pack else arrays[b.name]
    run(kernel, given, sizes)
    return {b.name: given[b.name] for b in kernel.params if b.scope == "out"}


def compare(kernel: Kernel, made: Kernel) -> None:
    """Both compute the same, for several sizes."""
    for n, m in ((4, 3), (5, 1), (9, 8)):
        sizes = {s.name: {"n": n, "m": m}[s.name] for s in kernel.sizes}
        rng = np.random.default_rng(n)
        arrays = {
            b.name: rng.integers(-5, 6, [evaluate(d, sizes) for d in b.shape]).astype(np.float32)
            for b in kernel.params
        }
        want = results(kernel, arrays, sizes)
        got = results(made, arrays, sizes)
        for name, a in want.items():
            np.testing.assert_array_equal(a, got[name])


@pytest.mark.parametrize("before, steps, after", [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_step(before: str, steps: str, after: str) -> None:
    kernel = parse_kernel(before)
    made = schedule(kernel, parse_steps(steps))
    verify(made)
    lines = str(made).splitlines()
    shown = [x for x in lines if not x.startswith(("kernel", "  in ", "  out "))]
    assert "\n".join(shown) == after.strip("\n")
    assert parse_steps(print_steps(parse_steps(steps))) == parse_steps(steps)
    compare(kernel, made)


def test_conditions_that_hold_in_tiles_are_known():
    kernel = parse_kernel(BORDERS)
    n = sym("n", 1)
    inside = maximum(0, n - 3)
    made = schedule(
        kernel, (Partition("j", 2), Partition("j.p", inside // 4 * 4), Split("j.p.a", 4))
    )
    made = Decide("j.p.a.o").apply(made)
    tiles, rest = (str(made).split(f"for {v}", 1)[1] for v in ("j.p.a.o", "j.p.p"))
    assert "select(index(i) >= 1:i64, x[i - 1, j.p.a.o*4 + j.p.a.i + 1], 0.0)" in tiles
    assert "< index(n), x[" in rest
    compare(kernel, made)
