"""What others say an ONNX operator gives: onnx's reference evaluator, and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from aicc.ops.elementwise_other import ONNX_DTYPES
from aicc.ops.registry import Array, Case, Operator

ENUM = {name: number for number, name in ONNX_DTYPES.items()}
RUNTIME_OPSETS = (23, 21)  # the newest that this test asks of onnxruntime, and a well covered one


class CannotJudgeError(Exception):
    """The case is about something that ONNX, or the judge, does not have."""


def model(op: Operator, case: Case, opset: int) -> onnx.ModelProto:
    """A model of one node."""
    try:
        schema = onnx.defs.get_schema(op.name, opset, "")
    except onnx.defs.SchemaError:
        raise CannotJudgeError("no such operator") from None
    if schema.deprecated:
        opset = schema.since_version - 1
    attrs: dict[str, Any] = {}
    for name, value in case.attrs.items():
        if name in schema.attributes:
            kind = schema.attributes[name].type
            is_type = kind == onnx.defs.OpSchema.AttrType.INT and isinstance(value, str)
            attrs[name] = ENUM[value] if is_type else value
        elif value != op.attributes.get(name):
            raise CannotJudgeError(f"no attribute {name}")
    if op.name == "ConstantOfShape":
        filled = np.array([case.attrs.get("value", 0.0)])
        dtype = helper.tensor_dtype_to_np_dtype(ENUM[case.attrs.get("dtype", "f32")])
        attrs = {"value": numpy_helper.from_array(filled.astype(dtype))}
    attrs = {k: v for k, v in attrs.items() if v is not None and v != ()}
    inputs, values, weights = [], [], []
    for i, data in enumerate(case.inputs):
        inputs.append("" if data is None else f"x{i}")
        if data is None:
            continue
        if i in case.constant:
            weights.append(numpy_helper.from_array(np.asarray(data), f"x{i}"))
        else:
            kind = helper.np_dtype_to_tensor_dtype(data.dtype)
            values.append(helper.make_tensor_value_info(f"x{i}", kind, data.shape))
    outputs = [f"y{i}" for i in range(case.n_outputs)]
    node = helper.make_node(op.name, inputs, outputs, **attrs)
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "case", values, results, weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(made)


def feed(case: Case) -> dict[str, Array]:
    return {
        f"x{i}": data
        for i, data in enumerate(case.inputs)
        if data is not None and i not in case.constant
    }


def onnx_reference(op: Operator, case: Case) -> list[Array]:
    made = model(op, case, onnx.defs.onnx_opset_version())
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(made).run(None, feed(case))
    except Exception as error:
        raise CannotJudgeError(str(error)) from error
    return [np.asarray(r) for r in results]


def runtime(op: Operator, case: Case) -> list[Array]:
    if op.since > RUNTIME_OPSETS[0]:
        raise CannotJudgeError("newer than the runtime")
    try:
        return _runtime(op, case, RUNTIME_OPSETS[0])
    except CannotJudgeError:
        return _runtime(op, case, RUNTIME_OPSETS[1])


def _runtime(op: Operator, case: Case, opset: int) -> list[Array]:
    made = model(op, case, opset)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    try:
        session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        results = session.run(None, feed(case))
    except Exception as error:
        raise CannotJudgeError(str(error)) from error
    return [np.asarray(r) for r in results]


JUDGES: dict[str, Callable[[Operator, Case], list[Array]]] = {
    "onnx": onnx_reference,
    "onnxruntime": runtime,
}
