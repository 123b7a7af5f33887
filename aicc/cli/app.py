"""The commands: run, compile, resume, bench, profile, memory, inspect."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import aicc
from aicc.cli.session import MISSING, Progress, say, session
from aicc.cli.values import (
    UsageError,
    file_name,
    files,
    port_dict,
    random_feed,
    sizes,
    summary,
    summary_text,
    table,
    to_json,
)
from aicc.dtypes import to_numpy
from aicc.model import CompiledModel, Report
from aicc.runtime.feed import Port
from aicc.runtime.program import Call
from aicc.runtime.saved import is_saved

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="""Compiles ONNX models to native CPU code, runs them, and shows what became of them.

    Standard output has the result alone; progress, warnings and errors go to standard error.

    Exit codes: 0 done; 1 the model cannot be read or compiled; 2 a wrong option, input or file;
    3 a run was ended by its data, or by the engine; 4 a package is missing; 130 interrupted.
    """,
)

Model = Annotated[str, typer.Argument(metavar="MODEL", help="An ONNX file.")]
Runnable = Annotated[
    str, typer.Argument(metavar="MODEL", help="An ONNX file, or one that `compile -o` wrote.")
]
Dims = Annotated[
    list[str],
    typer.Option("--dims", metavar="NAME=SIZE,...", help="Sizes that the code is fixed to."),
]
Sizes = Annotated[
    list[str],
    typer.Option(
        "--sizes",
        metavar="NAME=SIZE,...",
        help="Sizes of random inputs where the model leaves them open; without it, 1 on a first "
        "axis, else 64.",
    ),
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Threads of a run; all cores without it.")
]
TargetName = Annotated[
    str | None, typer.Option("--target", help="The machine to compile for; this one without it.")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", help="Also what was weighed by estimated times.")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON.")]
Debug = Annotated[bool, typer.Option("--debug", help="Errors with their traceback.")]
Inputs = Annotated[
    list[str],
    typer.Option("--input", "-i", metavar="NAME=FILE.npy", help="An input's array."),
]
Random = Annotated[bool, typer.Option("--random", help="Random arrays for the other inputs.")]
Seed = Annotated[int, typer.Option("--seed", help="Of the random arrays.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        metavar="BYTES",
        help="The most memory between kernels, as 2MiB; parts run in patches where they need more.",
    ),
]
StopAfter = Annotated[
    str | None, typer.Option("--stop-after", metavar="PASS", help="Ends after this pass.")
]
Dump = Annotated[
    Path | None,
    typer.Option("--dump", metavar="DIR", help="A folder for the text after each pass."),
]
Check = Annotated[
    int | None,
    typer.Option(
        "--check",
        min=0,
        max=3,
        help="Between passes: 0, 1 verify; 2 also read the text back; 3 also evaluate.",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"aicc {aicc.__version__}")
        raise typer.Exit()


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    pass


def _stages(progress: Progress, what: str) -> Callable[[str, float], None]:
    return lambda stage, seconds: progress(f"{what}: {stage} done in {seconds:.2f} s")


def _feed(
    ports: tuple[Port, ...], inputs: list[str], random: bool, given: list[str], seed: int
) -> dict[str, Any]:
    feed = files(inputs, ports)
    missing = [p.name for p in ports if p.name not in feed]
    if missing and not random:
        raise UsageError(
            f"no array for the inputs {', '.join(missing)}: give --input NAME=FILE.npy, or --random"
        )
    return random_feed(ports, sizes(given, "--sizes"), seed, feed) if random else feed


def _compiled(
    progress: Progress,
    model: str,
    threads: int | None,
    dims: list[str],
    target: str | None,
) -> CompiledModel:
    """The model of an ONNX file, compiled, or of a saved one, loaded."""
    if is_saved(model):
        if dims or target is not None:
            raise UsageError(f"{model!r} is compiled already: --dims and --target come too late")
        progress("loading")
        return aicc.load(model, threads=threads)
    progress("compiling")
    return aicc.compile(
        model,
        threads=threads,
        dims=sizes(dims, "--dims") or None,
        target=target,
        progress=_stages(progress, "compiling"),
    )


@app.command()
def run(
    model: Runnable,
    inputs: Inputs = [],  # noqa: B006 - typer copies it
    random: Random = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Where NAME.npy go.")
    ] = None,
    seed: Seed = 0,
    given: Sizes = [],  # noqa: B006
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    target: TargetName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Runs a model once and shows its outputs. With --output, writes them to files."""
    with session(debug) as progress:
        compiled = _compiled(progress, model, threads, dims, target)
        feed = _feed(compiled.inputs, inputs, random, given, seed)
        progress("running")
        results = compiled.run(None, feed)
        told = [summary(p.name, a) for p, a in zip(compiled.outputs, results)]
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
            for t, array in zip(told, results):
                path = output / f"{file_name(t['name'])}.npy"
                if array.dtype.kind == "O":
                    array = array.astype(np.str_)  # a file of objects would be a program
                np.save(path, array, allow_pickle=False)
                t["file"] = str(path)
    if as_json:
        print(to_json({"outputs": told}))
    else:
        for t in told:
            print(summary_text(t) + (f"  -> {t['file']}" if "file" in t else ""))


@app.command("compile")
def compile_(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where it is saved.")
    ] = None,
    dump: Dump = None,
    stop_after: StopAfter = None,
    check: Check = None,
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    target: TargetName = None,
    memory_budget: Budget = None,
    verbose: Verbose = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compiles a model and shows the report. With --stop-after, shows the text of that stage."""
    with session(debug) as progress:
        if output is not None and stop_after is not None:
            raise UsageError("--output saves a model that is compiled, not one of --stop-after")
        progress("compiling")
        made = aicc.compile(
            model,
            threads=threads,
            dims=sizes(dims, "--dims") or None,
            target=target,
            memory_budget=memory_budget,
            dump=dump,
            stop_after=stop_after,
            check=check,
            progress=_stages(progress, "compiling"),
        )
        result = _stage(made, dump, verbose)
        if output is not None:
            assert isinstance(made, CompiledModel)
            progress("saving")
            made.save(output)
            result["files"] = [*result.get("files", ()), str(output)]
    _print_stage(result, as_json)


@app.command()
def resume(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What --dump wrote.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="The pass whose text it is.")],
    dump: Dump = None,
    stop_after: StopAfter = None,
    check: Check = None,
    threads: Threads = None,
    target: TargetName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Goes on from a dumped text, edited or not. Shows what `compile` shows."""
    with session(debug) as progress:
        progress("compiling")
        made = aicc.resume(
            folder,
            after,
            threads=threads,
            target=target,
            dump=dump,
            stop_after=stop_after,
            check=check,
            progress=_stages(progress, "compiling"),
        )
        result = _stage(made, dump)
    _print_stage(result, as_json)


def _stage(made: Any, dump: Path | None, verbose: bool = False) -> dict[str, Any]:
    """What is told about a compiled model, or a stage before it."""
    result: dict[str, Any] = {}
    if isinstance(made, CompiledModel):
        result["report"] = made.report(verbose=verbose)
    else:
        result["level"] = type(made).__name__
        if dump is None:
            result["text"] = str(made)
    if dump is not None:
        result["files"] = sorted(str(p) for p in dump.glob("[0-9][0-9]_*.txt"))
    return result


def _print_stage(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        report = result.get("report")
        print(to_json(result | ({"report": report.as_dict()} if report is not None else {})))
        return
    for part in ("report", "text"):
        if part in result:
            print(str(result[part]).rstrip("\n"))
    for path in result.get("files", ()):
        print(path)


@app.command()
def bench(
    model: Model,
    vs: Annotated[
        str | None, typer.Option("--vs", metavar="onnxruntime", help="What to compare with.")
    ] = None,
    inputs: Inputs = [],  # noqa: B006
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each engine.")] = 5,
    seconds: Annotated[float, typer.Option("--seconds", min=0.0, help="Of each turn.")] = 0.5,
    seed: Seed = 0,
    given: Sizes = [],  # noqa: B006
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    target: TargetName = None,
    memory_budget: Budget = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Times a model beside another engine. Inputs are random, or those of --input; each engine has
    a process of its own."""
    from aicc.cli.bench import measure
    from aicc.target import usable_cores

    with session(debug) as progress:
        engines = ["aicc", *([] if vs is None else [vs])]
        if vs not in (None, "onnxruntime"):
            raise UsageError(f"--vs {vs!r}: aicc is compared with onnxruntime")
        if vs is not None and importlib.util.find_spec(vs) is None:
            say(f"error: --vs {vs} needs the package {vs}; pip install 'aicc[bench]' brings it")
            raise typer.Exit(MISSING)
        fixed = sizes(dims, "--dims")
        feed = _feed(_ports(model, fixed), inputs, True, given, seed)
        count = threads or usable_cores()
        options = {"dims": fixed or None, "target": target, "memory_budget": memory_budget}
        timings = measure(model, feed, engines, count, options, rounds, seconds, progress)
    first = timings[0]
    if as_json:
        shapes = {n: list(a.shape) for n, a in feed.items()}
        result: dict[str, Any] = {"model": model, "threads": count, "inputs": shapes}
        result["engines"] = [t.as_dict() for t in timings]
        if vs is not None:
            result["ratio"] = {"best": first.best / timings[1].best}
            result["ratio"]["median"] = first.median / timings[1].median
        print(to_json(result))
        return
    print(", ".join(f"{n}: {a.dtype}{list(a.shape)}" for n, a in feed.items()), end="")
    print(f"; {count} thread{'s' if count > 1 else ''}")
    head = ["engine", "best ms", "median ms", "runs", "load s", "peak MiB", "results"]
    rows = []
    for t in timings:
        agrees = "" if t is first else t.difference or "agree"
        row = [t.engine, f"{1e3 * t.best:.3f}", f"{1e3 * t.median:.3f}", len(t.times)]
        rows.append([*row, f"{t.load:.2f}", t.peak >> 20, agrees])
    print(table(head, rows))
    if vs is not None:
        best, median = first.best / timings[1].best, first.median / timings[1].median
        print(f"aicc takes {best:.2f} times as long as {vs} at best, {median:.2f} in the median")


@app.command()
def profile(
    model: Runnable,
    inputs: Inputs = [],  # noqa: B006
    top: Annotated[
        int | None, typer.Option("--top", min=1, help="Kernels shown; all without it.")
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option("--trace", metavar="FILE", help="Where a trace for Perfetto or Chrome goes."),
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of which the best counts.")] = 10,
    seed: Seed = 0,
    given: Sizes = [],  # noqa: B006
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    target: TargetName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Shows each kernel's time, work and limits. Inputs are random, or those of --input. The kernel
    that loses most time, beside what the machine's limits allow, comes first."""
    with session(debug) as progress:
        compiled = _compiled(progress, model, threads, dims, target)
        feed = _feed(compiled.inputs, inputs, True, given, seed)
        progress("running")
        result = compiled.profile(feed, runs)
        if trace is not None:
            result.to_chrome_trace(trace)
    print(to_json(result.as_dict()) if as_json else result.table(top))


@app.command()
def memory(
    model: Runnable,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            metavar="FILE.svg",
            help="A drawing of lifetimes and offsets; svg, pdf or png, by the name's ending.",
        ),
    ] = None,
    given: Sizes = [],  # noqa: B006
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    target: TargetName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Shows what lies in a run's memory. Also the most that is alive at once, what any order of the
    steps would need, and what of that is proven. Sizes that the model leaves open are those of
    --sizes; with --dims, the code is fixed to them and the bound for any order is known."""
    with session(debug) as progress:
        compiled = _compiled(progress, model, threads, dims, target)
        found = compiled.memory()
        if found is None:
            feed = random_feed(compiled.inputs, sizes(given, "--sizes"), 0)
            found = compiled.memory({n: a.shape for n, a in feed.items()})
        assert found is not None
        if plot is not None:
            from aicc.viz import plot_memory

            progress("drawing")
            plot_memory(found, plot)
    if as_json:
        print(to_json(found.as_dict() | {"weights": compiled.program.constant_bytes}))
    else:
        print(found)
        if plot is not None:
            print(plot)


def _ports(model: str, dims: dict[str, int]) -> tuple[Port, ...]:
    """The inputs of a model that is not compiled."""
    from aicc.frontend import load_model

    graph = load_model(model, dims or None)
    types = ((n, graph.types[n]) for n in graph.inputs)
    return tuple(Port(n, to_numpy(t.dtype), t.shape) for n, t in types)


@app.command()
def inspect(
    model: Model,
    dims: Dims = [],  # noqa: B006
    threads: Threads = None,
    target: TargetName = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Shows inputs, outputs and operators of a model. Also what compiling makes of them."""
    from aicc.frontend import load_model

    with session(debug) as progress:
        progress("reading")
        fixed = sizes(dims, "--dims") or None
        operators = Counter(n.op for n in load_model(model, fixed).nodes)
        stages: dict[str, float] = {}

        def note(stage: str, seconds: float) -> None:
            stages[stage] = stages.get(stage, 0.0) + seconds
            progress(f"compiling: {stage} done")

        compiled = aicc.compile(model, threads=threads, dims=fixed, target=target, progress=note)
        report = compiled.report()
        kernels = Counter(s.kernel for s in compiled.program.steps if isinstance(s, Call))
    if as_json:
        print(to_json(_inspection(compiled, operators, stages, kernels, report)))
        return
    for title, ports in (("inputs", compiled.inputs), ("outputs", compiled.outputs)):
        print(f"{title}:")
        for p in ports:
            print(f"  {p}")
    print(f"\n{table(['operator', 'nodes'], operators.most_common())}")
    print(f"\n{table(['stage', 'ms'], [(n, f'{1e3 * s:.1f}') for n, s in stages.items()])}")
    print(f"\n{table(['kernel', 'calls'], kernels.most_common())}")
    print(f"\n{report}")


def _inspection(
    compiled: CompiledModel,
    operators: Counter[str],
    stages: dict[str, float],
    kernels: Counter[str],
    report: Report,
) -> dict[str, Any]:
    return {
        "inputs": [port_dict(p) for p in compiled.inputs],
        "outputs": [port_dict(p) for p in compiled.outputs],
        "operators": dict(operators.most_common()),
        "stages": stages,
        "kernels": dict(kernels.most_common()),
        "report": report.as_dict(),
    }
