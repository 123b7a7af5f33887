"""A small helper that writes ONNX graphs the way exporters do, with seeded random weights."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]
Sizes = Sequence[int | str]
OPSET = 18


class GraphBuilder:
    """Collects nodes and weights; values are handled by their names.

    Weights are drawn by name, so that a layer's weights do not depend on what was built before it.
    Their spread keeps activations near 1 through the depth of the network (He et al. 2015).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._scope: list[str] = []

    def input(self, name: str, shape: Sizes, dtype: int = TensorProto.FLOAT) -> str:
        """Declares an input; a size that is a word is a symbol."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, value: str, name: str, shape: Sizes, dtype: int = TensorProto.FLOAT) -> None:
        """Declares `value` an output called `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], f"output_{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, list(shape)))

    def op(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node with one output and returns that output's name."""
        return self.ops(op_type, *inputs, outputs=1, **attributes)[0]

    def ops(self, op_type: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Adds a node with several outputs and returns their names."""
        node = f"{op_type.lower()}_{len(self._nodes)}"
        names = [f"{node}.{i}" if outputs > 1 else node for i in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, node, **attributes))
        return names

    def constant(self, array: Array) -> str:
        """A constant; equal ones are stored once."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self._store(f"constant_{len(self._constants)}", array)
        return self._constants[key]

    def ints(self, *values: int) -> str:
        """A constant int64 vector: axes, shapes, indices."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A constant float32 scalar."""
        return self.constant(np.array(value, np.float32))

    def normal(self, name: str, shape: Sequence[int], spread: float, mean: float = 0.0) -> str:
        """A weight drawn from a normal distribution."""
        rng = np.random.default_rng(zlib.crc32(f"{self.name}/{name}".encode()))
        array = rng.standard_normal(shape, np.float32)
        array *= spread
        array += mean
        return self._store(name, array)

    def linear(self, x: str, name: str, inputs: int, outputs: int, gain: float = 1.0) -> str:
        """x @ w + b on the last axis, as exporters write it for more than two axes."""
        weights = self.normal(f"{name}.weight", (inputs, outputs), gain * inputs**-0.5)
        bias = self.normal(f"{name}.bias", (outputs,), 0.02)
        return self.op("Add", self.op("MatMul", x, weights), bias)

    def gemm(self, x: str, name: str, inputs: int, outputs: int) -> str:
        """x @ w.T + b on a matrix: Gemm."""
        weights = self.normal(f"{name}.weight", (outputs, inputs), inputs**-0.5)
        bias = self.normal(f"{name}.bias", (outputs,), 0.02)
        return self.op("Gemm", x, weights, bias, transB=1)

    def conv(
        self,
        x: str,
        name: str,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> str:
        """A square convolution over NCHW that keeps height and width when the stride is 1."""
        fan_in = inputs // groups * kernel * kernel
        weights = self.normal(
            f"{name}.weight", (outputs, inputs // groups, kernel, kernel), (2 / fan_in) ** 0.5
        )
        operands = [x, weights]
        if bias:
            operands.append(self.normal(f"{name}.bias", (outputs,), 0.02))
        return self.op(
            "Conv",
            *operands,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def batch_norm(self, x: str, name: str, channels: int, gain: float = 1.0) -> str:
        """BatchNormalization with the statistics of a trained network."""
        scale = self.normal(f"{name}.scale", (channels,), 0.1 * gain, gain)
        bias = self.normal(f"{name}.bias", (channels,), 0.1)
        mean = self.normal(f"{name}.mean", (channels,), 0.1)
        rng = np.random.default_rng(zlib.crc32(f"{self.name}/{name}.var".encode()))
        variance = rng.uniform(0.8, 1.2, channels).astype(np.float32)
        return self.op(
            "BatchNormalization",
            x,
            scale,
            bias,
            mean,
            self._store(f"{name}.var", variance),
            epsilon=1e-5,
        )

    def layer_norm(self, x: str, name: str, channels: int, epsilon: float = 1e-5) -> str:
        """LayerNormalization over the last axis."""
        scale = self.normal(f"{name}.scale", (channels,), 0.1, 1.0)
        bias = self.normal(f"{name}.bias", (channels,), 0.1)
        return self.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def gelu(self, x: str) -> str:
        """GELU by the error function: x/2 * (1 + erf(x / sqrt 2)) (Hendrycks and Gimpel 2016)."""
        erf = self.op("Erf", self.op("Div", x, self.scalar(2**0.5)))
        return self.op(
            "Mul", self.op("Mul", x, self.op("Add", erf, self.scalar(1.0))), self.scalar(0.5)
        )

    def gelu_tanh(self, x: str) -> str:
        """GELU by tanh, as GPT-2 writes it: x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""
        cubed = self.op("Pow", x, self.scalar(3.0))
        inner = self.op("Add", x, self.op("Mul", cubed, self.scalar(0.044715)))
        tanh = self.op("Tanh", self.op("Mul", inner, self.scalar((2 / np.pi) ** 0.5)))
        half = self.op("Mul", x, self.scalar(0.5))
        return self.op("Mul", half, self.op("Add", tanh, self.scalar(1.0)))

    def attention(self, q: str, k_transposed: str, v: str, width: int, mask: str = "") -> str:
        """softmax(q @ k / sqrt(width) + mask) @ v, heads apart (Vaswani et al. 2017)."""
        scores = self.op("Div", self.op("MatMul", q, k_transposed), self.scalar(width**0.5))
        if mask:
            scores = self.op("Add", scores, mask)
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)

    def split_heads(self, x: str, heads: int, width: int) -> str:
        """[batch, rows, heads * width] -> [batch, rows, heads, width]."""
        return self.op("Reshape", x, self.ints(0, 0, heads, width))

    def merge_heads(self, x: str, size: int) -> str:
        """[batch, heads, rows, width] -> [batch, rows, heads * width]."""
        return self.op("Reshape", self.op("Transpose", x, perm=[0, 2, 1, 3]), self.ints(0, 0, size))

    def build(self) -> onnx.ModelProto:
        """The model, checked."""
        graph = helper.make_graph(
            self._nodes, self.name, self._inputs, self._outputs, self._weights
        )
        model = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9
        )
        onnx.checker.check_model(model)
        return model

    def build_single(
        self, op_type: str, inputs: Sequence[str], shape: Sizes, **attributes: Any
    ) -> onnx.ModelProto:
        """The model of one node that gives the output `y`."""
        self._nodes.append(helper.make_node(op_type, list(inputs), ["y"], op_type, **attributes))
        self._outputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, list(shape)))
        return self.build()

    def _store(self, name: str, array: Array) -> str:
        self._weights.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name
