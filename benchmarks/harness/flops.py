"""How many floating-point operations one inference takes, counted from the ONNX graph.

Counted are the operators that the time goes to: matrix products, convolutions and recurrent layers,
a multiply-add as two operations, padding included. Everything else (activations, normalisations,
bodies of If, Loop and Scan) is left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from math import prod

import onnx
from onnx import NodeProto, helper, inliner, shape_inference

from harness.engines import Feed

Shape = tuple[int, ...]
SMALL = 1024  # elements up to which a constant's value may matter for shapes


def count(model: onnx.ModelProto, feed: Feed) -> int:
    """Operations of one inference of `model` on the inputs in `feed`.

    Sizes that ONNX's shape inference cannot find are read off one run in onnxruntime.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    shapes = infer_shapes(model, {name: array.shape for name, array in feed.items()})
    counted = [node for node in model.graph.node if _counter(node)]
    names = {name for node in counted for name in [*node.input[:3], *node.output[:1]] if name}
    if missing := sorted(names - shapes.keys()):
        shapes |= observe_shapes(model, feed, missing)
    return sum(_operations(node, shapes) for node in counted)


def observe_shapes(model: onnx.ModelProto, feed: Feed, names: Sequence[str]) -> dict[str, Shape]:
    """The shapes that the values called `names` have in a run of `model` in onnxruntime."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    declared = {value.name for value in probe.graph.output}
    probe.graph.output.extend(
        helper.make_empty_tensor_value_info(name) for name in names if name not in declared
    )
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/probe.onnx"  # a file: in memory, a model is limited to 2 GiB
        onnx.save(probe, path, save_as_external_data=True)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return {name: a.shape for name, a in zip(names, session.run(list(names), feed))}


def infer_shapes(model: onnx.ModelProto, inputs: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The shapes of all values whose sizes ONNX's own inference finds, once the inputs' are known.

    The model, which has no functions of its own, is left as it is; large weights are not copied.
    """
    skeleton = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    skeleton.opset_import.extend(model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.output.extend(model.graph.output)
    weights = {t.name for t in model.graph.initializer}
    for tensor in model.graph.initializer:
        if prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    for value in model.graph.input:
        if value.name in weights:
            continue
        dtype = value.type.tensor_type.elem_type
        graph.input.append(
            helper.make_tensor_value_info(value.name, dtype, list(inputs[value.name]))
        )
    for value in graph.output:  # the declared sizes may be symbols; the inferred ones are numbers
        value.type.tensor_type.ClearField("shape")
    inferred = shape_inference.infer_shapes(skeleton, data_prop=True).graph
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in model.graph.initializer}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def _counter(node: NodeProto) -> Callable[[NodeProto, list[Shape], list[Shape]], int] | None:
    return COUNTERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None


def _operations(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    counter = _counter(node)
    assert counter is not None
    inputs = [shapes[name] if name else () for name in node.input[:3]]
    return counter(node, inputs, [shapes[name] if name else () for name in node.output[:1]])


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name), default)


def _matmul(node: NodeProto, inputs: list[Shape], outputs: list[Shape]) -> int:
    return 2 * prod(outputs[0]) * inputs[0][-1]


def _gemm(node: NodeProto, inputs: list[Shape], outputs: list[Shape]) -> int:
    return 2 * prod(outputs[0]) * inputs[0][0 if _attribute(node, "transA", 0) else 1]


def _conv(node: NodeProto, inputs: list[Shape], outputs: list[Shape]) -> int:
    return 2 * prod(outputs[0]) * prod(inputs[1][1:])  # weights: [out, in / groups, *kernel]


def _conv_transpose(node: NodeProto, inputs: list[Shape], outputs: list[Shape]) -> int:
    return 2 * prod(inputs[0]) * prod(inputs[1][1:])  # weights: [in, out / groups, *kernel]


def _recurrent(node: NodeProto, inputs: list[Shape], outputs: list[Shape]) -> int:
    sequence, batch, features = inputs[0]
    if _attribute(node, "layout", 0):
        sequence, batch = batch, sequence
    directions, gates_hidden, hidden = inputs[2]  # R: [directions, gates * hidden, hidden]
    return 2 * sequence * batch * directions * gates_hidden * (features + hidden)


COUNTERS: dict[str, Callable[[NodeProto, list[Shape], list[Shape]], int]] = {
    "MatMul": _matmul,
    "MatMulInteger": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "ConvInteger": _conv,
    "ConvTranspose": _conv_transpose,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}
