"""The text of graphs: print -> parse gives an equal graph, and every fault of a text is located."""

import ml_dtypes
import numpy as np
import pytest
import region_operators  # noqa: F401 - registers operators
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aicc.dtypes import to_numpy
from aicc.errors import IRError
from aicc.graph_ir.data import read_arrays, write_arrays
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.text import all_constants, digest, parse_graph, print_graph
from aicc.graph_ir.types import TensorType
from aicc.graph_ir.verify import verify
from aicc.symbolic import maximum, sym

N = sym("n", 1)


def typed(graph, **types):
    graph.types.update(
        {k: v if isinstance(v, TensorType) else TensorType(*v) for k, v in types.items()}
    )
    return graph


def mlp():
    g = Graph("mlp", ["x"], ["y"])
    typed(g, x=("f32", (N, 64)), h=("f32", (N, 8)), s=("i64", (2,), (N, 8)), y=("f32", (N, 8)))
    w = g.add_constant("w", np.arange(512, dtype=np.float32).reshape(64, 8))
    b = g.add_constant("b", np.array([0.5, -0.0, 1e-30, np.inf, -np.inf, 3, 0.1, 7], np.float32))
    g.nodes += [
        make_node("MatMul", ["x", w], ["h"], origin=["fc/MatMul"]),
        make_node("Shape", ["h"], ["s"], {"start": 0}),
        make_node("Add", ["h", b], ["y"]),
    ]
    return g


MLP_TEXT = """\
graph @mlp(n: 1..)
  in %x: f32[n, 64]
  const @w: f32[64, 8] sha=1ba107b4e848a9df
  const @b: f32[8] = [0.5, -0.0, 1e-30, inf, -inf, 3.0, 0.1, 7.0]
  %h: f32[n, 8] = MatMul(%x, @w) at "fc/MatMul"
  %s: i64[2](n, 8) = Shape(%h) {start=0}
  %y: f32[n, 8] = Add(%h, @b)
  out %y
"""


def round_trip(graph):
    text = print_graph(graph)
    again = parse_graph(text, all_constants(graph))
    assert again == graph and print_graph(again) == text
    return again


def test_text_of_a_small_graph():
    assert print_graph(mlp()) == MLP_TEXT
    assert "sha" not in print_graph(mlp(), with_sha=False)
    again = round_trip(mlp())
    verify(again)
    assert again.nodes[0].origin == ("fc/MatMul",) and again.nodes[1].origin == ("s",)
    assert str(mlp()) == print_graph(mlp(), with_sha=False)


def test_graphs_differ_where_anything_does():
    changes = [
        lambda g: g.outputs.append("h"),
        lambda g: g.nodes.reverse(),
        lambda g: g.constants["b"].__setitem__(1, 0.0),
        lambda g: typed(g, y=("f64", (N, 8))),
        lambda g: g.nodes.__setitem__(1, g.nodes[1].with_attrs(start=1)),
        lambda g: g.add_constant("c", np.zeros(1)),
        lambda g: setattr(g, "name", "other"),
    ]
    for change in changes:
        g = mlp()
        change(g)
        assert g != mlp()
    assert mlp() == mlp() and mlp() != "mlp"


def test_odd_names():
    name = "/layer.0/Mat`Mul\\_output_0"
    g = Graph("my graph", ["in 1", "gpu_0/data_0"], [name, "out"])
    typed(g, **{"in 1": ("f32", ()), "gpu_0/data_0": ("f32", ())})
    typed(g, **{name: ("f32", ()), "out": ("f32", ()), "_": ("f32", ())})
    w = g.add_constant("w:0\n", np.float32(2))
    g.nodes += [
        make_node("test::Foreign", ["in 1", ""], ["out"], {"mode": 'say "hi"\n\ud800', "ks": ()}),
        make_node("Add", ["out", w], [name], origin=["a b", "c"]),
        make_node("Sub", ["out", "gpu_0/data_0"], ["_"]),
    ]
    round_trip(g)
    print_graph(g).encode()  # any file can hold it


def test_sizes_keep_their_ranges_and_expressions():
    odd = sym("past + 1", 0, 100)
    g = Graph("g", ["x"], ["x"])
    shape = (N * 2 + odd // 3, maximum(N, odd) % 7, sym("free", None, None) - 4)
    typed(g, x=("f32", shape))
    assert "`past + 1`: 0..100" in print_graph(g)
    round_trip(g)
    typed(g, y=("f32", (sym("n", 0),)))
    g.inputs.append("y")
    with pytest.raises(IRError, match=r"the size 'n' has two ranges"):
        print_graph(g)


def test_attributes():
    attrs = {
        "an_int": -3,
        "a_float": 1e-07,
        "inf": float("inf"),
        "text": "a\tb",
        "ints": (1, 2),
        "floats": (0.5, 2.0),
        "texts": ("a", "b c"),
        "none": (),
        "data": b"\x00\xff",
        "type": TensorType("i64", (N, 3), None),
        "with value": TensorType("i64", (1,), (N,)),
    }
    g = typed(Graph("g", ["x"], ["y"]), x=("f32", (N,)), y=("f32", (N,)))
    g.nodes.append(make_node("Relu", ["x"], ["y"], attrs))
    again = round_trip(g)
    assert dict(again.nodes[0].attrs) == attrs
    assert [type(v) for _, v in again.nodes[0].attrs] == [type(v) for _, v in g.nodes[0].attrs]


def test_unwanted_results_and_omitted_operands():
    g = typed(Graph("g", ["x"], ["m"]), x=("f32", (2,)), m=("bool", (2,)))
    g.nodes.append(make_node("Dropout", ["x", "", ""], ["", "m"]))
    assert "_, %m: bool[2] = Dropout(%x, _, _)" in print_graph(g)
    round_trip(g)


def regions():
    g = typed(Graph("g", ["c", "x"], ["y"]), c=("bool", ()), x=("f32", (N,)), y=("f32", (N,)))
    w = g.add_constant("w", np.float32(3))
    one = typed(Graph("then", [], ["a"]), a=("f32", (N,)))
    one.nodes.append(make_node("Mul", ["x", w], ["a"]))
    deep = typed(Graph("deep", [], ["d"]), d=("f32", (N,)))
    v = deep.add_constant("v", np.arange(40, dtype=np.float32))
    deep.nodes.append(make_node("Identity", ["x"], ["d"]))
    flat = Graph("flat", [], ["x"])
    two = typed(Graph("else", [], ["b"]), b=("f32", (N,)))
    two.nodes.append(make_node("test::If", ["c"], ["b"], regions=[deep, flat]))
    g.nodes.append(make_node("test::If", ["c"], ["y"], regions=[one, two], origin=["choice"]))
    assert v == "v"
    return g


def test_regions_nest():
    text = print_graph(regions())
    assert "  %y: f32[n] = test::If" not in text  # another domain's operator is quoted
    assert '  %y: f32[n] = `test::If`(%c) at "choice"\n    graph @then\n' in text
    assert "\n      %a: f32[n] = Mul(%x, @w)\n" in text
    assert "\n        graph @flat\n          out %x\n" in text
    again = round_trip(regions())
    verify(again)
    assert all_constants(again).keys() == {"w", "v"}


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16", "i64", "i8", "u64", "bool"])
@given(st.data())
def test_small_constants_keep_every_bit(dtype, data):
    numpy_dtype = to_numpy(dtype)
    bits = np.dtype(f"u{numpy_dtype.itemsize}")
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=4))
    high = 1 if dtype == "bool" else None
    array = data.draw(hnp.arrays(bits, shape, elements=st.integers(0, high or np.iinfo(bits).max)))
    g = Graph("g", [], ["c"])
    g.add_constant("c", np.asarray(array).view(numpy_dtype))
    assert parse_graph(print_graph(g)) == g


def test_nan_payloads_and_strings():
    g = Graph("g", [], [])
    g.add_constant("a", np.array([0x7FC00001, 0x7FC00000], np.uint32).view(np.float32))
    g.add_constant("b", np.array([np.nan], np.float32))
    g.add_constant("c", np.array([["a", 'b"`'], ["", "\ud800"]], object))
    g.add_constant("d", np.zeros((0, 3), np.int32))
    text = print_graph(g)
    assert '@a: f32[2] = hex "0100c07f0000c07f"' in text and "@b: f32[1] = [nan]" in text
    assert parse_graph(text) == g


def test_constants_beside_the_text(tmp_path):
    g = regions()
    arrays = {
        "bf": np.arange(40).astype(ml_dtypes.bfloat16),
        "text": np.array([["ä", "b\0"]] * 10, object),
        "/odd name": np.ones((0, 5), np.int8),
        "flag": np.ones(33, bool),
        "scalar": np.float64(1.5),
        "half": np.ones((4, 5), np.float16),
    }
    for name, data in arrays.items():
        g.add_constant(name, np.asarray(data))
    path = tmp_path / "constants.npz"
    write_arrays(path, all_constants(g))
    found = read_arrays(path)
    assert found.keys() == all_constants(g).keys()
    assert parse_graph(print_graph(g), found) == g
    np.load(path, allow_pickle=False)
    with pytest.raises(IRError, match="cannot be read"):
        read_arrays(tmp_path / "elsewhere")
    path.write_bytes(b"PK nonsense")
    with pytest.raises(IRError, match="cannot be read"):
        read_arrays(path)


def test_one_name_for_two_constants():
    g = regions()
    g.nodes[0].regions[0].add_constant("w", np.float32(4))
    with pytest.raises(IRError, match="'w' stands for two constants"):
        all_constants(g)


def test_data_that_do_not_fit_their_text():
    data = all_constants(mlp())
    with pytest.raises(
        IRError, match="line 3, column 13: the data of the constant 'w' are missing"
    ):
        parse_graph(MLP_TEXT)
    with pytest.raises(IRError, match=r"the data of 'w' are f32\[8, 8\]"):
        parse_graph(MLP_TEXT, {"w": data["w"][:8]})
    with pytest.raises(IRError, match="'w' have another hash"):
        parse_graph(MLP_TEXT, {"w": data["w"] + 1})
    without = print_graph(mlp(), with_sha=False)
    assert parse_graph(without, {"w": data["w"] + 1}) != mlp()
    assert digest(data["w"]) == digest(np.asfortranarray(data["w"]))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("graph @mlp", "graf @mlp", "line 1, column 1: expected 'graph'"),
        ("f32[n, 64]", "f33[n, 64]", "no element type is called 'f33'"),
        ("f32[n, 64]", "f32[m, 64]", "unknown size 'm'"),
        ("f32[n, 64]", "f32[n, 64", "line 3"),
        ("%h: f32[n, 8] = MatMul", "%h = MatMul", "expected ':'"),
        ("%h: f32[n, 8] = MatMul", "%x: f32[n, 8] = MatMul", "line 5, column 4: .* defined twice"),
        ("MatMul(%x, @w)", "MatMul(x, @w)", "expected '%' or '@'"),
        ("MatMul(%x, @w)", "MatMul(%x, @w) oops", "expected the end of the line"),
        ("{start=0}", "{start=}", "expected a number"),
        ("{start=0}", '{start=bytes "0"}', "not bytes"),
        ("sha=1ba107b4e848a9df", "sha=1ba1", "16 hexadecimal digits"),
        ("f32[8] = [0.5, ", "f32[8] = [", "not the elements of"),
        ("f32[8] = [0.5", "f32[n] = [0.5", "a constant of the sizes"),
        ("f32[8] = [0.5", "i8[8] = [0.5", "do not fit|not the elements"),
        ("n: 1..", "n: 1..0", "empty"),
        ("  out %y", "out %y", "expected the end of the text"),
    ],
)
def test_faults_of_a_text_are_located(old, new, said):
    assert old in MLP_TEXT
    with pytest.raises(IRError, match=said) as found:
        parse_graph(MLP_TEXT.replace(old, new), all_constants(mlp()), source="dump.txt")
    assert str(found.value).startswith("dump.txt: line ") and "^" in str(found.value)


def test_a_value_without_a_type_cannot_be_printed():
    g = mlp()
    del g.types["h"]
    with pytest.raises(IRError, match="'h' has no type"):
        print_graph(g)


# --- random graphs ------------------------------------------------------------------------------

names = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)


@given(st.lists(names, min_size=2, max_size=8, unique=True), st.data())
def test_random_graphs_round_trip(chosen, data):
    g = Graph(data.draw(names), [chosen[0]], [])
    dims = st.sampled_from([1, 3, N, N + 2, N * sym("m~", 0, 9)])
    shapes = st.lists(dims, max_size=3).map(tuple)
    g.types[chosen[0]] = TensorType("f32", data.draw(shapes))
    for i, name in enumerate(chosen[1:]):
        made = [*chosen[: i + 1], ""]
        if data.draw(st.booleans()):
            g.constants[name] = data.draw(hnp.arrays(np.float32, st.integers(0, 20)))
            g.types[name] = TensorType("f32", g.constants[name].shape)
            continue
        operands = data.draw(st.lists(st.sampled_from(made), max_size=3))
        values = st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
        attrs = data.draw(st.dictionaries(names, values, max_size=2))
        g.types[name] = TensorType("i64", data.draw(shapes))
        g.nodes.append(make_node(data.draw(names), operands, [name], attrs))
    g.outputs = data.draw(st.lists(st.sampled_from(chosen), max_size=3))
    round_trip(g)


def test_digests_follow_what_arrays_hold():
    data = np.arange(100.0)
    before = digest(data)
    data[3] = 7
    after = digest(data)
    assert after != before and digest(data.copy()) == after
    data.flags.writeable = False
    assert digest(data) == digest(data) == after
    data.flags.writeable = True
    data[3] = 3
    assert digest(data) == before
