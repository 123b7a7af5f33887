"""Sums of products whose results alternate along the contiguous axis: a transposed convolution of
stride s in channels-first order has s phases, each a product of its own, and the result takes an
element of each in turn.

    parallel row: for tile of pixels:
        acc[filters, s, V vectors] = 0
        for channel: for phase: for its taps: acc += w[..] * x[channel, pixels + shift(phase, tap)]
        y[filters, s * V vectors] = epilogue(acc[.., place % s, place // s])

Lanes are pixels, whose vectors all filters, phases and taps share: few filters, which would leave
lanes empty that run along them, still use them all. The phases are interleaved in registers.

Sums without weights, of what such products leave to be added up, are tiles of the same kind: each
tap adds a run of pixels, without those that lie beyond a border.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from aicc.errors import ScheduleError
from aicc.symbolic import Size, Sym, divides, from_atom, symbols
from aicc.tensor_ir.analysis import Stage
from aicc.tensor_ir.ir import Load
from aicc.tensor_ir.recipes.common import (
    accumulator_load,
    as_number,
    divisors,
    expected,
    parallelise,
    stride_in,
    with_epilogue,
)
from aicc.tensor_ir.recipes.contraction import UNROLLED
from aicc.tensor_ir.recipes.copies import compute_rows
from aicc.tensor_ir.recipes.machine import Machine
from aicc.tensor_ir.recipes.operands import Roles, roles
from aicc.tensor_ir.recipes.plan import Plan
from aicc.tensor_ir.schedule import DecomposeReduction, Reorder, Split, Unroll, Vectorize
from aicc.tensor_ir.schedule_axes import PadAxis
from aicc.tensor_ir.schedule_stages import ComputeAt, Pack
from aicc.tensor_ir.walk import walk_expr

UNALIGNED = 1.5
"""Cycles of a load of a vector that is not where vectors begin."""
CHAINS = 8
"""Accumulators from which on the latency of the multiply-adds is hidden."""
FINISH = 6.0
"""Cycles per vector of results for interleaving and writing them."""
NOMINAL_PIXELS = (8, 16, 32, 64, 128, 256)
"""Pixels of a row that a block is judged by where only a run knows how many there are."""
LEAST_TAPS = 0.25
"""Steps of a reduction that has none for most phases, at least."""


def alternates(load: Load, v: Sym | None) -> int | None:
    """s where a load takes the elements of axis v in turn from s runs: its last indices are `v % s`
    and `v // s`."""
    if v is None or len(load.indices) < 2:
        return None
    phase, place = load.indices[-2:]
    found = divisors(place, v)
    if len(found) != 1:
        return None
    (s,) = found
    return s if place == from_atom(v) // s and phase == from_atom(v) % s else None


def added(stage: Stage) -> Roles | None:
    """A sum over taps of one operand along the last axis, as roles: there is no left operand but
    this one."""
    loads = {x for x in walk_expr(stage.value) if isinstance(x, Load)}
    if stage.op != "add" or len(loads) != 1 or len(stage.axes) < 2:
        return None
    (load,), v = loads, stage.axes[-1][0]
    if v is None:
        return None
    inner = {k for k, _ in stage.reduce}
    along = symbols(load.indices[-1])
    return Roles(len(stage.axes) - 1, None, load, load) if v in along and along & inner else None


def interleaved(plan: Plan, buffer: str) -> None:
    """Schedules a kernel whose one reduction is the stage of `buffer`, a sum of products."""
    buffer, out = with_epilogue(plan, buffer, whole=True)
    final = plan.stage(out)
    load = accumulator_load(plan, out, buffer)
    lane = final.axes[-1][0]
    stride = alternates(load, lane)
    stage = plan.stage(buffer)
    found = roles(stage) or added(stage)
    if (
        stride is None
        and roles(stage) is None
        and lane is not None
        and load.indices[-2:] == (0, from_atom(lane))
    ):
        stride = 1
    if stride is None or found is None or found.column != len(stage.axes) - 1:
        raise ScheduleError(f"{buffer} has no phases that alternate", plan.kernel)
    column = stage.axes[-1][0]
    assert column is not None and lane is not None
    if stride_in(plan.kernel, found.right, column) != 1:
        raise ScheduleError(f"{found.right.buffer} is not contiguous", plan.kernel)
    Interleaving(plan, buffer, out, stride, load).run(stage, found)


@dataclass(frozen=True)
class Problem:
    """A product of `rows` (filters, and phases of other axes that read the same data), `phases`
    along the pixels with `window` taps each, and `depth` steps. pixels: of a row, several numbers
    where only a run knows."""

    rows: tuple[int, ...]
    phases: int
    pixels: tuple[int, ...]
    window: float
    depth: float


@dataclass(frozen=True)
class Block:
    """A tile: so many of each of the rows, in all phases, over so many vectors of pixels."""

    rows: tuple[int, ...]
    vectors: int


def choose_block(machine: Machine, lanes: int, problem: Problem) -> tuple[float, Block] | None:
    """The block that takes least, and its estimated cycles for each pixel. What is needed at
    once has to fit the registers: accumulators, and the vectors of pixels that taps share."""
    best: tuple[float, Block] | None = None
    choices = [[d for d in range(1, n + 1) if n % d == 0] for n in problem.rows]
    for rows in itertools.product(*choices):
        tiled, tiles = math.prod(rows), math.prod(problem.rows) // math.prod(rows)
        for v in range(1, machine.vector_registers):
            sums = tiled * problem.phases * v
            if sums + 2 * v + 2 > machine.vector_registers:
                break
            if v > 1 and max(problem.pixels) <= (v - 1) * lanes:
                break
            each = _tile_cycles(problem, tiled, v)
            if len(problem.pixels) == 1:
                (n,) = problem.pixels
                cost = -(-n // (v * lanes)) * each / n * tiles
            else:
                one, cost = _tile_cycles(problem, tiled, 1), 0.0
                for n in problem.pixels:
                    whole, rest = divmod(n, v * lanes)
                    cost += (whole * each - (-rest // lanes) * one) / n * tiles
                cost /= len(problem.pixels)
            if best is None or cost < best[0] * 0.999:
                best = cost, Block(rows, v)
    return best


def _tile_cycles(problem: Problem, rows: int, vectors: int) -> float:
    sums = rows * problem.phases * vectors
    steps = sums * problem.window * max(1.0, CHAINS / sums)
    loads = UNALIGNED * vectors * (problem.window + 1)
    return max(steps, loads) * problem.depth + FINISH * sums


def problem_of(stage: Stage, found: Roles, phases: int) -> Problem:
    """What a stage with phases that alternate is."""
    taps = taps_of(stage, found)
    window = depth = 1.0
    for n, (_, extent) in enumerate(stage.reduce):
        size = max(LEAST_TAPS, expected(extent))
        window, depth = (window * size, depth) if n in taps else (window, depth * size)
    rows = [stage.axes[n][1] for n in rows_of(stage, found)]
    pixels = as_number(stage.axes[found.column][1])
    widths = NOMINAL_PIXELS if pixels is None else (pixels,)
    return Problem(tuple(as_number(n) or 1 for n in rows), phases, widths, window, depth)


def rows_of(stage: Stage, found: Roles) -> list[int]:
    """The axes that neither the data nor the number of taps depend on, but for the one that is the
    last axis' phase."""
    used = found.right.size_symbols()
    for _, extent in stage.reduce:
        used = used | symbols(extent)
    return [n for n, (v, _) in enumerate(stage.axes[:-2]) if v is not None and v not in used]


def taps_of(stage: Stage, found: Roles) -> list[int]:
    """The reductions along the pixels: numbers of the stage's."""
    along = symbols(found.right.indices[-1])
    return [n for n, (k, _) in enumerate(stage.reduce) if k in along]


@dataclass
class Interleaving:
    """The tiles of a kernel whose accumulator has `stride` phases, in the axis before the last."""

    plan: Plan
    buffer: str
    out: str
    stride: int
    load: Load

    def run(self, stage: Stage, found: Roles) -> None:
        plan = self.plan
        lane, extent = plan.stage(self.out).axes[-1]
        assert lane is not None
        names = [self._name(i) for i in self.load.indices]
        lanes = plan.target.lanes(plan.kernel.buffer(self.buffer).dtype)
        choice = choose_block(plan.target, lanes, problem_of(stage, found, self.stride))
        if choice is None:
            raise ScheduleError(f"{self.stride} phases fit no registers", plan.kernel)
        block = choice[1]
        several = block.vectors > 1 and not isinstance(extent, int)
        width = lanes if several else block.vectors * lanes
        self._widen(found, width)
        self._pack(stage, found)
        plan.do(PadAxis(self.buffer, found.column, width))
        across = [n for n in names if n and n != lane.name]
        within: list[str] = []
        for axis, size in zip(rows_of(stage, found), block.rows, strict=True):
            name = names[axis]
            if size == 1:
                continue
            across.remove(name)
            if size == stage.axes[axis][1]:
                within.append(name)
                continue
            plan.do(Split(name, size))
            across.append(f"{name}.o")
            within.append(f"{name}.i")
        axes = dict(zip(names, (v for v, _ in stage.axes), strict=True))
        still = {v.name for v in stage.variables if self._step(found, v) in (0, None)}
        moving = [n for n in across if (v := axes.get(n)) is not None and v.name not in still]
        across.sort(key=lambda n: n not in moving)
        size = width * self.stride
        plan.do(Split(lane.name, size, "exact" if divides(size, extent) else "guard"))
        at, inside, taps = f"{lane.name}.o", f"{lane.name}.i", taps_of(stage, found)
        plan.do(Reorder((*across, at, *within, inside)))
        if several:
            # The vectors that are left over go by one.
            plan.do(Split(at, block.vectors, "peel"))
            self._tile(f"{at}.t", [f"{n}.t" for n in within], f"{inside}.t", taps, lanes)
            within, at = [f"{at}.i", *within], f"{at}.o"
        self._tile(at, within, inside, taps, lanes)
        leading = [*across, at]
        for s in plan.stages():
            if s.buffer != self.out and s.op is None:
                leading = compute_rows(plan, s.buffer, (moving or leading)[-1], leading)
        parallelise(plan, *leading[:2])

    def _tile(self, at: str, within: list[str], lane: str, taps: list[int], lanes: int) -> None:
        """Computes the tile of each iteration of the loop `at`, and writes it in vectors."""
        self._compute(at, taps, lanes)
        for name in within:
            self.plan.do(Unroll(name))
        self._vectors(lane, lanes)

    def _step(self, found: Roles, v: Sym) -> Size | None:
        return stride_in(self.plan.kernel, found.right, v)

    def _name(self, index: Size) -> str:
        """The loop over an axis of the accumulator that is no phase of the last one."""
        used = symbols(index)
        if len(used) != 1:
            return ""
        (v,) = used
        return v.name if index == from_atom(v) else ""

    def _widen(self, found: Roles, width: int) -> None:
        """Gives a copy of the data (padded) the pixels that whole tiles read."""
        plan = self.plan
        copy = next((s for s in plan.stages() if s.buffer == found.right.buffer), None)
        if copy is None:
            return
        last = len(copy.axes) - 1
        halo = copy.axes[last][1] - plan.stage(self.buffer).axes[-1][1]
        if isinstance(halo, int) and halo >= 0:
            plan.do(PadAxis(copy.buffer, last, width, halo=halo))

    def _pack(self, stage: Stage, found: Roles) -> None:
        """Puts the weights of a tile side by side: rows last, what runs outside first."""
        b = self.plan.kernel.buffer(found.left.buffer)
        if b.scope != "const" or b.pack:
            return
        rows = {stage.axes[n][0] for n in rows_of(stage, found)}
        phase = stage.axes[-2][0]

        def key(n: int) -> int:
            used = symbols(found.left.indices[n])
            return 3 if rows & used else 2 if phase in used else int(stage.reduce[-1][0] in used)

        order = sorted(range(len(b.shape)), key=key)
        if order != [*range(len(b.shape))]:
            self.plan.do(Pack(b.name, " ".join(map(str, order))))

    def _compute(self, at: str, taps: list[int], lanes: int) -> None:
        """Computes the accumulator of one tile inside the loop `at`."""
        plan = self.plan
        plan.do(ComputeAt(self.buffer, at, "register"))
        acc = plan.newest_buffer()
        rank = len(plan.kernel.buffer(acc).shape)
        loops = [n for a in range(rank) if plan.has_loop(n := f"{acc}.{a}")]
        plan.do(DecomposeReduction(loops[0]))
        depth = [n for a in range(16) if plan.has_loop(n := f"{acc}.k{a}")]
        inner = [f"{acc}.k{a}" for a in taps]
        outer = [n for n in depth if n not in inner]
        first = f"{acc}.{rank - 2}"
        phase = [n for n in loops if n == first]
        order = [*outer, *phase, *inner, *(n for n in loops if n != first)]
        plan.do(Reorder(tuple(order)))
        count = 1
        for name in order[len(outer) : -1]:
            count *= as_number(plan.loop(name).extent) or 2
            plan.do(Unroll(name))
        count *= -(-(as_number(plan.loop(order[-1]).extent) or 1) // lanes)
        for name in loops[:-1]:
            plan.do(Unroll(f"{name}.s"))
        for name in (order[-1], f"{order[-1]}.s"):
            self._vectors(name, lanes)
        if outer:
            for factor in (8, 4, 2):
                if factor * count <= UNROLLED and divides(factor, plan.loop(outer[-1]).extent):
                    plan.do(Split(outer[-1], factor), Unroll(f"{outer[-1]}.i"))
                    break

    def _vectors(self, name: str, lanes: int) -> None:
        if as_number(self.plan.loop(name).extent) == lanes:
            self.plan.do(Vectorize(name))
        else:
            self.plan.do(Split(name, lanes), Vectorize(f"{name}.i"), Unroll(f"{name}.o"))
