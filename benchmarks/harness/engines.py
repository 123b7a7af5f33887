"""The engines that can be measured: one class each, named in ENGINES.

To add one, write a class with the two methods of Engine and enter it in ENGINES. An engine is
imported only in its own worker process, when it is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Feed = dict[str, np.ndarray[Any, Any]]
Outputs = list[np.ndarray[Any, Any]]


class Engine(Protocol):
    """What the worker needs of an inference engine."""

    def load(self, model: str, threads: int) -> str:
        """Makes the ONNX file `model` ready for `threads` threads; returns name and version."""
        ...

    def run(self, feed: Feed) -> Outputs:
        """Runs the model once; the outputs are in the order of the model's declaration."""
        ...


class Aicc:
    """This project."""

    def load(self, model: str, threads: int) -> str:
        import aicc

        os.environ["AICC_CACHE"] = "0"  # compile times are those of the first time
        self._model = aicc.compile(model, threads=threads)
        return f"aicc {aicc.__version__}"

    def run(self, feed: Feed) -> Outputs:
        return list(self._model.run(None, feed))

    def report(self) -> str:
        """What the compiler says of the model: kernels, operators left to Python, memory."""
        return str(self._model.report())


class OnnxRuntime:
    """onnxruntime's CPU provider with all graph optimisations (its default)."""

    def load(self, model: str, threads: int) -> str:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )
        return f"onnxruntime {onnxruntime.__version__}"

    def run(self, feed: Feed) -> Outputs:
        return list(self._session.run(None, feed))


class OpenVino:
    """OpenVINO's CPU plugin in full fp32 precision, tuned for the latency of one request."""

    def load(self, model: str, threads: int) -> str:
        import openvino

        options = {
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }
        self._model = openvino.Core().compile_model(model, "CPU", options)
        self._request = self._model.create_infer_request()
        return f"openvino {openvino.__version__}"

    def run(self, feed: Feed) -> Outputs:
        results = self._request.infer(feed, share_inputs=True, share_outputs=True)
        return [results[port] for port in self._model.outputs]


class Numpy:
    """numpy's BLAS on a model that is one MatMul or Gemm by a constant: what `x @ w + b` costs."""

    def load(self, model: str, threads: int) -> str:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(model).graph
        if len(graph.node) != 1 or graph.node[0].op_type not in ("MatMul", "Gemm"):
            raise ValueError("the numpy engine runs a single MatMul or Gemm only")
        constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        node = graph.node[0]
        attributes = {a.name: a.i for a in node.attribute}
        self._input = node.input[0]
        weights = constants[node.input[1]]
        self._weights = np.ascontiguousarray(weights.T if attributes.get("transB") else weights)
        self._bias = constants[node.input[2]] if len(node.input) > 2 else None
        return f"numpy {np.__version__}"

    def run(self, feed: Feed) -> Outputs:
        product = feed[self._input] @ self._weights
        if self._bias is not None:
            product += self._bias
        return [product]


ENGINES: dict[str, Callable[[], Engine]] = {
    "aicc": Aicc,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "numpy": Numpy,
}
