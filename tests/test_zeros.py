"""Products of what a ReLU leaves, from end to end: which calls leave out terms, and results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import aicc
from aicc.target import Target
from zoo.builder import GraphBuilder

Array = np.ndarray[Any, Any]
WIDE = Target.from_name("x86-64-v4")
LEVELS = ["native", "x86-64-v3", "x86-64"]
TARGETS = [t for t in map(Target.from_name, LEVELS) if not t.missing_on_host()]


def weights(k: int, n: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).standard_normal((k, n)) / k**0.5).astype(np.float32)


def layer(
    w: Array, rows: int | str = 40, activation: str = "Relu", views: bool = False, **attrs: Any
) -> bytes:
    """activation(x) @ w, and activation(x); views: through a reshape."""
    g = GraphBuilder("layer")
    h = g.op(activation, g.input("x", (rows, w.shape[0])), **attrs)
    g.output(h, "h", (rows, w.shape[0]))
    if views:
        h = g.op("Reshape", h, g.ints(-1, 2, w.shape[0]))
    shape = (rows // 2, 2, w.shape[1]) if views and isinstance(rows, int) else (rows, w.shape[1])
    g.output(g.op("MatMul", h, g.constant(w)), "y", shape)
    return bytes(g.build().SerializeToString())


def is_chosen(model: bytes, target: Target = WIDE) -> bool:
    module = aicc.compile(model, threads=1, target=target, stop_after="schedule")
    return "\n  bits " in str(module).replace("    ", "")


def data(rows: int, columns: int, density: float) -> Array:
    rng = np.random.default_rng(1)
    x = np.abs(rng.standard_normal((rows, columns))).astype(np.float32) + np.float32(0.1)
    return np.where(rng.random((rows, columns)) < density, x, -x)


@pytest.mark.parametrize(
    ("model", "chosen"),
    [
        (layer(weights(64, 256)), True),
        (layer(weights(64, 256), "n"), True),
        (layer(weights(64, 256), views=True), True),
        (layer(weights(64, 256), activation="Tanh"), False),
        (layer(weights(64, 256), activation="LeakyRelu"), False),
        (layer(weights(64, 200)), False),
        (layer(weights(70, 256)), False),
        (layer(weights(64, 256), 4), False),
        (layer(np.where(weights(64, 256) > 0.4, np.inf, 1).astype(np.float32)), False),
        (layer(np.where(weights(64, 256) > 0.4, np.nan, 1).astype(np.float32)), False),
    ],
)
def test_which_products_leave_out_terms(model: bytes, chosen: bool) -> None:
    assert is_chosen(model) == chosen


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("density", [0, 0.02, 0.3, 0.58, 0.62, 1])
def test_results(density: float, target: Target) -> None:
    w = weights(96, 256)
    model = aicc.compile(layer(w, "n"), threads=1, target=target)
    for rows in (1, 5, 32, 41, 100):
        x = data(rows, 96, density)
        (y,) = model.run(["y"], {"x": x})
        np.testing.assert_allclose(y, np.maximum(x, 0) @ w, 1e-4, 1e-5)


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_bits_are_the_same_for_any_number_of_threads(density: float) -> None:
    model = layer(weights(512, 1024), "n")
    one, two = (aicc.compile(model, threads=n) for n in (1, 2))
    for rows in (3, 64, 130):
        feed = {"x": data(rows, 512, density)}
        assert one.run(["y"], feed)[0].tobytes() == two.run(["y"], feed)[0].tobytes()


def test_what_is_no_number_stays_none() -> None:
    w = weights(64, 256)
    x = data(40, 64, 0.3)
    x[3, 5], x[7, 9], x[9] = np.nan, np.inf, -0.0
    (y,) = aicc.compile(layer(w), threads=1).run(["y"], {"x": x})
    assert np.isnan(y[3]).all()
    assert not np.isfinite(y[7]).any()
    assert (y[9] == 0).all()
    good = np.delete(np.arange(40), [3, 7, 9])
    np.testing.assert_allclose(y[good], np.maximum(x, 0)[good] @ w, 1e-4, 1e-5)


def test_weights_that_are_infinite_count() -> None:
    w = weights(64, 256)
    w[2, 3] = np.inf
    (y,) = aicc.compile(layer(w), threads=1).run(["y"], {"x": -np.ones((40, 64), np.float32)})
    assert np.isnan(y[:, 3]).all()
    assert (np.delete(y, 3, 1) == 0).all()


def test_the_report_tells_of_it() -> None:
    report = aicc.compile(layer(weights(64, 256)), threads=1).report(verbose=True)
    assert ("zeros taken" in str(report)) == is_chosen(layer(weights(64, 256)), Target.host())
