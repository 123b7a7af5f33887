"""What random graphs are made of: values whose sizes hold for several bindings at once, and a maker
that adds nodes."""

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
