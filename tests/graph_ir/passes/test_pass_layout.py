import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_builder import Build, applied, count, ops

from aicc.decisions import collect
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.passes import control_flow
from aicc.graph_ir.passes.axes import permuted, significant
from aicc.graph_ir.passes.axis_rules import runs_of
from aicc.graph_ir.passes.batchnorm import FoldBatchNorm
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.layout import ChooseLayout
from aicc.graph_ir.passes.simplify import Simplify
from aicc.graph_ir.types import TensorType
from aicc.kernels import Coster
from aicc.lower import Describer
from aicc.ops import registry
from aicc.symbolic import sym
from aicc.target import Target

PASSES = (Decompose(), Simplify(), FoldBatchNorm(), Simplify(), ChooseLayout(), Simplify())
N, H, W = sym("n", 1), sym("h", 1), sym("w", 1)


def i64(b, *values):
    return b.const(np.array(values, np.int64))


def conv(b, x, c, o, k=3, **attrs):
    pads = (k // 2,) * 4
    return b("Conv", x, b.weights(o, c // attrs.get("group", 1), k, k), pads=pads, **attrs)


def laid_out(graph, **sizes):
    return applied(graph, *PASSES, **sizes)


def test_two_convolutions(golden):
    b = Build("two")
    x = b.input("x", 1, 3, 6, 5)
    y = conv(b, b("Relu", conv(b, x, 3, 4)), 4, 2)
    after = laid_out(b.done(y))
    assert ops(after) == ["Transpose", "Conv", "Relu", "Conv", "Transpose"]
    golden("layout", str(after))


def test_residual_networks():
    b = Build()
    x = conv(b, b.input("x", 1, 3, 6, 6), 3, 4)
    for _ in range(2):
        x = b("Relu", b("Add", conv(b, b("Relu", conv(b, x, 4, 4)), 4, 4), x))
    pooled = b("Flatten", b("GlobalAveragePool", x), axis=1)
    after = laid_out(b.done(b("Gemm", pooled, b.weights(4, 7))))
    assert count(after)["Transpose"] == 1
    assert ops(after)[0] == "Transpose"


def test_dense_networks():
    b = Build()
    x = conv(b, b.input("x", 2, 3, 6, 6), 3, 4)
    x = b("Concat", x, conv(b, b("Relu", x), 4, 4), axis=1)
    x = b("Concat", x, conv(b, b("Relu", x), 8, 4), axis=-3)
    left, right = b("Split", b("MaxPool", x, kernel_shape=(2, 2)), n=2, axis=1, num_outputs=2)
    after = laid_out(b.done(b("Add", left, right)))
    assert count(after)["Transpose"] == 2
    assert [n.attr("axis") for n in after.nodes if n.op in ("Concat", "Split")] == [3, 3, 3]


def test_squeeze_and_excitation():
    b = Build()
    x = conv(b, b.input("x", 1, 3, 6, 6), 3, 4)
    s = b("GlobalAveragePool", x)
    s = b("Sigmoid", conv(b, b("Relu", conv(b, s, 4, 2, 1)), 2, 4, 1))
    y = conv(b, b("Mul", x, s), 4, 4, group=4)
    after = laid_out(b.done(b("ReduceMean", y, i64(b, 2, 3), keepdims=0)))
    assert count(after)["Transpose"] == 1


def test_encoder_and_decoder():
    b = Build()
    skip = b("Relu", conv(b, b.input("x", 1, 3, 8, 8), 3, 4))
    low = conv(b, b("MaxPool", skip, kernel_shape=(2, 2), strides=(2, 2)), 4, 4)
    up = b("ConvTranspose", low, b.weights(4, 4, 2, 2), strides=(2, 2))
    up = b("Concat", up, skip, axis=1)
    nearest = b("Resize", up, "", b.const([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    padded = b("Pad", nearest, i64(b, 0, 0, 1, 1, 0, 0, 0, 2))
    cut = b("Slice", padded, i64(b, 1), i64(b, 9), i64(b, 2))
    after = laid_out(b.done(conv(b, cut, 8, 2)))
    assert count(after)["Transpose"] == 2
    assert ops(after)[0] == ops(after)[-1] == "Transpose"


def layer_norm(b, x, channels, name):
    scale, shift = b.weights(channels, name=name), b.weights(channels, name=f"{name}b")
    return b("LayerNormalization", x, scale, shift)


def test_blocks_that_transpose_for_themselves():
    """ConvNeXt: depthwise, to channels last, normalise, two products, back, and the residual."""
    b = Build()
    x = conv(b, b.input("x", 1, 3, 6, 6), 3, 4)
    for i in range(2):
        y = b("Transpose", conv(b, x, 4, 4, group=4), perm=(0, 2, 3, 1))
        y = layer_norm(b, y, 4, f"ln{i}")
        y = b("MatMul", b("Gelu", b("MatMul", y, b.weights(4, 8))), b.weights(8, 4))
        y = b("Mul", b("Transpose", y, perm=(0, 3, 1, 2)), b.weights(4, 1, 1, name=f"g{i}"))
        x = b("Add", x, y)
    y = layer_norm(b, b("ReduceMean", x, i64(b, -2, -1), keepdims=0), 4, "head")
    after = laid_out(b.done(y))
    assert count(after)["Transpose"] == 1


def test_patches_become_tokens():
    """ViT: the patch embedding's channels last are what the tokens want."""
    b = Build()
    y = b("Conv", b.input("x", 2, 3, 8, 8), b.weights(6, 3, 4, 4), strides=(4, 4))
    y = b("Transpose", b("Reshape", y, i64(b, 2, 6, 4)), perm=(0, 2, 1))
    token = b.const(np.ones((2, 1, 6), np.float32))
    after = laid_out(b.done(layer_norm(b, b("Concat", token, y, axis=1), 6, "ln")))
    assert count(after)["Transpose"] == 1


def test_symbolic_sizes():
    b = Build()
    x = conv(b, b.input("x", N, 3, H, W), 3, 4)
    s = b("GlobalAveragePool", x)
    x = b("Mul", x, b("Sigmoid", conv(b, s, 4, 4, 1)))
    y = b("Transpose", b("Reshape", x, i64(b, 0, 4, -1)), perm=(0, 2, 1))
    after = laid_out(b.done(b("MatMul", y, b.weights(4, 5))))
    assert count(after)["Transpose"] == 1


def test_keys_of_attention_are_transposed_once():
    """Batch and heads merged around the transposition, as exporters write it for dynamic sizes."""
    b = Build()
    x = b.input("x", N, H, 8)
    k = b("Transpose", b("Reshape", x, i64(b, 0, 0, 2, 4)), perm=(0, 2, 1, 3))
    rows = b("Shape", x, start=1, end=2)
    k = b("Reshape", k, b("Concat", i64(b, -1), rows, i64(b, 4), axis=0))
    k = b("Transpose", k, perm=(0, 2, 1))
    whole = b("Concat", b("Shape", x, end=1), i64(b, 2, 4), rows, axis=0)
    k = b("Reshape", k, whole)
    after = laid_out(b.done(b("MatMul", b.input("q", N, 2, H, 4), k)))
    assert count(after)["Transpose"] == 1


def test_channel_shuffle():
    b = Build()
    x = conv(b, b.input("x", 1, 3, 4, 4), 3, 6)
    y = b("Transpose", b("Reshape", x, i64(b, 1, 2, 3, 4, 4)), perm=(0, 2, 1, 3, 4))
    y = conv(b, b("Reshape", y, i64(b, 1, 6, 4, 4)), 6, 4, group=2)
    after = laid_out(b.done(b("ReduceMean", y, keepdims=0)))
    assert count(after)["Transpose"] == 2  # the input, and the shuffle itself


def test_nothing_is_transposed_without_channels():
    b = Build()
    x = b.input("x", 2, 3, 4)
    graph = b.done(b("MatMul", b("Add", x, b.weights(3, 1)), b.weights(4, 5)))
    assert laid_out(graph).nodes == Simplify()(graph).nodes


def test_transposes_move_to_the_smaller_side():
    """A transposed value that is enlarged is transposed before, one that is reduced after it."""
    b = Build()
    x = b.input("x", 4, 1, 3)
    large = b("Add", b("Transpose", x, perm=(2, 1, 0)), b.input("wide", 3, 64, 4))
    graph = b.done(b("MatMul", large, b.weights(4, 2)))
    after = laid_out(graph)
    (t,) = [n for n in after.nodes if n.op == "Transpose"]
    assert t.inputs == ("x",)
    b = Build()
    x = b("Transpose", b("MatMul", b.input("x", 8, 16, 3), b.weights(3, 3)), perm=(1, 0, 2))
    y = b("ReduceMax", x, i64(b, 2), keepdims=1)
    after = laid_out(b.done(y))
    assert ops(after)[-1] == "Transpose"


def test_vectors_between_axes_are_unsqueezed():
    b = Build()
    x = conv(b, b.input("x", 2, 3, 4, 5), 3, 4)
    per_column = b("Add", x, b.input("v", 5))
    per_pixel = b("Mul", per_column, b.input("m", 4, 5))
    after = laid_out(b.done(conv(b, b("Add", per_pixel, b.weights(5)), 4, 4)))
    assert count(after)["Transpose"] == 2


def test_pointwise_convolutions_follow_any_order():
    b = Build()
    x = b("Softmax", b.input("x", 1, 7, 4, 8), axis=-1)
    y = conv(b, b("Transpose", x, perm=(0, 3, 2, 1)), 8, 1, k=1)
    assert count(laid_out(b.done(b("Reshape", y, i64(b, 1, 4, 7)))))["Transpose"] <= 1


def test_indices_of_maxima_keep_their_layout():
    b = Build()
    x = conv(b, b.input("x", 1, 3, 6, 6), 3, 4)
    y, where = b("MaxPool", x, n=2, kernel_shape=(2, 2), strides=(2, 2))
    laid_out(b.done(y, where))


def test_regions_see_values_in_their_own_layout(monkeypatch):
    monkeypatch.setattr(control_flow, "AT_ONCE", 0)  # so that they stay regions
    b = Build()
    x = conv(b, b.input("x", 1, 3, 4, 4), 3, 8)
    flag = b.input("flag", dtype="bool")
    t = TensorType("f32", (1, 8, 4, 4))
    weights = np.ones((8, 8, 3, 3), np.float32)
    defaults = b.ed.make("Conv", x, x).attrs
    inner = Graph(
        "t",
        [],
        ["t"],
        [make_node("Conv", [x, "k"], ["t"], {**dict(defaults), "pads": (1, 1, 1, 1)})],
    )
    inner.constants["k"], inner.types["k"] = weights, TensorType("f32", weights.shape)
    inner.types["t"] = t
    other = Graph("e", [], ["e"], [make_node("Relu", [x], ["e"])])
    other.types["e"] = t
    regions = {"then_branch": inner, "else_branch": other}
    b.ed.new.types["y"] = t
    order = [regions[a] for a in registry.get("If").attributes]
    b.ed.add(make_node("If", [flag], ["y"], regions=order))
    after = laid_out(b.done(conv(b, "y", 8, 8)))
    (node,) = [n for n in after.nodes if n.op == "If"]
    assert sorted(len(r.nodes) for r in node.regions) == [1, 3]


def test_sizes_of_one_cost_nothing():
    b = Build()
    x = conv(b, b.input("x", 1, 1, 6, 6), 1, 4)
    y = conv(b, x, 4, 1)
    after = laid_out(b.done(y))
    assert count(after)["Transpose"] == 0


@pytest.mark.parametrize("sweeps", [0, 1, 6])
def test_any_number_of_sweeps_is_right(sweeps):
    b = Build()
    x = conv(b, b.input("x", 1, 3, 6, 6), 3, 4)
    y = b("Transpose", b("Add", x, b("Transpose", x, perm=(0, 1, 3, 2))), perm=(0, 2, 3, 1))
    applied(b.done(b("Softmax", y, axis=1)), Decompose(), ChooseLayout(sweeps))


@st.composite
def networks(draw):
    """Random small graphs of operators that carry axes."""
    b = Build()
    values = [b.input("x", 2, 4, 6, 6)]
    shapes = {values[0]: (2, 4, 6, 6)}
    for _ in range(draw(st.integers(2, 8))):
        x = draw(st.sampled_from(values))
        t = b.ed.type_of(x)
        r = t.rank
        kind = draw(
            st.sampled_from(["conv", "relu", "add", "transpose", "mean", "concat", "view", "slice"])
        )
        axis = draw(st.integers(0, max(0, r - 1)))
        if kind == "conv" and r == 4:
            y = conv(b, x, t.shape[1], draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 3])))
        elif kind == "add":
            same = [v for v in values if b.ed.type_of(v).shape == t.shape]
            y = b("Add", x, draw(st.sampled_from(same)))
        elif kind == "transpose":
            y = b("Transpose", x, perm=tuple(draw(st.permutations(range(r)))))
        elif kind == "mean" and r > 1:
            y = b("ReduceMean", x, i64(b, axis), keepdims=draw(st.sampled_from([0, 1])))
        elif kind == "concat" and r:
            y = b("Concat", x, x, axis=axis)
        elif kind == "view" and r > 1 and axis < r - 1:
            merged = (*t.shape[:axis], t.shape[axis] * t.shape[axis + 1], *t.shape[axis + 2 :])
            y = b("Reshape", x, i64(b, *merged))
        elif kind == "slice" and r and t.shape[axis] > 1:
            y = b("Slice", x, i64(b, 1), i64(b, 99), i64(b, axis))
        else:
            y = b("Relu", x)
        if b.ed.type_of(y).count > 20000:
            continue
        values.append(y)
        shapes[y] = b.ed.type_of(y).shape
    outputs = values[-draw(st.integers(1, min(3, len(values) - 1))) :] if len(values) > 1 else None
    return b.done(*(outputs or [b("Relu", values[0])]))


@settings(max_examples=60)
@given(networks())
def test_random_networks_compute_the_same(graph):
    applied(graph, ChooseLayout(), rtol=1e-3, atol=1e-4)
    applied(graph, *PASSES, rtol=1e-3, atol=1e-4)


def test_runs_of_axes():
    assert runs_of((2, 3, 4), (6, 4)) == [([0, 1], [0]), ([2], [1])]
    assert runs_of((6, 4), (2, 3, 1, 4)) == [([0], [0, 1]), ([1], [3])]
    assert runs_of((6, 4), (4, 6)) == [([0, 1], [0, 1])]
    assert runs_of((N, 12, H, W), (N, 3, 4, H * W)) == [([0], [0]), ([1], [1, 2]), ([2, 3], [3])]
    assert runs_of((1, 1), (1,)) is None
    assert runs_of((N, H), (H, N)) is None


def test_axes_of_size_one_are_not_significant():
    assert significant((2, 1, 3), (1, 2, 0)) == significant((2, 1, 3), (2, 0, 1)) == (2, 0)
    assert permuted((2, 1, 3), (2, 0, 1)) == (3, 2, 1)


@pytest.mark.parametrize("size, inputs, outputs, last", [(56, 64, 256, 0), (7, 512, 2048, 1)])
def test_estimates_choose_how_a_pointwise_convolution_is_stored(size, inputs, outputs, last):
    """Between operands and results with channels first, it stays that way where rows of pixels
    fill vectors, and where they do not its transposes are the smaller loss."""
    b = Build()
    x = b.input("x", 1, inputs, size, size)
    y = b("Conv", x, b.const(np.ones((outputs, inputs, 1, 1), np.float32)))
    cost = Coster(Target.from_name("x86-64-v4"), Describer())
    with collect() as told:
        after = ChooseLayout(cost=cost)(b.done(y))
    (node,) = [n for n in after.nodes if n.op == "Conv"]
    assert node.attr("channels_last", 0) == last
    (why,) = told
    assert why.kind == "layout" and why.taken == (not last)
    assert (why.seconds < why.otherwise) == why.taken


@pytest.mark.parametrize(
    "channels, filters, group, size, last",
    [
        (3, 6, 3, 128, 0),  # few lanes along channels
        (12, 24, 12, 56, 0),  # parts of vectors, each element for two lanes
        (32, 64, 32, 14, 1),  # whole ones
        (12, 4, 1, 56, 0),
        (12, 64, 1, 56, 1),
    ],
)
def test_estimates_choose_what_lanes_run_along(channels, filters, group, size, last):
    b = Build()
    y = conv(b, b.input("x", 1, channels, size, size), channels, filters, group=group)
    after = ChooseLayout(cost=Coster(Target.from_name("x86-64-v4"), Describer()))(b.done(y))
    (node,) = [n for n in after.nodes if n.op == "Conv"]
    assert node.attr("channels_last", 0) == last
