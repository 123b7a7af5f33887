"""How long a kernel should take: the roofline, before any schedule.

    seconds = max(operations / peak, bytes / bandwidth) + overhead of a call

or, where constants come from memory, the root of the sum of squares of the two: waiting for memory
and arithmetic overlap imperfectly.

Operations are counted from the loops, with those that the vector units have no instruction for
weighted by what their expansion takes; bytes are those of the parameters, each moved once, from the
cache level that holds them all. Symbols count as `NOMINAL`. Only ratios of estimates matter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from aicc.dtypes import nbytes
from aicc.symbolic import Dim, Mod, Size, Sym, atoms, from_atom, opaques, substitute, symbols
from aicc.tensor_ir.analysis import Stage, readers, stage_of, stages
from aicc.tensor_ir.choice import choice_of
from aicc.tensor_ir.ir import Expr, For, If, Index, Kernel, Load, Op, Reduce, Stmt, Store, While
from aicc.tensor_ir.recipes.blocks import lanes_in_blocks
from aicc.tensor_ir.recipes.chained import block_of, has_chain
from aicc.tensor_ir.recipes.common import (
    COSTLY,
    NOMINAL,
    divisors,
    expected,
    is_costly,
    nominal,
    offset_of,
    stride_in,
)
from aicc.tensor_ir.recipes.interleaved import (
    Problem,
    alternates,
    choose_block,
    problem_of,
)
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.operands import Roles, product_of, roles
from aicc.tensor_ir.recipes.resampled import has_resampled, is_shared, is_table
from aicc.tensor_ir.recipes.staged import band_of, has_staged
from aicc.tensor_ir.recipes.tiles import Problem as Tiled
from aicc.tensor_ir.recipes.tiles import choose_tile, tile_cost
from aicc.tensor_ir.schedule_stages import Inline
from aicc.tensor_ir.walk import children, walk_expr
from aicc.tensor_ir.work import inlined_terms

CYCLE = 0.25e-9
"""Seconds, of a core at 4 GHz."""
CALL = 300.0
"""Cycles of a kernel call: its arguments, its first misses, handing out its loop."""
EXPANDED = 12.0
"""Instructions that a costly operation expands to."""
TURNED = 3.0
"""Instructions more for a load whose lanes are side by side along another axis: blocks turn in
registers."""
IN_TURN = 1.0
"""Instructions more for a load whose lanes alternate between vectors that are in registers."""
PERIOD = 64
"""Lanes after which positions repeat, at most, for them to be known."""
NEAR = 4
"""Vectors that lanes are picked from, at most."""
GATHERED = 24.0
"""Instructions more for a load whose lanes are apart."""
DIVIDED = 200.0
"""As many where each lane's place is a quotient or a remainder."""
SCATTERED = 100.0
"""Instructions more for a store whose lanes are apart, which often meet in few sets of a cache."""
SHORT = 8
"""Elements side by side that are about as good as a vector."""
BYTES_PER_CYCLE = ((0.5, "l1d", 64.0), (0.5, "l2", 24.0), (0.5, "l3", 12.0))
"""(share of a cache that data may fill, cache, bytes it delivers per cycle)."""
MEMORY_BYTES_PER_CYCLE = 6.0
STREAM_BYTES_PER_CYCLE = 8.0
"""Of constants, which are asked for ahead."""
EXPOSED = 0.5
"""The share of the time for reading constants anew that arithmetic does not hide."""
HANDED = 0.1
"""The share of the time for handing results from kernel to kernel that arithmetic does not hide."""
MOST_TERMS = 2048
"""Of an expression: values that are read several times, of values that are, double it each time."""
FAR = 1.3
"""How many times as long as over contiguous data a product over data takes whose elements lie as
far apart as only a run knows: copies in that order are made again for each panel of columns."""
REREAD = 1.5
"""How often the elements of a stage are read where it is computed only once, at least."""


def estimate(kernel: Kernel, machine: Machine, cold: bool = False) -> float:
    """Seconds for one run of an unscheduled kernel on one core.

    cold: constants come from memory, since those of the whole model do not stay in the caches.

    A product between maps over blocks runs band by band (`staged`): its phases take turns, and each
    band reads the constants anew; an odd number of bands is not shared out evenly. A chain of
    products (`chained`) computes whole blocks of rows; what lies between the products, which would
    be written and read twice, is not handed from kernel to kernel: estimates of those take all of
    that as hidden, so that the part which is not is taken off here. Maps that no recipe computes by
    blocks are computed again wherever they are read. Infinite where no recipe takes
    several products, or a product between maps, and where an expression would be too long. Of two
    bodies between which sizes choose, the second counts, for large sizes.
    """
    if (choice := choice_of(kernel)) is not None:
        kernel = choice.orelse
    in_bands = has_staged(kernel)
    band = band_of(kernel, machine) if in_bands else None
    several = sum(product_of(s) is not None for s in stages(kernel)) > 1
    block = block_of(kernel, machine) if several and has_chain(kernel) else None
    if several and block is None:
        return math.inf
    blocks = lanes_in_blocks(kernel)
    keeps = blocks is not None or any(s.op is not None for s in stages(kernel))
    resamples = not keeps and has_resampled(kernel)
    by_parts = in_bands or block is not None or blocks is not None or resamples
    if not by_parts and inlined_terms(kernel) > MOST_TERMS:
        return math.inf
    kernel = _inlined(kernel, keeps, resamples)
    lanes = machine.lanes("f32")
    products = {s.buffer: product_cycles(kernel, s, machine) for s in stages(kernel) if s.op}
    if any(_far_apart(kernel, s, lanes) for s in stages(kernel)):
        products = {b: c and FAR * c for b, c in products.items()}
    each = [_cycles(kernel, s, 1.0, products) / lanes for s in kernel.body]
    if not keeps and not resamples:
        each = [t + _idle_turns(s) / lanes for t, s in zip(each, kernel.body)]
    if blocks is not None and blocks[1] != blocks[0].variables[-1]:
        each[-1] += SCATTERED * _count(tuple(e for _, e in blocks[0].axes)) / 2 / lanes
    if block is not None:
        first, *_, last = (s for s in stages(kernel) if s.op is not None)
        for s in (first, last):
            each[s.position] *= block.waste * block.stream
        kept = _count(kernel.buffer(first.buffer).shape) * nbytes(kernel.buffer(first.buffer).dtype)
        each[first.position] -= HANDED * 4 * kept / _rate(kept, machine)
    cycles = sum(each)
    size = {b.name: _count(b.shape) * nbytes(b.dtype) for b in kernel.params}
    constants = sum(size[b.name] for b in kernel.params if b.scope == "const") if cold else 0
    moved = float(sum(size.values()) - constants)
    rate = _rate(moved, machine)
    transfer = moved / rate + constants / STREAM_BYTES_PER_CYCLE
    if in_bands:
        if band is None:
            return math.inf
        again = sum(size[b.name] for b in kernel.params if b.scope == "const")
        at = max(n for n, s in enumerate(kernel.body) if any(_products(s)))
        stream = each[at] + EXPOSED * (band.count - 1) * again / _rate(again, machine)
        uneven = 2 * ((band.count + 1) // 2) / band.count
        return CYCLE * (uneven * (cycles - each[at] + stream + transfer) + CALL)
    both = math.hypot(cycles, transfer) if cold else max(cycles, transfer)
    return CYCLE * (both + CALL)


def _inlined(kernel: Kernel, keeps: bool, resamples: bool) -> Kernel:
    """The kernel with maps computed where they are read, as recipes do it. keeps: but for those
    that are kept. resamples: but for tables, and what several results share."""
    for stage in reversed(stages(kernel)):
        if stage.op is None and kernel.buffer(stage.buffer).scope == "temp":
            value = stage_of(kernel, stage.buffer)
            stays = keeps and value is not None and _kept(kernel, value)
            if resamples and value is not None:
                stays = is_table(kernel, value) or is_shared(kernel, value)
            if value is not None and not stays:
                kernel = Inline(stage.buffer).apply(kernel)
    return kernel


def _rate(moved: float, machine: Machine) -> float:
    """Bytes per cycle from the cache that holds so many."""
    for share, cache, bytes_per_cycle in BYTES_PER_CYCLE:
        if moved <= share * int(getattr(machine, cache)):
            return bytes_per_cycle
    return MEMORY_BYTES_PER_CYCLE


def _products(s: Stmt) -> Iterator[bool]:
    """Whether each reduction inside a statement is a matrix product."""
    if isinstance(s, Reduce):
        yield _contracts(s)
    for c in children(s):
        yield from _products(c)


def constants_stay(constants: int, machine: Machine) -> bool:
    """True where a model's constants, in bytes, stay in the last cache from run to run."""
    return constants <= machine.l3 // 2


def _kept(kernel: Kernel, stage: Stage) -> bool:
    """True for a stage that is computed once, and not at each of the places that read it: what is
    costly and read by several stages, or whose elements are read more than once."""
    if isinstance(stage.value, Load):
        return False
    positions = readers(kernel, stage.buffer)
    if len(positions) > 1 and is_costly(stage.value):
        return True
    reads = 0
    for s in (kernel.body[n] for n in positions):
        for loops, value in _stores(s, 1):
            places = {x for x in walk_expr(value) if isinstance(x, Load)}
            reads += loops * sum(x.buffer == stage.buffer for x in places)
    return reads > REREAD * _count(tuple(e for _, e in stage.axes))


def _far_apart(kernel: Kernel, stage: Stage, lanes: int) -> bool:
    """True for a local copy of which a vector or more of elements along its last axis lie as far
    apart where they are read as only a run knows."""
    if stage.op is not None or not stage.axes or kernel.buffer(stage.buffer).scope != "temp":
        return False
    v, extent = stage.axes[-1]
    if v is None or nominal(extent) < lanes:
        return False
    loads = (x for x in walk_expr(stage.value) if isinstance(x, Load))
    return any(isinstance(stride_in(kernel, x, v), Dim) for x in loads)


def _stores(s: Stmt, times: int) -> Iterator[tuple[int, Expr]]:
    """What is stored by a statement and those inside it, with how often."""
    if isinstance(s, Store | Reduce):
        yield times, s.value
    if isinstance(s, For):
        times *= nominal(s.extent)
    for c in children(s):
        yield from _stores(c, times)


def _count(shape: tuple[Size, ...]) -> int:
    total = 1
    for d in shape:
        total *= nominal(d)
    return total


def product_cycles(kernel: Kernel, stage: Stage, machine: Machine) -> float | None:
    """Cycles of one lane for each multiply-add of a matrix product, in the tiles that it would get:
    tails and narrow tiles included. None for what is no matrix product."""
    found = roles(stage)
    if found is None:
        return None
    dtype = kernel.buffer(stage.buffer).dtype
    in_turn = _phases(kernel, stage, found)
    if in_turn is not None:
        choice = choose_block(machine, machine.lanes(dtype), in_turn)
        if choice is not None:
            count = math.prod(in_turn.rows) * in_turn.phases * in_turn.window
            return choice[0] * machine.lanes(dtype) / max(1, count * in_turn.depth)
    rows, _ = _joined(kernel, stage, found.left, found.right)
    columns, _ = _joined(kernel, stage, found.right, found.left)
    depth = _count(tuple(e for _, e in stage.reduce))
    apart = 0
    for v, extent in stage.reduce:
        step = stride_in(kernel, found.right, v)
        if isinstance(step, int) and kernel.buffer(found.right.buffer).scope != "const":
            apart = max(apart, step * nbytes(dtype)) if extent != 1 else apart
    problem = Tiled(rows, columns, depth, right_stride=apart)
    tile = choose_tile(machine, dtype, problem)
    cycles = tile_cost(machine, tile, problem) * rows
    return cycles * machine.lanes(dtype) / max(1, rows * columns * depth)


def _phases(kernel: Kernel, stage: Stage, found: Roles) -> Problem | None:
    """A product whose results are taken in turn from phases, over contiguous data; else None."""
    v = stage.axes[-1][0]
    if found.column != len(stage.axes) - 1 or v is None:
        return None
    if stride_in(kernel, found.right, v) != 1:
        return None
    for n in readers(kernel, stage.buffer):
        for loops, load in _places(kernel.body[n]):
            if load.buffer == stage.buffer and loops:
                stride = alternates(load, loops[-1])
                return None if stride is None else problem_of(stage, found, stride)
    return None


def _places(s: Stmt, loops: tuple[Sym, ...] = ()) -> Iterator[tuple[tuple[Sym, ...], Load]]:
    """The loads in a statement, with the variables of the loops around them."""
    if isinstance(s, For):
        loops = (*loops, s.var)
    if isinstance(s, Store | Reduce):
        yield from ((loops, x) for x in walk_expr(s.value) if isinstance(x, Load))
    for c in children(s):
        yield from _places(c, loops)


def _joined(kernel: Kernel, stage: Stage, own: Load, other: Load) -> tuple[int, int]:
    """The extent of the axes that only one operand depends on, as far as they can be walked as one,
    and how often that is done for the others."""
    together, apart = 1, 1
    before: Size | None = None
    for v, extent in reversed(stage.axes):
        if v is None or v not in own.size_symbols() or v in other.size_symbols():
            continue
        step = stride_in(kernel, own, v)
        if before is None or (step is not None and step == before):
            together *= max(1, nominal(extent))
            before = None if step is None else step * extent
        else:
            apart *= max(1, nominal(extent))
    return together, apart


def _cycles(
    kernel: Kernel,
    s: Stmt,
    times: float,
    products: Mapping[str, float | None],
    loops: tuple[Sym, ...] = (),
) -> float:
    """Cycles of one lane, two instructions a cycle; those of `products` are known. loops: the
    variables of those around the statement."""
    if isinstance(s, For):
        inner = times * max(0.0, expected(s.extent))
        return sum(_cycles(kernel, c, inner, products, (*loops, s.var)) for c in s.body)
    if isinstance(s, If):
        return sum(_cycles(kernel, c, times, products, loops) for c in (*s.then, *s.orelse))
    if isinstance(s, While):
        return sum(_cycles(kernel, c, times * NOMINAL, products, loops) for c in s.body)
    if not isinstance(s, Store | Reduce):
        return times
    if isinstance(s, Reduce) and _contracts(s):
        # One instruction at best: tiles in registers share the loads.
        return times * max(0.5, products.get(s.buffer) or 0.5)
    work = 1.0 + _work(s.value, set())
    if isinstance(s, Reduce) and isinstance(s.value, Op) and s.value.name == "mul":
        work -= 1.0  # multiplied and added by one instruction
    return times * (work + _gathers(kernel, s, loops)) / 2


def _gathers(kernel: Kernel, s: Store | Reduce, loops: tuple[Sym, ...]) -> float:
    """Instructions for the loads of a statement whose lanes are not side by side in memory. Lanes
    run along the result's last axis, or the innermost loop of a reduction."""
    own = next((v for i in reversed(s.indices) for v in symbols(i) & set(loops)), None)
    ways = {own}
    if loops and isinstance(s, Reduce):
        ways = {loops[-1]} if own is None else {own, loops[-1]}

    def apart(v: Sym | None, loads: Iterable[Load]) -> float:
        if v is None:
            return 0.0
        total = 0.0
        for x in loads:
            if kernel.buffer(x.buffer).scope == "temp" and alternates(x, v):
                total += IN_TURN
            elif not _side_by_side(kernel, x, v):
                turns = any(stride_in(kernel, x, w) == 1 for w in loops if w != v)
                if turns or _picked(kernel, x, v):
                    total += TURNED
                else:
                    divided = any(divisors(i, v) for i in x.indices)
                    total += DIVIDED if divided else GATHERED
        return total

    loads = {x for x in walk_expr(s.value) if isinstance(x, Load)}
    return min(apart(v, loads) for v in ways)


def _picked(kernel: Kernel, load: Load, v: Sym) -> bool:
    """True where lanes along `v` are at known places in a few vectors: every second element, or
    each element twice."""
    offset = offset_of(kernel, load)
    period = math.lcm(1, *(d for i in load.indices for d in divisors(i, v)))
    if opaques(offset) or period > PERIOD:
        return False
    moved = substitute(offset, {v: Dim((((v,), 1),), period)}) - offset
    return isinstance(moved, int) and abs(moved) <= NEAR * period


def _side_by_side(kernel: Kernel, load: Load, v: Sym) -> bool:
    """True where neighbouring values of `v` load neighbouring elements, or one, most of the time:
    also where they do so within parts of the axis, of `SHORT` or more."""
    step = stride_in(kernel, load, v)
    if step is not None:
        return step in (0, 1)
    parts = set().union(*(divisors(i, v) for i in load.indices))
    if not parts:
        return True  # a clamped index: contiguous but for its ends
    part = Sym(f"{v.name}.part", 0, min(parts) - 1)
    first = load.substitute_sizes({v: from_atom(part)})
    assert isinstance(first, Load)
    return min(parts) >= SHORT and stride_in(kernel, first, part) in (0, 1)


def _contracts(s: Reduce) -> bool:
    """True for a sum of products whose last result axis only one factor depends on."""
    e = s.value
    if s.op != "add" or not isinstance(e, Op) or e.name != "mul":
        return False
    a, b = e.args
    own = next((symbols(i) for i in reversed(s.indices) if symbols(i)), frozenset())
    both = isinstance(a, Load) and isinstance(b, Load)
    return both and bool(own & a.size_symbols()) != bool(own & b.size_symbols())


def _work(e: Expr, seen: set[Expr]) -> float:
    """Instructions for the parts of an expression that were not seen yet; indices are free."""
    if e in seen or not isinstance(e, Op | Load):
        return 0.0
    seen.add(e)
    if isinstance(e, Load):
        return 0.5
    if e.name == "select" and _by_index(e):
        return _chosen(e, seen)
    own = EXPANDED if e.name in COSTLY else 1.0
    return own + sum(_work(a, seen) for a in e.args)


def _chosen(e: Op, seen: set[Expr]) -> float:
    """A choice by indices: what its options take on average, as of equal shares. An option without
    work is what lies beyond a border: rare."""
    options: list[Expr] = []
    rest: Expr = e
    while isinstance(rest, Op) and rest.name == "select" and _by_index(rest):
        options.append(rest.args[1])
        rest = rest.args[2]
    options.append(rest)
    found = [_work(x, set(seen)) for x in options]
    some = [w for w in found if w]
    for x in options:
        seen.update(walk_expr(x))
    return sum(some) / len(some) if some else 0.0


def _idle_turns(s: Stmt) -> float:
    """Cycles of one lane for the options of choices by remainders that are not taken: where no
    recipe unrolls what takes turns, loops cannot be cut between them, and all are computed."""
    total = 0.0
    for times, value in _stores(s, 1):
        choices = {x for x in walk_expr(value) if isinstance(x, Op) and x.name == "select"}
        for x in choices:
            if _by_index(x) and _takes_turns(x.args[0]):
                total += times * (1.0 + min(_work(a, set()) for a in x.args[1:])) / 2
    return total


def _takes_turns(condition: Expr) -> bool:
    """True for a condition on a remainder."""
    sizes = (x.size for x in walk_expr(condition) if isinstance(x, Index))
    return any(isinstance(a, Mod) for size in sizes for a in atoms(size))


def _by_index(e: Op) -> bool:
    return not any(isinstance(x, Load) for x in walk_expr(e.args[0]))
