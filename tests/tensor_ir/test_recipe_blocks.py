"""The recipes for values that the elements of a block share, on Haar's transform of pairs."""

from __future__ import annotations

import numpy as np
import pytest
from recipe_check import TARGET, check

from aicc.symbolic import sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import as_expr, call, select
from aicc.tensor_ir.recipes.cost import estimate
from aicc.tensor_ir.recipes.staged import has_staged


def haar(b, read, pairs, channels):
    """[pairs, 2, channels]: the sum and the difference of each pair."""

    def both(p, k, c):
        first, second = read(p * 2, c), read(p * 2 + 1, c)
        return select(call("eq", as_expr(k), 0), first + second, first - second)

    return b.compute((pairs, 2, channels), both, name="haar")


def smooth(n, channels, epilogue=False):
    """Pairs transformed there and back, twice as large."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (n * 2, channels))
    t = haar(b, lambda i, c: x[i, c], n, channels)
    u = haar(b, lambda i, c: t[i // 2, i % 2, c], n, channels)
    y = b.compute(x.shape, lambda i, c: u[i // 2, i % 2, c])
    if epilogue:
        w = b.input("w", "f32", (n * 2, channels))
        y = b.compute(x.shape, lambda i, c: call("max", y[i, c] + w[i, c], 0.0))
    b.mark_output(y)
    return b.build()


def mixed(n, channels, filters):
    """A product for sums and one for differences of pairs, and the transform back."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (n * 2, channels))
    w = b.constant("w", "f32", (2, channels, filters))
    t = haar(b, lambda i, c: x[i, c], n, channels)

    def rows(k, p, c):
        first, second = t[p, 0, c], t[p, 1, c]
        return select(call("eq", as_expr(k), 0), first + second * 2.0, first - second)

    left = b.compute((2, n, channels), rows)
    r = b.reduce((2, n, filters), (channels,), lambda k, p, o, c: left[k, p, c] * w[k, c, o])

    def back(p, s, o):
        first, second = r[0, p, o], r[1, p, o]
        return select(call("eq", as_expr(s), 0), first + second, first - second)

    u = b.compute((n, 2, filters), back)
    b.mark_output(b.compute((n * 2, filters), lambda i, o: u[i // 2, i % 2, o]))
    return b.build()


@pytest.mark.parametrize("epilogue", [False, True])
@pytest.mark.parametrize("channels", [16, 21, 40])
def test_values_of_a_block_are_computed_once_in_registers(channels, epilogue):
    steps, made = check(smooth(6, channels, epilogue))
    assert steps.count("register") == 2
    local = [b for b in made.buffers if b.scope == "register"]
    assert [b.shape for b in local] == [(1, 2, 16), (1, 2, 16)]
    assert not [b for b in made.buffers if b.scope == "temp"]


def test_blocks_that_a_run_counts():
    n = sym("n", lo=1)
    steps, _ = check(smooth(n, 16), {"n": 5})
    assert steps.count("register") == 2


def test_maps_that_share_nothing_are_plain():
    b = KernelBuilder("k")
    x = b.input("x", "f32", (64, 16))
    t = b.compute(x.shape, lambda i, c: x[i, c] + 1.0)
    b.mark_output(b.compute(x.shape, lambda i, c: t[i, c] * 2.0))
    steps, _ = check(b.build())
    assert "register" not in steps


@pytest.mark.parametrize(
    ("n", "channels", "filters"), [(16, 16, 16), (24, 20, 33), (40, 5, 64), (64, 24, 32)]
)
def test_products_between_blocks_run_in_bands(n, channels, filters):
    kernel = mixed(n, channels, filters)
    assert has_staged(kernel)
    steps, made = check(kernel)
    kinds = {b.scope for b in made.buffers}
    assert "stack" in kinds and "temp" not in kinds
    assert ("parallel" in steps) == (n * channels > 2000)  # less is not worth sharing out
    assert np.isfinite(estimate(kernel, TARGET))


@pytest.mark.parametrize("n", [1, 5, 64, 200])
def test_bands_of_sizes_that_a_run_knows(n):
    kernel = mixed(sym("n", lo=1), 16, 16)
    assert np.isfinite(estimate(kernel, TARGET))
    steps, made = check(kernel, {"n": n})
    assert "parallel" in steps
    stacks = [b for b in made.buffers if b.scope == "stack"]
    assert stacks and all(isinstance(d, int) for b in stacks for d in b.shape)


def test_matrices_of_a_band_are_not_a_power_of_two_apart():
    _, made = check(mixed(512, 16, 16))
    rows = {b.shape[1] for b in made.buffers if b.scope == "stack"}
    assert rows == {64}  # two matrices are never too many for one set


def test_bands_of_one_row_have_no_estimate():
    kernel = mixed(7, 16, 16)
    assert has_staged(kernel)
    assert estimate(kernel, TARGET) == np.inf
    check(kernel)


def test_options_in_turn_cost_what_computes_them_all_where_no_recipe_unrolls_them():
    def kernel(turns: bool):
        b = KernelBuilder("k")
        x = b.input("x", "f32", (512, 64))

        def one_of(k, c, value):
            e = value(0, c)
            for n in range(1, 8):
                e = select(call("eq", as_expr(k % 8 if turns else k // 8), n), value(n, c), e)
            return e

        def value(n, c):
            return x[n, c] * float(n) + x[n + 1, c] * float(n + 1)

        b.mark_output(b.compute((4096, 64), lambda i, c: one_of(i, c, value)))
        return b.build()

    assert estimate(kernel(turns=True), TARGET) > 3 * estimate(kernel(turns=False), TARGET)
