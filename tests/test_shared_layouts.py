"""Tables that are looked up in and multiplied by: in memory once, in the layout of the product."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc
from aicc.graph_ir.module import CALL

ROWS, WIDTH = 20001, 32  # the last tile of any layout is not full
TABLE = np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)
INFO, INT, FLOAT = helper.make_tensor_value_info, TensorProto.INT64, TensorProto.FLOAT


def model(nodes, inputs, outputs, *constants):
    held = [numpy_helper.from_array(np.asarray(d), n) for n, d in constants]
    graph = helper.make_graph(nodes, "tied", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def tied(batch, length, gemm=False):
    """relu(table[ids]) @ table.T"""
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"], name="look", axis=0)]
    nodes.append(helper.make_node("Relu", ["e"], ["h"]))
    if gemm:
        nodes.append(helper.make_node("Reshape", ["h", "flat"], ["f"]))
        nodes.append(helper.make_node("Gemm", ["f", "table"], ["y"], transB=1))
    else:
        nodes.append(helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]))
        nodes.append(helper.make_node("MatMul", ["h", "turned"], ["y"]))
    shape = [None, ROWS] if gemm else [batch, length, ROWS]
    inputs, outputs = [INFO("ids", INT, [batch, length])], [INFO("y", FLOAT, shape)]
    flat = np.array([-1, WIDTH], np.int64)
    return model(nodes, inputs, outputs, ("table", TABLE), *([("flat", flat)] if gemm else []))


def large(program):
    return [b for b in program.buffers if b.space == "const" and b.nbytes >= TABLE.nbytes]


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("sizes", [(1, 3), ("n", "s")], ids=["static", "symbolic"])
def test_a_table_is_in_memory_once(sizes, gemm, tmp_path):
    compiled = aicc.compile(tied(*sizes, gemm), threads=1)
    (held,) = large(compiled.program)
    assert compiled.program.constant_bytes < 1.1 * TABLE.nbytes
    ids = np.array([[0, ROWS - 1, -2]])
    expected = np.maximum(TABLE[ids], 0) @ TABLE.T
    (y,) = compiled.run(None, {"ids": ids})
    np.testing.assert_allclose(y.reshape(1, 3, ROWS), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(aicc.ExecutionError, match=r"look.*index out of range"):
        compiled.run(None, {"ids": np.array([[0, ROWS, 1]])})
    compiled.save(tmp_path / "m.aicc")
    again = aicc.load(tmp_path / "m.aicc", threads=1)
    assert (again.run(None, {"ids": ids})[0] == y).all()
    report = str(compiled.report(verbose=True))
    assert "layout taken: read in the layout" in report and held.shape != (ROWS, WIDTH)


def test_every_level_means_the_same():
    ids = {"ids": np.array([[5, 6, 7]])}
    one = aicc.compile(tied("n", "s"), threads=1, check=3).run(None, ids)
    two = aicc.compile(tied("n", "s"), threads=1).run(None, ids)
    assert (one[0] == two[0]).all()


def test_text_and_back(tmp_path):
    ids = {"ids": np.array([[5, 6, 7]])}
    expected = aicc.compile(tied(1, 3), threads=1, dump=tmp_path).run(None, ids)
    made = aicc.resume(tmp_path, "schedule", threads=1)
    assert (made.run(None, ids)[0] == expected[0]).all()
    assert len(large(made.program)) == 1


def test_kernels_that_read_much_keep_their_layout():
    """As many rows as there are would be read here and there, for a product of one row."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], axis=0),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    inputs = [INFO("ids", INT, [4000]), INFO("x", FLOAT, [1, WIDTH])]
    outputs = [INFO("e", FLOAT, [4000, WIDTH]), INFO("y", FLOAT, [1, ROWS])]
    compiled = aicc.compile(model(nodes, inputs, outputs, ("table", TABLE)), threads=1)
    assert len(large(compiled.program)) == 2
    assert "layout refused" in str(compiled.report(verbose=True))


def test_what_is_a_result_stays_as_it_is():
    graph = tied(1, 3).graph
    graph.output.append(INFO("table", FLOAT, [ROWS, WIDTH]))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    compiled = aicc.compile(made, threads=1)
    y, table = compiled.run(None, {"ids": np.array([[1, 2, 3]])})
    assert (table == TABLE).all()
    expected = np.maximum(TABLE[[[1, 2, 3]]], 0) @ TABLE.T
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    assert "layout refused" in str(compiled.report(verbose=True))


def test_equal_kernels_of_other_tables_stay():
    """One kernel looks up in two tables, of which one is tied."""
    other = TABLE[::-1].copy()
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], axis=0),
        helper.make_node("Gather", ["other", "ids"], ["o"], axis=0),
        helper.make_node("Transpose", ["table"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    inputs = [INFO("ids", INT, [3]), INFO("x", FLOAT, [16, WIDTH])]
    outputs = [INFO("e", FLOAT, None), INFO("o", FLOAT, None), INFO("y", FLOAT, [16, ROWS])]
    made = model(nodes, inputs, outputs, ("table", TABLE), ("other", other))
    module = aicc.compile(made, threads=1, stop_after="schedule")
    first, second, _ = (n for n in module.graph.nodes if n.op == CALL)
    assert first.attr("kernel") != second.attr("kernel")
    compiled = aicc.compile(made, threads=1)
    assert len(large(compiled.program)) == 2
    ids, x = np.array([3, 0, ROWS - 1]), np.ones((16, WIDTH), np.float32)
    e, o, y = compiled.run(None, {"ids": ids, "x": x})
    assert (e == TABLE[ids]).all() and (o == other[ids]).all()
    np.testing.assert_allclose(y, x @ TABLE.T, rtol=1e-4, atol=1e-4)
