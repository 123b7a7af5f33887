"""Random small ONNX graphs that are valid for several sizes of their symbols at once.

A size is a tuple: its value under each of `BINDINGS`' assignments. What is equal under all of them
is a number in the model, anything else comes from a symbol. Every choice is an integer below a
bound, from a function that the caller gives: hypothesis, or a generator of random numbers.

Values are kept small, and functions with steps (Floor, comparisons) see only what is exact, so that
different orders of summation give nearly the same results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Choose = Callable[[int], int]
"""An integer from 0 up to, but not including, the argument."""

OPSET = 21
BINDINGS = ({"n": 3, "m": 8, "s": 16}, {"n": 1, "m": 5, "s": 33}, {"n": 7, "m": 17, "s": 9})

Extent = tuple[int, ...]
ONE: Extent = (1,) * len(BINDINGS)


def fixed(n: int) -> Extent:
    return (n,) * len(BINDINGS)


def is_fixed(e: Extent) -> bool:
    return len(set(e)) == 1


@dataclass(frozen=True)
class Value:
    """kind: "f", "i" or "b". most: about the greatest magnitude. exact: not rounded."""

    name: str
    kind: str
    shape: tuple[Extent, ...]
    most: float
    exact: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass
class Graph:
    """A model and the arrays to feed it with, one set for each of `BINDINGS`."""

    model: onnx.ModelProto
    feeds: list[dict[str, Array]]


class Skip(Exception):
    """What was drawn does not fit any value."""


@dataclass
class Maker:
    choose: Choose
    symbols: bool = True
    floats: str = "float32"
    values: list[Value] = field(default_factory=list)
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[Value] = field(default_factory=list)
    count: int = 0

    # --- choices ---

    def pick(self, options: Sequence[Any]) -> Any:
        if not options:
            raise Skip
        return options[self.choose(len(options))]

    def chance(self, one_in: int) -> bool:
        return self.choose(one_in) == 0

    def between(self, lo: int, hi: int) -> int:
        return lo + self.choose(hi - lo + 1)

    def a(self, kind: str = "f", fits: Callable[[Value], bool] = lambda v: True) -> Value:
        """A value of a kind; a late one more often, so that chains grow."""
        found = [v for v in self.values if v.kind == kind and fits(v)]
        if not found:
            raise Skip
        return found[-1] if self.choose(3) else self.pick(found)

    # --- building ---

    def name(self, base: str) -> str:
        self.count += 1
        return f"{base}{self.count}"

    def emit(self, op: str, inputs: Sequence[str], outputs: int = 1, **attrs: Any) -> list[str]:
        names = [self.name("v") for _ in range(outputs)]
        self.nodes.append(
            helper.make_node(op, list(inputs), names, name=f"{op}_{self.count}", **attrs)
        )
        return names

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        shape: Sequence[Extent],
        most: float,
        kind: str = "f",
        exact: bool = False,
        **attrs: Any,
    ) -> Value:
        if any(math.prod(e[b] for e in shape) > 40000 for b in range(len(BINDINGS))):
            raise Skip
        (name,) = self.emit(op, inputs, **attrs)
        made = Value(name, kind, tuple(shape), most, exact)
        if kind == "f" and most > 50:
            (name,) = self.emit("Mul", [name, self.scalar(1 / most)])
            made = Value(name, kind, tuple(shape), 1.0)
        self.values.append(made)
        return made

    def constant(self, array: Array) -> str:
        name = self.name("w")
        self.weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value, self.floats))

    def weight(self, *shape: int) -> str:
        """Uniform in -1..1, from a seed that is a choice."""
        rng = np.random.default_rng(self.choose(1 << 16))
        return self.constant(rng.uniform(-1, 1, shape).astype(self.floats))

    def input(self, shape: Sequence[Extent], kind: str = "f") -> Value:
        v = Value(self.name("x"), kind, tuple(shape), 4.0 if kind == "i" else 2.0, True)
        self.inputs.append(v)
        self.values.append(v)
        return v

    def extent(self) -> Extent:
        if self.symbols and self.chance(4):
            name = self.pick(("n", "m", "s"))
            return tuple(b[name] for b in BINDINGS)
        return fixed(self.pick((1, 2, 3, 4, 5, 7, 8, 12, 16, 17, 24, 32, 33, 48)))

    def shape(self, least: int = 0, most: int = 4) -> tuple[Extent, ...]:
        made = tuple(self.extent() for _ in range(self.between(least, most)))
        while max(math.prod(e[b] for e in made) for b in range(len(BINDINGS))) > 6000:
            made = (ONE, *made[1:]) if made[0] != ONE else (made[0], fixed(2), *made[2:])
            if all(max(e) <= 2 for e in made[:2]):
                made = (*made[:2], *(fixed(5) for _ in made[2:]))
        return made

    def sizes(self, shape: Sequence[Extent], of: Sequence[Value]) -> str:
        """An operand that holds a shape: a constant, or joined from sizes of values."""
        if all(is_fixed(e) for e in shape):
            return self.ints(*(e[0] for e in shape))
        parts = []
        for e in shape:
            if is_fixed(e):
                parts.append(self.ints(e[0]))
                continue
            sources = [(v, k) for v in (*of, *self.inputs) for k, d in enumerate(v.shape) if d == e]
            if not sources:
                raise Skip
            v, axis = sources[0]
            (whole,) = self.emit("Shape", [v.name])
            parts += self.emit("Gather", [whole, self.ints(axis)], axis=0)
        return self.emit("Concat", parts, axis=0)[0]

    # --- the model ---

    def finish(self) -> Graph:
        read = {name for node in self.nodes for name in node.input}
        results = [v for v in self.values if v.name not in read and v not in self.inputs]
        if not results:
            raise Skip
        others = [v for v in self.values if v.name in read and v not in self.inputs]
        if others and self.chance(3):
            results.append(self.pick(others))
        used = [v for v in self.inputs if v.name in read or v in results]
        names = {
            tuple(b[name] for b in BINDINGS): name for name in (BINDINGS[0] if self.symbols else ())
        }

        def info(v: Value) -> onnx.ValueInfoProto:
            dims = [e[0] if is_fixed(e) else names.get(e) for e in v.shape]
            return helper.make_tensor_value_info(v.name, self.element(v.kind), dims)

        graph = helper.make_graph(
            self.nodes,
            "random",
            [info(v) for v in used],
            [
                helper.make_value_info(
                    v.name, helper.make_tensor_type_proto(self.element(v.kind), [None] * v.rank)
                )
                for v in results
            ],
            self.weights,
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10
        )
        feeds = []
        varied = any(not is_fixed(e) for v in used for e in v.shape)
        for b in range(len(BINDINGS) if varied else 1):
            rng = np.random.default_rng(b)
            feeds.append({v.name: self.data(rng, v.kind, [e[b] for e in v.shape]) for v in used})
        return Graph(model, feeds)

    def element(self, kind: str) -> int:
        """ONNX's number of an element type."""
        if kind == "f":
            return int(helper.np_dtype_to_tensor_dtype(np.dtype(self.floats)))
        return TensorProto.INT64 if kind == "i" else TensorProto.BOOL

    def data(self, rng: np.random.Generator, kind: str, shape: Sequence[int]) -> Array:
        """What a graph is fed with."""
        if kind == "i":
            return rng.integers(-4, 5, shape, np.int64)
        if kind == "b":
            return np.asarray(rng.integers(0, 2, shape).astype(bool))
        return np.asarray(rng.uniform(-2, 2, shape).astype(self.floats))


def broadcast(a: Sequence[Extent], b: Sequence[Extent]) -> tuple[Extent, ...]:
    """The common shape, or Skip."""
    rank = max(len(a), len(b))
    x = (ONE,) * (rank - len(a)) + tuple(a)
    y = (ONE,) * (rank - len(b)) + tuple(b)
    made = []
    for d, e in zip(x, y):
        if d != e and ONE not in (d, e):
            raise Skip
        made.append(e if d == ONE else d)
    return tuple(made)


def each(f: Callable[..., int], *extents: Extent) -> Extent:
    return tuple(f(*values) for values in zip(*extents))


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


# --- sums -----------------------------------------------------------------------------------------


REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSumExp"),
)


def reduce(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank >= 1)
    op = g.pick(REDUCTIONS)
    axes = [k for k in range(x.rank) if g.chance(2)] or [x.rank - 1]
    keep = g.choose(2)
    shape = [ONE if k in axes else e for k, e in enumerate(x.shape) if keep or k not in axes]
    count = max(math.prod(x.shape[k][b] for k in axes) for b in range(len(BINDINGS)))
    most = {"ReduceSumSquare": x.most**2 * count, "ReduceLogSumExp": x.most + math.log(count + 1)}
    bound = most.get(op, x.most * (1 if op[6:] in ("Mean", "Max", "Min") else count**0.5))
    named = [k - x.rank if g.chance(3) else k for k in axes]
    g.add(op, [x.name, g.ints(*named)], shape, bound, keepdims=keep)


def softmax(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank >= 1)
    axis = g.choose(x.rank)
    op = g.pick(("Softmax", "Softmax", "LogSoftmax"))
    g.add(op, [x.name], x.shape, 1 if op == "Softmax" else 2 * x.most + 6, axis=axis)


def layer_norm(g: Maker) -> None:
    """By the operator, or as exporters write it; or by the root of the mean square alone."""
    x = g.a(fits=lambda v: v.rank >= 1 and is_fixed(v.shape[-1]))
    width = x.shape[-1][0]
    how = g.choose(3)
    if how == 0:
        inputs = [x.name, g.weight(width), *([g.weight(width)] if g.chance(2) else [])]
        g.add("LayerNormalization", inputs, x.shape, 1 + width**0.5, axis=-1, epsilon=1e-2)
        return
    y = x.name
    if how == 1:
        (mean,) = g.emit("ReduceMean", [y, g.ints(-1)])
        (y,) = g.emit("Sub", [y, mean])
    (square,) = g.emit("Pow", [y, g.scalar(2.0)]) if g.chance(2) else g.emit("Mul", [y, y])
    (mean,) = g.emit("ReduceMean", [square, g.ints(-1)])
    (shifted,) = g.emit("Add", [mean, g.scalar(0.01)])
    (root,) = g.emit("Sqrt", [shifted])
    (y,) = g.emit("Div", [y, root])
    g.add("Mul", [y, g.weight(width)], x.shape, width**0.5)


def channel_norm(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank in (3, 4) and is_fixed(v.shape[1]))
    c = x.shape[1][0]
    if g.chance(3):
        inputs = [x.name, g.weight(c), g.weight(c)]
        g.add("InstanceNormalization", inputs, x.shape, 12, epsilon=1e-2)
        return
    rng = np.random.default_rng(g.choose(100))
    variance = g.constant(rng.uniform(0.5, 2, c).astype(g.floats))
    inputs = [x.name, g.weight(c), g.weight(c), g.weight(c), variance]
    g.add("BatchNormalization", inputs, x.shape, 2 * (x.most + 2) + 1)


def matmul(g: Maker) -> None:
    how = g.choose(5)
    if how <= 1:  # by a weight
        x = g.a(fits=lambda v: v.rank >= 1 and is_fixed(v.shape[-1]))
        k, n = x.shape[-1][0], g.pick((1, 3, 8, 16, 17, 32, 48, 64, 65, 130, 200))
        y = g.add("MatMul", [x.name, g.weight(k, n)], (*x.shape[:-1], fixed(n)), x.most * k**0.5)
        if g.chance(2):
            g.add("Add", [y.name, g.weight(n)], y.shape, y.most + 1)
    elif how == 2:  # by another value
        x = g.a(fits=lambda v: v.rank >= 2)
        y = g.a(fits=lambda v: v.rank >= 2 and v.shape[-2] == x.shape[-1])
        shape = (*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
        g.add("MatMul", [x.name, y.name], shape, x.most * y.most * max(x.shape[-1]) ** 0.5)
    elif how == 3:  # by a transposed value: scores
        x = g.a(fits=lambda v: v.rank >= 2)
        y = g.a(fits=lambda v: v.rank == x.rank and v.shape[-1] == x.shape[-1])
        perm = [*range(y.rank - 2), y.rank - 1, y.rank - 2]
        (t,) = g.emit("Transpose", [y.name], perm=perm)
        shape = (*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-2])
        g.add("MatMul", [x.name, t], shape, x.most * y.most * max(x.shape[-1]) ** 0.5)
    else:
        x = g.a(fits=lambda v: v.rank == 2 and is_fixed(v.shape[-1]))
        k, n = x.shape[-1][0], g.pick((1, 5, 16, 33, 64))
        b = g.choose(2)
        w = g.weight(n, k) if b else g.weight(k, n)
        inputs = [x.name, w, *([g.weight(n)] if g.chance(2) else [])]
        alpha = g.pick((1.0, 0.5))
        g.add("Gemm", inputs, (x.shape[0], fixed(n)), x.most * k**0.5 + 1, transB=b, alpha=alpha)


# --- windows --------------------------------------------------------------------------------------


def image(g: Maker) -> Value:
    """A value with channels and one to three spatial axes; a new input where there is none."""

    def fits(v: Value) -> bool:
        return 3 <= v.rank <= 5 and is_fixed(v.shape[1]) and min(map(min, v.shape[2:])) >= 2

    if any(v.kind == "f" and fits(v) for v in g.values):
        return g.a(fits=fits)
    channels = fixed(g.pick((1, 2, 3, 4, 8, 16, 24, 32)))
    side = (7, 8, 9, 12, 20, 28)
    spatial = [fixed(g.pick(side)) for _ in range(g.pick((1, 2, 2)))]
    if g.symbols and g.chance(4):
        spatial[-1] = tuple(b["m"] for b in BINDINGS)
    batch = tuple(b["n"] for b in BINDINGS) if g.symbols and g.chance(3) else fixed(g.between(1, 2))
    return g.input((batch, channels, *spatial))


def window(g: Maker, x: Value, dilate: bool) -> tuple[dict[str, Any], list[Extent]]:
    """Kernel, strides, pads and dilations that leave something; and the spatial sizes."""
    k = [g.pick((1, 2, 3, 3, 5)) for _ in x.shape[2:]]
    if g.chance(3):
        k = [1] * len(k)
    s = [g.pick((1, 1, 2, 3)) for _ in k]
    p = [g.between(0, n // 2) for n in k] + [g.between(0, n // 2) for n in k]
    d = [g.pick((1, 1, 2)) if dilate else 1 for _ in k]
    out = []
    for i, e in enumerate(x.shape[2:]):
        made = each(lambda n: (n + p[i] + p[i + len(k)] - d[i] * (k[i] - 1) - 1) // s[i] + 1, e)  # noqa: B023
        if min(made) < 1:
            raise Skip
        out.append(made)
    attrs = {"kernel_shape": k, "strides": s, "pads": p}
    if dilate:
        attrs["dilations"] = d
    return attrs, out


def conv(g: Maker) -> None:
    x = image(g)
    c = x.shape[1][0]
    attrs, spatial = window(g, x, True)
    groups = g.pick([n for n in (1, 1, 1, 2, 4, c) if c % n == 0])
    out = groups * g.pick((1, 1, 2, 4) if groups > 1 else (1, 3, 8, 16, 17, 32, 48))
    w = g.weight(out, c // groups, *attrs["kernel_shape"])
    inputs = [x.name, w, *([g.weight(out)] if g.chance(2) else [])]
    most = x.most * (c // groups * math.prod(attrs["kernel_shape"])) ** 0.5 + 1
    y = g.add("Conv", inputs, (x.shape[0], fixed(out), *spatial), most, group=groups, **attrs)
    if g.chance(2):
        g.add("Relu", [y.name], y.shape, y.most)


def conv_transpose(g: Maker) -> None:
    x = image(g)
    c = x.shape[1][0]
    if x.rank > 4:
        raise Skip
    groups = g.pick([n for n in (1, 1, 2) if c % n == 0])
    out = g.pick((1, 2, 8, 16))
    k = [g.pick((1, 2, 3, 4)) for _ in x.shape[2:]]
    s = [g.pick((1, 2, 2, 3)) for _ in k]
    p = [g.between(0, (n - 1) // 2) for n in (*k, *k)]
    extra = [g.between(0, n - 1) for n in s]
    spatial = [
        each(lambda n: (n - 1) * s[i] + k[i] + extra[i] - p[i] - p[i + len(k)], e)  # noqa: B023
        for i, e in enumerate(x.shape[2:])
    ]
    if min(map(min, spatial)) < 1:
        raise Skip
    inputs = [x.name, g.weight(c, out, *k), *([g.weight(out * groups)] if g.chance(2) else [])]
    g.add(
        "ConvTranspose",
        inputs,
        (x.shape[0], fixed(out * groups), *spatial),
        x.most * (c * math.prod(k)) ** 0.5 + 1,
        group=groups,
        kernel_shape=k,
        strides=s,
        pads=p,
        output_padding=extra,
    )


def pool(g: Maker) -> None:
    x = image(g)
    if g.chance(4):
        spatial = [ONE] * (x.rank - 2)
        op = g.pick(("GlobalAveragePool", "GlobalMaxPool"))
        g.add(op, [x.name], (*x.shape[:2], *spatial), x.most)
        return
    attrs, spatial = window(g, x, False)
    op = g.pick(("MaxPool", "AveragePool"))
    if op == "AveragePool":
        attrs["count_include_pad"] = g.choose(2)
    g.add(op, [x.name], (*x.shape[:2], *spatial), x.most, **attrs)


def resize(g: Maker) -> None:
    x = image(g)
    if x.rank > 4:
        raise Skip
    scales = [g.pick((1.0, 2.0, 2.0, 0.5)) for _ in x.shape[2:]]
    spatial = [each(lambda n, s=s: int(n * s), e) for s, e in zip(scales, x.shape[2:])]
    factors = g.constant(np.array([1, 1, *scales], np.float32))
    mode = g.pick(("nearest", "linear"))
    attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        attrs["nearest_mode"] = "floor"
    elif g.chance(2):
        attrs["coordinate_transformation_mode"] = "half_pixel"
    g.add("Resize", [x.name, "", factors], (*x.shape[:2], *spatial), x.most, **attrs)


def squeeze_excite(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank == 4 and is_fixed(v.shape[1]))
    c = x.shape[1][0]
    (m,) = g.emit("GlobalAveragePool", [x.name])
    (m,) = g.emit("Conv", [m, g.weight(max(1, c // 2), c, 1, 1)])
    (m,) = g.emit("Relu", [m])
    (m,) = g.emit("Conv", [m, g.weight(c, max(1, c // 2), 1, 1)])
    (m,) = g.emit("Sigmoid", [m])
    g.add("Mul", [x.name, m], x.shape, x.most)


def attention(g: Maker) -> None:
    """softmax(x w (y v)^T) y u, in heads or not."""
    x = g.a(fits=lambda v: v.rank == 3 and is_fixed(v.shape[-1]) and v.shape[-1][0] % 4 == 0)
    width = x.shape[-1][0]
    heads = g.pick((1, 2, 4))
    parts = []
    for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        (y,) = g.emit("MatMul", [x.name, g.weight(width, width)])
        (y,) = g.emit("Reshape", [y, g.ints(0, 0, heads, width // heads)])
        parts += g.emit("Transpose", [y], perm=list(perm))
    q, k, v = parts
    (scores,) = g.emit("MatMul", [q, k])
    (scores,) = g.emit("Mul", [scores, g.scalar(1 / (width * x.most * x.most + 1))])
    if g.chance(2):
        mask = g.input((x.shape[0], ONE, ONE, x.shape[1]))
        (scores,) = g.emit("Add", [scores, mask.name])
    (p,) = g.emit("Softmax", [scores], axis=-1)
    (y,) = g.emit("MatMul", [p, v])
    (y,) = g.emit("Transpose", [y], perm=[0, 2, 1, 3])
    g.add("Reshape", [y, g.ints(0, 0, width)], x.shape, width**0.5 * x.most)


STEPS: tuple[Callable[[Maker], None], ...] = (
    *(unary, binary, binary, guarded, where, clip, integers, stepped),
    *(transpose, reshape, permuted_reshape, concat, slice_, split, pad, expand, gather),
    *(reduce, reduce, softmax, layer_norm, channel_norm, matmul, matmul),
    *(conv, conv, conv_transpose, pool, resize, squeeze_excite, attention),
)


def random_graph(choose: Choose, steps: int) -> Graph:
    """A graph of about `steps` steps. Raises Skip where nothing came of the choices."""
    g = Maker(choose, symbols=choose(2) == 0, floats="float64" if choose(6) == 5 else "float32")
    for _ in range(1 + choose(2)):
        g.input(g.shape(0, 4))
    for _ in range(steps):
        step = g.pick(STEPS)
        mark = len(g.nodes), len(g.weights), len(g.values), len(g.inputs)
        try:
            step(g)
        except Skip:
            for part, length in zip((g.nodes, g.weights, g.values, g.inputs), mark):
                del part[length:]
    return g.finish()
