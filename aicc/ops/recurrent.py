"""RNN, GRU and LSTM: the product of the inputs for all time steps at once, then the time loop.

Shapes, with S steps, B samples, I features, H hidden units and D directions: X [S, B, I],
W [D, gates*H, I], R [D, gates*H, H], B [D, 2*gates*H], sequence_lens [B], initial states [D, B, H];
Y [S, D, B, H], final states [D, B, H]. With layout 1 the samples are the first axis of all of them.

Each becomes one MatMul [S*B, I] x [I, D*gates*H], the biases, and an operator of `recurrent_steps`
for what has to wait for the step before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.contraction import wide
from aicc.ops.recurrent_activations import Activation, activations, as_attributes
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.sizes import agree
from aicc.ops.windows import text
from aicc.symbolic import Size

_ATTRIBUTES = {
    "activation_alpha": (),
    "activation_beta": (),
    "activations": (),
    "clip": 0.0,
    "direction": "forward",
    "hidden_size": None,
    "layout": 0,
}


class _Recurrent(Operator):
    """Common to the three: directions, sequence lengths, layouts and activations."""

    gates = 1
    states = 1
    """Hidden state, and for LSTM the cell state."""
    defaults: tuple[str, ...] = ()
    """Activations of one direction."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        x, w, r = (ctx.input(i) for i in range(3))
        if (x.rank, w.rank, r.rank) != (3, 3, 3):
            ctx.fail("X, W and R must have three axes")
        directions, hidden = self._directions(ctx), r.shape[2]
        self._activations(ctx)
        given = ctx.attrs.get("hidden_size")
        if given is not None:
            agree(ctx, hidden, int(given), "hidden_size")
        batch_first = bool(ctx.attrs["layout"])
        batch, steps = x.shape[:2] if batch_first else (x.shape[1], x.shape[0])
        agree(ctx, x.shape[2], w.shape[2], "features of X and W")
        for t, what in ((w, "W"), (r, "R")):
            agree(ctx, t.shape[0], directions, f"directions of {what}")
            agree(ctx, t.shape[1], hidden * self.gates, f"gates of {what}")
        if ctx.has(3):
            agree(ctx, ctx.input(3).shape[1], hidden * (2 * self.gates), "gates of B")
        shapes: tuple[tuple[Size, ...], ...]
        if batch_first:
            shapes = ((batch, steps, directions, hidden), (batch, directions, hidden))
        else:
            shapes = ((steps, directions, batch, hidden), (directions, batch, hidden))
        kinds = (shapes[0], *(shapes[1],) * self.states)
        return [TensorType(x.dtype, shape) for shape in kinds][: ctx.n_outputs]

    @staticmethod
    def _directions(ctx: OpContext) -> int:
        direction = text(ctx.attrs["direction"])
        if direction not in ("forward", "reverse", "bidirectional"):
            ctx.fail(f"unknown direction {direction!r}")
        return 2 if direction == "bidirectional" else 1

    def _activations(self, ctx: OpContext) -> list[list[Activation]]:
        """The activation functions of each direction."""
        return activations(ctx, self.defaults, self._directions(ctx))

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        padded = (*inputs, *(None,) * (8 - len(inputs)))
        x, w, r, bias, lengths, h0, c0, peephole = padded
        assert x is not None and w is not None and r is not None
        batch_first = bool(ctx.attrs["layout"])
        data = wide(np.swapaxes(x, 0, 1) if batch_first else x)
        steps, batch, _ = data.shape
        hidden = r.shape[2]
        lens = np.full(batch, steps) if lengths is None else lengths.astype(np.int64)
        if np.any(lens < 0) or np.any(lens > steps):
            ctx.fail(f"sequence lengths {lens.tolist()} exceed the {steps} steps")
        activations = self._activations(ctx)
        y = np.zeros((steps, len(activations), batch, hidden), data.dtype)
        final = np.zeros((self.states, len(activations), batch, hidden), data.dtype)
        for d, functions in enumerate(activations):
            backward = d == 1 or text(ctx.attrs["direction"]) == "reverse"
            zero = np.zeros(2 * self.gates * hidden, data.dtype)
            parameters = _Parameters(
                wide(w[d]).T,
                wide(r[d]).T,
                zero if bias is None else wide(bias[d]),
                None if peephole is None else wide(peephole[d]),
            )
            state: list[Array] = []
            for initial in (h0, c0)[: self.states]:
                if initial is None:
                    state.append(np.zeros((batch, hidden), data.dtype))
                else:
                    state.append(wide(initial[:, d] if batch_first else initial[d]))
            for t in range(steps):
                active = t < lens
                at = np.where(active, lens - 1 - t, 0) if backward else np.full(batch, t)
                row = data[at, np.arange(batch)]
                new = self.step(ctx, functions, parameters, row, state)
                state = [np.where(active[:, None], n, s) for n, s in zip(new, state)]
                y[at[active], d, active] = state[0][active]
            for n, s in enumerate(state):
                final[n, d] = s
        results = [y, *final]
        if batch_first:
            results = [y.transpose(2, 0, 1, 3), *(f.swapaxes(0, 1) for f in final)]
        return [np.ascontiguousarray(a.astype(x.dtype)) for a in results][: ctx.n_outputs]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        return _Decomposition(self, ctx, g, inputs).results()

    def loop_attributes(self, ctx: OpContext) -> dict[str, Any]:
        """Attributes of the time loop's operator besides those that all three have."""
        return {}

    def step(
        self,
        ctx: OpContext,
        functions: Sequence[Activation],
        parameters: _Parameters,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        """The states [B, H] after a step with input x [B, I]."""
        raise NotImplementedError

    def _cases(self, extra: Mapping[str, Any]) -> Iterable[Case]:
        steps, batch, features, hidden = 4, 3, 5, 2

        def operands(directions: int, batch_first: bool = False) -> list[Array | None]:
            def states(seed: int) -> Array:
                s = sample(directions, batch, hidden, seed=seed)
                return np.ascontiguousarray(s.swapaxes(0, 1)) if batch_first else s

            x = sample(steps, batch, features)
            made: list[Array | None] = [
                np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x,
                sample(directions, self.gates * hidden, features),
                sample(directions, self.gates * hidden, hidden, seed=1),
                sample(directions, 2 * self.gates * hidden, seed=2),
                np.array([4, 2, 3], np.int32),
            ]
            return [*made, *(states(3 + n) for n in range(self.states))]

        results = 1 + self.states
        base = {"hidden_size": hidden, **extra}
        for direction in ("forward", "reverse", "bidirectional"):
            given = operands(2 if direction == "bidirectional" else 1)
            attrs = {**base, "direction": direction}
            named = {(0, 0): "steps"}
            plain = tuple(given[:3])
            yield Case(f"{direction}_plain", plain, attrs, results, symbolic=named, atol=1e-5)
            yield Case(direction, tuple(given), attrs, results, atol=1e-5)
        many = ("HardSigmoid", "ScaledTanh", "Softsign")[: len(self.defaults)]
        values = ((0.3, 0.8)[: len(many)] * 2, (0.4, 1.2)[: len(many)] * 2)
        attrs = {**base, "direction": "bidirectional", "activations": many * 2, "clip": 0.6}
        attrs |= {"activation_alpha": values[0], "activation_beta": values[1]}
        yield Case("activations", tuple(operands(2)[:4]), attrs, results, atol=1e-5)
        attrs = {**base, "layout": 1}
        yield Case("batch_first", tuple(operands(1, True)[:3]), attrs, results, atol=1e-5)

    def cases(self) -> Iterable[Case]:
        return self._cases({})


class _Parameters:
    """One direction's weights: w [I, gates*H], r [H, gates*H], the biases of both, peepholes."""

    def __init__(self, w: Array, r: Array, bias: Array, peephole: Array | None) -> None:
        self.w, self.r, self.peephole = w, r, peephole
        self.w_bias, self.r_bias = np.split(bias, 2)


class _Decomposition:
    """One node as a MatMul and a time loop; directions of other activations have a loop each."""

    def __init__(
        self, op: _Recurrent, ctx: OpContext, g: GraphRewriter, inputs: Sequence[str]
    ) -> None:
        self.op, self.ctx, self.g = op, ctx, g
        self.inputs = [*inputs, *("",) * (8 - len(inputs))]
        self.batch_first = bool(ctx.attrs["layout"])
        self.dtype = ctx.input(0).dtype
        self.gates = op.gates

    def results(self) -> list[str] | None:
        directions, _, hidden = self.ctx.input(2).shape
        if not isinstance(directions, int) or not isinstance(hidden, int):
            return None
        self.directions, self.hidden = directions, hidden
        self._find_input()
        r = self._recurrent_weights()
        parts = [self._loop(r, d, count, word) for d, count, word in self._loops()]
        made = []
        for n in range(self.ctx.n_outputs):
            whole = [p[n] for p in parts]
            y = whole[0] if len(whole) == 1 else self._concat(whole, 2 if n == 0 else 0)
            if n == 0:
                y = self.g.op(
                    "Transpose", y, perm=(1, 0, 2, 3) if self.batch_first else (0, 2, 1, 3)
                )
            elif self.batch_first:
                y = self.g.op("Transpose", y, perm=(1, 0, 2))
            made.append(y if self._kept else self.g.op("Cast", y, to=self.dtype))
        return made

    def _find_input(self) -> None:
        """x with its rows in the order of memory: the product of what was transposed, read in the
        other order by the time loop, spares a copy and keeps the rows one matrix."""
        self.x, self.x_batch_first = self.inputs[0], self.batch_first
        before = self.g.made_by(self.x, "Transpose")
        turned = before is not None and tuple(before.attr("perm")) == (1, 0, 2)
        if before is not None and turned and not self._counts:
            self.x, self.x_batch_first = before.inputs[0], not self.batch_first
        if not self._kept:
            self.x = self.g.op("Cast", self.x, to="f32")

    def _loops(self) -> list[tuple[int, int, str]]:
        """(first direction, number of directions, `direction`) of each loop."""
        functions = self.op._activations(self.ctx)
        word = text(self.ctx.attrs["direction"])
        if len(functions) == 2 and functions[0] != functions[1]:
            return [(0, 1, "forward"), (1, 1, "reverse")]
        return [(0, len(functions), word)]

    def _loop(self, r: str, d: int, count: int, word: str) -> list[str]:
        """The results of the loop over `count` directions from `d`."""
        g, ctx = self.g, self.ctx
        columns = self.gates * self.hidden
        w = self._directions(self._wide(1), d, count)
        w = g.op("Transpose", self._shaped(w, count * columns, -1), perm=(1, 0))
        steps = self._some_steps()
        product = g.op("MatMul", self.x if steps is None else self.first, w)
        more: list[str] = []
        if ctx.has(3):
            product = g.op("Add", product, self._bias(d, count))
        r = self._directions(r, d, count)
        lengths = self.inputs[4]
        states = [
            self._directions(self._state(5 + n), d, count) if ctx.has(5 + n) else ""
            for n in range(self.op.states)
        ]
        attrs = {
            **as_attributes(self.op._activations(ctx)[d]),
            "clip": float(ctx.attrs["clip"] or 0.0),
            "direction": word,
            "batch_first": int(self.x_batch_first),
            **({} if steps is None else {"steps": steps}),
            **self.op.loop_attributes(ctx),
        }
        if self.op.name == "GRU":
            r, more = self._gru_operands(r, d, count)
        elif ctx.has(7):
            more = [self._directions(self._wide(7), d, count)]
        operands = [product, r, lengths, *states, *more]
        while not operands[-1]:
            operands.pop()
        made = g.op(f"aicc::{self.op.name}Steps", *operands, n_outputs=1 + self.op.states, **attrs)
        return list(made)

    def _some_steps(self) -> int | None:
        """The number of steps of Y where a run computes with the first of them only, up to the end
        of the longest sample: `first`."""
        if self.x_batch_first or not self._counts:
            return None
        g = self.g
        lengths = g.op("Cast", self.inputs[4], to="i64")
        longest = g.op("ReduceMax", lengths, g.constant((0,), "i64"), keepdims=1)
        self.first = g.op("aicc::First", self.x, longest)
        steps = self.ctx.input(0).shape[1 if self.batch_first else 0]
        return steps if isinstance(steps, int) else None

    @property
    def _counts(self) -> bool:
        """Whether a run tells how many of a known number of steps there are to do."""
        steps = self.ctx.input(0).shape[1 if self.batch_first else 0]
        return self.ctx.has(4) and self.ctx.constant(4) is None and isinstance(steps, int)

    def _gru_operands(self, r: str, d: int, count: int) -> tuple[str, list[str]]:
        """The recurrent weights of the first product, and the operands after the states."""
        if not self.ctx.attrs["linear_before_reset"]:
            return self._slice(r, 2, 0, 2), ["", self._slice(r, 2, 2, 3)]
        if not self.ctx.has(3):
            return r, []
        bias = self._directions(self._wide(3), d, count)
        return r, [self._slice(bias, 1, 5 * self.hidden, 6 * self.hidden)]

    def _bias(self, d: int, count: int) -> str:
        """[count * gates*H]: both biases together, but for what the loop itself adds."""
        g, columns = self.g, self.gates * self.hidden
        bias = self._directions(self._wide(3), d, count)
        own, recurrent = (
            self._slice(bias, 1, 0, columns),
            self._slice(bias, 1, columns, 2 * columns),
        )
        if self.op.name == "GRU" and self.ctx.attrs["linear_before_reset"]:
            gates = self._slice(recurrent, 1, 0, 2 * self.hidden)
            zeros = np.zeros((count, self.hidden), np.float32)
            recurrent = self._concat([gates, g.constant(zeros, g.type_of(own).dtype)], 1)
        return self._shaped(g.op("Add", own, recurrent), count * columns)

    def _recurrent_weights(self) -> str:
        """[D, H, G, H]: from unit to gate to unit."""
        r = self._shaped(self._wide(2), self.directions, self.gates, self.hidden, self.hidden)
        return str(self.g.op("Transpose", r, perm=(0, 3, 1, 2)))

    def _state(self, i: int) -> str:
        s = self._wide(i)
        return self.g.op("Transpose", s, perm=(1, 0, 2)) if self.batch_first else s

    # small steps

    @property
    def _kept(self) -> bool:
        """Whether the loops run in the operands' type; 16-bit floats are computed in f32."""
        return self.dtype not in ("f16", "bf16")

    def _wide(self, i: int) -> str:
        v = self.inputs[i]
        return v if self._kept else str(self.g.op("Cast", v, to="f32"))

    def _directions(self, v: str, d: int, count: int) -> str:
        return v if count == self.directions else self._slice(v, 0, d, d + count)

    def _slice(self, v: str, axis: int, begin: int, end: int) -> str:
        g = self.g
        ends = (g.constant((begin,), "i64"), g.constant((end,), "i64"), g.constant((axis,), "i64"))
        return str(g.op("Slice", v, *ends))

    def _shaped(self, v: str, *shape: int) -> str:
        return str(self.g.op("Reshape", v, self.g.constant(shape, "i64")))

    def _concat(self, values: Sequence[str], axis: int) -> str:
        return str(self.g.op("Concat", *values, axis=axis))


def _clipped(ctx: OpContext, x: Array) -> Array:
    limit = float(ctx.attrs.get("clip") or 0.0)
    return np.clip(x, -limit, limit) if limit > 0 else x


@operator("RNN", since=7, inputs=(3, 6), attributes=_ATTRIBUTES)
class RNN(_Recurrent):
    """H = f(X W + H R + bias). ONNX RNN-22."""

    defaults = ("Tanh",)

    def step(
        self,
        ctx: OpContext,
        functions: Sequence[Activation],
        parameters: _Parameters,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        p = parameters
        return [functions[0](_clipped(ctx, x @ p.w + p.w_bias + state[0] @ p.r + p.r_bias))]


@operator("GRU", since=7, inputs=(3, 6), attributes={**_ATTRIBUTES, "linear_before_reset": 0})
class GRU(_Recurrent):
    """Gated recurrent unit with gates z (update), r (reset), h. ONNX GRU-22."""

    gates = 3
    defaults = ("Sigmoid", "Tanh")

    def step(
        self,
        ctx: OpContext,
        functions: Sequence[Activation],
        parameters: _Parameters,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        f, g = functions
        (h,), p, n = state, parameters, state[0].shape[1]
        from_x = x @ p.w + p.w_bias
        from_h = h @ p.r[:, : 2 * n] + p.r_bias[: 2 * n]
        z, r = np.split(f(_clipped(ctx, from_x[:, : 2 * n] + from_h)), 2, axis=1)
        if ctx.attrs["linear_before_reset"]:
            inner = r * (h @ p.r[:, 2 * n :] + p.r_bias[2 * n :])
        else:
            inner = (r * h) @ p.r[:, 2 * n :] + p.r_bias[2 * n :]
        new = g(_clipped(ctx, from_x[:, 2 * n :] + inner))
        return [(1 - z) * new + z * h]

    def loop_attributes(self, ctx: OpContext) -> dict[str, Any]:
        return {"linear_before_reset": int(ctx.attrs["linear_before_reset"])}

    def cases(self) -> Iterable[Case]:
        yield from self._cases({})
        for case in self._cases({"linear_before_reset": 1}):
            if case.name in ("forward", "bidirectional"):
                name = f"{case.name}_linear"
                yield Case(name, case.inputs, case.attrs, case.n_outputs, atol=1e-5)


@operator("LSTM", since=7, inputs=(3, 8), attributes={**_ATTRIBUTES, "input_forget": 0})
class LSTM(_Recurrent):
    """Long short-term memory with gates i, o, f, c and optional peepholes. ONNX LSTM-22."""

    gates = 4
    states = 2
    defaults = ("Sigmoid", "Tanh", "Tanh")

    def step(
        self,
        ctx: OpContext,
        functions: Sequence[Activation],
        parameters: _Parameters,
        x: Array,
        state: Sequence[Array],
    ) -> list[Array]:
        f, g, squash = functions
        (h, c), p = state, parameters
        i, o, forget, new = np.split(x @ p.w + p.w_bias + h @ p.r + p.r_bias, 4, axis=1)
        zero = np.zeros(3 * h.shape[1], h.dtype)
        of_i, of_o, of_f = np.split(zero if p.peephole is None else p.peephole, 3)
        i = f(_clipped(ctx, i + of_i * c))
        kept = 1 - i if ctx.attrs["input_forget"] else f(_clipped(ctx, forget + of_f * c))
        cell = kept * c + i * g(_clipped(ctx, new))
        o = f(_clipped(ctx, o + of_o * cell))
        return [o * squash(cell), cell]

    def loop_attributes(self, ctx: OpContext) -> dict[str, Any]:
        return {"input_forget": int(ctx.attrs["input_forget"])}

    def cases(self) -> Iterable[Case]:
        yield from self._cases({})
        for case in self._cases({}):
            if case.name == "bidirectional":
                peephole = sample(2, 6, seed=9)
                inputs, n = (*case.inputs, peephole), case.n_outputs
                yield Case("peepholes", inputs, case.attrs, n, atol=1e-5)
                coupled = {**case.attrs, "input_forget": 1}
                yield Case("input_forget", case.inputs, coupled, n, atol=1e-5)
