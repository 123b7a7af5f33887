"""The schedule step that reduces over a window axis by axis."""

from __future__ import annotations

from dataclasses import dataclass, replace

from aicc.symbolic import add, from_atom, mul, proves_le, symbols
from aicc.tensor_ir.analysis import stage_of
from aicc.tensor_ir.builder import identity
from aicc.tensor_ir.ir import Buffer, Kernel, Load
from aicc.tensor_ir.schedule import Step, fresh_variable, rename_loops, unused_names
from aicc.tensor_ir.schedule_axes import replace_stage, stage_nest
from aicc.tensor_ir.schedule_compute_at import fresh_buffer


@dataclass(frozen=True)
class Separate(Step):
    """B[i] op= f(i*s + k, l) for k, l   ->   P[t] op= f(t, l) for l;  B[i] op= P[i*s + k] for k

    Reduces over all other loops first, for every position t that windows along `axis` of B share.
    `loop`: the reduction k over a window. The order of the reduction changes.
    Precondition: B is computed by one canonical stage, a reduction over more than k that starts
    from the operation's identity; the value depends on i and k only as i*s + k, and s is not more
    than the extent of k, a number: each position belongs to a window; the axis is not empty.
    """

    buffer: str
    axis: int
    loop: str
    name = "separate"

    def apply(self, kernel: Kernel) -> Kernel:
        stage = stage_of(kernel, self.buffer)
        if stage is None or stage.op is None:
            raise self.fail(kernel, f"{self.buffer} is not computed by one reduction")
        if not 0 <= self.axis < len(stage.axes):
            raise self.fail(kernel, f"{self.buffer} has no axis {self.axis}")
        old = kernel.buffer(self.buffer)
        if stage.init != identity(stage.op, old.dtype):
            raise self.fail(kernel, f"{self.buffer} does not start from what changes nothing")
        i, count = stage.axes[self.axis]
        window = [(k, e) for k, e in stage.reduce if k.name == self.loop]
        others = tuple((k, e) for k, e in stage.reduce if k.name != self.loop)
        if i is None or not window or not others:
            raise self.fail(kernel, f"{self.loop} is no window along axis {self.axis}")
        k, extent = window[0]
        if not isinstance(extent, int) or any({i, k} & symbols(e) for _, e in others):
            raise self.fail(kernel, f"extents depend on a size, {i} or {k}")
        if not proves_le(1, count):
            raise self.fail(kernel, f"axis {self.axis} may be empty")
        taken = unused_names(kernel)
        for step in range(1, extent + 1):
            positions = add(mul(add(count, -1), step), extent)
            t, place = fresh_variable(f"{i.name}.p", 0, positions, set(taken))
            value = stage.value.substitute_sizes({k: add(place, mul(from_atom(i), -step))})
            if i not in value.size_symbols():
                break
        else:
            raise self.fail(kernel, f"the value depends on {i} and {k} apart")
        taken.add(t.name)
        axes, own = list(stage.axes), [0 if v is None else from_atom(v) for v, _ in stage.axes]
        axes[self.axis] = (t, positions)
        own[self.axis] = add(mul(from_atom(i), step), from_atom(k))
        name = fresh_buffer(kernel, f"{self.buffer}.p")
        part = replace(stage, buffer=name, axes=tuple(axes), reduce=others, value=value)
        whole = replace(stage, reduce=((k, extent),), value=Load(name, tuple(own), old.dtype))
        kernel = kernel.with_buffer(Buffer(name, old.dtype, tuple(e for _, e in axes), "temp"))
        kernel = replace_stage(kernel, stage.position, whole)
        nest = rename_loops((stage_nest(part),), ".p", taken)
        at = stage.position
        return kernel.with_body((*kernel.body[:at], *nest, *kernel.body[at:]))
