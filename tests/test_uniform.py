"""Constants of one value: held once, lying in one place, numbers in the code of maps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.dtypes import to_numpy
from aicc.uniform import as_uniform, element, filled, held_bytes, is_uniform

SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, max_side=5)


@given(SHAPES, st.sampled_from(("f32", "f16", "bf16", "i64", "u8", "bool")), st.randoms())
def test_what_is_uniform_is_found_in_any_order_of_axes(shape, dtype, random):
    data = np.full(shape, 1, to_numpy(dtype)).transpose(
        random.sample(range(len(shape)), len(shape))
    )
    found = as_uniform(data)
    assert (found is not None) == (data.size > 1)
    if found is not None:
        assert is_uniform(found) and found.shape == data.shape and found.dtype == data.dtype
        assert (found == data).all() and held_bytes(found) == data.itemsize
        assert element(found).tobytes() == data.reshape(-1)[:1].tobytes()
        other = data.copy()
        other.reshape(-1)[random.randrange(data.size)] = 0
        assert as_uniform(other) is None and not is_uniform(other)


@pytest.mark.parametrize("last", [-0.0, np.nan, 1.0])
def test_every_bit_counts(last):
    data = np.zeros(3 << 20, np.float32)
    assert as_uniform(data) is not None
    data[-1] = last
    assert as_uniform(data) is None
    nans = np.full(5000, np.nan, np.float32)
    assert as_uniform(nans) is not None


def test_what_is_filled_holds_one_element():
    one = np.arange(3, dtype=np.int16)[2:]
    made = filled(one, (4, 5))
    assert made.tolist() == [[2] * 5] * 4 and not made.flags.writeable
    one[0] = 7
    assert made[0, 0] == 2
    assert held_bytes(made) == 2 and held_bytes(np.zeros((4, 5), np.int16)) == 40


def model(value=0.25, wide=4096):
    """y = relu(x @ a) @ b + c, with all weights of one value; a has columns that fill no vector."""
    i64 = [("sa", [96, 200]), ("sb", [200, wide]), ("sc", [wide, 96]), ("sd", [64, wide])]
    fill = numpy_helper.from_array(np.array([value], np.float32))
    nodes = [helper.make_node("ConstantOfShape", [s], [s[1]], value=fill) for s, _ in i64]
    nodes += [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["g"]),
        helper.make_node("Add", ["g", "d"], ["f"]),
        helper.make_node("MatMul", ["f", "c"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "uniform",
        [info("x", TensorProto.FLOAT, [64, 96])],
        [info("y", TensorProto.FLOAT, [64, 96]), info("f", TensorProto.FLOAT, [64, wide])],
        [numpy_helper.from_array(np.array(d, np.int64), s) for s, d in i64],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_weights_of_one_value_lie_in_one_place(tmp_path):
    compiled = aicc.compile(model(), threads=1)
    table = compiled.program.table
    held = [b for b in table.values() if b.space == "const"]
    large = [b for b in held if b.nbytes >= 200 * 4096 * 4 or b.nbytes == 96 * 4096 * 4]
    assert len(large) == 2 and len({b.at for b in large}) == 1
    assert compiled.program.constant_bytes < (200 * 4096 + 2 * 96 * 256) * 4
    x = np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)
    h = np.repeat(x.sum(1, keepdims=True) * 0.25, 200, 1)
    f = np.repeat(h.sum(1, keepdims=True) * 0.25 + 0.25, 4096, 1)
    y, got = compiled.run(None, {"x": x})
    np.testing.assert_allclose(got, f, rtol=1e-4)
    np.testing.assert_allclose(y, np.repeat(f.sum(1, keepdims=True) * 0.25, 96, 1), rtol=1e-4)
    compiled.save(tmp_path / "m.aicc")
    again = aicc.load(tmp_path / "m.aicc", threads=1).run(None, {"x": x})
    assert all((a == b).all() for a, b in zip(again, (y, got), strict=True))


def test_maps_have_them_as_numbers():
    module = aicc.compile(model(), threads=1, stop_after="fuse")
    constants = {v for node in module.graph.nodes for v in node.inputs} & set(
        module.graph.constants
    )
    assert {module.graph.types[v].shape for v in constants} == {(96, 200), (200, 4096), (4096, 96)}
    assert "0.25" in str(module)


def test_every_level_means_the_same():
    x = {"x": np.random.default_rng(0).standard_normal((64, 96)).astype(np.float32)}
    checked = aicc.compile(model(wide=264), threads=1, check=2).run(None, x)
    np.testing.assert_allclose(checked[0], aicc.compile(model(wide=264)).run(None, x)[0])


@pytest.mark.parametrize("value", [0.0, -0.0, float("inf"), float("nan")])
def test_any_value(value):
    x = np.ones((64, 96), np.float32)
    for result in aicc.compile(model(value, 264), threads=1).run(None, {"x": x}):
        assert np.array_equal(result, np.full_like(result, value), equal_nan=True)
