"""The evaluator, the meaning of graphs: values, regions, sizes bound at run time, refusals."""

import numpy as np
import pytest
import region_operators  # noqa: F401 - registers operators

from aicc.errors import ExecutionError, InputError, IRError
from aicc.graph_ir.evaluate import evaluate
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import infer
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.symbolic import sym

N = sym("n", 1)
X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)


def graph(nodes, outputs, constants=(), **types):
    g = Graph("g", list(types), list(outputs))
    for name, (dtype, shape) in types.items():
        g.types[name] = TensorType(dtype, shape)
    for name, data in dict(constants).items():
        g.add_constant(name, np.asarray(data))
    g.nodes += nodes
    infer(g)
    return g


def test_values_in_order():
    nodes = [
        make_node("Add", ["x", "one"], ["a"]),
        make_node("Mul", ["a", "x"], ["b"]),
        make_node("Relu", ["b"], ["c"]),
    ]
    g = graph(nodes, ["c", "x"], {"one": np.float32(1)}, x=("f32", (N, 3)))
    found = evaluate(g, {"x": X})
    assert list(found) == ["c", "x"]
    assert np.array_equal(found["c"], np.maximum((X + 1) * X, 0))
    assert np.array_equal(evaluate(g, {"x": X}, wanted=["a"])["a"], X + 1)
    with pytest.raises(InputError, match="no value 'zzz'"):
        evaluate(g, {"x": X}, wanted=["zzz"])


def test_scalars_stay_scalars():
    g = graph([make_node("Neg", ["x"], ["y"])], ["y", "x"], x=("f32", ()))
    found = evaluate(g, {"x": np.float32(2)})
    assert found["y"].shape == () and found["x"].shape == ()


def test_shapes_are_computed_from_the_arrays():
    nodes = [make_node("Shape", ["x"], ["s"], {"start": 0}), make_node("Neg", ["s"], ["t"])]
    g = graph(nodes, ["t"], x=("f32", (N, 3)))
    assert evaluate(g, {"x": X})["t"].tolist() == [-2, -3]


@pytest.mark.parametrize(
    ("feed", "said"),
    [
        ({"x": X}, "missing 'z'"),
        ({"x": X, "z": X, "q": X}, "unknown 'q'"),
        ({"x": X.astype(np.float64), "z": X}, r"input 'x' f64\[2, 3\], not f32\[n, 3\]"),
        ({"x": X.astype(complex), "z": X}, r"input 'x' complex128\[2, 3\]"),
        ({"x": X[0], "z": X}, r"input 'x' f32\[3\]"),
        ({"x": X[:, :2], "z": X}, r"input 'x' f32\[2, 2\]"),
        ({"x": X, "z": X[:1]}, r"input 'z' f32\[1, 3\], not f32\[n, 3\] with {'n': 2}"),
        ({"x": X[:0], "z": X[:0]}, "'n' is in 1..None"),
    ],
)
def test_feeds_that_do_not_fit(feed, said):
    g = graph([make_node("Add", ["x", "z"], ["y"])], ["y"], x=("f32", (N, 3)), z=("f32", (N, 3)))
    with pytest.raises(InputError, match=said):
        evaluate(g, feed)


def test_results_are_compared_with_their_types(monkeypatch):
    g = graph([make_node("Neg", ["x"], ["y"])], ["y"], x=("f32", (N, 3)))
    for wrong in (lambda ctx, x: [x[:1]], lambda ctx, x: [x.astype(np.float64)], lambda ctx, x: []):
        monkeypatch.setattr(
            type(registry.get("Neg")), "reference", lambda self, c, x, f=wrong: f(c, x)
        )
        with pytest.raises(IRError, match="node 'y'"):
            evaluate(g, {"x": X})


def test_a_reference_that_stumbles_names_its_node(monkeypatch):
    g = graph([make_node("Neg", ["x"], ["y"], origin=["here"])], ["y"], x=("f32", (N, 3)))
    monkeypatch.setattr(type(registry.get("Neg")), "reference", lambda self, c, x: [x[9]])
    with pytest.raises(ExecutionError, match=r"node 'here': Neg\(float32\[2, 3\]\)"):
        evaluate(g, {"x": X})


def test_sizes_that_only_a_run_tells():
    nodes = [make_node("test::Found", ["x"], ["f"]), make_node("Neg", ["f"], ["y"])]
    g = graph(nodes, ["y"], x=("f32", (N, 3)))
    assert g.types["y"].shape == (sym("f.count", 0, 100),)
    assert evaluate(g, {"x": X})["y"].tolist() == [-1, -3, -5]
    assert evaluate(g, {"x": -abs(X)})["y"].shape == (0,)


def test_regions_run_with_the_values_around_them():
    yes, no = Graph("yes", [], ["a"]), Graph("no", [], ["b"])
    yes.nodes.append(make_node("Add", ["x", "k"], ["a"]))
    no.add_constant("k2", np.float32(5))
    no.nodes += [make_node("Mul", ["x", "k2"], ["t"]), make_node("Neg", ["t"], ["b"])]
    nodes = [make_node("test::If", ["c"], ["y"], regions=[yes, no]), make_node("Neg", ["y"], ["z"])]
    g = graph(nodes, ["z"], {"k": np.float32(10)}, x=("f32", (N, 3)), c=("bool", ()))
    assert np.array_equal(evaluate(g, {"x": X, "c": np.array(True)})["z"], -(X + 10))
    assert np.array_equal(evaluate(g, {"x": X, "c": np.array(False)})["z"], 5 * X)


def test_loops_bind_sizes_anew_in_each_iteration():
    # The state loses its non-positive elements, then all are lowered: sizes differ each time.
    body = Graph("body", ["i", "s"], ["less"])
    body.add_constant("two", np.float32(2))
    body.nodes += [
        make_node("test::Found", ["s"], ["kept"]),
        make_node("Sub", ["kept", "two"], ["less"]),
    ]
    node = make_node("test::Repeat", ["n", "v"], ["y"], regions=[body])
    g = graph([node], ["y"], n=("i64", ()), v=("f32", (6,)))
    v = np.array([1, 2, 3, 4, 5, -6], np.float32)
    for n, expected in [
        (0, v.tolist()),
        (1, [-1, 0, 1, 2, 3]),
        (2, [-1, 0, 1]),
        (3, [-1]),
        (4, []),
    ]:
        assert evaluate(g, {"n": np.array(n), "v": v})["y"].tolist() == expected


def test_a_region_in_a_loop_in_a_loop():
    inner = Graph("inner", ["j", "t"], ["t2"])
    inner.nodes.append(make_node("Add", ["t", "s"], ["t2"]))
    outer = Graph("outer", ["i", "s"], ["s2"])
    outer.nodes.append(make_node("test::Repeat", ["n", "s"], ["s2"], regions=[inner]))
    node = make_node("test::Repeat", ["n", "x"], ["y"], regions=[outer])
    g = graph([node], ["y"], n=("i64", ()), x=("f32", (N, 3)))
    # One pass of the outer loop multiplies by n + 1.
    assert np.array_equal(evaluate(g, {"n": np.array(2), "x": X})["y"], 9 * X)
