"""Fusion weighs in which order memory is read and written: what lanes would gather, and values that
blocks compute once for many elements, are not computed again for each."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

import aicc
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from zoo.builder import GraphBuilder


def shuffled() -> onnx.ModelProto:
    """A wide convolution whose channels become pixels."""
    g = GraphBuilder("shuffled")
    x = g.conv(g.input("x", (1, 32, 24, 24)), "up", 32, 128, 3)
    g.output(g.op("DepthToSpace", x, blocksize=2, mode="CRD"), "y", (1, 32, 48, 48))
    return g.build()


def group_normalised() -> onnx.ModelProto:
    """Convolutions with GroupNorm between them, as exporters write it before opset 18."""
    g = GraphBuilder("groups")
    x = g.conv(g.input("x", (1, 32, 24, 24)), "a", 32, 32, 3)
    x = g.op("Reshape", x, g.ints(0, 4, -1))
    ones, zeros = g.constant(np.ones(4, "f")), g.constant(np.zeros(4, "f"))
    x = g.op("InstanceNormalization", x, ones, zeros)
    x = g.op("Relu", g.op("Reshape", x, g.ints(1, 32, 24, 24)))
    g.output(g.conv(x, "b", 32, 32, 3), "y", (1, 32, 24, 24))
    return g.build()


@pytest.mark.parametrize("model", [shuffled, group_normalised])
def test_tiles_of_results_are_not_computed_element_by_element(model) -> None:  # type: ignore[no-untyped-def]
    """What transforms the products of a convolution writes whole tiles; what reads them in another
    order is a kernel of its own."""
    module = aicc.compile(model(), stop_after="fuse", target="x86-64-v4")
    assert isinstance(module, Module)
    transforms = [n for n in module.kernels if "winogradoutput" in n]
    assert transforms
    for name in transforms:
        assert "depthtospace" not in name
        assert "reducemean" not in name
        assert "transpose" not in name


def test_sizes_that_leave_nothing_are_refused() -> None:
    """Two axes below zero would give a number of elements above it."""
    g = GraphBuilder("window")
    x = g.input("x", (1, 3, "h", "w"))
    y = g.op("Conv", x, g.normal("w", (20, 3, 3, 3), 0.2))
    g.output(y, "y", (1, 20, None, None))
    model = aicc.compile(g.build())
    assert model.run(None, {"x": np.ones((1, 3, 2, 5), "f")})[0].shape == (1, 20, 0, 3)
    with pytest.raises(aicc.InputError, match="h - 2 = -1 elements: h = 1, w = 1"):
        model.run(None, {"x": np.ones((1, 3, 1, 1), "f")})


def rotary(half: int = 8) -> onnx.ModelProto:
    """Rotary embedding as exporters write it: x * cos + (-x2, x1) * sin."""
    g = GraphBuilder("rotary")
    x = g.input("x", (1, "n", 4, 2 * half))
    cos, sin = g.input("cos", (1, "n", 1, 2 * half)), g.input("sin", (1, "n", 1, 2 * half))
    first = g.op("Slice", x, g.ints(0), g.ints(half), g.ints(3))
    last = g.op("Slice", x, g.ints(half), g.ints(2 * half), g.ints(3))
    turned = g.op("Concat", g.op("Neg", last), first, axis=3)
    y = g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))
    g.output(g.op("Transpose", y, perm=[0, 2, 1, 3]), "y", (1, 4, "n", 2 * half))
    return g.build()


def repeated() -> onnx.ModelProto:
    """A costly map of which each element is read many times."""
    g = GraphBuilder("repeated")
    x = g.op("Exp", g.input("x", (1, 64, 64)))
    g.output(g.op("Tile", x, g.ints(16, 1, 1)), "y", (16, 64, 64))
    return g.build()


@pytest.mark.parametrize(("model", "kernels"), [(rotary, 1), (repeated, 2)])
def test_maps_take_in_the_maps_that_only_they_read(model, kernels) -> None:  # type: ignore[no-untyped-def]
    module = aicc.compile(model(), stop_after="fuse", target="x86-64-v4")
    assert isinstance(module, Module)
    assert len(module.kernels) == kernels


def test_rotary_embedding() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 5, 4, 16)).astype("f")
    cos, sin = (rng.standard_normal((1, 5, 1, 16)).astype("f") for _ in range(2))
    turned = np.concatenate([-x[..., 8:], x[..., :8]], 3)
    (y,) = aicc.compile(rotary()).run(None, {"x": x, "cos": cos, "sin": sin})
    np.testing.assert_allclose(y, (x * cos + turned * sin).transpose(0, 2, 1, 3), 1e-5, 1e-6)


def test_weights_that_are_computed_are_turned_once() -> None:
    """A convolution whose weights come at run time takes them with the filters last."""
    g = GraphBuilder("mixed")
    x = g.input("x", (1, 8, 12, 12))
    w = g.op("Mul", g.normal("w", (24, 8, 3, 3), 0.1), g.input("scale", (24, 1, 1, 1)))
    y = g.op("Relu", g.op("Conv", x, w, pads=[1, 1, 1, 1]))
    d = g.op("Mul", g.normal("d", (24, 1, 3, 3), 0.1), g.input("scales", (24, 1, 1, 1)))
    g.output(g.op("Conv", y, d, group=24), "y", (1, 24, 10, 10))
    model = g.build()
    graph = aicc.compile(model, stop_after="layout")
    assert isinstance(graph, Graph)
    convolutions = [n for n in graph.nodes if n.op == "Conv"]
    assert [n.attr("filters_last", 0) for n in convolutions] == [1, 1]
    feed = {
        "x": np.random.default_rng(0).standard_normal((1, 8, 12, 12)).astype("f"),
        "scale": np.linspace(0.5, 1.5, 24, dtype="f").reshape(24, 1, 1, 1),
        "scales": np.linspace(-1, 1, 24, dtype="f").reshape(24, 1, 1, 1),
    }
    (expected,) = ReferenceEvaluator(model).run(None, feed)
    (result,) = aicc.compile(model).run(None, feed)
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)


def test_a_block_of_blocks_is_two_kernels() -> None:
    """Results of tiles that are computed from and then repeated: each element would need a tile."""
    g = GraphBuilder("repeated_tiles")
    x = g.op("Elu", g.conv(g.input("x", (1, 32, 24, 24)), "a", 32, 64, 3))
    x = g.op("Resize", x, "", g.constant(np.array([1, 1, 2, 2], np.float32)), mode="nearest")
    g.output(g.conv(x, "b", 64, 32, 3), "y", (1, 32, 48, 48))
    module = aicc.compile(g.build(), stop_after="fuse", target="x86-64-v4")
    assert isinstance(module, Module)
    assert any("winogradoutput" in n for n in module.kernels)
    assert not any("winogradoutput" in n and "resize" in n for n in module.kernels)


def test_a_view_is_not_taken_out_before_what_its_shape_is_made_of() -> None:
    """The shape that GroupNorm comes back to is computed in the kernel that reads the view."""
    g = GraphBuilder("shapes")
    x = g.op("Conv", g.input("x", (1, 8, "h", "w")), g.normal("a", (8, 8, 1, 1), 0.3))
    ones, zeros = g.constant(np.ones(4, "f")), g.constant(np.zeros(4, "f"))
    y = g.op("InstanceNormalization", g.op("Reshape", x, g.ints(0, 4, -1)), ones, zeros)
    y = g.op("Reshape", y, g.op("Shape", x))
    y = g.op("Mul", y, g.normal("s", (8, 1, 1), 1.0))
    y = g.op("Mul", y, g.op("Sigmoid", y))
    z = g.op("Conv", y, g.normal("b", (8, 8, 1, 1), 0.3))
    g.output(g.op("Add", z, x), "y", (1, 8, "h", "w"))
    model = g.build()
    data = np.random.default_rng(0).standard_normal((1, 8, 5, 6)).astype("f")
    (expected,) = ReferenceEvaluator(model).run(None, {"x": data})
    (result,) = aicc.compile(model).run(None, {"x": data})
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-4)
