"""What detectors end with: NonMaxSuppression."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.dynamic import run_time_size
from aicc.ops.registry import Array, Case, OpContext, Operator, operator
from aicc.ops.sizes import agree
from aicc.symbolic import minimum, product


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
        most = ctx.value(2)
        if not ctx.has(2):
            return [TensorType("i64", (0, 3))]
        per_class = count if most is None or not isinstance(most[0], int) else max(0, most[0])
        found = product((batch, scores.shape[1], minimum(count, per_class)))
        return [TensorType("i64", (run_time_size(ctx, "found", found), 3))]

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
