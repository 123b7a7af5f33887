"""Compares aicc with onnxruntime and numpy on the operators that networks spend their time in.

    python benchmarks/kernels.py
    python benchmarks/kernels.py --kinds matmul --threads 1,2

Every row is one ONNX model of one node: a matrix product with constant weights or a convolution,
in the sizes of published networks. numpy takes part in the matrix products only.

Times are medians of all calls; `over ENGINE` tells how many times as fast as that one aicc is.
GFLOP/s and `% of limit` are aicc's; the limit is that of multiply-adds on registers alone, and
operations are those of direct convolution, so that Winograd's method can exceed it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean

import onnx

from harness import feeds, flops
from harness.client import Measurement, limit, measure, same
from harness.options import SUBJECT, add_engines, add_rounds, available, parser
from harness.record import Record
from harness.table import Table, milliseconds, times
from zoo.builder import GraphBuilder


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
    MatMul(1, 64, 64, "two-layer MLP"),
    MatMul(1, 768, 3072, "GPT-2, one token"),
    MatMul(1, 768, 50257, "GPT-2, one token, head"),
    MatMul(8, 512, 1536, "Qwen-like, few tokens"),
    MatMul(32, 784, 1024, "MLP, batch 32"),
    MatMul(128, 768, 768, "BERT-Base, attention"),
    MatMul(128, 768, 3072, "BERT-Base, up"),
    MatMul(128, 3072, 768, "BERT-Base, down"),
    MatMul(197, 768, 2304, "ViT-Base, qkv"),
    MatMul(197, 768, 3072, "ViT-Base, up"),
    MatMul(3136, 96, 384, "ConvNeXt-T, stage 1"),
    MatMul(196, 384, 1536, "ConvNeXt-T, stage 3"),
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
    Conv(56, 144, 24, 1, 1, 1, "MobileNetV2"),
    Conv(14, 96, 576, 1, 1, 1, "MobileNetV2"),
    Conv(7, 960, 320, 1, 1, 1, "MobileNetV2"),
    Conv(28, 256, 128, 1, 1, 1, "DenseNet-121"),
    Conv(56, 64, 64, 3, 1, 1, "ResNet-50"),
    Conv(28, 128, 128, 3, 1, 1, "ResNet-50"),
    Conv(14, 256, 256, 3, 1, 1, "ResNet-50"),
    Conv(7, 512, 512, 3, 1, 1, "ResNet-50"),
    Conv(56, 128, 128, 3, 2, 1, "ResNet-50"),
    Conv(28, 128, 32, 3, 1, 1, "DenseNet-121"),
    Conv(224, 64, 64, 3, 1, 1, "VGG-19"),
    Conv(256, 32, 32, 3, 1, 1, "U-Net"),
    Conv(80, 64, 64, 3, 1, 1, "YOLO, 640x640"),
    Conv(160, 32, 64, 3, 2, 1, "YOLO, 640x640"),
    Conv(224, 3, 64, 7, 2, 1, "ResNet-50, stem"),
    Conv(224, 3, 32, 3, 2, 1, "MobileNetV2, stem"),
    Conv(640, 3, 16, 3, 2, 1, "YOLO, stem"),
    Conv(27, 64, 192, 5, 1, 1, "AlexNet"),
    Conv(112, 96, 96, 3, 2, 96, "MobileNetV2"),
    Conv(56, 144, 144, 3, 1, 144, "MobileNetV2"),
    Conv(14, 576, 576, 3, 1, 576, "MobileNetV2"),
    Conv(14, 480, 480, 5, 1, 480, "EfficientNet-B0"),
    Conv(56, 96, 96, 7, 1, 96, "ConvNeXt-T"),
    Conv(14, 384, 384, 7, 1, 384, "ConvNeXt-T"),
]


def main(argv: list[str] | None = None) -> int:
    """Measures and prints; the exit code is 1 if an engine failed or the outputs differ."""
    p = parser(__doc__)
    kinds = sorted({kernel.kind for kernel in KERNELS})
    p.add_argument("--kinds", nargs="+", default=[], choices=kinds, help="default: all")
    add_engines(p, ["onnxruntime", "numpy"])
    add_rounds(p, 0.2)
    options = p.parse_args(argv)
    record = Record("Kernels", __doc__, argv)
    engines = available(options.engines)
    columns = [("kind", -9), ("size", -22), ("source", -22), ("threads", 7)]
    columns += [(f"{name} ms", max(9, len(name) + 3)) for name in engines]
    columns += [(f"over {name}", len(name) + 5) for name in engines[:-1]]
    table = record.table([*columns, ("GFLOP/s", 7), ("% of limit", 10), ("same", -4)])
    healthy = True
    gains: dict[tuple[int, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        limits = {threads: limit(threads) for threads in options.threads}
        path = Path(directory) / "kernel.onnx"
        for kernel in selected(options.kinds):
            model = kernel.build()
            onnx.save(model, path)
            feed = feeds.generic(model)
            operations = flops.count(model, feed)
            able = [e for e in engines if e != "numpy" or isinstance(kernel, MatMul)]
            for threads in options.threads:
                measured = measure(
                    path, feed, able, threads, Path(directory), options.rounds, options.seconds
                )
                gained = over(measured)
                for name, gain in gained.items():
                    gains.setdefault((threads, name), []).append(gain)
                cells = (engines, threads, operations, limits[threads])
                healthy &= show(table, kernel, *cells, measured, gained)
                record.results.append(
                    {
                        "kind": kernel.kind,
                        "size": str(kernel),
                        "source": kernel.source,
                        "threads": threads,
                        "operations": operations,
                        "limit_flops": limits[threads],
                        "speedup": gained,
                        "engines": [m.as_dict() for m in measured.values()],
                    }
                )
    for (threads, name), ratios in gains.items():
        mean, slower = geometric_mean(ratios), sum(r < 1 for r in ratios)
        record.summary.append({"threads": threads, "engine": name, "geometric_mean": mean})
        record.line(
            f"{threads} thread{'s' if threads > 1 else ''}: {mean:.3f}x {name} in the geometric "
            f"mean of {len(ratios)} kernels; slower on {slower}"
        )
    record.write(options.markdown, options.json)
    return 0 if healthy else 1


def over(measured: dict[str, Measurement]) -> dict[str, float]:
    """How many times as fast as each other engine aicc is, by the medians."""
    own = measured[SUBJECT]
    others = {name: m for name, m in measured.items() if name != SUBJECT and not m.error}
    return {} if own.error else {name: m.median / own.median for name, m in others.items()}


def show(
    table: Table,
    kernel: Kernel,
    engines: list[str],
    threads: int,
    operations: int,
    limit_flops: float | None,
    measured: dict[str, Measurement],
    gained: dict[str, float],
) -> bool:
    """Prints one row, and the errors under it; tells whether all went well."""
    own = measured[SUBJECT]
    rate = None if own.error else operations / own.median
    agree = same(measured.values())
    cells: list[str | None] = []
    for engine in engines:
        m = measured.get(engine)
        cells.append(None if m is None else "failed" if m.error else milliseconds(m.median))
    table.row(
        kernel.kind,
        kernel,
        kernel.source,
        threads,
        *cells,
        *(times(gained.get(name)) for name in engines[:-1]),
        rate and f"{rate / 1e9:.0f}",
        rate and limit_flops and f"{100 * rate / limit_flops:.0f}",
        agree,
    )
    for m in measured.values():
        if m.error:
            print(f"    {m.error}")
    return agree == "yes"


def selected(kinds: list[str]) -> Iterator[Kernel]:
    """The kernels of the kinds asked for; all if none."""
    return (kernel for kernel in KERNELS if not kinds or kernel.kind in kinds)


if __name__ == "__main__":
    sys.exit(main())
