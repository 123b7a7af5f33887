"""Constants that kernels ask for in several layouts: from a table of embeddings, one kernel takes
some rows, and another one multiplies by all.

    before: %e = call(%ids, @table) {kernel="gather_0"}      const w0: f32[32000, 512]
            %y = call(%h, @turned) {kernel="matmul_1"}       const w0: f32[667, 512, 48]
                                                             pack="1/48 0 1%48"
    after:  %e = call(%ids, @turned) {kernel="gather_0_shared"}
                                                             const w0: f32[667, 512, 48]
                                                             pack="1/48 0 1%48"

A kernel that reads few of the elements reads them in the layout of the one that reads most, so that
they are in memory once. @turned is @table with its axes in another order: a view of its data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aicc.decisions import Decision, note
from aicc.graph_ir.graph import Graph, Node, reads
from aicc.graph_ir.module import CALL, Module
from aicc.graph_ir.passes.layout import typical
from aicc.symbolic import Size
from aicc.tensor_ir.ir import Expr, Kernel, Load
from aicc.tensor_ir.schedule_stages import Pack
from aicc.tensor_ir.walk import map_expr, map_exprs
from aicc.tensor_ir.work import touched
from aicc.uniform import is_uniform

Array = np.ndarray[Any, Any]
Seconds = Callable[[Kernel], float]

LARGE = 1 << 20
"""Bytes of constants that are worth it."""
LINE = 64
"""Bytes that are read for an element whose neighbours lie elsewhere."""
SECONDS_PER_BYTE = 1e-10
"""What reading lines here and there takes."""
SHARE = 0.05
"""How much of the time of the kernel whose layout is taken others may lose."""


@dataclass(frozen=True)
class _Form:
    """A constant by name, and the layout that it is asked for in."""

    constant: str
    layout: str


@dataclass
class _Use:
    """Who reads a constant in one form: positions of calls and of their parameters; the elements
    that they read in all. pinned: others than kernels read it too."""

    calls: list[tuple[int, int]] = field(default_factory=list)
    elements: float = 0.0
    pinned: bool = False


def share_layouts(
    module: Module,
    scheduled: Mapping[str, Kernel],
    schedule: Callable[[Kernel], Kernel],
    seconds: Seconds,
) -> Module:
    """The scheduled module, with few layouts of large constants.

    module: before its kernels are scheduled. scheduled: each kernel as `schedule` makes it.
    seconds: estimates an unscheduled kernel.
    """
    changes: dict[int, dict[int, _Form]] = {}  # call -> parameter -> what to read there instead
    for uses in _constants(module, scheduled):
        main, *rest = sorted(uses, key=lambda form: (-uses[form].elements, form.layout == ""))
        whole = sum(seconds(module.kernel_of(n)) for n in _calls(module.graph, uses[main]))
        for form in rest:
            use = uses[form]
            own = LINE * SECONDS_PER_BYTE * use.elements
            taken = own <= SHARE * whole and not use.pinned
            origin = dict.fromkeys(o for n in _calls(module.graph, use) for o in n.origin)
            what = f"read in the layout {main.layout!r}, too: {form.constant}"
            note(Decision("layout", what, taken, whole + own, whole, tuple(origin)))
            for call, at in use.calls if taken else ():
                changes.setdefault(call, {})[at] = main
    return _changed(module, scheduled, schedule, changes)


def _calls(graph: Graph, use: _Use) -> list[Node]:
    return [graph.nodes[n] for n in dict.fromkeys(n for n, _ in use.calls)]


def _constants(module: Module, scheduled: Mapping[str, Kernel]) -> list[dict[_Form, _Use]]:
    """For each large constant that is asked for in several forms: who reads it in which."""
    graph = module.graph
    found: dict[tuple[Any, ...], dict[_Form, _Use]] = {}
    pinned = set(graph.outputs)
    for n, node in enumerate(graph.nodes):
        if node.op != CALL:
            pinned.update(reads(node))
            continue
        kernel = module.kernel_of(node)
        made = scheduled[kernel.name]
        for at, (name, b) in enumerate(zip(node.inputs, _operands(kernel), strict=True)):
            data = graph.constants.get(name)
            if data is None or data.nbytes < LARGE or (key := _memory(data)) is None:
                continue
            form = _Form(name, made.buffer(b).pack)
            use = found.setdefault(key, {}).setdefault(form, _Use())
            use.calls.append((n, at))
            use.elements += typical(touched(kernel, b))
    for uses in found.values():
        for form, use in uses.items():
            use.pinned = form.constant in pinned and not form.layout
    return [uses for uses in found.values() if len(uses) > 1]


def _operands(kernel: Kernel) -> list[str]:
    return [b.name for b in kernel.params if b.scope != "out"]


def _order(data: Array) -> list[int]:
    """The axes of more than one index, as they lie in memory."""
    axes = [axis for axis, n in enumerate(data.shape) if n > 1]
    return sorted(axes, key=lambda axis: -data.strides[axis])


def _memory(data: Array) -> tuple[Any, ...] | None:
    """Equal for arrays of the same elements that differ in the order of axes only; None for those
    with gaps between elements."""
    order = _order(data)
    rest = [axis for axis in range(data.ndim) if axis not in order]
    if data.dtype == object or is_uniform(data):
        return None
    if not data.transpose(*order, *rest).flags.c_contiguous:
        return None
    at = data.__array_interface__["data"][0]
    return at, str(data.dtype), tuple(data.shape[axis] for axis in order)


def _changed(
    module: Module,
    scheduled: Mapping[str, Kernel],
    schedule: Callable[[Kernel], Kernel],
    changes: Mapping[int, Mapping[int, _Form]],
) -> Module:
    graph, kernels = module.graph.copy(), dict(scheduled)
    known: dict[tuple[Any, ...], str] = {}
    for n, change in changes.items():
        node = graph.nodes[n]
        kernel = module.kernel_of(node)
        inputs = list(node.inputs)
        names = _operands(kernel)
        key: list[Any] = [kernel.name]
        for at, form in change.items():
            old, new = graph.constants[inputs[at]], graph.constants[form.constant]
            kernel = _reading(kernel, names[at], old, new, form.layout)
            inputs[at] = form.constant
            key += [at, form.layout, new.shape, tuple(_order(new)), tuple(_order(old))]
        name = known.get(tuple(key))
        if name is None:
            name = known[tuple(key)] = _fresh(kernel.name, kernels)
            kernels[name] = schedule(replace(kernel, name=name))
        attrs = tuple((k, name if k == "kernel" else v) for k, v in node.attrs)
        graph.nodes[n] = replace(node, inputs=tuple(inputs), attrs=attrs)
    if changes:
        used = {v for node in graph.nodes for v in reads(node)} | set(graph.outputs)
        graph.constants = {v: d for v, d in graph.constants.items() if v in used}
        gone = module.graph.constants.keys() - graph.constants.keys()
        graph.types = {v: t for v, t in graph.types.items() if v not in gone}
        called = {n.attr("kernel") for n in graph.nodes if n.op == CALL}
        kernels = {name: k for name, k in kernels.items() if name in called}
    return Module(graph, kernels)


def _fresh(name: str, taken: Iterable[str]) -> str:
    while name in taken:
        name += "_shared"
    return name


def _reading(kernel: Kernel, name: str, old: Array, new: Array, layout: str) -> Kernel:
    """The kernel with a constant that lies as another array of the same elements, packed."""
    axes = dict(zip(_order(new), _order(old), strict=True))

    def moved(indices: Sequence[Size]) -> tuple[Size, ...]:
        return tuple(indices[axes[a]] if a in axes else 0 for a in range(new.ndim))

    def one(e: Expr) -> Expr | None:
        if not (isinstance(e, Load) and e.buffer == name):
            return None
        inner = map_expr(e, lambda x: one(x) if x is not e else None, lambda s: s)
        assert isinstance(inner, Load)
        return Load(name, moved(inner.indices), e.dtype)

    kernel = kernel.with_buffer(replace(kernel.buffer(name), shape=new.shape))
    kernel = kernel.with_body(map_exprs(kernel.body, one))
    return Pack(name, layout).apply(kernel) if layout else kernel
