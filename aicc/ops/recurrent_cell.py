"""What the time loops of RNN, GRU and LSTM share as they are written: loops, places, values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aicc.ops.recurrent_activations import Activation, clipped
from aicc.ops.registry import OpContext
from aicc.symbolic import Size, hi_of
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, Index, as_expr, as_index, call, cast, const, select

X, R, LENGTHS, H0 = range(4)
"""Positions of the operands that the three have in common."""


@dataclass(frozen=True)
class Place:
    """Where in the loops a statement is: direction, sample, hidden unit, and the step that it
    reads and writes."""

    d: Size
    b: Size
    j: Size
    at: Size


class Cell:
    """One kernel in the making: what the loops of all three operators share."""

    def __init__(
        self,
        ctx: OpContext,
        b: KernelBuilder,
        operands: Sequence[Tensor | None],
        gates: int,
        functions: Sequence[Activation],
    ) -> None:
        self.ctx, self.b, self.gates = ctx, b, gates
        self.operands = [*operands, *(None,) * (8 - len(operands))]
        x = self.operand(X)
        self.x = x
        self.batch_first = bool(ctx.attrs["batch_first"])
        self.given, self.batch = rows_of(ctx, x.shape)
        self.steps = ctx.attrs["steps"] or self.given
        self.directions, self.hidden, _, _ = self.operand(R).shape
        self.dtype = x.dtype
        self.functions = functions
        self.limit = float(ctx.attrs["clip"] or 0.0)
        self._longest: Tensor | None = None

    def operand(self, i: int) -> Tensor:
        found = self.operands[i]
        assert found is not None
        return found

    def sequence(self) -> Tensor:
        shape = (self.steps, self.batch, self.directions, self.hidden)
        return self.b.temp("y", self.dtype, shape)

    def states(self, name: str = "state") -> Tensor:
        return self.b.temp(name, self.dtype, (self.directions, self.batch, self.hidden))

    # loops

    @contextmanager
    def over(self, name: str, extent: Size) -> Iterator[Size]:
        """A loop, or the index 0 where there is one iteration."""
        if extent == 1:
            yield 0
        else:
            with self.b.loop(name, 0, extent) as v:
                yield v

    def check_lengths(self) -> None:
        """Ends the run where a length is not in 0..S; finds the longest."""
        lengths = self.operands[LENGTHS]
        if lengths is None:
            return
        with self.over("b", self.batch) as i:
            n = cast(lengths[i], "i64")
            inside = call("and", call("ge", n, 0), call("le", n, as_expr(self.steps)))
            self.b.check(inside, f"{self.ctx.node}: {self.ctx.op}: a length exceeds the steps")
        self._longest = self.b.reduce(
            (), (self.batch,), lambda i: cast(lengths[i], "i64"), "max", 0, "longest"
        )

    @property
    def longest(self) -> Size:
        """How many steps the longest sample has: no state changes after them."""
        if self._longest is None:
            return self.steps
        last = hi_of(self.given)
        return as_index(call("min", self._longest[()], as_expr(self.given, "i64")), 0, last)

    def fill(self, y: Tensor) -> None:
        """Y is 0 in the steps that no sample has."""
        if self._longest is None:
            return
        with (
            self.b.loop("t", self.longest, self.steps) as t,
            self.over("b", self.batch) as b,
            self.over("d", self.directions) as d,
            self.over("j", self.hidden) as j,
        ):
            self.b.store(y, (t, b, d, j), const(0.0, self.dtype))

    def start(self, d: Size, state: Tensor, initial: int) -> None:
        """state[d] = the initial states, or 0."""
        given = self.operands[initial]
        with self.over("b", self.batch) as b, self.over("j", self.hidden) as j:
            value = const(0.0, self.dtype) if given is None else given[d, b, j]
            self.b.store(state, (d, b, j), value)

    def copy(self, d: Size, target: Tensor, source: Tensor) -> None:
        with self.over("b", self.batch) as b, self.over("j", self.hidden) as j:
            self.b.store(target, (d, b, j), source[d, b, j])

    @contextmanager
    def units(self, d: Size, t: Size) -> Iterator[Place]:
        """The loops over samples and hidden units, inside those over directions and steps."""
        with self.over("b", self.batch) as b, self.over("j", self.hidden) as j:
            yield Place(d, b, j, self._at(d, b, t))

    def product(self, d: Size, state: Tensor, weights: Tensor, name: str = "gates") -> Tensor:
        """[B, G, H]: the states of one direction times weights [D, H, G, H]."""
        _, hidden, gates, units = weights.shape
        return self.b.reduce(
            (self.batch, gates, units),
            (hidden,),
            lambda b, g, j, k: state[d, b, k] * weights[d, k, g, j],
            name=name,
        )

    # values

    def active(self, p: Place, t: Size) -> Expr | None:
        """Whether a sample has this step; None where all have all."""
        lengths = self.operands[LENGTHS]
        return None if lengths is None else call("lt", Index(t), cast(lengths[p.b], "i64"))

    def _at(self, d: Size, b: Size, t: Size) -> Size:
        """The step of the sequence that iteration t is about; iterations beyond the length of a
        sample are about the steps beyond it."""
        direction = self.ctx.attrs["direction"]
        if direction == "forward":
            return t
        lengths = self.operands[LENGTHS]
        if lengths is None:
            back = self.steps - 1 - t
            return back if direction == "reverse" else t + d * (back - t)
        n = cast(lengths[b], "i64")
        backward = call("lt", Index(t), n)
        if direction == "bidirectional":
            backward = call("and", backward, call("eq", as_expr(d), 1))
        last = self.steps - 1 if isinstance(self.steps, int) else None
        return as_index(select(backward, n - Index(t) - 1, as_expr(t)), 0, last)

    def from_input(self, p: Place, gate: int) -> Expr:
        column = (p.d * self.gates + gate) * self.hidden + p.j
        return self.x[(p.b, p.at, column) if self.batch_first else (p.at, p.b, column)]

    def emit(self, y: Tensor, p: Place, value: Expr) -> None:
        """Y at the step that an iteration is about; 0 beyond the length of the sample."""
        self.b.store(y, (p.at, p.b, p.d, p.j), value)

    def clip(self, x: Expr) -> Expr:
        return clipped(x, self.limit)

    def kept(self, p: Place, t: Size, new: Expr, old: Expr | float) -> Expr:
        """`new` where the sample has this step, else `old`."""
        active = self.active(p, t)
        return new if active is None else select(active, new, as_expr(old, self.dtype))


def rows_of(ctx: OpContext, shape: Sequence[Size]) -> tuple[Size, Size]:
    """Steps and samples of x."""
    return (shape[1], shape[0]) if ctx.attrs["batch_first"] else (shape[0], shape[1])
