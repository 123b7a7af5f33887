import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pass_builder import Build, applied, count, ops

from aicc.graph_ir.passes.batchnorm import FoldBatchNorm
from aicc.graph_ir.passes.branches import MergeBranches
from aicc.symbolic import sym

PASSES = (FoldBatchNorm(), MergeBranches())


def total(b, *values):
    y = values[0]
    for v in values[1:]:
        y = b("Add", y, v)
    return y


def only(graph):
    """The one convolution."""
    (node,) = [n for n in graph.nodes if n.op == "Conv"]
    return node


def test_branches_of_a_block_become_one_convolution(golden):
    b = Build("block")
    x = b.input("x", 2, 4, 6, 7)
    wide = b("Conv", x, b.weights(4, 4, 3, 3), b.weights(4), pads=(1, 1, 1, 1))
    narrow = b("Conv", x, b.weights(4, 4, 1, 1), b.weights(4, name="c"))
    scaled = b("Add", b("Mul", x, b.weights(4, 1, 1)), b.weights(4, 1, 1, name="d"))
    after = applied(b.done(b("Relu", total(b, wide, narrow, scaled))), *PASSES)
    assert ops(after) == ["Conv", "Add", "Relu"]
    golden("branches", str(after))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("group", [1, 2, 4])
def test_groups_and_strides(group, stride):
    b = Build()
    x = b.input("x", 1, 4, 7, 7)
    kind = {"strides": (stride, stride)}
    parts = [
        b("Conv", x, b.weights(4, 4 // group, 5, 5), pads=(2,) * 4, group=group, **kind),
        b("Conv", x, b.weights(4, 4 // group, 3, 3), pads=(1,) * 4, group=group, **kind),
        b("Conv", x, b.weights(4, 1, 1, 1), group=4, **kind),
    ]
    after = applied(b.done(total(b, *parts)), *PASSES)
    assert ops(after) == ["Conv"]
    assert only(after).attr("group") == group


def test_data_beside_a_convolution_by_channels():
    """A residual is one more tap of 1; where channels are mixed it stays what it is."""
    for group, expected in ((4, ["Conv"]), (1, ["Conv", "Add"])):
        b = Build()
        x = b.input("x", 1, 4, 6, 6)
        y = b("Conv", x, b.weights(4, 4 // group, 3, 3), pads=(1,) * 4, group=group)
        assert ops(applied(b.done(b("Add", y, x)), *PASSES)) == expected


def test_data_that_are_added_twice():
    b = Build()
    x = b.input("x", 1, 4, 6, 6)
    y = b("Conv", x, b.weights(4, 1, 3, 3), pads=(1,) * 4, group=4)
    after = applied(b.done(total(b, x, y, x)), *PASSES)
    assert count(after) == {"Conv": 1, "Add": 1}


def test_one_and_three_axes_and_gaps():
    b = Build()
    x = b.input("x", 1, 3, 9)
    y = b("Conv", x, b.weights(5, 3, 3), pads=(4, 4), dilations=(4,))
    z = b("Conv", x, b.weights(5, 3, 1))
    assert only(applied(b.done(b("Add", y, z)), *PASSES)).attr("dilations") == (4,)
    b = Build()
    x = b.input("x", 1, 3, 4, 5, 6)
    y = b("Conv", x, b.weights(3, 3, 3, 3, 3), pads=(1,) * 6)
    z = b("Conv", x, b.weights(3, 3, 1, 3, 1), pads=(0, 1, 0, 0, 1, 0))
    assert ops(applied(b.done(b("Add", y, z)), *PASSES)) == ["Conv"]


def test_sizes_that_a_run_knows():
    b = Build()
    n, h = sym("n", 1), sym("h", 1)
    x = b.input("x", n, 3, h, 8)
    y = b("Conv", x, b.weights(3, 3, 3, 3), pads=(1,) * 4)
    z = b("Conv", x, b.weights(3, 3, 1, 1))
    assert ops(applied(b.done(b("Add", y, z)), *PASSES)) == ["Conv"]


def two(first, second, shape=(1, 4, 8, 8), data=None):
    """The sum of two convolutions, each (weights, attributes), of one array or of two."""
    b = Build()
    x = b.input("x", *shape)
    other = x if data is None else b.input("z", *data)
    (v, one), (w, more) = first, second
    return b.done(
        b("Add", b("Conv", x, b.weights(*v), **one), b("Conv", other, b.weights(*w), **more))
    )


SAME = {"pads": (1,) * 4}
ROW, COLUMN = {"pads": (0, 1, 0, 1)}, {"pads": (1, 0, 1, 0)}


@pytest.mark.parametrize(
    "graph",
    [
        two(((4, 4, 1, 3), ROW), ((4, 4, 3, 1), COLUMN)),  # nine taps for six
        two(((4, 4, 3, 3), SAME), ((4, 2, 3, 3), {**SAME, "group": 2})),
        two(((4, 4, 3, 3), SAME), ((4, 4, 3, 3), SAME), data=(1, 4, 8, 8)),
        two(((4, 4, 3, 3), SAME), ((4, 4, 3, 3), {"pads": (2,) * 4, "dilations": (2, 2)})),
        two(((4, 4, 3, 3), {**SAME, "strides": (2, 2)}), ((4, 4, 5, 5), {})),
    ],
    ids=["taps", "groups", "data", "gaps", "strides"],
)
def test_what_is_no_one_convolution_stays(graph):
    assert ops(applied(graph, *PASSES)) == ["Conv", "Conv", "Add"]


def test_what_others_read_stays():
    b = Build()
    x = b.input("x", 1, 4, 6, 6)
    y = b("Conv", x, b.weights(4, 4, 3, 3), pads=(1,) * 4)
    z = b("Conv", x, b.weights(4, 4, 1, 1))
    after = applied(b.done(b("Add", y, z), y), *PASSES)
    assert count(after) == {"Conv": 2, "Add": 1}


def test_scales_alone_stay():
    b = Build()
    x = b.input("x", 1, 4, 6, 6)
    y = b("Add", b("Mul", x, b.weights(4, 1, 1)), x)
    assert ops(applied(b.done(y), *PASSES)) == ["Mul", "Add"]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_branches(data):
    """Whatever is merged gives what the branches did; others in between stay."""
    b = Build()
    channels = 4
    x = b.input("x", 1, channels, 7, 9)
    other = b.input("z", 1, channels, 7, 9)
    values = []
    for n in range(data.draw(st.integers(2, 6))):
        what = data.draw(st.sampled_from(("conv", "conv", "conv", "scale", "x", "z", "shift")))
        if what == "conv":
            k = [data.draw(st.sampled_from((1, 3, 5))) for _ in range(2)]
            step = [data.draw(st.sampled_from((1, 1, 2))) for _ in range(2)]
            off = [data.draw(st.integers(0, (a - 1) * s)) for a, s in zip(k, step)]
            ends = [(a - 1) * s - o for a, s, o in zip(k, step, off)]
            group = data.draw(st.sampled_from((1, 2, 4)))
            w = b.weights(channels, channels // group, *k, name=f"w{n}")
            y = b("Conv", x, w, pads=(*off, *ends), dilations=tuple(step), group=group)
        elif what == "scale":
            y = b("Mul", x, b.weights(channels, 1, 1, name=f"s{n}"))
        else:
            shift = b.weights(1, channels, 1, 1, name=f"t{n}")
            y = {"x": x, "z": other, "shift": b("Add", other, shift)}[what]
        values.append(y)
    applied(b.done(total(b, *values)), *PASSES, rtol=1e-3, atol=1e-4)


def test_long_sums():
    b = Build()
    x = b.input("x", 1, 4, 1, 1)
    graph = b.done(total(b, *[x] * 3000))
    assert ops(MergeBranches()(graph)) == ["Add"] * 2999
