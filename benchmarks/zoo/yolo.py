"""A detector after YOLOv8n (Jocher et al. 2023): cross-stage blocks, a pyramid, three scales."""

from __future__ import annotations

import numpy as np
import onnx

from zoo.builder import GraphBuilder

CLASSES, BINS = 80, 16


def yolo(batch: int = 1, size: int = 640) -> onnx.ModelProto:
    """Boxes' distributions and classes' scores of every cell: [batch, 4 * 16 + 80, cells]."""
    g = GraphBuilder("yolo")

    def conv(x: str, name: str, cin: int, cout: int, kernel: int = 3, stride: int = 1) -> str:
        y = g.conv(x, name, cin, cout, kernel, stride)
        return g.op("Mul", y, g.op("Sigmoid", y))

    def cross(x: str, name: str, cin: int, cout: int, depth: int, shortcut: bool) -> str:
        """Half of the channels pass by; the results of all blocks over the others are joined."""
        half = cout // 2
        parts = g.ops(
            "Split", conv(x, f"{name}.in", cin, cout, 1), outputs=2, axis=1, num_outputs=2
        )
        for i in range(depth):
            y = conv(parts[-1], f"{name}.{i}.a", half, half)
            y = conv(y, f"{name}.{i}.b", half, half)
            parts.append(g.op("Add", parts[-1], y) if shortcut else y)
        joined = g.op("Concat", *parts, axis=1)
        return conv(joined, f"{name}.out", (2 + depth) * half, cout, 1)

    def pyramid(x: str, name: str, channels: int) -> str:
        parts = [conv(x, f"{name}.in", channels, channels // 2, 1)]
        for _ in range(3):
            window = {"kernel_shape": [5, 5], "strides": [1, 1], "pads": [2, 2, 2, 2]}
            parts.append(g.op("MaxPool", parts[-1], **window))
        return conv(g.op("Concat", *parts, axis=1), f"{name}.out", 2 * channels, channels, 1)

    def twice(x: str) -> str:
        scales = g.constant(np.array([1, 1, 2, 2], np.float32))
        return g.op("Resize", x, "", scales, mode="nearest", nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric")  # fmt: skip

    x = conv(g.input("x", (batch, 3, size, size)), "stem", 3, 16, 3, 2)
    scales = []
    for i, (cin, cout, depth) in enumerate([(16, 32, 1), (32, 64, 2), (64, 128, 2), (128, 256, 1)]):
        x = conv(x, f"down{i}", cin, cout, 3, 2)
        x = cross(x, f"cross{i}", cout, cout, depth, True)
        scales.append(x)
    _, fine, middle, _ = scales
    coarse = pyramid(x, "pyramid", 256)
    up = cross(g.op("Concat", twice(coarse), middle, axis=1), "up0", 384, 128, 1, False)
    low = cross(g.op("Concat", twice(up), fine, axis=1), "up1", 192, 64, 1, False)
    mid = g.op("Concat", conv(low, "out1", 64, 64, 3, 2), up, axis=1)
    mid = cross(mid, "mid", 192, 128, 1, False)
    top = g.op("Concat", conv(mid, "out2", 128, 128, 3, 2), coarse, axis=1)
    top = cross(top, "top", 384, 256, 1, False)
    found = []
    for i, (y, width) in enumerate(((low, 64), (mid, 128), (top, 256))):
        box = conv(conv(y, f"box{i}.a", width, 64), f"box{i}.b", 64, 64)
        box = g.conv(box, f"box{i}.out", 64, 4 * BINS, 1)
        kind = conv(conv(y, f"class{i}.a", width, CLASSES), f"class{i}.b", CLASSES, CLASSES)
        kind = g.op("Sigmoid", g.conv(kind, f"class{i}.out", CLASSES, CLASSES, 1))
        both = g.op("Concat", box, kind, axis=1)
        found.append(g.op("Reshape", both, g.ints(batch, 4 * BINS + CLASSES, -1)))
    cells = sum((size // n) ** 2 for n in (8, 16, 32))
    g.output(g.op("Concat", *found, axis=2), "found", (batch, 4 * BINS + CLASSES, cells))
    return g.build()
