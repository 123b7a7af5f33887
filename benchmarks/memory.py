"""Memory: how good the orders and places are that are found, and what processes take.

    python benchmarks/memory.py
    python benchmarks/memory.py --parts order placement usage joined      without models
    python benchmarks/memory.py --parts resident --models resnet50,bert_base
    python benchmarks/memory.py --parts resident arenas --onnx my.onnx --dims batch=1

order: the least peak of live bytes over all topological orders of published networks, which are in
problems/. placement: MiniMalloc's problems, to be fitted into a capacity. usage: the networks of
Pisarchyk & Lee. joined: the arena after ordering and placing. arenas: what compiled models need.
resident: memory of fresh processes with one thread, Python and numpy included.

MB are 2^20 bytes. In the table of processes, `compile` is the most that a process has held when its
model can run, `helper` the most of one that compiles kernels for it, `run` what is held after three
runs, aicc's being that of a loaded model; `!` marks where aicc takes more than onnxruntime.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from harness import fresh  # finds aicc where it is not installed

# isort: split

from aicc.memory.joint import lifetimes, plan_memory
from aicc.memory.order_greedy import greedy_orders
from aicc.memory.order_problem import live_peak
from aicc.memory.ordering import order
from aicc.memory.placement import check_placement, greedy, place
from aicc.memory.placement import live_peak as live_bound
from harness.options import Case, add_models, available, cases, parser
from harness.problems import CAPACITY, order_graphs, reverse_post_order, spans
from harness.record import Record
from harness.table import Table, megabytes

MIB = 2.0**20
LARGE = 20 * MIB
"""Bytes of a model's file from which on weights are most of what a process holds."""
T = TypeVar("T")
PUBLISHED = {"mobilenet_v1": 4.594, "mobilenet_v2": 5.742, "inception_v3": 7.913, "posenet": 6.271}
"""MiB by greedy by size, as Pisarchyk & Lee report."""


def main(argv: list[str] | None = None) -> int:
    """Computes, measures and prints; the exit code is 1 where a process or a placement failed."""
    p = parser(__doc__)
    p.add_argument(
        "--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="default: all"
    )
    p.add_argument(
        "--order-seconds", type=float, default=2.0, help="for each search of an order; default: 2"
    )
    p.add_argument(
        "--place-seconds",
        type=float,
        default=120.0,
        help="for each search of places in MiniMalloc's problems; default: 120",
    )
    add_models(p)
    options = p.parse_args(argv)
    record = Record("Memory", __doc__, argv)
    healthy = [PARTS[part](record, options) for part in options.parts]
    record.write(options.markdown, options.json)
    return 0 if all(healthy) else 1


def timed(make: Callable[[], T]) -> tuple[T, float]:
    """What a function returns, and the seconds of this thread's time that it took."""
    began = time.thread_time()
    made = make()
    return made, time.thread_time() - began


def mib(size: float) -> str:
    """MiB with three digits."""
    return f"{size / MIB:.3f}"


def above(size: float, bound: float) -> str:
    """By how much a size exceeds a bound."""
    return f"{100 * (size / bound - 1):.1f} %" if bound else ""


# --- problems -------------------------------------------------------------------------------------


def orders(record: Record, options: argparse.Namespace) -> bool:
    """The least peak over all orders."""
    columns = [("reverse post-order", 18), ("above", 8), ("best greedy", 11), ("found", 8)]
    columns += [("bound", 8), ("known optimum", 13), ("proven", -6), ("s", 7)]
    title = "Order: peak of live bytes, MiB"
    table = record.table([("network", -34), ("nodes", 5), *columns], title)
    healthy = True
    for graph in order_graphs():
        problem = graph.problem
        base = live_peak(problem, reverse_post_order(graph))
        best = min(live_peak(problem, o) for o in greedy_orders(problem))
        found, seconds = timed(partial(order, problem, options.order_seconds))
        healthy &= live_peak(problem, found.sequence) == found.peak >= graph.optimum >= found.bound
        table.row(
            graph.name,
            problem.count,
            mib(base),
            above(base, graph.optimum),
            mib(best),
            mib(found.peak),
            mib(found.bound),
            mib(graph.optimum),
            "yes" if found.proven else "no",
            f"{seconds:.2f}",
        )
        told = {"peak": found.peak, "bound": found.bound, "seconds": seconds}
        record.results.append(
            {
                "part": "order",
                "name": graph.name,
                "nodes": problem.count,
                "reverse_post_order": base,
                "greedy": best,
                "optimum": graph.optimum,
                "proven": found.proven,
                **told,
            }
        )
    return healthy


def placements(record: Record, options: argparse.Namespace) -> bool:
    """MiniMalloc's problems."""
    columns = [("greedy by size", 14), ("above", 8), ("found", 8), ("fits", -4), ("s", 7)]
    title = f"Placement: MiniMalloc's problems, MiB, into {mib(CAPACITY)}"
    table = record.table([("problem", -8), ("buffers", 7), ("live bound", 10), *columns], title)
    healthy = True
    for name, buffers in spans("placement").items():
        bound = live_bound(buffers)
        size = greedy(buffers, "size", 1).size
        found, seconds = timed(
            partial(place, buffers, 1, capacity=CAPACITY, time_budget=options.place_seconds)
        )
        check_placement(buffers, found.offsets, found.size, 1)
        fits = found.size <= CAPACITY
        healthy &= fits
        table.row(
            name.split(".")[0],
            len(buffers),
            mib(bound),
            mib(size),
            above(size, bound),
            mib(found.size),
            "yes" if fits else "NO",
            f"{seconds:.2f}",
        )
        record.results.append(
            {
                "part": "placement",
                "name": name,
                "buffers": len(buffers),
                "bound": bound,
                "greedy_by_size": size,
                "found": found.size,
                "capacity": CAPACITY,
                "seconds": seconds,
            }
        )
    return healthy


def usage(record: Record, options: argparse.Namespace) -> bool:
    """The networks of Pisarchyk & Lee."""
    columns = [("without reuse", 13), ("greedy by size", 14), ("published", 9), ("found", 8)]
    title = "Placement: networks of Pisarchyk & Lee (arXiv 2001.03288), MiB"
    table = record.table(
        [("network", -34), ("tensors", 7), *columns, ("live bound", 10), ("s", 7)], title
    )
    healthy = True
    for name, buffers in spans("usage").items():
        size = greedy(buffers, "size", 1).size
        found, seconds = timed(partial(place, buffers, 1))
        check_placement(buffers, found.offsets, found.size, 1)
        published = next((v for k, v in PUBLISHED.items() if name.startswith(k)), None)
        healthy &= published is None or abs(size / MIB - published) < 0.0006
        table.row(
            name,
            len(buffers),
            mib(sum(b.size for b in buffers)),
            mib(size),
            published,
            mib(found.size),
            mib(found.bound),
            f"{seconds:.3f}",
        )
        told = {"found": found.size, "bound": found.bound, "seconds": seconds}
        record.results.append({"part": "usage", "name": name, "greedy_by_size": size, **told})
    return healthy


def joined(record: Record, options: argparse.Namespace) -> bool:
    """Order and places together: the arena."""
    columns = [("greedy arena", 12), ("live peak", 9), ("arena", 8), ("known optimum", 13)]
    title = "Order and placement together, MiB"
    table = record.table(
        [("network", -34), *columns, ("equal", -5), ("proven", -6), ("s", 7)], title
    )
    healthy = True
    for graph in order_graphs():
        alone = order(graph.problem, options.order_seconds)
        lives, _ = lifetimes(graph.problem, alone.sequence)
        first = place(lives, 1, time_budget=0).size
        found, seconds = timed(partial(plan_memory, graph.problem, options.order_seconds, 1))
        lives, _ = lifetimes(graph.problem, found.order.sequence)
        check_placement(lives, found.placement.offsets, found.size, 1)
        healthy &= found.order.bound <= graph.optimum <= found.size
        table.row(
            graph.name,
            mib(first),
            mib(found.order.peak),
            mib(found.size),
            mib(graph.optimum),
            "yes" if found.size == graph.optimum else "no",
            "yes" if found.proven else "no",
            f"{seconds:.2f}",
        )
        record.results.append(
            {
                "part": "joined",
                "name": graph.name,
                "greedy": first,
                "live_peak": found.order.peak,
                "arena": found.size,
                "optimum": graph.optimum,
                "proven": found.proven,
                "seconds": seconds,
            }
        )
    return healthy


# --- models ---------------------------------------------------------------------------------------


def arenas(record: Record, options: argparse.Namespace) -> bool:
    """What compiled models need."""
    import aicc

    columns = [("live peak", 9), ("any order", 9), ("proven", -6), ("without reuse", 13)]
    title = "Arenas of compiled models, MiB"
    table = record.table([("model", -18), ("tensors", 7), ("arena", 8), *columns], title)
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases(options, Path(temporary)):
            shapes = {n: a.shape for n, a in case.feed.items()}
            with contextlib.closing(aicc.compile(str(case.path), threads=1)) as compiled:
                m = compiled.memory() or compiled.memory(shapes)
            assert m is not None
            table.row(
                case.name,
                len(m.tensors),
                mib(m.arena),
                mib(m.live_peak),
                None if m.bound is None else mib(m.bound),
                "yes" if m.proven else "no",
                mib(sum(t.bytes for t in m.tensors)),
            )
            record.results.append({"part": "arenas", "model": case.name, **m.as_dict(whole=False)})
    return True


def resident(record: Record, options: argparse.Namespace) -> bool:
    """Memory of processes."""
    others = available(["onnxruntime", "openvino"])[:-1]
    columns = [("model", -18), ("file", 6), ("weights", 7), ("arena", 7), ("compile", 8)]
    columns += [(f"{name} load", len(name) + 5) for name in others]
    columns += [("helper", 6), ("run", 8), *((f"{name} run", len(name) + 4) for name in others)]
    table = record.table([*columns, ("load s", 7)], "Memory of processes, MB")
    healthy = True
    with tempfile.TemporaryDirectory() as temporary:
        for case in cases(options, Path(temporary)):
            figures = process_figures(case, others, Path(temporary))
            healthy &= show(table, case, figures, others)
            record.results.append({"part": "resident", "model": case.name, "figures": figures})
    summarize(record)
    return healthy


def summarize(record: Record) -> None:
    """What the processes hold beyond weights and arena, and where that is more than onnxruntime."""
    found = [r["figures"] for r in record.results if r["part"] == "resident"]
    found = [f for f in found if not any("error" in f[kind] for kind in ("aicc", "loaded"))]
    if not found:
        return
    compiling = max(f["aicc"]["ready_peak"] - 1.6 * f["aicc"]["file"] for f in found)
    running = max(
        f["loaded"]["running"] - f["loaded"]["weights"] - f["loaded"]["arena"] for f in found
    )
    record.line(
        f"compiling holds at most {megabytes(compiling)} MB beyond 1.6 times the file; running "
        f"at most {megabytes(running)} MB beyond weights and arena"
    )
    told = {"part": "resident", "compiling_beyond": compiling, "running_beyond": running}
    large = [f for f in found if f["aicc"]["file"] > LARGE and "peak" in f.get("onnxruntime", {})]
    if large:
        more = {
            "compiling": sum(
                f["aicc"]["ready_peak"] > f["onnxruntime"]["ready_peak"] for f in large
            ),
            "running": sum(f["loaded"]["running"] > f["onnxruntime"]["running"] for f in large),
        }
        record.line(
            f"of {len(large)} models with more than {megabytes(LARGE)} MB of weights, compiling "
            f"holds more than onnxruntime on {more['compiling']}, running on {more['running']}"
        )
        told["large_models_above_onnxruntime"] = more
    record.summary.append(told)


def process_figures(case: Case, others: Sequence[str], folder: Path) -> dict[str, dict[str, Any]]:
    """What a fresh process of each engine tells; {"error": message} where it failed."""
    inputs, saved = folder / "inputs.npz", folder / "saved.aicc"
    np.savez(inputs, **case.feed)  # type: ignore[arg-type]
    none = {"AICC_CACHE": "0"}
    found = {
        engine: fresh.ask(engine, case.path, inputs, 1, saved, none)
        for engine in ("aicc", "loaded", *others)
    }
    saved.unlink(missing_ok=True)
    found["aicc"]["file"] = case.path.stat().st_size
    return found


def show(
    table: Table, case: Case, figures: dict[str, dict[str, Any]], others: Sequence[str]
) -> bool:
    """Prints one row, and the errors under it; tells whether there were none."""
    own, loaded, first = figures["aicc"], figures["loaded"], figures.get("onnxruntime", {})

    def compared(ours: Any, theirs: Any) -> str | None:
        more = ours is not None and theirs is not None and ours > theirs
        return None if ours is None else f"{megabytes(ours)}{'!' if more else ''}"

    table.row(
        case.name,
        megabytes(case.path.stat().st_size),
        megabytes(own.get("weights")),
        megabytes(own.get("arena")),
        compared(own.get("ready_peak"), first.get("ready_peak")),
        *(megabytes(figures[name].get("ready_peak")) for name in others),
        megabytes(own.get("compilers")),
        compared(loaded.get("running"), first.get("running")),
        *(megabytes(figures[name].get("running")) for name in others),
        f"{loaded['import_seconds'] + loaded['load_seconds']:.3f}"
        if "load_seconds" in loaded
        else None,
    )
    errors = [told["error"] for told in figures.values() if "error" in told]
    for error in errors:
        print(f"    {error}")
    return not errors


PARTS: dict[str, Callable[[Record, argparse.Namespace], bool]] = {
    "order": orders,
    "placement": placements,
    "usage": usage,
    "joined": joined,
    "arenas": arenas,
    "resident": resident,
}


if __name__ == "__main__":
    sys.exit(main())
