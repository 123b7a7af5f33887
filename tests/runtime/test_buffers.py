"""Whose memory a run uses: inputs in place, results in arrays of the caller, given or new."""

import tracemalloc

import numpy as np
import pytest
from modules import Sketch, binary, random, unary

from aicc.build import build
from aicc.errors import AiccWarning, ExecutionError, InputError
from aicc.graph_ir.types import TensorType
from aicc.plan import plan
from aicc.symbolic import sym
from aicc.target import Target

HOST = Target.host()
N = sym("n", 1)


def two_outputs(n=N):
    """y = -x, z = x * -x; with an arena where nothing is in place."""
    s = Sketch()
    s.input("x", "f32", n, 4)
    s.call(unary("k0", "neg", "f32", (n, 4)), ["x"], "y")
    s.call(binary("k1", "mul", "f32", (n, 4)), ["x", "y"], "z")
    return build(plan(s.finish("y", "z")), HOST, 1)


def host_then_native():
    """The positions of x's non-zero elements, as they are and negated."""
    s = Sketch()
    found = sym("found", 0)
    s.input("x", "f32", N)
    s.op("NonZero", ["x"], {"where": TensorType("i64", (1, found))})
    s.call(unary("k0", "neg", "i64", (1, found)), ["where"], "minus")
    with pytest.warns(AiccWarning):
        return build(plan(s.finish("where", "minus")), HOST, 1)


@pytest.fixture(scope="module")
def model():
    return two_outputs()


X = random("f32", 3, 4)


def empty(*shape, dtype=np.float32):
    return np.full(shape, 9, dtype)


class TestGivenArrays:
    @pytest.mark.parametrize("n", [N, 3])
    def test_results_are_written_into_them(self, n):
        model = two_outputs(n)
        y, z = empty(3, 4), empty(3, 4)
        for out in ({"y": y, "z": z}, [y, z], (y, z)):
            y[:] = z[:] = 9
            results = model.run(None, {"x": X}, out=out)
            assert results[0] is y and results[1] is z
            np.testing.assert_array_equal(y, -X)
            np.testing.assert_array_equal(z, -X * X)

    def test_some_of_them(self, model):
        z = empty(3, 4)
        for out in ({"z": z}, [None, z]):
            y, got = model.run(None, {"x": X}, out=out)
            assert got is z and y.flags.owndata
            np.testing.assert_array_equal(y, -X)
        assert model.run(None, {"x": X}, out={})[0].flags.owndata

    def test_by_the_names_that_are_asked_for(self, model):
        y, z = empty(3, 4), empty(3, 4)
        assert model.run(["z", "y"], {"x": X}, out=[z, y])[0] is z
        np.testing.assert_array_equal(y, -X)
        (got,) = model.run(["z"], {"x": X}, out=[z])
        assert got is z
        y[:] = 9
        assert model.run(["z"], {"x": X}, out={"y": y})[0] is not z  # written all the same
        np.testing.assert_array_equal(y, -X)

    def test_parts_of_larger_arrays(self, model):
        """A row of results, one for each run, and a file."""
        rows = empty(5, 3, 4)
        for n in range(5):
            model.run(None, {"x": X * n}, out={"y": rows[n]})
        np.testing.assert_array_equal(rows, -X * np.arange(5, dtype=np.float32)[:, None, None])

    def test_a_mapped_file(self, model, tmp_path):
        y = np.memmap(tmp_path / "y", np.float32, "w+", shape=(3, 4))
        assert model.run(None, {"x": X}, out={"y": y})[0] is y
        y.flush()
        np.testing.assert_array_equal(np.fromfile(tmp_path / "y", np.float32).reshape(3, 4), -X)

    def test_nothing_is_allocated(self):
        """Inputs are read where they are, results written where they belong."""
        n = 1 << 16
        model = two_outputs(n)
        x = np.ones((n, 4), np.float32)
        y, z = np.empty_like(x), np.empty_like(x)
        for read_only in (False, True):
            x.flags.writeable = not read_only
            model.run(None, {"x": x}, out=[y, z])
            tracemalloc.start()
            model.run(None, {"x": x}, out=[y, z])
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert most < 64 << 10  # a copy would be a megabyte

    def test_a_transposed_input_is_copied(self):
        """What the test above would see."""
        n = 1 << 16
        model = two_outputs(n)
        x = np.ones((4, n), np.float32).T
        tracemalloc.start()
        model.run(None, {"x": x}, out=[np.empty((n, 4), np.float32), None])
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert most >= 3 * x.nbytes

    def test_of_host_operators(self):
        model = host_then_native()
        x = np.array([0, 1, 0, 2, 3], np.float32)
        where, minus = empty(1, 3, dtype=np.int64), empty(1, 3, dtype=np.int64)
        results = model.run(None, {"x": x}, out=[where, minus])
        assert results[0] is where and results[1] is minus
        assert where.tolist() == [[1, 3, 4]] and minus.tolist() == [[-1, -3, -4]]
        for bad in ({"where": empty(1, 2, dtype=np.int64)}, {"minus": empty(1, 4, dtype=np.int64)}):
            with pytest.raises(InputError, match=r"is int64\[1, [24]\], expected int64\[1, 3\]"):
                model.run(None, {"x": x}, out=bad)

    def test_no_elements(self):
        n = sym("n", 0)
        s = Sketch()
        s.input("x", "f32", n, 4)
        s.call(unary("k0", "neg", "f32", (n, 4)), ["x"], "y")
        model = build(plan(s.finish("y")), HOST, 1)
        y = empty(0, 4)
        assert model.run(None, {"x": empty(0, 4)}, out=[y])[0] is y

    @pytest.mark.parametrize(
        ("bad", "message"),
        [
            (empty(3, 5), r"output 'y' is float32\[3, 5\], expected float32\[3, 4\]"),
            (empty(12), r"is float32\[12\], expected float32\[3, 4\]"),
            (empty(3, 4, dtype=np.float64), r"is float64\[3, 4\], expected"),
            (empty(3, 4, dtype=">f4"), "is >f4|is float32"),
            (empty(4, 3).T, "in C order"),
            (empty(3, 8)[:, ::2], "in C order"),
            (np.broadcast_to(np.float32(1), (3, 4)), "writeable"),
            (np.zeros(49, np.uint8)[1:].view(np.float32).reshape(3, 4), "aligned"),
            ([[0.0] * 4] * 3, "must be a numpy array, not a list"),
            (X, "shares memory with an input"),
        ],
    )
    def test_refusals(self, model, bad, message):
        before = np.array(bad)
        for out in ({"y": bad}, [bad, None]):
            with pytest.raises(InputError, match=message):
                model.run(None, {"x": X}, out=out)
        np.testing.assert_array_equal(before, bad)

    def test_refusals_of_the_whole(self, model):
        y = empty(3, 4)
        for out, message in (
            ({"u": y}, "no outputs: u; the model's outputs are y: float32"),
            ([y], r"1 arrays for 2 outputs: y: float32\[n, 4\], z"),
            ([y, None, None], "3 arrays for 2 outputs"),
            (y, "a mapping by name or a list, not a ndarray"),
            ([y, y], "shares memory with an input or another output"),
            ({"y": y, "z": y[::-1]}, "C order"),
        ):
            with pytest.raises(InputError, match=message):
                model.run(None, {"x": X}, out=out)
        with pytest.raises(InputError, match="2 arrays for 1 outputs"):
            model.run(["z"], {"x": X}, out=[y, None])
        with pytest.raises(InputError, match="asked for twice"):
            model.run(["z", "z"], {"x": X}, out=[y, None])
        model.run(["z", "z"], {"x": X})

    def test_a_closed_model(self):
        model = two_outputs()
        model.close()
        with pytest.raises(ExecutionError, match="closed"):
            model.run(None, {"x": X}, out=[None, None])


def test_results_belong_to_the_caller(model):
    """Later runs and changes of the input leave them alone."""
    x = X.copy()
    first = model.run(None, {"x": x})
    kept = [a.copy() for a in first]
    assert all(a.flags.owndata and a.flags.writeable and a.flags.c_contiguous for a in first)
    x[:] = 0
    model.run(None, {"x": x})
    for a, b in zip(first, kept):
        np.testing.assert_array_equal(a, b)
        a[:] = 5
    np.testing.assert_array_equal(model(X)[0], -X)
