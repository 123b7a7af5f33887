"""Steps of random graphs: elementwise operators, and those that move elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from random_values import (
    BINDINGS,
    ONE,
    Extent,
    Maker,
    Skip,
    Value,
    broadcast,
    each,
    fixed,
    is_fixed,
)

# --- elementwise ----------------------------------------------------------------------------------

UNARY: dict[str, Callable[[float], float]] = {
    "Relu": lambda m: m,
    "Sigmoid": lambda m: 1,
    "Tanh": lambda m: 1,
    "Abs": lambda m: m,
    "Neg": lambda m: m,
    "Erf": lambda m: 1,
    "Softplus": lambda m: m + 1,
    "HardSwish": lambda m: m,
    "HardSigmoid": lambda m: 1,
    "Gelu": lambda m: m,
    "LeakyRelu": lambda m: m,
    "Elu": lambda m: m + 1,
    "Selu": lambda m: 2 * m + 2,
    "Mish": lambda m: m + 1,
    "Sin": lambda m: 1,
    "Cos": lambda m: 1,
    "Softsign": lambda m: 1,
    "Identity": lambda m: m,
    "Atan": lambda m: 2,
}


def unary(g: Maker) -> None:
    x = g.a()
    op = g.pick(tuple(UNARY))
    g.add(op, [x.name], x.shape, UNARY[op](x.most), exact=x.exact and op in ("Relu", "Abs", "Neg"))


def stepped(g: Maker) -> None:
    x = g.a(fits=lambda v: v.exact)
    g.add(g.pick(("Floor", "Ceil", "Round", "Sign")), [x.name], x.shape, x.most + 1, exact=True)


def guarded(g: Maker) -> None:
    """Exp, Log, Sqrt, Reciprocal where they are smooth and small."""
    x = g.a()
    op = g.pick(("Exp", "Log", "Sqrt", "Reciprocal", "Pow"))
    if op == "Exp":
        (t,) = g.emit("Tanh", [x.name])
        g.add("Exp", [t], x.shape, 3)
    elif op == "Pow":
        g.add("Pow", [x.name, g.scalar(g.pick((2.0, 3.0)))], x.shape, x.most**3)
    else:
        (t,) = g.emit("Abs", [x.name])
        (t,) = g.emit("Add", [t, g.scalar(0.5)])
        g.add(op, [t], x.shape, x.most + 2)


def binary(g: Maker) -> None:
    x = g.a()
    op = g.pick(("Add", "Sub", "Mul", "Max", "Min", "Div", "PRelu"))
    y = _other(g, x)
    shape = broadcast(x.shape, y.shape)
    most = {"Add": x.most + y.most, "Sub": x.most + y.most, "Mul": x.most * y.most}.get(
        op, max(x.most, y.most)
    )
    if op == "Div":
        (t,) = g.emit("Abs", [y.name])
        (t,) = g.emit("Add", [t, g.scalar(1.0)])
        g.add("Div", [x.name, t], shape, x.most)
    elif op == "PRelu":
        if shape != x.shape or not all(map(is_fixed, y.shape)):
            raise Skip
        g.add("PRelu", [x.name, y.name], shape, x.most * max(1, y.most))
    elif g.chance(2):
        g.add(op, [x.name, y.name], shape, most)
    else:
        g.add(op, [y.name, x.name], shape, most)


def _other(g: Maker, x: Value) -> Value:
    """Something to combine `x` with: a weight, a new input or another value."""
    how = g.choose(3)
    if how == 0:
        fits = [v for v in g.values if v.kind == "f" and _fits(v.shape, x.shape)]
        return g.pick(fits)  # type: ignore[no-any-return]
    kept = g.between(0, x.rank)
    shape = tuple(ONE if g.chance(3) else e for e in x.shape[x.rank - kept :])
    if how == 1 or not all(is_fixed(e) for e in shape):
        return g.input(shape)
    return Value(g.weight(*(e[0] for e in shape)), "f", shape, 1.0)


def _fits(a: Sequence[Extent], b: Sequence[Extent]) -> bool:
    try:
        broadcast(a, b)
    except Skip:
        return False
    return True


def where(g: Maker) -> None:
    x = g.a()
    y = _other(g, x)
    shape = broadcast(x.shape, y.shape)
    how = g.choose(3)
    if how == 0:
        c = g.input(tuple(ONE if g.chance(3) else e for e in shape), "b").name
    elif how == 1:
        v = g.a(fits=lambda v: v.exact and _fits(v.shape, shape))
        shape = broadcast(v.shape, shape)
        op = g.pick(("Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Equal"))
        (c,) = g.emit(op, [v.name, g.scalar(0.25)])
    else:
        v = g.a("i", fits=lambda v: _fits(v.shape, shape))
        shape = broadcast(v.shape, shape)
        (c,) = g.emit("Equal", [v.name, g.constant(np.array(1, np.int64))])
        if g.chance(2):
            (c,) = g.emit("Not", [c])
    g.add("Where", [c, x.name, y.name], shape, max(x.most, y.most))


def clip(g: Maker) -> None:
    if g.floats != "float32":  # onnxruntime 1.32 stumbles over Relu and Clip of other types
        raise Skip
    x = g.a()
    lo = g.scalar(-0.5) if g.chance(2) else ""
    hi = g.scalar(1.0) if g.chance(2) else ""
    if lo or hi:
        g.add("Clip", [x.name, lo, *([hi] if hi else [])], x.shape, x.most, exact=x.exact)


def integers(g: Maker) -> None:
    x = g.a("i") if any(v.kind == "i" for v in g.values) else g.input(g.shape(), "i")
    how = g.choose(4)
    if how == 0:
        g.add("Cast", [x.name], x.shape, x.most, exact=True, to=g.element("f"))
    elif how == 1:
        y = g.a("i", fits=lambda v: _fits(v.shape, x.shape))
        if x.most * y.most > 1e6:
            raise Skip
        op = g.pick(("Add", "Sub", "Mul", "Max", "Min"))
        shape = broadcast(x.shape, y.shape)
        g.add(op, [x.name, y.name], shape, max(x.most * y.most, x.most + y.most), "i")
    elif how == 2:
        d = g.constant(np.array(g.pick((2, 3, 5)), np.int64))
        g.add(g.pick(("Mod", "Div")), [x.name, d], x.shape, x.most, "i")
    else:
        axis = g.choose(x.rank) if x.rank else 0
        if x.rank == 0:
            raise Skip
        g.add(
            "CumSum",
            [x.name, g.constant(np.array(axis, np.int64))],
            x.shape,
            x.most * max(x.shape[axis]),
            "i",
            exclusive=g.choose(2),
            reverse=g.choose(2),
        )


# --- moving elements ------------------------------------------------------------------------------


def any_kind(g: Maker, fits: Callable[[Value], bool] = lambda v: True) -> Value:
    return g.a("i", fits) if g.chance(8) else g.a("f", fits)


def again(
    g: Maker, op: str, x: Value, inputs: Sequence[str], shape: Sequence[Extent], **a: Any
) -> None:
    """Adds a node that moves elements of `x`."""
    g.add(op, [x.name, *inputs], shape, x.most, x.kind, x.exact, **a)


def transpose(g: Maker) -> None:
    x = any_kind(g, lambda v: v.rank >= 2)
    left = list(range(x.rank))
    perm = [left.pop(g.choose(len(left))) for _ in range(x.rank)]
    again(g, "Transpose", x, [], [x.shape[p] for p in perm], perm=perm)


def reshape(g: Maker) -> None:
    x = any_kind(g)
    how = g.choose(5)
    if how == 0 and x.rank >= 2:  # two axes become one
        axis = g.choose(x.rank - 1)
        merged = each(lambda a, b: a * b, x.shape[axis], x.shape[axis + 1])
        shape = (*x.shape[:axis], merged, *x.shape[axis + 2 :])
        known = [e for k, e in enumerate(shape) if k != axis]
        if all(is_fixed(e) for e in known):
            target = g.ints(*(-1 if k == axis else e[0] for k, e in enumerate(shape)))
        else:
            target = g.ints(
                *(0 if k < axis else -1 if k == axis else e[0] for k, e in enumerate(shape))
            )
            if not all(is_fixed(e) for e in shape[axis + 1 :]):
                raise Skip
        again(g, "Reshape", x, [target], shape)
    elif how == 1:  # one becomes two
        axes = [k for k, e in enumerate(x.shape) if is_fixed(e) and e[0] % 2 == 0]
        axis = g.pick(axes)
        half = fixed(x.shape[axis][0] // 2)
        pair = (half, fixed(2)) if g.chance(2) else (fixed(2), half)
        shape = (*x.shape[:axis], *pair, *x.shape[axis + 1 :])
        again(g, "Reshape", x, [g.sizes(shape, [x])], shape)
    elif how == 2:
        axis = g.between(0, x.rank)
        shape = (*x.shape[:axis], ONE, *x.shape[axis:])
        if x.rank >= 6:
            raise Skip
        again(g, "Unsqueeze", x, [g.ints(axis)], shape)
    elif how == 3:
        axis = g.pick([k for k, e in enumerate(x.shape) if e == ONE])
        again(g, "Squeeze", x, [g.ints(axis)], (*x.shape[:axis], *x.shape[axis + 1 :]))
    elif x.rank >= 1:
        axis = g.between(0, x.rank)
        sides = [
            tuple(math.prod(e[b] for e in part) for b in range(len(BINDINGS)))
            for part in (x.shape[:axis], x.shape[axis:])
        ]
        again(g, "Flatten", x, [], sides, axis=axis)


def permuted_reshape(g: Maker) -> None:
    """Splits an axis, moves the halves apart, and merges: heads, channel shuffle."""
    x = g.a(fits=lambda v: 1 <= v.rank <= 4)
    axis = g.pick([k for k, e in enumerate(x.shape) if is_fixed(e) and e[0] % 4 == 0])
    pair = (fixed(4), fixed(x.shape[axis][0] // 4))
    split = (*x.shape[:axis], *pair, *x.shape[axis + 1 :])
    (r,) = g.emit("Reshape", [x.name, g.sizes(split, [x])])
    if g.chance(2):  # channel shuffle
        perm = list(range(len(split)))
        perm[axis], perm[axis + 1] = axis + 1, axis
        (t,) = g.emit("Transpose", [r], perm=perm)
        again(g, "Reshape", Value(t, "f", (), x.most), [g.sizes(x.shape, [x])], x.shape)
    else:
        left = list(range(len(split)))
        perm = [left.pop(g.choose(len(left))) for _ in split]
        g.add("Transpose", [r], [split[p] for p in perm], x.most, perm=perm)


def concat(g: Maker) -> None:
    x = any_kind(g, lambda v: v.rank >= 1)
    axis = g.choose(x.rank)

    def fits(v: Value) -> bool:
        return v.rank == x.rank and all(
            d == e for k, (d, e) in enumerate(zip(v.shape, x.shape)) if k != axis
        )

    others = [g.a(x.kind, fits) for _ in range(g.between(1, 2))]
    if g.chance(3) and x.kind == "f":
        shape = list(x.shape)
        shape[axis] = fixed(g.between(1, 9))
        others.append(g.input(shape))
    parts = [x, *others]
    if g.chance(2):
        parts.reverse()
    total = each(lambda *n: sum(n), *(p.shape[axis] for p in parts))
    shape = [total if k == axis else e for k, e in enumerate(x.shape)]
    g.add(
        "Concat",
        [p.name for p in parts],
        shape,
        max(p.most for p in parts),
        x.kind,
        all(p.exact for p in parts),
        axis=axis - x.rank if g.chance(2) else axis,
    )


def slice_(g: Maker) -> None:
    x = any_kind(g, lambda v: v.rank >= 1)
    shape, starts, ends, axes, steps = list(x.shape), [], [], [], []
    for axis in range(x.rank):
        if axes and g.chance(2):
            continue
        step = g.pick((1, 1, 1, 2, 3, -1, -2))
        start = g.pick((0, 0, 1, 2, -1, -2, -(1 << 40)))
        end = g.pick((1 << 40, 1 << 40, -1, 3, 5))
        if step < 0:
            start, end = g.pick((-1, 3, 1 << 40)), g.pick((-(1 << 40), 0))
        made = each(lambda n, s=slice(start, end, step): len(range(n)[s]), x.shape[axis])
        if min(made) == 0:
            continue
        shape[axis] = made
        starts.append(start)
        ends.append(end)
        axes.append(axis)
        steps.append(step)
    if not axes:
        raise Skip
    again(g, "Slice", x, [g.ints(*starts), g.ints(*ends), g.ints(*axes), g.ints(*steps)], shape)


def split(g: Maker) -> None:
    x = any_kind(g, lambda v: v.rank >= 1)
    axis = g.pick([k for k, e in enumerate(x.shape) if is_fixed(e) and e[0] >= 2])
    n = x.shape[axis][0]
    cut = g.between(1, n - 1)
    sizes = [cut, n - cut] if g.chance(2) else [n // 2, n - n // 2]
    names = g.emit("Split", [x.name, g.ints(*sizes)], 2, axis=axis)
    for name, size in zip(names, sizes):
        shape = tuple(fixed(size) if k == axis else e for k, e in enumerate(x.shape))
        g.values.append(Value(name, x.kind, shape, x.most, x.exact))


def pad(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank >= 1)
    mode = g.pick(("constant", "constant", "reflect", "edge"))
    before = [g.pick((0, 0, 1, 2)) for _ in x.shape]
    after = [g.pick((0, 0, 1, 3)) for _ in x.shape]
    if mode == "reflect" and any(max(b, a) >= min(e) for b, a, e in zip(before, after, x.shape)):
        raise Skip
    shape = [each(lambda n, p=b + a: n + p, e) for b, a, e in zip(before, after, x.shape)]
    extra = [g.scalar(0.5)] if mode == "constant" and g.chance(2) else []
    g.add("Pad", [x.name, g.ints(*before, *after), *extra], shape, x.most + 1, mode=mode)


def expand(g: Maker) -> None:
    x = any_kind(g)
    if g.chance(2):
        shape = [g.extent() if e == ONE else e for e in x.shape]
        if g.chance(2) and x.rank < 5:
            shape.insert(0, g.extent())
        again(g, "Expand", x, [g.sizes(shape, [x])], shape)
    elif x.rank:
        times = [g.pick((1, 1, 2, 3)) for _ in x.shape]
        shape = [each(lambda n, t=t: n * t, e) for e, t in zip(x.shape, times)]
        again(g, "Tile", x, [g.ints(*times)], shape)


def gather(g: Maker) -> None:
    x = any_kind(g, lambda v: v.rank >= 1)
    axis = g.choose(x.rank)
    least = min(x.shape[axis])
    if g.chance(2):
        indices = [g.between(-least, least - 1) for _ in range(g.between(1, 5))]
        if g.chance(2):
            index, at = g.ints(*indices), (fixed(len(indices)),)
        else:
            index, at = g.constant(np.array(indices[0])), ()
    else:
        shape = g.shape(0, 2)
        (m,) = g.emit("Mod", [g.input(shape, "i").name, g.constant(np.array(least))])
        index, at = m, shape
    again(g, "Gather", x, [index], (*x.shape[:axis], *at, *x.shape[axis + 1 :]), axis=axis)
