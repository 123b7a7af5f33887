"""Random small ONNX graphs that are valid for several sizes of their symbols at once.

A size is a tuple: its value under each of `BINDINGS`' assignments. What is equal under all of them
is a number in the model, anything else comes from a symbol. Every choice is an integer below a
bound, from a function that the caller gives: hypothesis, or a generator of random numbers.

Values are kept small, and functions with steps (Floor, comparisons) see only what is exact, so that
different orders of summation give nearly the same results.
"""

from __future__ import annotations

from collections.abc import Callable

from random_maps import (
    binary,
    clip,
    concat,
    expand,
    gather,
    guarded,
    integers,
    pad,
    permuted_reshape,
    reshape,
    slice_,
    split,
    stepped,
    transpose,
    unary,
    where,
)
from random_sums import (
    attention,
    channel_norm,
    conv,
    conv_transpose,
    layer_norm,
    matmul,
    pool,
    reduce,
    resize,
    softmax,
    squeeze_excite,
)
from random_values import Choose, Graph, Maker, Skip

STEPS: tuple[Callable[[Maker], None], ...] = (
    *(unary, binary, binary, guarded, where, clip, integers, stepped),
    *(transpose, reshape, permuted_reshape, concat, slice_, split, pad, expand, gather),
    *(reduce, reduce, softmax, layer_norm, channel_norm, matmul, matmul),
    *(conv, conv, conv_transpose, pool, resize, squeeze_excite, attention),
)


def random_graph(choose: Choose, steps: int) -> Graph:
    """A graph of about `steps` steps. Raises Skip where nothing came of the choices."""
    g = Maker(choose, symbols=choose(2) == 0, floats="float64" if choose(6) == 5 else "float32")
    for _ in range(1 + choose(2)):
        g.input(g.shape(0, 4))
    for _ in range(steps):
        step = g.pick(STEPS)
        mark = len(g.nodes), len(g.weights), len(g.values), len(g.inputs)
        try:
            step(g)
        except Skip:
            for part, length in zip((g.nodes, g.weights, g.values, g.inputs), mark):
                del part[length:]
    return g.finish()
