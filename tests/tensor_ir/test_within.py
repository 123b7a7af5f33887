"""Steps inside a loop, and the recipe for products inside serial loops."""

from __future__ import annotations

import numpy as np
import pytest

from aicc.errors import ScheduleError
from aicc.symbolic import evaluate
from aicc.target import Target
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import For, Kernel
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.recipes.recurrence import serial_loops
from aicc.tensor_ir.schedule import Step, schedule
from aicc.tensor_ir.schedule_text import parse_steps, print_steps
from aicc.tensor_ir.schedule_within import Within, focus
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import walk_stmts

RECURRENT = """
kernel @recurrent(b: 0..)
  in x: f32[6, b, 20]
  const w: f32[20, 20]
  out y: f32[6, b, 20]
  temp state: f32[b, 20]
  temp sums: f32[b, 20]
  for b0 in 0..b:
    for j0 in 0..20: state[b0, j0] = 0.0
  for t in 0..6:
    for i in 0..b:
      for j in 0..20:
        sums[i, j] = 0.0
        for k in 0..20: sums[i, j] += state[i, k]*w[k, j]
    for b1 in 0..b:
      for j1 in 0..20: y[t, b1, j1] = tanh(sums[b1, j1] + x[t, b1, j1])
    for b2 in 0..b:
      for j2 in 0..20: state[b2, j2] = y[t, b2, j2]
"""


def recurrent() -> Kernel:
    made = parse_kernel(RECURRENT.strip())
    verify(made)
    return made


def results(kernel: Kernel, b: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    w = rng.normal(0, 0.3, (20, 20)).astype(np.float32)
    pack = kernel.buffer("w").pack
    arrays = {
        "x": rng.normal(size=(6, b, 20)).astype(np.float32),
        "w": pack_array(w, pack) if pack else w,
        "y": np.zeros((6, b, 20), np.float32),
    }
    given = {
        p.name: arrays[p.name].reshape([evaluate(d, {"b": b}) for d in p.shape])
        for p in kernel.params
    }
    run(kernel, given, {"b": b})
    return given["y"]


def test_steps_inside_a_loop_keep_the_meaning() -> None:
    steps = (
        "pad_axis(sums, 1, 8); split(j1, 8, guard); reorder(j1.o, b1, j1.i); "
        "compute_at(sums, b1, register); split(j2, 4); unroll(j2.o)"
    )
    step = Within("t", steps)
    kernel = step.apply(recurrent())
    verify(kernel)
    assert parse_kernel(str(kernel)) == kernel
    assert parse_steps(print_steps([step])) == (step,)
    assert "sums" not in {b.name for b in kernel.buffers}  # its stage went, and the buffer with it
    for b in (0, 1, 3):
        assert np.array_equal(results(kernel, b), results(recurrent(), b))


def test_buffers_that_pass_between_iterations_stay() -> None:
    kernel = recurrent()
    loop = next(s for s in kernel.body if isinstance(s, For) and s.var.name == "t")
    scopes = {b.name: b.scope for b in focus(kernel, loop).buffers}
    assert scopes["state"] == "out"
    assert scopes["sums"] == "temp"


@pytest.mark.parametrize(
    ("steps", "why"),
    [
        ('pack(w, "1/4 0 1%4")', "w would change outside of the loop"),
        ("inline(state)", "state is a result of the kernel"),
        ("fuse_axes(x, 1)", "x would change outside of the loop"),
        ("split(t, 2)", "there is no loop over t"),
        ("parallel(i)", "a loop inside cannot become parallel"),
    ],
)
def test_refusals(steps: str, why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        Within("t", steps).apply(recurrent())


def test_no_such_loop() -> None:
    with pytest.raises(ScheduleError, match="there is no loop over z"):
        Within("z", "split(j1, 4)").apply(recurrent())


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_recipe_for_products_in_a_serial_loop(target: str) -> None:
    kernel = recurrent()
    assert [f.var.name for f in serial_loops(kernel)] == ["t"]
    made, steps = scheduled(kernel, Target.from_name(target))
    verify(made)
    assert _names(steps)[:2] == ["pack", "within"]
    assert schedule(kernel, steps) == made
    kinds = {s.kind for s in walk_stmts(made.body) if isinstance(s, For)}
    assert {"vector", "unroll"} <= kinds
    for b in (1, 2, 4, 9):
        np.testing.assert_allclose(results(made, b), results(kernel, b), rtol=1e-5, atol=1e-6)


def _names(steps: tuple[Step, ...]) -> list[str]:
    return [s.name for s in steps]
