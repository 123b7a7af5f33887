import gc
import threading

import ml_dtypes
import numpy as np
import pytest
from modules import Sketch, binary, gather, matmul_relu, random, unary

from aicc.build import build
from aicc.errors import AiccWarning, ExecutionError, InputError
from aicc.graph_ir.types import TensorType
from aicc.plan import plan
from aicc.runtime import executable
from aicc.runtime.program_text import parse_program
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import Index, call
from aicc.tensor_ir.schedule import Parallel

HOST = Target.host()
N = sym("n", 1)


def compiled(module, threads=1):
    model = build(plan(module), HOST, threads)
    assert parse_program(str(model.program)) == model.program
    return model


def mlp(n):
    s = Sketch()
    s.input("x", "f32", n, 8)
    s.constant("w", random("f32", 8, 16, seed=1))
    s.constant("c", random("f32", 16, seed=2))
    s.call(matmul_relu("k0", n, 8, 16), ["x", "w", "c"], "h")
    s.call(unary("k1", "neg", "f32", (n, 16)), ["h"], "y")
    return s.finish("y")


def expected_mlp(module, x):
    c = module.graph.constants
    return -np.maximum(x @ c["w"] + c["c"], 0)


def test_static_model():
    module = mlp(4)
    model = compiled(module)
    x = random("f32", 4, 8)
    for _ in range(3):
        np.testing.assert_allclose(model(x), expected_mlp(module, x), rtol=1e-5, atol=1e-6)
    (y,) = model.run(None, {"x": x})
    np.testing.assert_array_equal(y, model(x=x))
    assert y.flags.owndata and y.flags.writeable


def test_one_code_for_all_sizes():
    module = mlp(N)
    model = compiled(module)
    assert str(model.inputs[0]) == "x: float32[n, 8]"
    for n in (1, 5, 2, 64, 5, 1):
        x = random("f32", n, 8, seed=n)
        np.testing.assert_allclose(model(x), expected_mlp(module, x), rtol=1e-5, atol=1e-6)
    assert model.report({"x": (64, 8)}).arena == model.report({"x": (64, 8)}).least


def test_more_sizes_than_are_remembered():
    s = Sketch()
    s.input("x", "f32", N)
    s.call(unary("k0", "neg", "f32", (N,)), ["x"], "h")
    s.call(binary("k1", "mul", "f32", (N,)), ["h", "x"], "y")
    model = compiled(s.finish("y"))
    for n in (*range(1, 80), 3, 70):
        x = random("f32", n, seed=n)
        np.testing.assert_array_equal(model(x), -x * x)


def test_arena_offsets_of_symbolic_sizes_do_not_overlap():
    s = Sketch()
    m = sym("m", 1)
    s.input("x", "f32", N, m)
    s.call(unary("a", "neg", "f32", (N, m)), ["x"], "a")
    s.call(unary("b", "abs", "f32", (N, m)), ["x"], "b")
    s.call(binary("c", "mul", "f32", (N, m)), ["a", "b"], "c")
    s.call(binary("d", "add", "f32", (N, m)), ["a", "c"], "d")
    s.call(binary("e", "sub", "f32", (N, m)), ["d", "b"], "e")
    model = compiled(s.finish("e"))
    for shape in ((3, 5), (7, 33), (1, 1), (3, 5)):
        x = random("f32", *shape)
        a, b = -x, np.abs(x)
        np.testing.assert_allclose(model(x), (a + a * b) - b, rtol=1e-6)
    assert model.report({"x": (7, 33)}).arena >= 7 * 33 * 4


def test_zero_sizes():
    s = Sketch()
    n = sym("n")
    s.input("x", "f32", n, 3)
    s.call(unary("k", "neg", "f32", (n, 3)), ["x"], "y")
    model = compiled(s.finish("y"))
    assert model(np.zeros((0, 3), np.float32)).shape == (0, 3)
    assert model(np.ones((2, 3), np.float32)).tolist() == [[-1.0] * 3] * 2


def test_outputs_that_are_inputs_constants_and_views():
    s = Sketch()
    s.input("x", "f32", 2, 3)
    w = random("f32", 5)
    s.constant("w", w)
    s.constant("shape", np.array([6], np.int64))
    s.call(unary("k", "neg", "f32", (2, 3)), ["x"], "y")
    s.op("Reshape", ["y", "shape"], {"v": TensorType("f32", (6,))}, allowzero=0)
    s.op("Reshape", ["x", "shape"], {"u": TensorType("f32", (6,))}, allowzero=0)
    model = compiled(s.finish("x", "w", "y", "v", "u", "y"))
    x = random("f32", 2, 3)
    before = x.copy()
    results = model(x)
    for got, want in zip(results, (x, w, -x, -x.reshape(6), x.reshape(6), -x), strict=True):
        np.testing.assert_array_equal(got, want)
    for n, r in enumerate(results):
        assert not any(np.shares_memory(r, o) for o in (x, *results[n + 1 :]))
        r[...] = 99
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(model(x)[1], w)


def test_views_are_no_calls():
    s = Sketch()
    s.input("x", "f32", N, 4)
    s.constant("shape", np.array([-1], np.int64))
    s.call(unary("a", "neg", "f32", (N, 4)), ["x"], "a")
    s.op("Reshape", ["a", "shape"], {"v": TensorType("f32", (N * 4,))}, allowzero=0)
    s.call(unary("b", "exp", "f32", (N * 4,)), ["v"], "y")
    model = compiled(s.finish("y"))
    assert model.report().calls == 2
    assert model.report().host_ops == ()
    x = random("f32", 3, 4)
    np.testing.assert_allclose(model(x), np.exp(-x.reshape(-1)), rtol=1e-6)


def test_failed_check_names_the_node():
    s = Sketch()
    s.input("x", "f32", 5, 4)
    s.input("index", "i64", N)
    s.call(gather("g", 5, 4, N), ["x", "index"], "y", origin="emb/Gather")
    s.call(unary("k", "neg", "f32", (N, 4)), ["y"], "z")
    model = compiled(s.finish("z"))
    x = random("f32", 5, 4)
    np.testing.assert_array_equal(model(x, np.array([4, 0])), -x[[4, 0]])
    for bad in ([0, 5], [-1, 0], [2**40, 1]):
        with pytest.raises(ExecutionError, match=r"^node 'emb/Gather': index out of range$"):
            model(x, np.array(bad))
    np.testing.assert_array_equal(model(x, np.array([1])), -x[[1]])


def test_failed_check_tells_the_sizes_that_it_names():
    m = sym("m", 1)
    b = KernelBuilder("k")
    x, z = b.input("x", "f32", (N,)), b.input("z", "f32", (m,))
    b.check(call("le", Index(N), Index(m)), "n: size n is more than m")
    b.mark_output(b.compute((N,), lambda i: x[i] + z[i], name="y"))
    s = Sketch()
    s.input("x", "f32", N)
    s.input("z", "f32", m)
    s.call(b.build(), ["x", "z"], "y", origin="n")
    model = compiled(s.finish("y"))
    assert model(random("f32", 2), random("f32", 3)).shape == (2,)
    with pytest.raises(ExecutionError, match=r"^n: size n is more than m \(m is 3, n is 5\)$"):
        model(random("f32", 5), random("f32", 3))


@pytest.mark.parametrize("dtype", ["f64", "f32", "f16", "bf16", "i64", "i8", "u16", "bool"])
def test_element_types(dtype):
    s = Sketch()
    s.input("x", dtype, 9)
    op = "not" if dtype == "bool" else "neg"
    s.call(unary("k", op, dtype, (9,)), ["x"], "y")
    model = compiled(s.finish("y"))
    x = random(dtype, 9)
    y = model(x)
    assert y.dtype == x.dtype
    np.testing.assert_array_equal(y, ~x if dtype == "bool" else np.negative(x))
    if dtype == "bf16":
        assert y.dtype == ml_dtypes.bfloat16


def test_inputs_in_other_layouts_are_copied():
    s = Sketch()
    s.input("x", "f32", 4, 6)
    s.call(unary("k", "neg", "f32", (4, 6)), ["x"], "y")
    model = compiled(s.finish("y"))
    base = random("f32", 6, 4)
    read_only = random("f32", 4, 6)
    read_only.flags.writeable = False
    raw = np.zeros(4 * 6 * 4 + 1, np.uint8)
    unaligned = raw[1:].view(np.float32).reshape(4, 6)
    unaligned[...] = 7
    for x in (
        base.T,
        np.asfortranarray(base.T),
        random("f32", 8, 12)[::2, ::-2],
        random("f32", 4, 6).astype(">f4"),
        np.broadcast_to(np.float32(3), (4, 6)),
        read_only,
        unaligned,
        random("f32", 4, 6).view(np.recarray),
    ):
        np.testing.assert_array_equal(model(x), np.negative(np.asarray(x)))


def scalar_model():
    s = Sketch()
    s.input("x", "f32")
    s.call(unary("k", "neg", "f32", ()), ["x"], "y")
    return compiled(s.finish("y"))


def test_rank_zero():
    model = scalar_model()
    y = model(np.array(2.0, np.float32))
    assert y.shape == () and y == -2
    with pytest.raises(InputError, match="must be a numpy array of float32"):
        model(2.0)


def wide(n, name="k"):
    """A kernel with a parallel loop over rows, each a sum that depends on the order of terms."""
    b = KernelBuilder(name)
    x = b.input("x", "f32", (n, 64))
    y = b.reduce((n,), (64,), lambda i, k: call("exp", x[i, k]), name="y")
    b.mark_output(y)
    kernel = b.build()
    return Parallel(kernel.body[0].var.name).apply(kernel)


@pytest.mark.parametrize("n", [N, 300])
def test_threads_change_no_bit(n):
    results = []
    x = random("f32", 300, 64)
    for threads in (1, 2, 3):
        s = Sketch()
        s.input("x", "f32", n, 64)
        s.call(wide(n), ["x"], "y")
        model = compiled(s.finish("y"), threads)
        results += [model(x) for _ in range(20)]
        model.close()
        model.close()
    np.testing.assert_allclose(results[0], np.exp(x).sum(1), rtol=1e-5)
    for r in results[1:]:
        np.testing.assert_array_equal(r, results[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_concurrent_runs(threads):
    s = Sketch()
    s.input("x", "f32", N, 64)
    s.call(unary("a", "neg", "f32", (N, 64)), ["x"], "a")
    s.call(unary("b", "abs", "f32", (N, 64)), ["x"], "b")
    s.call(binary("c", "sub", "f32", (N, 64)), ["a", "b"], "c")
    s.call(wide(N), ["c"], "y")
    model = compiled(s.finish("y"), threads)
    feeds = [random("f32", 1 + n * 7, 64, seed=n) for n in range(8)]
    expected = [model(x) for x in feeds]
    wrong = []

    def work(start):
        for i in range(100):
            n = (start + i) % len(feeds)
            if not np.array_equal(model(feeds[n]), expected[n]):
                wrong.append(n)

    workers = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong
    np.testing.assert_allclose(expected[1], np.exp(-feeds[1] - np.abs(feeds[1])).sum(1), rtol=1e-5)


def test_models_come_and_go():
    for n in range(3):
        model = compiled(mlp(n + 1), 2)
        model(random("f32", n + 1, 8))
        del model
        gc.collect()


class TestHostOperators:
    def test_sizes_that_a_host_operator_brings(self):
        s = Sketch()
        k = sym("k", 0, 12)
        s.input("x", "f32", 12)
        s.call(unary("a", "neg", "f32", (12,)), ["x"], "a")
        s.op("NonZero", ["a"], {"nz": TensorType("i64", (1, k))})
        s.call(unary("b", "neg", "i64", (1, k)), ["nz"], "b")
        s.call(binary("c", "mul", "i64", (1, k)), ["b", "nz"], "c")
        s.call(unary("d", "exp", "f32", (12,)), ["a"], "d")
        with pytest.warns(AiccWarning, match=r"run in Python: NonZero \(node_nz\)"):
            model = compiled(s.finish("c", "nz", "d"))
        assert model.report().host_ops == (("NonZero", "node_nz"),)
        for count in (0, 3, 12, 3):
            x = np.zeros(12, np.float32)
            x[:count] = 2
            c, nz, d = model(x)
            np.testing.assert_array_equal(nz, [np.arange(count)])
            np.testing.assert_array_equal(c, -nz * nz)
            np.testing.assert_allclose(d, np.exp(-x), rtol=1e-6)
        with pytest.raises(InputError, match="expected"):
            model.run(None, {"x": x}, out={"c": np.zeros((1, 99), np.int64)})

    def test_a_result_does_not_share_memory_with_the_arena(self):
        s = Sketch()
        s.input("x", "f32", 3, 4)
        s.call(unary("a", "neg", "f32", (3, 4)), ["x"], "a")
        s.op("NonZero", ["a"], {"nz": TensorType("i64", (2, sym("k", 0, 12)))})
        s.call(unary("b", "exp", "f32", (3, 4)), ["a"], "y")
        with pytest.warns(AiccWarning):
            model = compiled(s.finish("y", "nz"))
        x = random("f32", 3, 4)
        y, nz = model(x)
        kept = nz.copy()
        model(np.zeros((3, 4), np.float32))
        np.testing.assert_array_equal(nz, kept)
        np.testing.assert_allclose(y, np.exp(-x), rtol=1e-6)

    def test_contents_that_types_hold_are_those_of_the_run(self):
        """What an operator knows of small operands is kept for equal ones only."""
        s = Sketch()
        s.input("x", "f32", 6)
        s.input("keep", "bool", 6)
        s.op("Compress", ["x", "keep"], {"y": TensorType("f32", (sym("k", 0, 6),))})
        with pytest.warns(AiccWarning):
            model = compiled(s.finish("y"))
        x = random("f32", 6)
        for bits in (0b101010, 0b000111, 0b101010, 0, 0b111111):
            keep = np.array([bits >> n & 1 for n in range(6)], np.bool_)
            np.testing.assert_array_equal(model.run(None, {"x": x, "keep": keep})[0], x[keep])

    def test_constants_are_read_where_they_lie(self):
        s = Sketch()
        s.input("x", "f32", 6)
        s.constant("w", random("f32", 6))
        s.constant("keep", np.array([1, 0, 1, 1, 0, 0], np.bool_))
        s.call(binary("a", "mul", "f32", (6,)), ["x", "w"], "a")
        s.op("Compress", ["a", "keep"], {"y": TensorType("f32", (sym("k", 0, 6),))})
        with pytest.warns(AiccWarning):
            model = compiled(s.finish("y"))
        x = random("f32", 6, seed=1)
        np.testing.assert_array_equal(model(x), (x * random("f32", 6))[[0, 2, 3]])

    def test_parts_of_intermediate_values_are_read_where_they_lie(self):
        s = Sketch()
        s.input("x", "f32", 6)
        s.input("keep", "bool", 3)
        s.call(unary("a", "neg", "f32", (6,)), ["x"], "a")
        s.op("aicc::Part", ["a"], {"part": TensorType("f32", (3,))}, begin=2, shape=(3,))
        s.op("Compress", ["part", "keep"], {"y": TensorType("f32", (sym("k", 0, 3),))})
        with pytest.warns(AiccWarning):
            model = compiled(s.finish("y"))
        assert [op for op, _ in model.report().host_ops] == ["Compress"]
        x, keep = random("f32", 6), np.array([1, 0, 1], np.bool_)
        np.testing.assert_array_equal(model(x, keep), -x[[2, 4]])


def test_report():
    module = mlp(4)
    model = compiled(module)
    report = model.report()
    assert (report.calls, report.kernels, report.host_ops) == (2, 2, ())
    assert report.weights == 8 * 16 * 4 + 64
    assert report.arena == report.least
    assert {"codegen", "pack", "link"} <= report.seconds.keys()
    text = str(report)
    assert "2 calls of 2 kernels, 1 thread," in text and "host operators: none" in text
    assert report.as_dict()["weights"] == report.weights


def test_the_python_side_of_a_run_is_small():
    """Coarse: machines of a test run are shared. The benchmark measures it well."""
    import time

    model = compiled(mlp(1))
    feed = {"x": random("f32", 1, 8)}
    best = 1.0
    for _ in range(200):
        begin = time.perf_counter()
        for _ in range(20):
            model.run(None, feed)
        best = min(best, (time.perf_counter() - begin) / 20)
    assert best < 30e-6


def test_without_knowing_where_arrays_hold_their_data(monkeypatch):
    assert executable.object_places() is not None  # CPython, where the other tests take this way
    monkeypatch.setattr(executable, "object_places", lambda: None)
    module = mlp(4)
    model = compiled(module)
    x = random("f32", 4, 8)
    np.testing.assert_allclose(model(x), expected_mlp(module, x), rtol=1e-5, atol=1e-6)


def test_views_of_all_kinds_are_read_where_their_data_are():
    s = Sketch()
    s.input("x", "f32", N, 8)
    s.input("z", "f32", N, 8)
    s.call(binary("k", "sub", "f32", (N, 8)), ["x", "z"], "y")
    model = compiled(s.finish("y"))
    whole = random("f32", 7, 8)
    frozen = whole.copy()
    frozen.flags.writeable = False
    for x in (whole[2:5], frozen[:3], np.ndarray((3, 8), np.float32, whole.tobytes(), 32)):
        for z in (whole[:3], np.asfortranarray(whole[4:]), np.broadcast_to(whole[0], (3, 8))):
            np.testing.assert_array_equal(model(x, z), x - z)


def test_a_closed_model_refuses_to_run():
    model = compiled(mlp(4), 2)
    x = random("f32", 4, 8)
    model(x)
    model.close()
    with pytest.raises(ExecutionError, match="the model is closed"):
        model(x)


@pytest.mark.parametrize("n", [N, 4])
def test_profile(n):
    s = Sketch()
    s.input("x", "f32", n, 8)
    s.input("index", "i64", 2)
    s.constant("w", random("f32", 8, 4, seed=1))
    s.constant("c", random("f32", 4, seed=2))
    s.constant("table", random("f32", 5, 4))
    s.call(matmul_relu("k0", n, 8, 4), ["x", "w", "c"], "h", origin="fc")
    s.op("NonZero", ["h"], {"nz": TensorType("i64", (2, sym("k", 0)))})
    s.call(gather("g", 5, 4, 2), ["table", "index"], "y", origin="emb")
    with pytest.warns(AiccWarning):
        model = compiled(s.finish("y", "nz", "x"), 2)
    feed = {"x": random("f32", 4, 8), "index": np.array([1, 4])}
    expected = model.run(None, feed)
    times = model.profile(feed, 3)
    assert [t.what for t in times] == ["k0", "host NonZero", "g", "copy"]
    assert [t.nodes for t in times] == [("fc",), ("node_nz",), ("emb",), ()]
    assert all(0 < t.seconds < 1 for t in times)
    for got, want in zip(model.run(None, feed), expected, strict=True):
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ExecutionError, match="node 'emb': index out of range"):
        model.profile({**feed, "index": np.array([1, 5])})


def test_sizes_that_grow_from_run_to_run():
    """Later placements are shared by many sizes; results and arenas stay right."""
    s = Sketch()
    m = sym("m", 1)
    s.input("x", "f32", N)
    s.input("z", "f32", m)
    s.call(unary("a", "neg", "f32", (N,)), ["x"], "a")
    s.call(unary("b", "abs", "f32", (m,)), ["z"], "b")
    b = KernelBuilder("join")
    p, q = b.input("p", "f32", (N,)), b.input("q", "f32", (m,))
    b.mark_output(b.compute((N, m), lambda i, j: p[i] * q[j], name="y"))
    s.call(b.build(), ["a", "b"], "c")
    s.call(unary("d", "exp", "f32", (N,)), ["a"], "d")
    s.call(unary("e", "exp", "f32", (m,)), ["b"], "e")
    model = compiled(s.finish("c", "d", "e"))
    for n in range(1, 200):
        x, z = random("f32", n, seed=n), random("f32", 1 + (n * 37) % 300, seed=n + 1)
        c, d, e = model(x, z)
        np.testing.assert_array_equal(c, -x[:, None] * np.abs(z))
        np.testing.assert_allclose(d, np.exp(-x), rtol=1e-6)
        np.testing.assert_allclose(e, np.exp(np.abs(z)), rtol=1e-6)
        report = model.report({"x": x.shape, "z": z.shape})
        assert report.least <= report.arena
