import numpy as np
import pytest
from pass_builder import Build, applied, count, ops

from aicc.graph_ir.passes.batchnorm import FoldBatchNorm
from aicc.graph_ir.passes.decompose import Decompose
from aicc.graph_ir.passes.fold import Fold
from aicc.graph_ir.passes.simplify import Simplify

PASSES = (Decompose(), Fold(), Simplify(), FoldBatchNorm(), Simplify())


def norm(b, x, channels):
    variance = b.const(np.linspace(0.5, 2, channels).astype(np.float32))
    stats = (b.weights(channels, name=n) for n in ("scale", "shift", "mean"))
    return b("BatchNormalization", x, *stats, variance, epsilon=1e-3)


def test_a_normalisation_becomes_one_shift(golden):
    b = Build("conv_bn")
    x = b.input("x", 2, 3, 6, 6)
    y = b("Conv", x, b.weights(4, 3, 3, 3), b.weights(4), pads=(1, 1, 1, 1))
    after = applied(b.done(b("Relu", norm(b, y, 4))), *PASSES)
    assert ops(after) == ["Conv", "Add", "Relu"]
    assert len(after.nodes[0].inputs) == 2
    golden("batchnorm", str(after))


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolutions(group):
    b = Build()
    x = b.input("x", 1, 4, 5, 5)
    y = b("ConvTranspose", x, b.weights(4, 6 // group, 2, 2), strides=(2, 2), group=group)
    after = applied(b.done(norm(b, y, 6)), *PASSES)
    assert ops(after) == ["ConvTranspose", "Add"]


def test_grouped_convolutions():
    b = Build()
    x = b.input("x", 1, 4, 5, 5)
    y = b("Conv", x, b.weights(6, 2, 3, 3), group=2)
    after = applied(b.done(norm(b, y, 6)), *PASSES)
    assert ops(after) == ["Conv", "Add"]


def test_the_channels_of_a_channels_last_convolution_are_its_last_axis():
    b = Build()
    x = b.input("x", 1, 5, 5, 3)
    y = b("Conv", x, b.weights(4, 3, 3, 3), b.weights(4), channels_last=1)
    y = b("Mul", y, b.weights(4))
    after = applied(b.done(y), FoldBatchNorm())
    assert ops(after) == ["Conv", "Add"]
    square = Build()
    x = square.input("x", 1, 6, 6, 3)
    y = square("Conv", x, square.weights(4, 3, 3, 3), channels_last=1)
    y = square("Mul", y, square.weights(4, 1, 1))  # per row of the result, not per channel
    assert ops(applied(square.done(y), FoldBatchNorm())) == ["Conv", "Mul"]


def test_written_out_normalisations():
    b = Build()
    x = b.input("x", 1, 3, 5, 5)
    y = b("Conv", x, b.weights(4, 3, 3, 3))
    y = b("Sub", y, b.weights(4, 1, 1, name="mean"))
    y = b("Div", y, b.const([[[1.5]], [[2.5]], [[0.5]], [[3.0]]]))
    y = b("Add", b("Mul", y, b.weights(4, 1, 1)), b.weights(4, 1, 1, name="beta"))
    assert ops(applied(b.done(y), *PASSES)) == ["Conv", "Add"]


def test_matrix_products():
    b = Build()
    x = b.input("x", 2, 5, 8)
    y = b("Mul", b("Add", b("MatMul", x, b.weights(8, 6)), b.weights(6)), b.weights(6, name="s"))
    after = applied(b.done(y), FoldBatchNorm())
    assert ops(after) == ["MatMul", "Add"]


def test_what_others_read_stays():
    b = Build()
    x = b.input("x", 1, 3, 5, 5)
    y = b("Conv", x, b.weights(4, 3, 3, 3))
    after = applied(b.done(b("Mul", y, b.weights(4, 1, 1)), y), *PASSES)
    assert count(after) == {"Conv": 1, "Mul": 1}


def test_factors_along_other_axes_stay():
    b = Build()
    x = b.input("x", 1, 3, 6, 6)
    y = b("Conv", x, b.weights(4, 3, 3, 3))
    after = applied(b.done(b("Mul", y, b.weights(4))), *PASSES)
    assert ops(after) == ["Conv", "Mul"]
    grown = Build()
    x = grown.input("x", 3, 6)
    y = grown("Mul", grown("MatMul", x, grown.weights(6, 1)), grown.weights(4))
    assert ops(applied(grown.done(y), *PASSES)) == ["MatMul", "Mul"]


def test_a_bias_that_is_no_constant_becomes_a_sum():
    b = Build()
    x = b.input("x", 1, 3, 6, 6)
    y = b("Conv", x, b.weights(4, 3, 3, 3), b.input("bias", 4))
    after = applied(b.done(y), *PASSES)
    assert ops(after) == ["Reshape", "Conv", "Add"]


def attention(b, x, scale_k):
    def heads(name):
        y = b("Add", b("MatMul", x, b.weights(8, 8, name=name)), b.weights(8, name=f"{name}b"))
        y = b("Reshape", y, b.const(np.array([0, 0, 2, 4])))
        return b("Transpose", y, perm=(0, 2, 1, 3))

    q = b("Mul", heads("q"), b.const(0.5))
    k = heads("k") if not scale_k else b("Mul", b("Relu", heads("k")), b.const(0.25))
    return b("MatMul", q, b("Transpose", k, perm=(0, 1, 3, 2)))


def test_the_scale_of_attention_goes_into_the_projection():
    b = Build()
    x = b.input("x", 2, 5, 8)
    after = applied(b.done(attention(b, x, scale_k=False)), FoldBatchNorm(), Simplify())
    assert count(after)["Mul"] == 0


def test_a_scale_that_cannot_follows_the_product():
    b = Build()
    x = b.input("x", 2, 5, 8)
    y = b("MatMul", b("Mul", x, b.const(0.5)), b("Mul", b.input("k", 2, 8, 5), b.const(0.25)))
    after = applied(b.done(y), FoldBatchNorm(), Simplify())
    assert ops(after) == ["MatMul", "Mul"]
    half = Build()
    x = half.input("x", 5, 8, dtype="f16")
    factor = half.const(np.array(0.5, np.float16))
    y = half("MatMul", half("Mul", x, factor), half.input("k", 8, 5, dtype="f16"))
    assert ops(applied(half.done(y), FoldBatchNorm(), atol=1e-2)) == ["Mul", "MatMul"]


def test_large_shared_weights_are_not_doubled():
    b = Build()
    x, w = b.input("x", 2, 256), b.weights(256, 256)
    y = b("Mul", b("MatMul", x, w), b.const(0.5))
    after = applied(b.done(b("Add", y, b("MatMul", b("Exp", x), w))), FoldBatchNorm())
    assert count(after) == {"MatMul": 2, "Mul": 1, "Add": 1, "Exp": 1}
    assert len([c for c in after.constants.values() if c.size > 1]) == 1
