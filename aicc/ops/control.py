"""If, Loop and Scan: operators with subgraphs, which are inferred and run through the context.

What a loop carries may change its size from one iteration to the next: such a size is one symbol
inside the body, which every iteration binds anew, and another one in the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aicc.dtypes import to_numpy
from aicc.graph_ir.types import TensorType
from aicc.ops.registry import REQUIRED, Array, OpContext, Operator, operator
from aicc.ops.sizes import agree, axis_in
from aicc.symbolic import Size, hi_of, maximum, symbols


def _fresh(ctx: OpContext, name: str, hi: int | None = None) -> Size:
    if ctx.fresh_symbol is None:
        ctx.fail("its result has sizes that only a run can tell")
        raise AssertionError
    return ctx.fresh_symbol(name, hi)


def _region(ctx: OpContext, i: int, types: Sequence[TensorType]) -> list[TensorType]:
    assert ctx.infer_region is not None, "an operator with regions is inferred with them"
    return ctx.infer_region(i, types)


def _run(ctx: OpContext, i: int, arrays: Sequence[Array]) -> list[Array]:
    assert ctx.run_region is not None, "an operator with regions is run with them"
    return ctx.run_region(i, arrays)


@operator("If", since=1, inputs=1, attributes={"then_branch": REQUIRED, "else_branch": REQUIRED})
class If(Operator):
    """The results of one of two subgraphs without inputs. ONNX If-25."""

    has_regions = True

    def infer(self, ctx: OpContext) -> list[TensorType]:
        if ctx.input(0).dtype != "bool":
            ctx.fail("the condition must be a bool")
        branches = [_region(ctx, i, ()) for i in range(2)]
        known = ctx.value(0)
        if known is not None and len(known) == 1 and isinstance(known[0], int):
            return branches[0 if known[0] else 1]
        if len(branches[0]) != len(branches[1]):
            ctx.fail("its branches differ in their number of results")
        pairs = enumerate(zip(branches[0], branches[1]))
        return [self._either(ctx, n, a, b) for n, (a, b) in pairs]

    @staticmethod
    def _either(ctx: OpContext, n: int, a: TensorType, b: TensorType) -> TensorType:
        """The type of a result that is one of two. Sizes that differ become one new symbol."""
        if a.dtype != b.dtype or a.rank != b.rank:
            plain = f"{a.without_value()} or {b.without_value()}"
            ctx.fail(f"result {n} is {plain}: element type and rank must be the same")
        shape: list[Size] = []
        for axis, (x, y) in enumerate(zip(a.shape, b.shape)):
            if x == y:
                shape.append(x)
                continue
            bounds = [hi_of(x), hi_of(y)]
            most = None if None in bounds else max(v for v in bounds if v is not None)
            shape.append(_fresh(ctx, f"if{n}_{axis}", most))
        return TensorType(a.dtype, tuple(shape), a.value if a.value == b.value else None)

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        condition = inputs[0]
        assert condition is not None
        if condition.size != 1:
            ctx.fail(f"the condition has {condition.size} elements")
        return _run(ctx, 0 if bool(condition.reshape(-1)[0]) else 1, ())


class _Iteration(Operator):
    """Common to Loop and Scan: values carried from one iteration to the next."""

    has_regions = True

    @staticmethod
    def _carry(
        ctx: OpContext,
        leading: Sequence[TensorType],
        initial: Sequence[TensorType],
        elements: Sequence[TensorType],
        skipped: int,
    ) -> tuple[list[TensorType], list[TensorType]]:
        """(types carried into the body, its results), when all iterations have the same types.

        The body takes `leading`, what is carried, and `elements`; it gives `skipped` results, then
        what is carried, then the rest.
        """
        carried = [t.without_value() for t in initial]
        changed = True
        results: list[TensorType] = []
        while changed:  # ends: each size is generalised once
            changed = False
            results = _region(ctx, 0, (*leading, *carried, *elements))
            if len(results) < skipped + len(carried):
                ctx.fail(f"its body has {len(results)} results for {len(carried)} carried values")
            for n, (t, r) in enumerate(zip(list(carried), results[skipped:])):
                if t.dtype != r.dtype or t.rank != r.rank:
                    made = f"{t.without_value()} and then {r.without_value()}"
                    ctx.fail(f"carried value {n} is {made}: element type and rank must stay")
                shape = list(t.shape)
                for axis, (x, y) in enumerate(zip(t.shape, r.shape)):
                    own = _fresh(ctx, f"carried{n}_{axis}") if x != y else x
                    changed = changed or own != x
                    shape[axis] = own
                carried[n] = TensorType(t.dtype, tuple(shape))
        return carried, results

    @staticmethod
    def _outside(
        ctx: OpContext, what: str, t: TensorType, carried: Sequence[TensorType],
        initial: Sequence[TensorType],
    ) -> TensorType:  # fmt: skip
        """A type in the body's terms as a result: sizes that iterations bind become new symbols."""
        bound = {s for c in carried for d in c.shape for s in symbols(d)}
        bound -= {s for c in initial for d in c.shape for s in symbols(d)}
        shape = tuple(
            _fresh(ctx, f"{what}_{axis}") if symbols(d) & bound else d
            for axis, d in enumerate(t.shape)
        )
        return TensorType(t.dtype, shape)

    @staticmethod
    def _stack(
        ctx: OpContext, n: int, slices: Sequence[Array], axis: int, found: Sequence[Array]
    ) -> Array:
        """The elements of a scan output along a new axis."""
        if slices:
            if any(s.shape != slices[0].shape for s in slices):
                ctx.fail(f"scan output {n} changes its shape from iteration to iteration")
            return np.stack(slices, axis)
        t = ctx.outputs[len(found) + n]
        return np.zeros([d if isinstance(d, int) else 0 for d in t.shape], to_numpy(t.dtype))


@operator("Loop", since=1, inputs=(0, None), attributes={"body": REQUIRED})
class Loop(_Iteration):
    """Runs a subgraph at most `M` times (operand 0) while a condition holds (operand 1). The body
    takes the iteration's number, the condition and the carried values; it gives the next condition
    and carried values, then scan outputs, stacked along a new first axis. ONNX Loop-25."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        initial = [ctx.input(i) for i in range(2, len(ctx.types))]
        # the body only runs where the condition holds
        leading = (TensorType("i64", ()), TensorType("bool", (), (1,)))
        carried, results = self._carry(ctx, leading, initial, (), 1)
        again, *results = results
        if again.dtype != "bool":
            ctx.fail("its body's first result, the condition, must be a bool")
        trips = self._trips(ctx, again.value == (1,))
        types = [
            self._final(ctx, n, c, start) for n, (c, start) in enumerate(zip(carried, initial))
        ]
        for n, t in enumerate(results[len(carried) :]):
            inner = self._outside(ctx, f"scan{n}", t, carried, initial)
            types.append(TensorType(t.dtype, (trips, *inner.shape)))
        return types

    @staticmethod
    def _final(ctx: OpContext, n: int, carried: TensorType, start: TensorType) -> TensorType:
        shape = (
            c if c == s else _fresh(ctx, f"final{n}_{axis}")
            for axis, (c, s) in enumerate(zip(carried.shape, start.shape))
        )
        return TensorType(carried.dtype, tuple(shape))

    @staticmethod
    def _trips(ctx: OpContext, endless: bool) -> Size:
        """The number of iterations. endless: the body never asks for an end."""
        limit, start = ctx.value(0), ctx.value(1)
        if ctx.has(1) and start == (0,):
            return 0
        if endless and (not ctx.has(1) or start == (1,)):
            if not ctx.has(0):
                ctx.fail("it never ends")
            if limit is not None and len(limit) == 1:
                return maximum(0, limit[0])
        most = hi_of(limit[0]) if limit is not None and len(limit) == 1 else None
        return _fresh(ctx, "trips", None if most is None else max(0, most))

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        limit, start = (*inputs, None, None)[:2]
        initial = inputs[2:]
        most = None if limit is None else int(limit.reshape(-1)[0])
        condition = True if start is None else bool(start.reshape(-1)[0])
        carried = [np.asarray(a) for a in initial]
        scans: list[list[Array]] = [[] for _ in range(ctx.n_outputs - len(carried))]
        trip = 0
        while condition and (most is None or trip < most):
            given = (np.asarray(trip, np.int64), np.asarray(condition), *carried)
            again, *results = _run(ctx, 0, given)
            condition = bool(again.reshape(-1)[0])
            for slices, r in zip(scans, results[len(carried) :]):
                slices.append(r)
            carried = results[: len(carried)]
            trip += 1
        return [*carried, *(self._stack(ctx, n, s, 0, carried) for n, s in enumerate(scans))]


@operator(
    "Scan",
    since=9,
    inputs=(1, None),
    attributes={
        "body": REQUIRED,
        "num_scan_inputs": REQUIRED,
        "scan_input_axes": (),
        "scan_input_directions": (),
        "scan_output_axes": (),
        "scan_output_directions": (),
    },
)
class Scan(_Iteration):
    """Runs a subgraph on each element of sequences: it takes the carried values and an element of
    each scan input; it gives the next carried values and elements of scan outputs. ONNX Scan-25."""

    @staticmethod
    def _per_scan(ctx: OpContext, name: str, count: int) -> tuple[int, ...]:
        given = tuple(int(v) for v in ctx.attrs[name] or ()) or (0,) * count
        if len(given) != count:
            ctx.fail(f"{name} {list(given)} does not have {count} elements")
        return given

    def infer(self, ctx: OpContext) -> list[TensorType]:
        scans = int(ctx.attrs["num_scan_inputs"])
        states = len(ctx.types) - scans
        if scans < 1 or states < 0:
            ctx.fail(f"num_scan_inputs {scans} does not fit {len(ctx.types)} operands")
        initial = [ctx.input(i) for i in range(states)]
        elements, length = [], None
        axes = self._per_scan(ctx, "scan_input_axes", scans)
        for i, axis in zip(range(states, states + scans), axes):
            t = ctx.input(i)
            at = axis_in(ctx, axis, t.rank)
            own = t.shape[at]
            length = own if length is None else agree(ctx, length, own, "scan lengths")
            elements.append(TensorType(t.dtype, (*t.shape[:at], *t.shape[at + 1 :])))
        assert length is not None
        carried, results = self._carry(ctx, (), initial, elements, 0)
        types = [
            self._outside(ctx, f"final{n}", c, carried, initial) for n, c in enumerate(carried)
        ]
        rest = results[states:]
        out_axes = self._per_scan(ctx, "scan_output_axes", len(rest))
        for n, (t, axis) in enumerate(zip(rest, out_axes)):
            inner = self._outside(ctx, f"scan{n}", t, carried, initial)
            at = axis_in(ctx, axis, t.rank + 1)
            types.append(TensorType(t.dtype, (*inner.shape[:at], length, *inner.shape[at:])))
        return types

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        arrays = [np.asarray(a) for a in inputs]
        scans = int(ctx.attrs["num_scan_inputs"])
        states = len(arrays) - scans
        carried, sequences = arrays[:states], arrays[states:]
        axes = self._per_scan(ctx, "scan_input_axes", scans)
        backward = self._per_scan(ctx, "scan_input_directions", scans)
        lengths = {s.shape[a] for s, a in zip(sequences, axes)}
        if len(lengths) != 1:
            ctx.fail(f"scan inputs of different lengths {sorted(lengths)}")
        (length,) = lengths
        outputs = ctx.n_outputs - states
        slices: list[list[Array]] = [[] for _ in range(outputs)]
        for t in range(length):
            items = [
                np.take(s, length - 1 - t if b else t, axis=a)
                for s, a, b in zip(sequences, axes, backward)
            ]
            results = _run(ctx, 0, (*carried, *items))
            carried = results[:states]
            for found, r in zip(slices, results[states:]):
                found.append(r)
        out_axes = self._per_scan(ctx, "scan_output_axes", outputs)
        reverse = self._per_scan(ctx, "scan_output_directions", outputs)
        stacked = [
            self._stack(ctx, n, s[::-1] if r else s, a, carried)
            for n, (s, a, r) in enumerate(zip(slices, out_axes, reverse))
        ]
        return [*carried, *stacked]
