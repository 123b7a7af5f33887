"""Blocks whose branches are joined along channels: in place, same bits, no more memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import assert_agree, feed, runtime, same_bits

import aicc
from aicc.build import build
from aicc.frontend import load_model
from aicc.pipeline import passes
from aicc.planned import Planned
from aicc.target import Target
from zoo.builder import GraphBuilder

SIZE = 6
Sizes = Mapping[str, int]


def stem(g: GraphBuilder, channels: int, batch: int | str, size: int | str) -> str:
    """A layer of twice the height and width, as networks begin with: it needs most memory."""
    x = g.input("x", (batch, 16, *(2 * size if isinstance(size, int) else size,) * 2))
    x = g.op("Relu", g.conv(x, "stem", 16, channels, 3))
    return g.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])


def inception(batch: int | str = 1, size: int | str = SIZE) -> onnx.ModelProto:
    """Four branches, one of them pooled first, of widths that are no multiples of a vector."""
    g = GraphBuilder("inception")
    x = stem(g, 32, batch, size)
    a = g.op("Relu", g.conv(x, "a", 32, 24, 1))
    b = g.op("Relu", g.conv(g.op("Relu", g.conv(x, "b1", 32, 16, 1)), "b2", 16, 40, 3))
    c = g.op("Relu", g.conv(g.op("Relu", g.conv(x, "c1", 32, 16, 1)), "c2", 16, 16, 5))
    pool = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    d = g.op("Relu", g.conv(pool, "d", 32, 20, 1))
    y = g.op("Concat", a, b, c, d, axis=1)
    y = g.op("MaxPool", y, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    g.output(
        g.conv(y, "out", 100, 16, 1), "y", (batch, 16, size if isinstance(size, int) else "o", "p")
    )
    return g.build()


def dense(batch: int | str = 1, size: int | str = SIZE) -> onnx.ModelProto:
    """Layers that read all before them, each behind a normalisation of its own."""
    g = GraphBuilder("dense")
    x = stem(g, 32, batch, size)
    for n in range(4):
        width = 32 + 16 * n
        y = g.op("Relu", g.batch_norm(x, f"n{n}", width))
        y = g.op("Relu", g.batch_norm(g.conv(y, f"w{n}", width, 32, 1), f"m{n}", 32))
        x = g.op("Concat", x, g.conv(y, f"c{n}", 32, 16, 3), axis=1)
    y = g.conv(x, "a", 96, 16, 1)
    y = g.op("Add", y, g.conv(g.op("Relu", x), "b", 96, 16, 1))
    g.output(y, "y", (batch, 16, size if isinstance(size, int) else "o", "p"))
    return g.build()


def parted(batch: int | str = 1, size: int | str = SIZE) -> onnx.ModelProto:
    """Half of the channels go on through a block, and all are joined with what comes of it."""
    g = GraphBuilder("parted")
    x = stem(g, 64, batch, size)
    a, b = g.ops("Split", x, g.ints(32, 32), axis=1, outputs=2)
    c = g.op("Add", b, g.op("Relu", g.conv(b, "c", 32, 32, 3)))
    d = g.op("Add", c, g.op("Relu", g.conv(c, "d", 32, 32, 3)))
    y = g.op("Concat", a, b, c, d, axis=1)
    g.output(
        g.op("Relu", g.conv(y, "out", 128, 16, 1)),
        "y",
        (batch, 16, size if isinstance(size, int) else "o", "p"),
    )
    return g.build()


def heads(batch: int | str = 1, size: int | str = SIZE) -> onnx.ModelProto:
    """Queries, keys and values of attention are parts of one product."""
    g = GraphBuilder("heads")
    x = g.linear(g.input("x", (batch, size, 32)), "qkv", 32, 3 * 64)
    parts = g.ops("Split", x, g.ints(64, 64, 64), axis=2, outputs=3)
    q, k, v = (g.split_heads(p, 2, 32) for p in parts)
    y = g.attention(q, g.op("Transpose", k, perm=[0, 1, 3, 2]), v, 32)
    g.output(y, "y", (batch, size, 2, 32))
    return g.build()


def sliced(batch: int | str = 1, size: int | str = SIZE) -> onnx.ModelProto:
    """Overlapping parts of a product, each read by two kernels, and all of it by another."""
    g = GraphBuilder("sliced")
    x = g.linear(g.input("x", (batch, size, 32)), "w", 32, 128)
    ends = []
    for n, (begin, end) in enumerate(((0, 48), (40, 88), (-48, 2**40))):
        y = g.op("Slice", x, g.ints(begin), g.ints(end), g.ints(2))
        ends.append(g.op("Add", g.linear(y, f"w{n}", 48, 40), g.linear(y, f"v{n}", 48, 40)))
    ends.append(g.linear(x, "u", 128, 40))
    g.output(g.op("Sum", *ends), "y", (batch, size, 40))
    return g.build()


MODELS = (inception, dense, parted, heads, sliced)
Model = Callable[..., onnx.ModelProto]


def without_joins(model: onnx.ModelProto) -> aicc.CompiledModel:
    """The model as it is compiled where every join is a kernel."""
    target = Target.host()
    level = load_model(model)
    for p in passes(target):
        if p.name != "join":
            level = p(level)
    return build(level, target, 1)


def program_of(model: onnx.ModelProto) -> Planned:
    made = aicc.compile(model, stop_after="plan", threads=1)
    assert isinstance(made, Planned)
    return made


def kernels(planned: Planned, word: str) -> list[str]:
    return [k for k in planned.kernels if word in k]


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("sizes", [{}, {"n": 3, "s": 10}], ids=["static", "symbolic"])
def test_the_same_bits_with_and_without(make: Model, sizes: Sizes) -> None:
    model = make(*sizes)
    fed = feed(model, dict(sizes))
    found = aicc.compile(model, threads=1).run(None, fed)
    assert same_bits(found, without_joins(model).run(None, fed))
    assert_agree(runtime(model).run(None, fed), found)


@pytest.mark.parametrize("make", [dense, parted])
def test_one_image_of_unknown_size(make: Model) -> None:
    """Convolutions choose between two ways by the sizes of a run, and each writes in place."""
    model = make(1, "s")
    compiled, apart = aicc.compile(model, threads=1), without_joins(model)
    for s in (2, 10, 97):
        fed = feed(model, {"s": s})
        found = compiled.run(None, fed)
        assert same_bits(found, apart.run(None, fed))
        assert_agree(runtime(model).run(None, fed), found)


@pytest.mark.parametrize("make", MODELS)
def test_every_level_means_the_same(make: Model) -> None:
    model = make("n", 4)
    fed = feed(model, {"n": 1})
    found = aicc.compile(model, threads=1, check=3).run(None, fed)
    assert_agree(runtime(model).run(None, fed), found)


@pytest.mark.parametrize("make", MODELS)
def test_no_kernel_copies(make: Model) -> None:
    planned = program_of(make())
    assert not [
        k for word in ("concat", "split", "slice", "transfer") for k in kernels(planned, word)
    ]
    assert any(b.pitch for b in planned.program.buffers)


@pytest.mark.parametrize("make", MODELS)
def test_the_arena_does_not_grow(make: Model) -> None:
    apart = without_joins(make()).executable.program
    arena = program_of(make()).program.arena
    assert arena is not None and apart.arena is not None
    assert arena <= apart.arena


def test_a_dense_block_is_one_buffer() -> None:
    """All that its layers read and write of it, up to the last one."""
    program = program_of(dense()).program
    parts = [b for b in program.buffers if b.pitch]
    (whole,) = {program.root(b.name) for b in parts}
    assert whole.shape[-1] == 96
    widths = {b.shape[-1] for b in parts}
    assert widths == {16, 32, 48, 64, 80}
    assert len({b.at for b in parts if b.shape[-1] == 16}) == 4


def test_parts_are_read_where_they_are() -> None:
    program = program_of(parted()).program
    (whole,) = {program.root(b.name) for b in program.buffers if b.pitch}
    starts = {(b.at or 0) // 4 for b in program.buffers if b.pitch}
    assert whole.shape[-1] == 128 and starts == {0, 32, 64, 96}


@given(
    st.lists(st.sampled_from((16, 17, 24, 32, 40)), min_size=2, max_size=4),
    st.integers(1, 3),
    st.sampled_from((1, 2)),
    st.sampled_from((1, 3)),
)
@settings(max_examples=12)
def test_branches_of_any_width(widths: list[int], batch: int, axis: int, kernel: int) -> None:
    """Vectors that end inside a part do not touch the next one."""
    g = GraphBuilder("widths")
    shape = (batch, 4, 5, 5) if axis == 1 else (batch, 2, 4, 40)
    x = g.input("x", shape)
    parts = []
    for n, width in enumerate(widths):
        if axis == 1:
            parts.append(g.op("Relu", g.conv(x, f"w{n}", 4, width, kernel)))
        else:
            parts.append(g.op("Sqrt", g.op("Abs", g.linear(x, f"w{n}", 40, width))))
    joined = g.op("Concat", *parts, axis=1 if axis == 1 else 3)
    y = g.op("ReduceMean", joined, g.ints(axis), keepdims=0)
    whole = sum(widths)
    g.output(
        g.op("Mul", joined, g.scalar(2.0)),
        "z",
        (batch, whole, 5, 5) if axis == 1 else (batch, 2, 4, whole),
    )
    g.output(y, "y", (batch, 5, 5) if axis == 1 else (batch, 2, whole))
    model = g.build()
    fed = feed(model)
    found = aicc.compile(model, threads=2).run(None, fed)
    assert_agree(runtime(model).run(None, fed), found)
    assert same_bits(found, without_joins(model).run(None, fed))
