"""Small ONNX models for the tests of the frontend."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def value(name, shape=(2, 3), elem=F32):
    return helper.make_tensor_value_info(name, elem, shape)


def node(op, inputs, outputs, name="", domain="", **attrs):
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, domain=domain, **attrs)


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def graph(nodes, inputs=None, outputs=None, initializers=(), name="g", **kw):
    inputs = [value("x")] if inputs is None else inputs
    outputs = [value("y")] if outputs is None else outputs
    return helper.make_graph(list(nodes), name, inputs, outputs, list(initializers), **kw)


def model(nodes, inputs=None, outputs=None, initializers=(), opset=17, functions=(), **kw):
    made = helper.make_model(
        graph(nodes, inputs, outputs, initializers, **kw),
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("test", 1)],
        functions=list(functions),
    )
    made.ir_version = 8
    return made


def function(name, inputs, outputs, nodes, domain="test", attributes=(), protos=(), opset=17):
    made = helper.make_function(
        domain,
        name,
        inputs.split(),
        outputs.split(),
        list(nodes),
        [helper.make_opsetid("", opset), helper.make_opsetid("test", 1)],
        list(attributes),
        list(protos),
    )
    return made


def relu():
    return model([node("Relu", "x", "y", "act")])


def with_weights(size=2048):
    """y = x + w with `size` weights."""
    w = np.arange(size, dtype=np.float32)
    return model(
        [node("Add", "x w", "y")], [value("x", [size])], [value("y", [size])], [tensor("w", w)]
    )


def reference_attribute(name, source, kind):
    """An attribute that a function's body takes from the call."""
    made = onnx.AttributeProto()
    made.name, made.ref_attr_name, made.type = name, source, kind
    return made
