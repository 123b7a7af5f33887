"""Random small models, some with symbolic sizes: native code against onnxruntime and numpy."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from judging import assert_agree, runtime, same_bits
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotImplementedByRuntime
from random_graphs import random_graph
from random_values import Graph, Skip

import aicc
from aicc.errors import AiccWarning
from aicc.frontend import load_model
from aicc.graph_ir.evaluate import evaluate
from aicc.target import Target

FLOOR = 1e-5
"""What is left where equal numbers of about 1 are taken from each other."""


def check(g: Graph, target: str = "native", threads: int = 2) -> None:
    """Compiles once; for each feed the results are those of numpy and, where it has the operators
    for the element type, of onnxruntime; twice the same bits. No operator is left to Python."""
    data = g.model.SerializeToString()
    try:
        session = runtime(data)
    except NotImplementedByRuntime:
        session = None
    graph = load_model(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error", AiccWarning)
        made = aicc.compile(data, threads=threads, target=target)
    assert isinstance(made, aicc.CompiledModel)
    text = onnx.printer.to_text(g.model)
    try:
        for feed in g.feeds:
            results = made.run(None, feed)
            assert same_bits(results, made.run(None, feed)), text
            expected = list(evaluate(graph, feed).values())
            assert_agree(expected, results, f"numpy\n{text}", floor=FLOOR)
            if session is not None:
                answer = session.run(None, feed)
                assert_agree(answer, results, f"onnxruntime\n{text}", floor=FLOOR)
    finally:
        made.close()


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """A graph of a few steps; hypothesis makes every choice, so that failures shrink."""

    def choose(n: int) -> int:
        return draw(st.integers(0, n - 1))

    try:
        return random_graph(choose, draw(st.integers(1, 6)))
    except Skip:
        assume(False)
        raise


@given(graphs())
@settings(max_examples=40)
def test_small_graphs(g: Graph) -> None:
    check(g)


def seeded(seed: int, steps: int) -> Graph | None:
    choose: Callable[[int], int] = random.Random(seed).randrange
    try:
        return random_graph(choose, steps)
    except Skip:
        return None


@pytest.mark.parametrize("seed", range(24))
def test_larger_graphs(seed: int) -> None:
    """Longer chains than hypothesis draws, on each instruction set."""
    target = ("native", "x86-64-v3", "native", "x86-64")[seed % 4]
    if Target.from_name(target).missing_on_host():
        pytest.skip(f"this machine cannot run {target}")
    g = seeded(seed, 10 + seed)
    if g is not None:
        check(g, target, threads=1 + seed % 2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1000, 1400))
def test_many_graphs(seed: int) -> None:
    g = seeded(seed, 3 + seed % 28)
    if g is not None:
        check(g, threads=1 + seed % 2)
