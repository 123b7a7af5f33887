"""Compares aicc with onnxruntime and numpy on the operators that networks spend their time in.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --kinds matmul --threads 1,2

Every row is one ONNX model of one node: a matrix product with constant weights or a convolution,
in the sizes of published networks. numpy takes part in the matrix products only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from harness import feeds, flops
from harness.client import Measurement, limit, measure
from harness.table import Table, milliseconds
from zoo.builder import GraphBuilder

ENGINES = ("onnxruntime", "numpy", "aicc")


@dataclass(frozen=True)
class MatMul:
    """[rows, inputs] x [inputs, outputs]."""

    rows: int
    inputs: int
    outputs: int
    source: str
    kind = "matmul"

    def __str__(self) -> str:
        return f"{self.rows} x {self.inputs} x {self.outputs}"

    def build(self) -> onnx.ModelProto:
        """One MatMul."""
        g = GraphBuilder("matmul")
        x = g.input("x", (self.rows, self.inputs))
        weights = g.normal("weight", (self.inputs, self.outputs), self.inputs**-0.5)
        return g.build_single("MatMul", [x, weights], (self.rows, self.outputs))


@dataclass(frozen=True)
class Conv:
    """A square convolution over [1, inputs, size, size], padded to keep the size at stride 1."""

    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int
    groups: int
    source: str

    @property
    def kind(self) -> str:
        """conv1x1, conv3x3, ... or depthwise."""
        return "depthwise" if self.groups > 1 else f"conv{self.kernel}x{self.kernel}"

    def __str__(self) -> str:
        stride = f" /{self.stride}" if self.stride > 1 else ""
        depth = "" if self.groups > 1 else f" -> {self.outputs}"
        return f"{self.size}x{self.size}x{self.inputs}{depth}{stride}"

    def build(self) -> onnx.ModelProto:
        """One Conv."""
        g = GraphBuilder("conv")
        x = g.input("x", (1, self.inputs, self.size, self.size))
        shape = (self.outputs, self.inputs // self.groups, self.kernel, self.kernel)
        weights = g.normal("weight", shape, (shape[1] * self.kernel**2) ** -0.5)
        size = (self.size - 1) // self.stride + 1
        return g.build_single(
            "Conv",
            [x, weights],
            (1, self.outputs, size, size),
            kernel_shape=[self.kernel] * 2,
            strides=[self.stride] * 2,
            pads=[self.kernel // 2] * 4,
            group=self.groups,
        )


Kernel = MatMul | Conv

KERNELS: list[Kernel] = [
    MatMul(1, 768, 3072, "GPT-2, one token"),
    MatMul(128, 768, 768, "BERT-Base, attention"),
    MatMul(128, 768, 3072, "BERT-Base, up"),
    MatMul(128, 3072, 768, "BERT-Base, down"),
    MatMul(197, 768, 2304, "ViT-Base, qkv"),
    MatMul(512, 512, 512, "square"),
    MatMul(1024, 1024, 1024, "square"),
    Conv(56, 64, 64, 1, 1, 1, "ResNet-50"),
    Conv(56, 64, 256, 1, 1, 1, "ResNet-50"),
    Conv(56, 256, 64, 1, 1, 1, "ResNet-50"),
    Conv(28, 128, 512, 1, 1, 1, "ResNet-50"),
    Conv(14, 1024, 256, 1, 1, 1, "ResNet-50"),
    Conv(7, 2048, 512, 1, 1, 1, "ResNet-50"),
    Conv(56, 256, 512, 1, 2, 1, "ResNet-50"),
    Conv(112, 16, 96, 1, 1, 1, "MobileNetV2"),
    Conv(14, 96, 576, 1, 1, 1, "MobileNetV2"),
    Conv(56, 64, 64, 3, 1, 1, "ResNet-50"),
    Conv(28, 128, 128, 3, 1, 1, "ResNet-50"),
    Conv(14, 256, 256, 3, 1, 1, "ResNet-50"),
    Conv(7, 512, 512, 3, 1, 1, "ResNet-50"),
    Conv(56, 128, 128, 3, 2, 1, "ResNet-50"),
    Conv(256, 32, 32, 3, 1, 1, "U-Net"),
    Conv(224, 3, 64, 7, 2, 1, "ResNet-50, stem"),
    Conv(112, 96, 96, 3, 2, 96, "MobileNetV2"),
    Conv(56, 144, 144, 3, 1, 144, "MobileNetV2"),
    Conv(14, 480, 480, 5, 1, 480, "EfficientNet-B0"),
]


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if an engine failed or the outputs differ."""
    options = parser().parse_args(argv)
    columns = [("kind", -9), ("size", -22), ("source", -20), ("threads", 7)]
    for engine in ENGINES:
        columns += [(f"{engine} ms", max(9, len(engine) + 3)), ("GFLOP/s", 7)]
    table = Table([*columns, ("% of limit", 10), ("same", -4)])
    results: list[dict[str, Any]] = []
    healthy = True
    with tempfile.TemporaryDirectory() as directory:
        limits = {threads: limit(threads) for threads in options.threads}
        path = Path(directory) / "kernel.onnx"
        for kernel in selected(options.kinds):
            model = kernel.build()
            onnx.save(model, path)
            feed = feeds.generic(model)
            operations = flops.count(model, feed)
            engines = [e for e in ENGINES if e != "numpy" or isinstance(kernel, MatMul)]
            for threads in options.threads:
                measured = measure(
                    path, feed, engines, threads, Path(directory), options.rounds, options.seconds
                )
                healthy &= show(table, kernel, threads, operations, measured, limits[threads])
                results.append(
                    {
                        "kind": kernel.kind,
                        "size": str(kernel),
                        "threads": threads,
                        "operations": operations,
                        "limit_flops": limits[threads],
                        "engines": [m.as_dict() for m in measured.values()],
                    }
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if healthy else 1


def show(
    table: Table,
    kernel: Kernel,
    threads: int,
    operations: int,
    measured: dict[str, Measurement],
    limit_flops: float | None,
) -> bool:
    """Prints one row, and the errors under it; tells whether all went well."""
    cells: list[str | None] = []
    for engine in ENGINES:
        m = measured.get(engine)
        if m is None or m.error:
            cells += ["failed" if m else None, None]
        else:
            cells += [milliseconds(m.best), f"{operations / m.best / 1e9:.0f}"]
    own = measured["aicc"]
    share = None
    if not own.error and limit_flops:
        share = f"{100 * operations / own.best / limit_flops:.0f}"
    same = all(m.agrees is not None and m.agrees <= 1 for m in measured.values())
    table.row(kernel.kind, kernel, kernel.source, threads, *cells, share, "yes" if same else "NO")
    for m in measured.values():
        if m.error:
            print(f"    {m.error}")
    return same


def selected(kinds: list[str]) -> Iterator[Kernel]:
    """The kernels of the kinds asked for; all if none."""
    return (kernel for kernel in KERNELS if not kinds or kernel.kind in kinds)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    kinds = sorted({kernel.kind for kernel in KERNELS})
    p.add_argument("--kinds", nargs="+", default=[], choices=kinds, help="default: all")
    p.add_argument(
        "--threads",
        type=lambda text: [int(n) for n in text.split(",")],
        default=[1],
        metavar="N,...",
        help="default: 1",
    )
    p.add_argument("--rounds", type=int, default=5, help="per engine; default: 5")
    p.add_argument("--seconds", type=float, default=0.2, help="per round; default: 0.2")
    p.add_argument("--json", type=Path, metavar="FILE", help="write all figures here too")
    return p


if __name__ == "__main__":
    sys.exit(main())
