"""The schedule step that makes a stage of the parts of a reduction."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.symbolic import add, ceildiv, from_atom, minimum, mul, opaques, symbols
from aicc.tensor_ir.analysis import stage_of
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.ir import Buffer, Kernel, Load
from aicc.tensor_ir.schedule import Step, fresh_variable, rename_loops, unused_names
from aicc.tensor_ir.schedule_axes import replace_stage, stage_nest
from aicc.tensor_ir.schedule_compute_at import fresh_buffer


@dataclass(frozen=True)
class Parts(Step):
    """B[i] op= f(i, k) for k   ->   P[i, p] op= f(i, p*m + k) for k < m;  B[i] op= P[i, p] for p

    Reduces over `size` = m iterations of the outermost loop k at a time, and all inside them, into
    elements of their own, which threads may share, and then over these; the last part may have
    fewer iterations. Loops of the nest that
    computes P get the suffix ".p", its last axis is `k.o.p` and k is `k.i.p`; the reduction over P
    is `k.p`.
    The order of the reduction changes, in a way that is fixed by the schedule.
    Precondition: B is computed by one canonical stage, a reduction; the extent of k is known before
    the kernel runs, and that of no other loop depends on k.
    """

    buffer: str
    size: int
    name = "parts"

    def apply(self, kernel: Kernel) -> Kernel:
        stage = stage_of(kernel, self.buffer)
        if stage is None or stage.op is None or not stage.reduce:
            raise self.fail(kernel, f"{self.buffer} is not computed by one reduction")
        if self.size < 1:
            raise self.fail(kernel, f"a part has no {self.size} elements")
        (k, extent), *others = stage.reduce
        if any(k in symbols(e) for _, e in others):
            raise self.fail(kernel, f"extents depend on {k}")
        if opaques(extent) or symbols(extent) & set(stage.variables):
            raise self.fail(kernel, f"the extent of {k} is not the same for all results")
        old, taken = kernel.buffer(self.buffer), unused_names(kernel)
        count = ceildiv(extent, self.size)
        p, start = fresh_variable(f"{k.name}.o", 0, count, taken)
        done = mul(start, self.size)
        mine = minimum(self.size, add(extent, mul(done, -1)))
        inner, at = fresh_variable(f"{k.name}.i", 0, mine, taken)
        q, each = fresh_variable(f"{k.name}.p", 0, count, taken)
        axes = (*stage.axes, (p, count))
        name = fresh_buffer(kernel, f"{self.buffer}.p")
        part = replace(
            stage,
            buffer=name,
            axes=axes,
            reduce=((inner, mine), *others),
            init=identity(stage.op, old.dtype),
            value=stage.value.substitute_sizes({k: add(done, at)}),
        )
        own = (0 if v is None else from_atom(v) for v, _ in stage.axes)
        whole = replace(stage, reduce=((q, count),), value=Load(name, (*own, each), old.dtype))
        kernel = kernel.with_buffer(Buffer(name, old.dtype, tuple(e for _, e in axes), "temp"))
        kernel = replace_stage(kernel, stage.position, whole)
        nest = rename_loops((stage_nest(part),), ".p", taken)
        at = stage.position
        return kernel.with_body((*kernel.body[:at], *nest, *kernel.body[at:]))
