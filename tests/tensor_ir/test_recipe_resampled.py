"""The recipe for interpolation: tables once, shared rows once, lanes at known places."""

from __future__ import annotations

import pytest
from recipe_check import TARGET, check

from aicc.symbolic import maximum, minimum, sym
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Index, as_index, call, cast, select
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.recipes.resampled import has_resampled


def linear(b, x, axis, count, table, clamp=True):
    """`x` with `count` results along an axis: aligned corners, positions from a table or not."""
    extent = x.shape[axis]
    num, den = extent - 1, max(1, count - 1)

    def at(o, k):
        place = (o * num) // den + k
        return minimum(place, extent - 1) if clamp else place

    def part(o):
        return cast(Index((o * num) % den), "f32") * (1.0 / den)

    if table:
        taps = [
            b.compute((count,), lambda o, k=k: cast(Index(at(o, k)), "i32"), name=f"tap{axis}{k}_")
            for k in (0, 1)
        ]
        part_table = b.compute((count,), part, name=f"part{axis}")
        part = part_table.__getitem__
        places = [lambda o, t=t: as_index(t[o], 0, extent - 1) for t in taps]
    else:
        places = [lambda o, k=k: at(o, k) for k in (0, 1)]

    def element(*index):
        o = index[axis]
        first, second = (
            x[tuple(p(o) if n == axis else i for n, i in enumerate(index))] for p in places
        )
        return first * (1.0 - part(o)) + second * part(o)

    shape = tuple(count if n == axis else d for n, d in enumerate(x.shape))
    return b.compute(shape, element)


@pytest.mark.parametrize(
    ("shape", "rows", "columns"),
    [
        ((13, 5, 7), 11, 40),  # planes
        ((2, 24, 20), 48, 50),  # few planes: bands of their rows
        ((24, 20), 48, 50),  # no loop around: bands
        ((16, 40, 50), 9, 21),  # shrinks: each row is made first
        ((1, 3, 5, 7), 31, 29),  # axes that are primes
    ],
)
def test_rows_are_shared_and_tables_made_once(shape, rows, columns):
    b = KernelBuilder("k")
    x = b.input("x", "f32", shape)
    axes = [(len(shape) - 1, columns), (len(shape) - 2, rows)]
    if rows < shape[-2]:
        axes.reverse()
    value = x
    for axis, count in axes:
        value = linear(b, value, axis, count, table=axis == len(shape) - 1)
    b.mark_output(value)
    kernel = b.build()
    assert has_resampled(kernel)
    steps, made = check(kernel)
    assert f"compute_at(tap{len(shape) - 1}0_" in steps
    local = [x for x in made.buffers if x.scope == "stack" and len(x.shape) > 1]
    assert len(local) == 1, steps


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_lanes_of_whole_factors_are_at_known_places(factor):
    """No table: as many vectors at once as the places take to repeat."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (12, 9, 21))

    def half(axis, source, o):
        num, den = o * 2 + 1 - factor, 2 * factor
        places = (maximum(num // den, 0), minimum(num // den + 1, source.shape[axis] - 1))
        return places, cast(Index(num % den), "f32") * (1.0 / den)

    def wide(c, i, j):
        (p, q), r = half(2, x, j)
        return x[c, i, p] * (1.0 - r) + x[c, i, q] * r

    s = b.compute((12, 9, 21 * factor), wide)

    def tall(c, i, j):
        (p, q), r = half(1, s, i)
        return s[c, p, j] * (1.0 - r) + s[c, q, j] * r

    b.mark_output(b.compute((12, 9 * factor, 21 * factor), tall))
    steps, made = check(b.build())
    assert "compute_at(" in steps
    inner = [line for line in str(made).splitlines() if "x[" in line]
    assert not any("max(" in line or "min(" in line for line in inner)


def test_symbolic_sizes():
    n, h, w = sym("n", 1), sym("h", 2), sym("w", 2)
    b = KernelBuilder("k")
    x = b.input("x", "f32", (n, h, w))

    def tables(name, size):
        at = b.compute((size * 2,), lambda o: cast(Index(o // 2), "i32"), name=f"at{name}")
        part = b.compute((size * 2,), lambda o: cast(Index(o % 2), "f32") * 0.5, name=f"p{name}")
        return at, part

    at, part = tables("w", w)
    s = b.compute((n, h, w * 2), lambda c, i, j: x[c, i, as_index(at[j], 0)] * part[j])
    at_, part_ = tables("h", h)
    b.mark_output(
        b.compute(
            (n, h * 2, w * 2),
            lambda c, i, j: s[c, as_index(at_[i], 0), j] + s[c, 0, j] * part_[i],
        )
    )
    for sizes in ({"n": 1, "h": 2, "w": 2}, {"n": 3, "h": 5, "w": 19}):
        steps, _ = check(b.build(), sizes)
    assert "compute_at(atw" in steps


def test_joined_with_another_operand_only_its_part_is_made():
    b = KernelBuilder("k")
    x, z = b.input("x", "f32", (16, 6, 10)), b.input("z", "f32", (4, 11, 18))
    y = linear(b, linear(b, x, 2, 18, True), 1, 11, False)
    b.mark_output(
        b.compute(
            (20, 11, 18),
            lambda c, i, j: select(
                call("lt", Index(c), 16), y[minimum(c, 15), i, j], z[maximum(c - 16, 0), i, j]
            ),
        )
    )
    check(b.build())


def test_what_is_computed_in_blocks_stays_with_its_recipe():
    """Rows that are read by quotients, of several elements each: not made anew for each reader."""
    b = KernelBuilder("k")
    x = b.input("x", "f32", (36, 16, 16))
    block = b.compute((4, 16, 16), lambda k, i, c: x[k, i, c] + x[k + 4, i, c])
    t = b.compute((64, 16), lambda i, c: call("max", block[i % 4, i // 4, c], 0.0))
    b.mark_output(linear(b, t, 0, 99, True))
    assert not has_resampled(b.build())
    scheduled(b.build(), TARGET)
