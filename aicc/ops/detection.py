"""What detectors end with: NonMaxSuppression.

    for each class: candidates = a heap of the boxes whose score counts, the best one on top
        while there are candidates, and fewer boxes than wanted: take the best candidate;
            choose it unless a box that was chosen before covers it

A candidate is one number that tells its place in the order and its box. Few boxes are wanted of
many, so that most candidates are never sorted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.dynamic import run_time_size
from aicc.ops.heaps import Heap
from aicc.ops.indexing import loops
from aicc.ops.ranking import order_key
from aicc.ops.registry import Array, Case, GraphRewriter, OpContext, Operator, operator
from aicc.ops.samples import sample
from aicc.ops.selection import INDEX
from aicc.ops.sizes import agree
from aicc.symbolic import Size, ceildiv, minimum, product
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr, as_expr, as_index, call, cast, const, select

SIDE_BY_SIDE = 16
"""Boxes that are compared at once."""


@operator("NonMaxSuppression", since=10, inputs=(2, 5), attributes={"center_point_box": 0})
class NonMaxSuppression(Operator):
    """The boxes of each class that no better box of the class covers: their indices [found, 3] as
    batch, class and box, best first within a class. ONNX NonMaxSuppression-11.

    Operands: boxes [batch, n, 4] as two corners (y1, x1, y2, x2), or with `center_point_box` as
    centre and extent (x, y, width, height); scores [batch, classes, n]; how many boxes a class has
    at most (default 0); the share of intersection in union (default 0) and the score (default: any)
    above which a box is covered and counts.
    """

    def infer(self, ctx: OpContext) -> list[TensorType]:
        boxes, scores = ctx.input(0), ctx.input(1)
        if (boxes.dtype, scores.dtype) != ("f32", "f32"):
            ctx.fail("boxes and scores (inputs 0 and 1) must be f32")
        if boxes.rank != 3 or scores.rank != 3:
            ctx.fail("boxes and scores (inputs 0 and 1) must have 3 axes")
        agree(ctx, boxes.shape[2], 4, "numbers of a box")
        batch = agree(ctx, boxes.shape[0], scores.shape[0], "batch")
        count = agree(ctx, boxes.shape[1], scores.shape[2], "boxes and scores")
        kinds = {2: "i64", 3: "f32", 4: "f32"}
        for i, dtype in kinds.items():
            if ctx.has(i) and (ctx.input(i).dtype != dtype or ctx.input(i).count != 1):
                ctx.fail(f"input {i} must be one number of type {dtype}")
        if not ctx.has(2):
            return [TensorType("i64", (0, 3))]
        found = product((batch, scores.shape[1], self._most(ctx, count)))
        return [self._found(ctx, found)][: ctx.n_outputs]

    def _found(self, ctx: OpContext, most: Size) -> TensorType:
        return TensorType("i64", (run_time_size(ctx, "found", most), 3))

    @staticmethod
    def _most(ctx: OpContext, count: Size) -> Size:
        """How many boxes a class has at most."""
        most = ctx.value(2)
        return (
            count
            if most is None or not isinstance(most[0], int)
            else minimum(count, max(0, most[0]))
        )

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        if not ctx.has(2):
            return [g.constant(np.zeros((0, 3), np.int64), "i64")]
        attrs = {"center_point_box": int(ctx.attrs["center_point_box"])}
        rows, count = g.op("aicc::Suppress", *inputs, n_outputs=2, **attrs)
        return [g.op("aicc::First", rows, count)]

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        boxes, scores, most, overlap, least = (*inputs, None, None, None)[:5]
        assert boxes is not None and scores is not None
        count = 0 if most is None else int(most.reshape(-1)[0])
        share = np.float32(0) if overlap is None else overlap.reshape(-1)[0]
        above = None if least is None else least.reshape(-1)[0]
        found: list[tuple[int, int, int]] = []
        corners = _corners(boxes, bool(ctx.attrs["center_point_box"]))
        counting = np.ones(scores.shape, np.bool_) if above is None else scores > above
        for n, kind in np.argwhere(counting.any(-1)).tolist() if count > 0 else ():
            candidates = np.flatnonzero(counting[n, kind])
            ranked = candidates[np.argsort(-scores[n, kind, candidates], kind="stable")]
            chosen = _uncovered(corners[n], ranked, share)
            found.extend((n, kind, i) for _, i in zip(range(count), chosen))
        return [np.array(found, np.int64).reshape(-1, 3)]

    def cases(self) -> Iterable[Case]:
        rng = np.random.default_rng(0)
        begin = rng.uniform(0, 4, (2, 30, 2))
        boxes = np.concatenate([begin, begin + rng.uniform(0.5, 3, (2, 30, 2))], -1)
        boxes = boxes.astype(np.float32)
        scores = rng.random((2, 3, 30), np.float32)
        five, half = np.array([5], np.int64), np.array([0.5], np.float32)
        yield Case("corners", (boxes, scores, five, half, half), constant=(2, 3, 4))
        yield Case("run", (boxes, scores, five, half, half), symbolic={(0, 1): "n", (1, 2): "n"})
        yield Case("flipped", (boxes[..., [2, 3, 0, 1]], scores, five, half))
        yield Case("centres", (boxes, scores, five, half), {"center_point_box": 1})
        yield Case("any_overlap", (boxes, scores, np.array(40)))
        yield Case("ties", (boxes, np.round(scores * 4) / np.float32(4), five, half))
        yield Case("empty_boxes", (boxes * np.array([1, 0, 1, 0], np.float32), scores, five, half))
        yield Case("nothing", (boxes, scores, five, half, np.array([2], np.float32)))
        yield Case("none_wanted", (boxes, scores))
        yield Case("negative", (boxes, scores, np.array([-1], np.int64), half))
        yield Case("run_most", (boxes, scores, five, half, half), constant=(3, 4))
        twice = np.repeat(boxes, 2, 1), np.repeat(scores, 2, 2)
        yield Case("equal_boxes", (*twice, five, half), constant=(2, 3))


@operator("Suppress", domain="aicc", inputs=(3, 5), attributes={"center_point_box": 0})
class Suppress(NonMaxSuppression):
    """What NonMaxSuppression finds as the first rows of a tensor that has as many as it can find at
    most; the rest is undefined. Then the number of rows found."""

    def infer(self, ctx: OpContext) -> list[TensorType]:
        (rows,) = super().infer(replace(ctx, n_outputs=1))
        return [rows, TensorType("i64", (1,))]

    def _found(self, ctx: OpContext, most: Size) -> TensorType:
        return TensorType("i64", (most, 3))

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        (found,) = super().reference(ctx, *inputs)
        rows = np.zeros([int(d) for d in ctx.outputs[0].shape], np.int64)
        rows[: len(found)] = found
        return [rows, np.array([len(found)])]

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        return None

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        boxes, scores, wanted, share, least = (*inputs, None, None)[:5]
        assert boxes is not None and scores is not None and wanted is not None
        return _Suppression(ctx, b, boxes, scores, wanted, share, least).results()

    def cases(self) -> Iterable[Case]:
        boxes, scores = _grid(6), sample(2, 3, 6)
        six, half = np.array([6], np.int64), np.array([0.5], np.float32)
        yield Case("all", (boxes, scores, six, half), {}, 2, constant=(2, 3))


class _Suppression:
    """The kernel in the making."""

    def __init__(
        self,
        ctx: OpContext,
        b: KernelBuilder,
        boxes: Tensor,
        scores: Tensor,
        wanted: Tensor,
        share: Tensor | None,
        least: Tensor | None,
    ) -> None:
        self.ctx, self.b, self.boxes, self.scores = ctx, b, boxes, scores
        self.batch, self.classes, self.count = scores.shape
        self.most = NonMaxSuppression._most(ctx, self.count)
        self.wanted = call("min", _only(wanted), as_expr(self.most, "i64"))
        self.share = const(0.0, "f32") if share is None else _only(share)
        self.least = None if least is None else _only(least)
        self.centres = bool(ctx.attrs["center_point_box"])
        rows = (self.batch, self.classes)
        keys = b.temp("keys", "i64", scores.shape)
        self.heap = Heap.make(b, (keys,), 2, lambda p, q: call("lt", p[0], q[0]))
        self.chosen = b.temp("chosen", "i64", (*rows, self.most))
        self.blocks = ceildiv(self.most, SIDE_BY_SIDE)
        self.corners = b.temp("corners", "f32", (*rows, 5, self.blocks * SIDE_BY_SIDE))
        self.candidate = b.temp("candidate", "f32", (*rows, 5))
        self.left, self.found = b.temp("left", "i64", rows), b.temp("found", "i64", rows)
        self.block, self.covered = b.temp("block", "i64", rows), b.temp("covered", "bool", rows)

    def results(self) -> list[Tensor]:
        b, last = self.b, self.ctx.outputs[0].shape[0] - 1
        with ExitStack() as stack:
            at = loops(b, stack, "i", (self.batch, self.classes))
            self._class(at)
        rows = b.temp("rows", "i64", self.ctx.outputs[0].shape)
        total = b.temp("total", "i64", (1,))
        b.store(total, (0,), 0)
        with ExitStack() as stack:
            at = loops(b, stack, "r", (self.batch, self.classes))
            n = stack.enter_context(b.loop("n", 0, as_index(self.found[at], 0, _number(self.most))))
            row = as_index(total[0], 0, _number(last))
            for column, value in enumerate((*at, self.chosen[(*at, n)])):
                b.store(rows, (row, column), as_expr(value, "i64"))
            b.store(total, (0,), total[0] + 1)
        return [rows, total]

    def _class(self, at: list[Size]) -> None:
        """The boxes of one class of one sample."""
        b, heap = self.b, self.heap.of(at)
        left, found = self.left[at], self.found[at]
        b.store(self.left, at, 0)
        with ExitStack() as stack:
            n = stack.enter_context(b.loop("n", 0, self.count))
            score = self.scores[(*at, n)]
            if self.least is not None:
                stack.enter_context(b.when(call("gt", score, self.least)))
            key = select(call("isnan", score), const(-(2**31), "i32"), order_key(score, True))
            high = call("shl", cast(key, "i64"), 32)
            heap.put(left, (call("bitor", high, INDEX - as_expr(n, "i64")),))
            b.store(self.left, at, left + 1)
        heap.order(as_index(left, 0, _number(self.count)))
        b.store(self.found, at, 0)
        with b.repeat(call("and", call("gt", left, 0), call("lt", found, self.wanted))):
            (best,) = heap.at(0)
            place = as_index(found, 0, _number(self.most - 1))
            box = INDEX - call("bitand", best, INDEX)
            b.store(self.chosen, (*at, place), box)
            b.store(self.left, at, left - 1)
            heap.replace(heap.at(left), as_index(left, 0, _number(self.count)))
            last = _number(self.count - 1)
            self._corners(at, as_index(self.chosen[(*at, place)], 0, last))
            self._compare(at)
            with b.when(call("not", self.covered[at])):
                for n in range(5):
                    b.store(self.corners, (*at, n, place), self.candidate[(*at, n)])
                b.store(self.found, at, found + 1)

    def _corners(self, at: list[Size], box: Size) -> None:
        """Least and greatest corner of a box, and its area: the candidate."""
        b = self.b
        given = [self.boxes[at[0], box, n] for n in range(4)]
        for n in range(4):
            p, q = given[n % 2], given[n % 2 + 2]
            if self.centres:
                value = p - q / 2.0 if n < 2 else p + q / 2.0
            else:
                value = call("min" if n < 2 else "max", p, q)
            b.store(self.candidate, (*at, n), value)
        y1, x1, y2, x2 = (self.candidate[(*at, n)] for n in range(4))
        b.store(self.candidate, (*at, 4), (y2 - y1) * (x2 - x1))

    def _compare(self, at: list[Size]) -> None:
        """Whether a box that was chosen covers the candidate: as many at a time as vectors hold."""
        b, found, block, covered = self.b, self.found[at], self.block[at], self.covered[at]
        b.store(self.block, at, 0)
        b.store(self.covered, at, False)
        more = call("lt", block * SIDE_BY_SIDE, found)
        with b.repeat(call("and", more, call("not", covered))):
            start = as_index(block, 0, self.blocks - 1 if isinstance(self.blocks, int) else None)
            with b.loop("l", 0, SIDE_BY_SIDE) as lane:
                place = start * SIDE_BY_SIDE + lane
                p = [self.corners[(*at, n, place)] for n in range(5)]
                q = [self.candidate[(*at, n)] for n in range(5)]
                height, width = (
                    call("min", p[n + 2], q[n + 2]) - call("max", p[n], q[n]) for n in range(2)
                )
                both = call("and", call("gt", height, 0.0), call("gt", width, 0.0))
                common = select(both, height * width, const(0.0, "f32"))
                union = p[4] + q[4] - common
                union = select(call("le", union, 0.0), const(1.0, "f32"), union)
                covers = call("not", call("le", common / union, self.share))
                there = call("lt", as_expr(place, "i64"), found)
                b.accumulate(self.covered, at, call("and", there, covers), "or")
            b.store(self.block, at, block + 1)


def _only(t: Tensor) -> Expr:
    """The only element."""
    return t[(0,) * t.rank]


def _number(size: Size) -> int | None:
    return size if isinstance(size, int) else None


def _grid(count: int) -> Array:
    """Boxes that do not touch: [2, count, 4]."""
    begin = 2 * np.arange(count, dtype=np.float32)[:, None] + np.zeros((2, 1, 2), np.float32)
    return np.concatenate([begin, begin + 1], -1)


def _corners(boxes: Array, centres: bool) -> Array:
    """[batch, n, 4] as the least and the greatest corner."""
    if centres:
        half = boxes[..., 2:] / np.float32(2)
        return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], -1)
    a, b = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([np.minimum(a, b), np.maximum(a, b)], -1)


def _uncovered(corners: Array, ranked: Array, share: np.float32) -> Iterator[int]:
    """Of the boxes `ranked`, best first, those that none of them covers before."""
    sizes = corners[:, 2:] - corners[:, :2]
    areas = sizes[:, 0] * sizes[:, 1]
    while ranked.size:
        best, ranked = ranked[0], ranked[1:]
        yield int(best)
        near = corners[ranked]
        sides = np.minimum(near[:, 2:], corners[best, 2:])
        sides -= np.maximum(near[:, :2], corners[best, :2])
        common = np.where((sides > 0).all(1), sides[:, 0] * sides[:, 1], np.float32(0))
        union = areas[ranked] + areas[best] - common
        union[union <= 0] = 1  # what has no area covers nothing
        ranked = ranked[common / union <= share]


__all__ = ["NonMaxSuppression"]
