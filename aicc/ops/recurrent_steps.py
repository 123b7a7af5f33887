"""The time loops of RNN, GRU and LSTM, over gates whose part from the inputs is there already.

    for each direction: for each step t:
        gates[b, g, j] = sum over k of h[b, k] * r[k, g, j]
        states[b, j] = f(gates[b, :, j] + x[t, b, :, j], states[b, j])

Shapes, with S steps, B samples, H hidden units, G gates and D directions: x [S, B, D*G*H], the
product of the inputs with their weights and all biases ([B, S, D*G*H] with the attribute
`batch_first`); r [D, H, G, H], from unit to gate to unit; lengths [B]; states [D, B, H]; results
Y [S, B, D, H] and the final states. A sample's steps beyond its length leave its states as they are
and are 0 in Y; the loop ends with the longest sample. Y has S steps, or as many as the attribute
`steps` says, of which x has the first. Direction 1, or the only one where the
attribute `direction` is "reverse", runs from the last step to the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.recurrent_activations import Activation, activations
from aicc.ops.recurrent_cell import H0, Cell, R, X, rows_of
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import agree
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr

DIRECTIONS = ("forward", "reverse", "bidirectional")
_ATTRIBUTES = {
    "activation_alpha": (),
    "activation_beta": (),
    "activations": (),
    "batch_first": 0,
    "clip": 0.0,
    "direction": "forward",
    "steps": None,
}


def _functions(ctx: OpContext) -> list[Activation]:
    (found,) = activations(ctx, _steps(ctx).defaults, 1)
    return found


def _steps(ctx: OpContext) -> Steps:
    from aicc.ops import registry

    found = registry.get(ctx.op)
    assert isinstance(found, Steps)
    return found


class Steps(Operator):
    """Common to the three time loops."""

    gates = 1
    states = 1
    defaults: tuple[str, ...] = ()

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, r = ctx.input(X), ctx.input(R)
        if x.rank != 3 or r.rank != 4:
            ctx.fail("x has three axes and r four")
        if ctx.attrs["direction"] not in DIRECTIONS:
            ctx.fail(f"unknown direction {ctx.attrs['direction']!r}")
        _functions(ctx)
        directions = 1 + (ctx.attrs["direction"] == "bidirectional")
        hidden = r.shape[1]
        agree(ctx, r.shape[0], directions, "directions of r")
        agree(ctx, r.shape[3], hidden, "hidden units of r")
        agree(ctx, x.shape[2], hidden * (directions * self.gates), "gates of x")
        steps, batch = rows_of(ctx, x.shape)
        steps = ctx.attrs["steps"] or steps
        state = TensorType(x.dtype, (directions, batch, hidden))
        y = TensorType(x.dtype, (steps, batch, directions, hidden))
        return [y, *(state,) * self.states][: ctx.n_outputs]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        operands = (*inputs, *(None,) * (8 - len(inputs)))
        x, r, lengths = operands[:3]
        assert x is not None and r is not None
        if ctx.attrs["batch_first"]:
            x = x.swapaxes(0, 1)
        steps, batch, _ = x.shape
        directions, hidden = r.shape[:2]
        lens = np.full(batch, steps) if lengths is None else lengths.astype(np.int64)
        if np.any(lens < 0) or np.any(lens > steps):
            ctx.fail(f"sequence lengths {lens.tolist()} exceed the {steps} steps")
        gates = x.reshape(steps, batch, directions, self.gates, hidden)
        y = np.zeros((ctx.attrs["steps"] or steps, batch, directions, hidden), x.dtype)
        finals = np.zeros((self.states, directions, batch, hidden), x.dtype)
        for d in range(directions):
            backward = d == 1 or ctx.attrs["direction"] == "reverse"
            for n in range(batch):
                state = [
                    np.zeros(hidden, x.dtype) if s is None else s[d, n]
                    for s in operands[H0 : H0 + self.states]
                ]
                times = range(lens[n])
                for t in reversed(times) if backward else times:
                    state = self.step(ctx, operands, d, gates[t, n, d], state)
                    y[t, n, d] = state[0]
                finals[:, d, n] = state
        return [y, *finals][: ctx.n_outputs]

    def step(
        self,
        ctx: OpContext,
        operands: Sequence[Array | None],
        d: int,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        """The states [H] after one step of one sample, with x [G, H] from the input."""
        raise NotImplementedError

    def _cases(self, **attrs: Any) -> Iterable[Case]:
        n = 1 + self.states
        symbols = {(0, 0): "steps", (0, 1): "batch"}
        named = {**symbols, (2, 0): "batch"}
        named |= {(H0 + i, 1): "batch" for i in range(self.states)}
        for direction in DIRECTIONS:
            d, where = 1 + (direction == "bidirectional"), {**attrs, "direction": direction}
            operands = self._operands(attrs, 4, 3, d, 5)
            weights = (1, *range(3 + self.states, len(operands)))
            plain = (*operands[:2], None, *(None,) * self.states, *operands[3 + self.states :])
            name = f"{direction}_plain"
            yield Case(name, plain, where, n, weights, symbols, atol=1e-5)
            yield Case(direction, operands, where, n, symbolic=named, atol=1e-5)
        for batch in (1, 7):
            given = self._operands(attrs, 5, batch, 1, 37)
            weights = (1, *range(3 + self.states, len(given)))
            yield Case(f"batch{batch}", given, attrs, n, weights, atol=1e-5)
        for direction in DIRECTIONS:  # steps that no sample has
            d, where = 1 + (direction == "bidirectional"), {**attrs, "direction": direction}
            x, r, _, *rest = self._operands(attrs, 5, 3, d, 4)
            for name, few in (("short", [2, 3, 0]), ("none", [0, 0, 0])):
                given = (x, r, np.array(few, np.int32), *rest)
                yield Case(f"{direction}_{name}", given, where, n, symbolic=named, atol=1e-5)
            given = (x, r, np.array([2, 5, 0], np.int32), *rest)
            yield Case(f"{direction}_more", given, {**where, "steps": 7}, n, atol=1e-5)
        x, *rest = self._operands(attrs, 4, 3, 2, 5)
        assert x is not None
        turned = (np.ascontiguousarray(x.swapaxes(0, 1)), *rest)
        where = {**attrs, "direction": "bidirectional", "batch_first": 1}
        yield Case("batch_first", turned, where, n, atol=1e-5)

    def _operands(
        self, attrs: Mapping[str, Any], steps: int, batch: int, d: int, hidden: int
    ) -> tuple[Array | None, ...]:
        lengths = np.resize(np.array([steps, steps - 1, 0, 1], np.int32), batch)
        return (
            sample(steps, batch, d * self.gates * hidden),
            # Small weights: errors of one step do not grow from step to step.
            0.2 * sample(d, hidden, self._recurrent_gates(attrs), hidden, seed=1),
            lengths,
            *(sample(d, batch, hidden, seed=2 + i) for i in range(self.states)),
            *self._parameters(attrs, d, hidden),
        )

    def _recurrent_gates(self, attrs: Mapping[str, Any]) -> int:
        return self.gates

    def _parameters(
        self, attrs: Mapping[str, Any], d: int, hidden: int
    ) -> tuple[Array | None, ...]:
        """The operands after the states."""
        return ()


@operator("RNNSteps", domain="aicc", inputs=(2, 4), attributes=_ATTRIBUTES)
class RNNSteps(Steps):
    """h = f(x + h r). Operands x, r, lengths, h0."""

    defaults = ("Tanh",)

    def step(
        self,
        ctx: OpContext,
        operands: Sequence[Array | None],
        d: int,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        (f,), r = _functions(ctx), operands[R]
        assert r is not None
        return [f(_clip(ctx, x[0] + state[0] @ r[d, :, 0]))]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        c = Cell(ctx, b, inputs, 1, _functions(ctx))
        y = c.sequence()
        h, new = c.states(), c.states("new")
        (f,) = c.functions
        c.check_lengths()
        c.fill(y)
        with c.over("d", c.directions) as d:
            c.start(d, h, H0)
            with b.loop("t", 0, c.longest) as t:
                gates = c.product(d, h, c.operand(R))
                with c.units(d, t) as p:
                    at = (d, p.b, p.j)
                    value = f.scalar(c.clip(gates[p.b, 0, p.j] + c.from_input(p, 0)))
                    b.store(new, at, c.kept(p, t, value, h[at]))
                    c.emit(y, p, c.kept(p, t, new[at], 0.0))
                c.copy(d, h, new)
        return [y, h][: ctx.n_outputs]

    def cases(self) -> Iterable[Case]:
        yield from self._cases()


@operator(
    "GRUSteps",
    domain="aicc",
    inputs=(2, 6),
    attributes={**_ATTRIBUTES, "linear_before_reset": 0},
)
class GRUSteps(Steps):
    """Gates z (update), r (reset) and the candidate h. Operands x, r, lengths, h0, rb, rh.

    linear_before_reset: r has three gates, and rb [D, H] is added to the candidate's recurrent
    product before the reset gate. Otherwise r has two gates, and rh [D, H, 1, H] is what the state
    is multiplied with for the candidate after the reset gate.
    """

    gates = 3
    defaults = ("Sigmoid", "Tanh")

    def step(
        self,
        ctx: OpContext,
        operands: Sequence[Array | None],
        d: int,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        (f, g), (h,), r = _functions(ctx), state, operands[R]
        assert r is not None
        z = f(_clip(ctx, x[0] + h @ r[d, :, 0]))
        reset = f(_clip(ctx, x[1] + h @ r[d, :, 1]))
        if ctx.attrs["linear_before_reset"]:
            inner = h @ r[d, :, 2]
            bias = operands[4]
            inner = reset * (inner if bias is None else inner + bias[d])
        else:
            assert operands[5] is not None
            inner = (reset * h) @ operands[5][d, :, 0]
        return [(1 - z) * g(_clip(ctx, x[2] + inner)) + z * h]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        c = Cell(ctx, b, inputs, 3, _functions(ctx))
        y = c.sequence()
        h = c.states()
        linear = bool(ctx.attrs["linear_before_reset"])
        c.check_lengths()
        c.fill(y)
        with c.over("d", c.directions) as d:
            c.start(d, h, H0)
            with b.loop("t", 0, c.longest) as t:
                (self._linear if linear else self._reset_first)(c, d, t, y, h)
        return [y, h][: ctx.n_outputs]

    @staticmethod
    def _linear(c: Cell, d: Size, t: Size, y: Tensor, h: Tensor) -> None:
        f, g = c.functions
        new, bias = c.states("new"), c.operands[4]
        gates = c.product(d, h, c.operand(R))
        with c.units(d, t) as p:
            at = (d, p.b, p.j)
            z = f.scalar(c.clip(gates[p.b, 0, p.j] + c.from_input(p, 0)))
            reset = f.scalar(c.clip(gates[p.b, 1, p.j] + c.from_input(p, 1)))
            inner = gates[p.b, 2, p.j]
            inner = reset * (inner if bias is None else inner + bias[d, p.j])
            candidate = g.scalar(c.clip(c.from_input(p, 2) + inner))
            c.b.store(new, at, c.kept(p, t, (1.0 - z) * candidate + z * h[at], h[at]))
            c.emit(y, p, c.kept(p, t, new[at], 0.0))
        c.copy(d, h, new)

    @staticmethod
    def _reset_first(c: Cell, d: Size, t: Size, y: Tensor, h: Tensor) -> None:
        f, g = c.functions
        update, reset = c.states("update"), c.states("reset")
        gates = c.product(d, h, c.operand(R))
        with c.units(d, t) as p:
            at = (d, p.b, p.j)
            z = f.scalar(c.clip(gates[p.b, 0, p.j] + c.from_input(p, 0)))
            r = f.scalar(c.clip(gates[p.b, 1, p.j] + c.from_input(p, 1)))
            c.b.store(update, at, z)
            c.b.store(reset, at, r * h[at])
        candidate = c.product(d, reset, c.operand(5), "candidate")
        with c.units(d, t) as p:
            at = (d, p.b, p.j)
            z = update[at]
            value = g.scalar(c.clip(candidate[p.b, 0, p.j] + c.from_input(p, 2)))
            c.b.store(h, at, c.kept(p, t, (1.0 - z) * value + z * h[at], h[at]))
            c.emit(y, p, c.kept(p, t, h[at], 0.0))

    def _recurrent_gates(self, attrs: Mapping[str, Any]) -> int:
        return 3 if attrs.get("linear_before_reset") else 2

    def _parameters(
        self, attrs: Mapping[str, Any], d: int, hidden: int
    ) -> tuple[Array | None, ...]:
        if attrs.get("linear_before_reset"):
            return (sample(d, hidden, seed=7),)
        return None, 0.2 * sample(d, hidden, 1, hidden, seed=8)

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        for case in self._cases(linear_before_reset=1):
            yield replace(case, name=f"linear_{case.name}")


@operator("LSTMSteps", domain="aicc", inputs=(2, 6), attributes={**_ATTRIBUTES, "input_forget": 0})
class LSTMSteps(Steps):
    """Gates i, o, f, c. Operands x, r, lengths, h0, c0, and peepholes [D, 3*H] of i, o, f."""

    gates = 4
    states = 2
    defaults = ("Sigmoid", "Tanh", "Tanh")

    def step(
        self,
        ctx: OpContext,
        operands: Sequence[Array | None],
        d: int,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        (f, g, squash), (h, c), r = _functions(ctx), state, operands[R]
        assert r is not None
        i, o, forget, new = (x[n] + h @ r[d, :, n] for n in range(4))
        if operands[5] is not None:
            of_i, of_o, of_f = operands[5][d].reshape(3, -1)
            i, forget = i + of_i * c, forget + of_f * c
        i = f(_clip(ctx, i))
        kept = 1 - i if ctx.attrs["input_forget"] else f(_clip(ctx, forget))
        cell = kept * c + i * g(_clip(ctx, new))
        if operands[5] is not None:
            o = o + of_o * cell
        return [f(_clip(ctx, o)) * squash(cell), cell]

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        c = Cell(ctx, b, inputs, 4, _functions(ctx))
        y = c.sequence()
        h, cell, new = c.states(), c.states("cell"), c.states("new")
        f, g, squash = c.functions
        peepholes = c.operands[5]
        c.check_lengths()
        c.fill(y)
        with c.over("d", c.directions) as d:
            c.start(d, h, H0)
            c.start(d, cell, 4)
            with b.loop("t", 0, c.longest) as t:
                gates = c.product(d, h, c.operand(R))
                with c.units(d, t) as p:
                    at = (d, p.b, p.j)

                    def gate(n: int, peephole: int | None = None) -> Expr:
                        e = gates[p.b, n, p.j] + c.from_input(p, n)
                        if peephole is not None and peepholes is not None:
                            e = e + peepholes[d, peephole * c.hidden + p.j] * cell[at]
                        return c.clip(e)

                    i = f.scalar(gate(0, 0))
                    kept = 1.0 - i if ctx.attrs["input_forget"] else f.scalar(gate(2, 2))
                    value = kept * cell[at] + i * g.scalar(gate(3))
                    b.store(cell, at, c.kept(p, t, value, cell[at]))
                    o = f.scalar(gate(1, 1))
                    b.store(new, at, c.kept(p, t, o * squash.scalar(cell[at]), h[at]))
                    c.emit(y, p, c.kept(p, t, new[at], 0.0))
                c.copy(d, h, new)
        return [y, h, cell][: ctx.n_outputs]

    def _parameters(
        self, attrs: Mapping[str, Any], d: int, hidden: int
    ) -> tuple[Array | None, ...]:
        return (sample(d, 3 * hidden, seed=9),) if attrs else ()

    def cases(self) -> Iterable[Case]:
        yield from self._cases()
        for case in self._cases(clip=0.9, input_forget=1):
            yield replace(case, name=f"peepholes_{case.name}")


def _clip(ctx: OpContext, x: Array) -> Array:
    limit = float(ctx.attrs["clip"] or 0.0)
    return np.clip(x, -limit, limit) if limit > 0 else x
