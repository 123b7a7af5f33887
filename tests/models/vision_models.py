"""Small models of the families that read pictures, with seeded weights.

Channels are few and pictures small, but every family has its own structure: residual sums,
depthwise convolutions, squeeze and excitation, long concatenations, channel shuffles, upsampling,
a detector's head, patches and attention.
"""

from __future__ import annotations

import numpy as np
import onnx

from zoo.builder import GraphBuilder


def _norm_relu(g: GraphBuilder, x: str, name: str, channels: int) -> str:
    return g.op("Relu", g.batch_norm(x, name, channels))


def resnet() -> onnx.ModelProto:
    """A stem with pooling, a basic block, a bottleneck with a projection, batch normalisation."""
    g = GraphBuilder("resnet")
    x = g.input("x", (2, 3, 32, 32))
    x = _norm_relu(g, g.conv(x, "stem", 3, 16, 7, 2, bias=False), "stem.norm", 16)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = _norm_relu(g, g.conv(x, "a1", 16, 16, 3, bias=False), "a1.norm", 16)
    y = g.batch_norm(g.conv(y, "a2", 16, 16, 3, bias=False), "a2.norm", 16)
    x = g.op("Relu", g.op("Add", y, x))
    y = _norm_relu(g, g.conv(x, "b1", 16, 8, 1, bias=False), "b1.norm", 8)
    y = _norm_relu(g, g.conv(y, "b2", 8, 8, 3, 2, bias=False), "b2.norm", 8)
    y = g.batch_norm(g.conv(y, "b3", 8, 48, 1, bias=False), "b3.norm", 48)
    short = g.batch_norm(g.conv(x, "proj", 16, 48, 1, 2, bias=False), "proj.norm", 48)
    x = g.op("Relu", g.op("Add", y, short))
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    g.output(g.op("Softmax", g.gemm(x, "head", 48, 10), axis=1), "y", (2, 10))
    return g.build()


def mobilenet() -> onnx.ModelProto:
    """Inverted residuals with ReLU6, then swish, hard-swish, squeeze and excitation."""
    g = GraphBuilder("mobilenet")
    zero, six = g.scalar(0.0), g.scalar(6.0)

    def relu6(x: str) -> str:
        return g.op("Clip", x, zero, six)

    def swish(x: str) -> str:
        return g.op("Mul", x, g.op("Sigmoid", x))

    def hard_swish(x: str) -> str:
        return g.op("HardSwish", x)

    def written_out(x: str) -> str:
        gate = g.op("Div", relu6(g.op("Add", x, g.scalar(3.0))), six)
        return g.op("Mul", x, gate)

    x = relu6(g.conv(g.input("x", (1, 3, 33, 33)), "stem", 3, 12, 3, 2))
    cin = 12
    stages = ((relu6, 3, 1, 12), (swish, 5, 2, 20), (hard_swish, 3, 1, 20), (written_out, 5, 2, 24))
    for i, (act, kernel, stride, cout) in enumerate(stages):
        wide = 3 * cin
        y = act(g.conv(x, f"{i}.expand", cin, wide, 1))
        y = act(g.conv(y, f"{i}.depthwise", wide, wide, kernel, stride, groups=wide))
        if i:
            s = g.op("GlobalAveragePool", y) if i == 1 else g.op("ReduceMean", y, g.ints(2, 3))
            s = g.op("Relu", g.conv(s, f"{i}.reduce", wide, 6, 1))
            gate = "Sigmoid" if i < 3 else "HardSigmoid"
            y = g.op("Mul", y, g.op(gate, g.conv(s, f"{i}.widen", 6, wide, 1)))
        y = g.conv(y, f"{i}.project", wide, cout, 1)
        x = g.op("Add", x, y) if stride == 1 and cin == cout else y
        cin = cout
    x = g.op("ReduceMean", x, g.ints(-1, -2), keepdims=0)
    g.output(g.gemm(x, "head", cin, 11), "y", (1, 11))
    return g.build()


def unet() -> onnx.ModelProto:
    """Down, up by transposed convolution and by Resize, with concatenated skips."""
    g = GraphBuilder("unet")

    def double(x: str, name: str, cin: int, cout: int) -> str:
        x = g.op("Relu", g.conv(x, f"{name}.1", cin, cout, 3))
        return g.op("LeakyRelu", g.conv(x, f"{name}.2", cout, cout, 3), alpha=0.1)

    a = double(g.input("x", (1, 3, 32, 24)), "a", 3, 8)
    b = double(g.op("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2]), "b", 8, 16)
    c = double(g.op("AveragePool", b, kernel_shape=[2, 2], strides=[2, 2]), "c", 16, 32)
    weights = g.normal("up.weight", (32, 16, 2, 2), 0.2)
    bias = g.normal("up.bias", (16,), 0.1)
    x = g.op("ConvTranspose", c, weights, bias, kernel_shape=[2, 2], strides=[2, 2])
    x = double(g.op("Concat", b, x, axis=1), "d", 32, 16)
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    x = g.op(
        "Resize",
        *(x, "", scales),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    x = double(g.op("Concat", a, x, axis=1), "e", 24, 8)
    g.output(g.op("Sigmoid", g.conv(x, "head", 8, 2, 1)), "y", (1, 2, 32, 24))
    return g.build()


def densenet() -> onnx.ModelProto:
    """Each layer reads everything before it: normalisation before activation, many Concats."""
    g = GraphBuilder("densenet")
    x = g.conv(g.input("x", (1, 3, 20, 20)), "stem", 3, 12, 3)
    channels = 12
    for block in range(2):
        for i in range(3):
            name = f"{block}.{i}"
            y = g.conv(_norm_relu(g, x, f"{name}.norm1", channels), f"{name}.1", channels, 16, 1)
            y = g.conv(_norm_relu(g, y, f"{name}.norm2", 16), f"{name}.2", 16, 6, 3)
            x = g.op("Concat", x, y, axis=1)
            channels += 6
        if block == 0:
            x = _norm_relu(g, x, "transition.norm", channels)
            x = g.conv(x, "transition", channels, channels // 2, 1)
            x = g.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            channels //= 2
    x = g.op("GlobalAveragePool", _norm_relu(g, x, "norm", channels))
    g.output(g.gemm(g.op("Flatten", x), "head", channels, 10), "y", (1, 10))
    return g.build()


def shufflenet() -> onnx.ModelProto:
    """Grouped convolutions, channels shuffled between them; then halves split and joined (V2)."""
    g = GraphBuilder("shufflenet")

    def shuffle(x: str, groups: int, channels: int, side: int) -> str:
        x = g.op("Reshape", x, g.ints(1, groups, channels // groups, side, side))
        x = g.op("Transpose", x, perm=[0, 2, 1, 3, 4])
        return g.op("Reshape", x, g.ints(1, channels, side, side))

    x = g.op("Relu", g.conv(g.input("x", (1, 3, 28, 28)), "stem", 3, 24, 3, 2))
    y = g.op("Relu", g.conv(x, "a1", 24, 24, 1, groups=3))
    y = g.conv(shuffle(y, 3, 24, 14), "a2", 24, 24, 3, groups=24)
    x = g.op("Relu", g.op("Add", x, g.conv(y, "a3", 24, 24, 1, groups=3)))
    y = g.op("Relu", g.conv(x, "b1", 24, 24, 1, groups=3))
    y = g.conv(shuffle(y, 3, 24, 14), "b2", 24, 24, 3, 2, groups=24)
    y = g.conv(y, "b3", 24, 24, 1, groups=3)
    short = g.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = g.op("Relu", g.op("Concat", y, short, axis=1))
    left, right = g.ops("Split", x, outputs=2, axis=1, num_outputs=2)
    right = g.op("Relu", g.conv(right, "c1", 24, 24, 1))
    right = g.conv(right, "c2", 24, 24, 3, groups=24)
    x = shuffle(g.op("Concat", left, right, axis=1), 2, 48, 7)
    g.output(g.op("ReduceMean", x, g.ints(2, 3), keepdims=0), "y", (1, 48))
    return g.build()


def inception() -> onnx.ModelProto:
    """Four branches with kernels of several shapes, dilation, local response normalisation."""
    g = GraphBuilder("inception")

    def conv(
        x: str, name: str, cin: int, cout: int, kernel: tuple[int, int], dilation: int = 1
    ) -> str:
        h, w = kernel
        weights = g.normal(f"{name}.weight", (cout, cin, h, w), (2 / (cin * h * w)) ** 0.5)
        pads = [dilation * (h // 2), dilation * (w // 2)] * 2
        bias = g.normal(f"{name}.bias", (cout,), 0.1)
        attrs = {"kernel_shape": [h, w], "pads": pads, "dilations": [dilation, dilation]}
        return g.op("Relu", g.op("Conv", x, weights, bias, **attrs))

    x = conv(g.input("x", (2, 3, 17, 19)), "stem", 3, 20, (3, 3))
    x = g.op("LRN", x, size=5, alpha=0.01, beta=0.75, bias=1.0)
    branches = [
        conv(x, "a", 20, 8, (1, 1)),
        conv(conv(x, "b1", 20, 6, (1, 1)), "b2", 6, 9, (3, 3), 2),
        conv(conv(conv(x, "c1", 20, 5, (1, 1)), "c2", 5, 6, (1, 7)), "c3", 6, 7, (7, 1)),
        conv(
            g.op("MaxPool", x, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
            *("d", 20, 4, (1, 1)),
        ),
    ]
    x = g.op("Concat", *branches, axis=1)
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    x = g.op("Flatten", g.op("GlobalMaxPool", x))
    g.output(g.op("LogSoftmax", g.gemm(x, "head", 28, 9), axis=-1), "y", (2, 9))
    return g.build()


def detector() -> onnx.ModelProto:
    """YOLO's: pooled pyramids joined, nearest upsampling, boxes from distributions over bins."""
    g = GraphBuilder("detector")

    def silu(x: str) -> str:
        return g.op("Mul", x, g.op("Sigmoid", x))

    def block(x: str, name: str, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> str:
        return silu(g.conv(x, name, cin, cout, kernel, stride))

    x = block(g.input("x", (1, 3, 32, 32)), "stem", 3, 8, 3, 2)
    fine = block(x, "fine", 8, 16, 3, 2)
    left, right = g.ops("Split", fine, g.ints(8, 8), outputs=2, axis=1)
    right = g.op("Add", right, block(block(right, "csp1", 8, 8), "csp2", 8, 8))
    fine = block(g.op("Concat", left, right, axis=1), "csp", 16, 16, 1)
    coarse = block(fine, "coarse", 16, 16, 3, 2)
    pools = [block(coarse, "sppf", 16, 8, 1)]
    for _ in range(3):
        pools.append(
            g.op("MaxPool", pools[-1], kernel_shape=[5, 5], strides=[1, 1], pads=[2, 2, 2, 2])
        )
    coarse = block(g.op("Concat", *pools, axis=1), "spp", 32, 16, 1)
    scales = g.constant(np.array([1, 1, 2, 2], np.float32))
    up = g.op(
        "Resize",
        *(coarse, "", scales),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    fine = block(g.op("Concat", up, fine, axis=1), "neck", 32, 16)
    bins, classes = 8, 5
    heads = []
    for name, level in (("p3", fine), ("p4", coarse)):
        box = g.conv(level, f"{name}.box", 16, 4 * bins, 1)
        score = g.conv(level, f"{name}.score", 16, classes, 1)
        joined = g.op("Concat", box, score, axis=1)
        heads.append(g.op("Reshape", joined, g.ints(1, 4 * bins + classes, -1)))
    x = g.op("Concat", *heads, axis=2)
    box, score = g.ops("Split", x, g.ints(4 * bins, classes), outputs=2, axis=1)
    box = g.op("Transpose", g.op("Reshape", box, g.ints(1, 4, bins, 80)), perm=[0, 2, 1, 3])
    weights = g.constant(np.arange(bins, dtype=np.float32).reshape(1, bins, 1, 1))
    box = g.op("Conv", g.op("Softmax", box, axis=1), weights, kernel_shape=[1, 1])
    box = g.op("Reshape", box, g.ints(1, 4, 80))
    begin = g.op("Slice", box, g.ints(0), g.ints(2), g.ints(1))
    end = g.op("Slice", box, g.ints(2), g.ints(4), g.ints(1))
    anchors = [
        np.stack(np.meshgrid(np.arange(n), np.arange(n)), 0).reshape(1, 2, -1) + 0.5 for n in (8, 4)
    ]
    centre = g.constant(np.concatenate(anchors, 2).astype(np.float32))
    begin, end = g.op("Sub", centre, begin), g.op("Add", centre, end)
    middle = g.op("Div", g.op("Add", begin, end), g.scalar(2.0))
    box = g.op("Concat", middle, g.op("Sub", end, begin), axis=1)
    strides = np.repeat([4, 8], [64, 16]).astype(np.float32)[None, None]
    box = g.op("Mul", box, g.constant(strides))
    y = g.op("Concat", box, g.op("Sigmoid", score), axis=1)
    g.output(y, "y", (1, 4 + classes, 80))
    return g.build()


def vit() -> onnx.ModelProto:
    """Patches by a convolution, a class token, one projection for queries, keys and values."""
    g = GraphBuilder("vit")
    width, heads, tokens = 48, 3, 16
    weights = g.normal("patch.weight", (width, 3, 8, 8), 0.1)
    bias = g.normal("patch.bias", (width,), 0.02)
    x = g.input("x", (2, 3, 32, 32))
    x = g.op("Conv", x, weights, bias, kernel_shape=[8, 8], strides=[8, 8])
    x = g.op("Transpose", g.op("Reshape", x, g.ints(2, width, tokens)), perm=[0, 2, 1])
    token = g.op("Expand", g.normal("class", (1, 1, width), 0.1), g.ints(2, 1, width))
    x = g.op("Concat", token, x, axis=1)
    x = g.op("Add", x, g.normal("position", (1, tokens + 1, width), 0.1))
    for i in range(2):
        y = g.linear(g.layer_norm(x, f"{i}.norm1", width), f"{i}.qkv", width, 3 * width)
        y = g.op("Reshape", y, g.ints(2, tokens + 1, 3, heads, width // heads))
        y = g.op("Transpose", y, perm=[2, 0, 3, 1, 4])
        q, k, v = (g.op("Gather", y, g.constant(np.array(n)), axis=0) for n in range(3))
        y = g.attention(q, g.op("Transpose", k, perm=[0, 1, 3, 2]), v, width // heads)
        x = g.op("Add", x, g.linear(g.merge_heads(y, width), f"{i}.out", width, width))
        y = g.gelu(g.linear(g.layer_norm(x, f"{i}.norm2", width), f"{i}.up", width, 4 * width))
        x = g.op("Add", x, g.linear(y, f"{i}.down", 4 * width, width))
    x = g.op("Gather", g.layer_norm(x, "norm", width), g.constant(np.array(0)), axis=1)
    g.output(g.gemm(x, "head", width, 10), "y", (2, 10))
    return g.build()


def convnext() -> onnx.ModelProto:
    """7x7 depthwise convolutions, layer normalisation over channels last, a scale per channel."""
    g = GraphBuilder("convnext")
    x = g.input("x", (1, 3, 32, 32))
    weights, bias = g.normal("stem.weight", (24, 3, 4, 4), 0.2), g.normal("stem.bias", (24,), 0.1)
    x = g.op("Conv", x, weights, bias, kernel_shape=[4, 4], strides=[4, 4])
    for i in range(2):
        y = g.conv(x, f"{i}.depthwise", 24, 24, 7, groups=24)
        y = g.layer_norm(g.op("Transpose", y, perm=[0, 2, 3, 1]), f"{i}.norm", 24, 1e-6)
        y = g.linear(g.gelu(g.linear(y, f"{i}.up", 24, 96)), f"{i}.down", 96, 24)
        y = g.op("Mul", y, g.normal(f"{i}.scale", (24,), 0.5))
        x = g.op("Add", x, g.op("Transpose", y, perm=[0, 3, 1, 2]))
    # layer normalisation over the channels of NCHW, written out
    mean = g.op("ReduceMean", x, g.ints(1), keepdims=1)
    apart = g.op("Sub", x, mean)
    spread = g.op("ReduceMean", g.op("Pow", apart, g.scalar(2.0)), g.ints(1), keepdims=1)
    x = g.op("Div", apart, g.op("Sqrt", g.op("Add", spread, g.scalar(1e-6))))
    x = g.op("Mul", x, g.normal("down.scale", (24, 1, 1), 0.3, 1.0))
    weights, bias = g.normal("down.weight", (40, 24, 2, 2), 0.2), g.normal("down.bias", (40,), 0.1)
    x = g.op("Conv", x, weights, bias, kernel_shape=[2, 2], strides=[2, 2])
    x = g.op("Flatten", g.op("GlobalAveragePool", x))
    g.output(g.gemm(g.layer_norm(x, "norm", 40, 1e-6), "head", 40, 10), "y", (1, 10))
    return g.build()


MODELS = {
    f.__name__: f
    for f in (*(resnet, mobilenet, unet, densenet, shufflenet, inception, detector, vit, convnext),)
}
