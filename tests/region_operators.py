"""Operators with regions, registered under the domain "test" for the tests of graphs."""

import numpy as np

from aicc.graph_ir.types import TensorType
from aicc.ops.registry import REQUIRED, OpContext, Operator, operator


@operator(
    "If", domain="test", inputs=1, attributes={"then_branch": REQUIRED, "else_branch": REQUIRED}
)
class If(Operator):
    has_regions = True

    def infer(self, ctx):
        taken, other = ctx.infer_region(0, []), ctx.infer_region(1, [])
        if [t.without_value() for t in taken] != [t.without_value() for t in other]:
            ctx.fail("the branches have different types")
        return [t.without_value() for t in taken]

    def reference(self, ctx, cond):
        return ctx.run_region(0 if cond else 1, [])


@operator("Repeat", domain="test", inputs=(1, None), attributes={"body": REQUIRED})
class Repeat(Operator):
    """Applies `body(i, state...) -> state...` n times; sizes of a state may change."""

    has_regions = True

    def infer(self, ctx: OpContext):
        counter = TensorType("i64", ())
        states = [t.without_value() for t in ctx.types[1:]]
        results = ctx.infer_region(0, [counter, *states])
        widened = [
            TensorType(
                s.dtype,
                tuple(
                    d if d == e else ctx.fresh_symbol(f"{k}.{axis}")
                    for axis, (d, e) in enumerate(zip(s.shape, r.shape))
                ),
            )
            for k, (s, r) in enumerate(zip(states, results))
        ]
        if widened != states:
            ctx.infer_region(0, [counter, *widened])
        return widened

    def reference(self, ctx, n, *states):
        current = list(states)
        for i in range(int(n)):
            current = ctx.run_region(0, [np.array(i, np.int64), *current])
        return current


@operator("Foreign", domain="test", inputs=(1, 2), attributes={"mode": "a", "scale": 1.0, "ks": ()})
class Foreign(Operator):
    def infer(self, ctx):
        return [ctx.input(0).without_value()]

    def reference(self, ctx, x, y=None):
        return [x]


@operator("Found", domain="test", inputs=1)
class Found(Operator):
    """The positive elements: how many there are is known at run time only."""

    def infer(self, ctx):
        x = ctx.input(0)
        return [TensorType(x.dtype, (ctx.fresh_symbol("count", 100),))]

    def reference(self, ctx, x):
        return [x[x > 0]]
