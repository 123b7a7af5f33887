"""Scheduled by its recipe, a kernel gives what it gave."""

from __future__ import annotations

import numpy as np

from aicc.symbolic import evaluate
from aicc.target import Target
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.schedule_text import print_steps

TARGET = Target.from_name("x86-64-v4")


def check(kernel, sizes=None, tolerance=1e-5, target=TARGET):
    """The steps of the schedule, which changes nothing but rounding."""
    sizes = sizes or {}
    made, steps = scheduled(kernel, target)
    rng = np.random.default_rng(0)
    results = []
    data = {}
    for k in (kernel, made):
        arrays = {}
        for p, old in zip(k.params, kernel.params, strict=True):
            shape = tuple(evaluate(d, sizes) for d in old.shape)
            if p.name not in data:
                data[p.name] = rng.standard_normal(shape).astype(np.float32)
            a = data[p.name] if p.scope != "out" else np.full(shape, np.nan, np.float32)
            own = tuple(evaluate(d, sizes) for d in p.shape)
            arrays[p.name] = pack_array(a, p.pack) if p.pack else a.reshape(own)
        run(k, arrays, sizes)
        results.append(next(arrays[p.name] for p in k.params if p.scope == "out").ravel())
    np.testing.assert_allclose(*results, rtol=tolerance, atol=tolerance)
    return print_steps(steps), made
