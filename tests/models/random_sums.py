"""Steps of random graphs: reductions, products, windows, and blocks of networks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from random_values import (
    BINDINGS,
    ONE,
    Extent,
    Maker,
    Skip,
    Value,
    broadcast,
    each,
    fixed,
    is_fixed,
)

# --- sums -----------------------------------------------------------------------------------------


REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSumExp"),
)


def reduce(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank >= 1)
    op = g.pick(REDUCTIONS)
    axes = [k for k in range(x.rank) if g.chance(2)] or [x.rank - 1]
    keep = g.choose(2)
    shape = [ONE if k in axes else e for k, e in enumerate(x.shape) if keep or k not in axes]
    count = max(math.prod(x.shape[k][b] for k in axes) for b in range(len(BINDINGS)))
    most = {"ReduceSumSquare": x.most**2 * count, "ReduceLogSumExp": x.most + math.log(count + 1)}
    bound = most.get(op, x.most * (1 if op[6:] in ("Mean", "Max", "Min") else count**0.5))
    named = [k - x.rank if g.chance(3) else k for k in axes]
    g.add(op, [x.name, g.ints(*named)], shape, bound, keepdims=keep)


def softmax(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank >= 1)
    axis = g.choose(x.rank)
    op = g.pick(("Softmax", "Softmax", "LogSoftmax"))
    g.add(op, [x.name], x.shape, 1 if op == "Softmax" else 2 * x.most + 6, axis=axis)


def layer_norm(g: Maker) -> None:
    """By the operator, or as exporters write it; or by the root of the mean square alone."""
    x = g.a(fits=lambda v: v.rank >= 1 and is_fixed(v.shape[-1]))
    width = x.shape[-1][0]
    how = g.choose(3)
    if how == 0:
        inputs = [x.name, g.weight(width), *([g.weight(width)] if g.chance(2) else [])]
        g.add("LayerNormalization", inputs, x.shape, 1 + width**0.5, axis=-1, epsilon=1e-2)
        return
    y = x.name
    if how == 1:
        (mean,) = g.emit("ReduceMean", [y, g.ints(-1)])
        (y,) = g.emit("Sub", [y, mean])
    (square,) = g.emit("Pow", [y, g.scalar(2.0)]) if g.chance(2) else g.emit("Mul", [y, y])
    (mean,) = g.emit("ReduceMean", [square, g.ints(-1)])
    (shifted,) = g.emit("Add", [mean, g.scalar(0.01)])
    (root,) = g.emit("Sqrt", [shifted])
    (y,) = g.emit("Div", [y, root])
    g.add("Mul", [y, g.weight(width)], x.shape, width**0.5)


def channel_norm(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank in (3, 4) and is_fixed(v.shape[1]))
    c = x.shape[1][0]
    if g.chance(3):
        inputs = [x.name, g.weight(c), g.weight(c)]
        g.add("InstanceNormalization", inputs, x.shape, 12, epsilon=1e-2)
        return
    rng = np.random.default_rng(g.choose(100))
    variance = g.constant(rng.uniform(0.5, 2, c).astype(g.floats))
    inputs = [x.name, g.weight(c), g.weight(c), g.weight(c), variance]
    g.add("BatchNormalization", inputs, x.shape, 2 * (x.most + 2) + 1)


def matmul(g: Maker) -> None:
    how = g.choose(5)
    if how <= 1:  # by a weight
        x = g.a(fits=lambda v: v.rank >= 1 and is_fixed(v.shape[-1]))
        k, n = x.shape[-1][0], g.pick((1, 3, 8, 16, 17, 32, 48, 64, 65, 130, 200))
        y = g.add("MatMul", [x.name, g.weight(k, n)], (*x.shape[:-1], fixed(n)), x.most * k**0.5)
        if g.chance(2):
            g.add("Add", [y.name, g.weight(n)], y.shape, y.most + 1)
    elif how == 2:  # by another value
        x = g.a(fits=lambda v: v.rank >= 2)
        y = g.a(fits=lambda v: v.rank >= 2 and v.shape[-2] == x.shape[-1])
        shape = (*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-1])
        g.add("MatMul", [x.name, y.name], shape, x.most * y.most * max(x.shape[-1]) ** 0.5)
    elif how == 3:  # by a transposed value: scores
        x = g.a(fits=lambda v: v.rank >= 2)
        y = g.a(fits=lambda v: v.rank == x.rank and v.shape[-1] == x.shape[-1])
        perm = [*range(y.rank - 2), y.rank - 1, y.rank - 2]
        (t,) = g.emit("Transpose", [y.name], perm=perm)
        shape = (*broadcast(x.shape[:-2], y.shape[:-2]), x.shape[-2], y.shape[-2])
        g.add("MatMul", [x.name, t], shape, x.most * y.most * max(x.shape[-1]) ** 0.5)
    else:
        x = g.a(fits=lambda v: v.rank == 2 and is_fixed(v.shape[-1]))
        k, n = x.shape[-1][0], g.pick((1, 5, 16, 33, 64))
        b = g.choose(2)
        w = g.weight(n, k) if b else g.weight(k, n)
        inputs = [x.name, w, *([g.weight(n)] if g.chance(2) else [])]
        alpha = g.pick((1.0, 0.5))
        g.add("Gemm", inputs, (x.shape[0], fixed(n)), x.most * k**0.5 + 1, transB=b, alpha=alpha)


# --- windows --------------------------------------------------------------------------------------


def image(g: Maker) -> Value:
    """A value with channels and one to three spatial axes; a new input where there is none."""

    def fits(v: Value) -> bool:
        return 3 <= v.rank <= 5 and is_fixed(v.shape[1]) and min(map(min, v.shape[2:])) >= 2

    if any(v.kind == "f" and fits(v) for v in g.values):
        return g.a(fits=fits)
    channels = fixed(g.pick((1, 2, 3, 4, 8, 16, 24, 32)))
    side = (7, 8, 9, 12, 20, 28)
    spatial = [fixed(g.pick(side)) for _ in range(g.pick((1, 2, 2)))]
    if g.symbols and g.chance(4):
        spatial[-1] = tuple(b["m"] for b in BINDINGS)
    batch = tuple(b["n"] for b in BINDINGS) if g.symbols and g.chance(3) else fixed(g.between(1, 2))
    return g.input((batch, channels, *spatial))


def window(g: Maker, x: Value, dilate: bool) -> tuple[dict[str, Any], list[Extent]]:
    """Kernel, strides, pads and dilations that leave something; and the spatial sizes."""
    k = [g.pick((1, 2, 3, 3, 5)) for _ in x.shape[2:]]
    if g.chance(3):
        k = [1] * len(k)
    s = [g.pick((1, 1, 2, 3)) for _ in k]
    p = [g.between(0, n // 2) for n in k] + [g.between(0, n // 2) for n in k]
    d = [g.pick((1, 1, 2)) if dilate else 1 for _ in k]
    out = []
    for i, e in enumerate(x.shape[2:]):
        made = each(lambda n: (n + p[i] + p[i + len(k)] - d[i] * (k[i] - 1) - 1) // s[i] + 1, e)  # noqa: B023
        if min(made) < 1:
            raise Skip
        out.append(made)
    attrs = {"kernel_shape": k, "strides": s, "pads": p}
    if dilate:
        attrs["dilations"] = d
    return attrs, out


def conv(g: Maker) -> None:
    x = image(g)
    c = x.shape[1][0]
    attrs, spatial = window(g, x, True)
    groups = g.pick([n for n in (1, 1, 1, 2, 4, c) if c % n == 0])
    out = groups * g.pick((1, 1, 2, 4) if groups > 1 else (1, 3, 8, 16, 17, 32, 48))
    w = g.weight(out, c // groups, *attrs["kernel_shape"])
    inputs = [x.name, w, *([g.weight(out)] if g.chance(2) else [])]
    most = x.most * (c // groups * math.prod(attrs["kernel_shape"])) ** 0.5 + 1
    y = g.add("Conv", inputs, (x.shape[0], fixed(out), *spatial), most, group=groups, **attrs)
    if g.chance(2):
        g.add("Relu", [y.name], y.shape, y.most)


def conv_transpose(g: Maker) -> None:
    x = image(g)
    c = x.shape[1][0]
    if x.rank > 4:
        raise Skip
    groups = g.pick([n for n in (1, 1, 2) if c % n == 0])
    out = g.pick((1, 2, 8, 16))
    k = [g.pick((1, 2, 3, 4)) for _ in x.shape[2:]]
    s = [g.pick((1, 2, 2, 3)) for _ in k]
    p = [g.between(0, (n - 1) // 2) for n in (*k, *k)]
    extra = [g.between(0, n - 1) for n in s]
    spatial = [
        each(lambda n: (n - 1) * s[i] + k[i] + extra[i] - p[i] - p[i + len(k)], e)  # noqa: B023
        for i, e in enumerate(x.shape[2:])
    ]
    if min(map(min, spatial)) < 1:
        raise Skip
    inputs = [x.name, g.weight(c, out, *k), *([g.weight(out * groups)] if g.chance(2) else [])]
    g.add(
        "ConvTranspose",
        inputs,
        (x.shape[0], fixed(out * groups), *spatial),
        x.most * (c * math.prod(k)) ** 0.5 + 1,
        group=groups,
        kernel_shape=k,
        strides=s,
        pads=p,
        output_padding=extra,
    )


def pool(g: Maker) -> None:
    x = image(g)
    if g.chance(4):
        spatial = [ONE] * (x.rank - 2)
        op = g.pick(("GlobalAveragePool", "GlobalMaxPool"))
        g.add(op, [x.name], (*x.shape[:2], *spatial), x.most)
        return
    attrs, spatial = window(g, x, False)
    op = g.pick(("MaxPool", "AveragePool"))
    if op == "AveragePool":
        attrs["count_include_pad"] = g.choose(2)
    g.add(op, [x.name], (*x.shape[:2], *spatial), x.most, **attrs)


def resize(g: Maker) -> None:
    x = image(g)
    if x.rank > 4:
        raise Skip
    scales = [g.pick((1.0, 2.0, 2.0, 0.5)) for _ in x.shape[2:]]
    spatial = [each(lambda n, s=s: int(n * s), e) for s, e in zip(scales, x.shape[2:])]
    factors = g.constant(np.array([1, 1, *scales], np.float32))
    mode = g.pick(("nearest", "linear"))
    attrs = {"mode": mode, "coordinate_transformation_mode": "asymmetric"}
    if mode == "nearest":
        attrs["nearest_mode"] = "floor"
    elif g.chance(2):
        attrs["coordinate_transformation_mode"] = "half_pixel"
    g.add("Resize", [x.name, "", factors], (*x.shape[:2], *spatial), x.most, **attrs)


def squeeze_excite(g: Maker) -> None:
    x = g.a(fits=lambda v: v.rank == 4 and is_fixed(v.shape[1]))
    c = x.shape[1][0]
    (m,) = g.emit("GlobalAveragePool", [x.name])
    (m,) = g.emit("Conv", [m, g.weight(max(1, c // 2), c, 1, 1)])
    (m,) = g.emit("Relu", [m])
    (m,) = g.emit("Conv", [m, g.weight(c, max(1, c // 2), 1, 1)])
    (m,) = g.emit("Sigmoid", [m])
    g.add("Mul", [x.name, m], x.shape, x.most)


def attention(g: Maker) -> None:
    """softmax(x w (y v)^T) y u, in heads or not."""
    x = g.a(fits=lambda v: v.rank == 3 and is_fixed(v.shape[-1]) and v.shape[-1][0] % 4 == 0)
    width = x.shape[-1][0]
    heads = g.pick((1, 2, 4))
    parts = []
    for perm in ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)):
        (y,) = g.emit("MatMul", [x.name, g.weight(width, width)])
        (y,) = g.emit("Reshape", [y, g.ints(0, 0, heads, width // heads)])
        parts += g.emit("Transpose", [y], perm=list(perm))
    q, k, v = parts
    (scores,) = g.emit("MatMul", [q, k])
    (scores,) = g.emit("Mul", [scores, g.scalar(1 / (width * x.most * x.most + 1))])
    if g.chance(2):
        mask = g.input((x.shape[0], ONE, ONE, x.shape[1]))
        (scores,) = g.emit("Add", [scores, mask.name])
    (p,) = g.emit("Softmax", [scores], axis=-1)
    (y,) = g.emit("MatMul", [p, v])
    (y,) = g.emit("Transpose", [y], perm=[0, 2, 1, 3])
    g.add("Reshape", [y, g.ints(0, 0, width)], x.shape, width**0.5 * x.most)
