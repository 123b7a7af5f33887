"""Runs that are refused: names, arrays, sizes, arrays for outputs."""

import numpy as np
import pytest
from modules import Sketch, random, unary

from aicc.build import build
from aicc.errors import InputError
from aicc.plan import plan
from aicc.symbolic import sym
from aicc.target import Target

HOST = Target.host()
N = sym("n", 1)


@pytest.fixture(scope="module")
def model():
    s = Sketch()
    m = sym("m", 2, 10)
    s.input("x", "f32", N, 4)
    s.input("z", "i64", N, m)
    s.input("q", "f32", N + m)
    s.call(unary("k", "neg", "f32", (N, 4)), ["x"], "y")
    s.call(unary("l", "neg", "i64", (N, m)), ["z"], "w")
    return build(plan(s.finish("y", "w")), HOST, 1)


class TestRefusals:
    def feed(self, **more):
        given = {
            "x": np.zeros((3, 4), np.float32),
            "z": np.zeros((3, 5), np.int64),
            "q": np.zeros(8, np.float32),
        }
        return {**given, **more}

    def test_a_good_feed(self, model):
        assert [y.shape for y in model.run(None, self.feed())] == [(3, 4), (3, 5)]

    @pytest.mark.parametrize(
        ("feed", "message"),
        [
            ({}, r"missing inputs: x, z, q; the model's inputs are x: float32\[n, 4\], z: int64"),
            ({"x": 1, "y": 2}, r"missing inputs: z, q; unknown inputs: y; the model's inputs"),
            ([1], r"a feed maps input names to arrays; this is a list"),
        ],
    )
    def test_names(self, model, feed, message):
        with pytest.raises(InputError, match=message):
            model.run(None, feed)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ({"x": [[0.0]]}, r"'x' must be a numpy array of float32\[n, 4\], not a list"),
            ({"x": np.zeros((3, 4))}, r"'x' has dtype float64, expected float32\[n, 4\]"),
            ({"x": np.zeros(3, np.float32)}, r"'x' has rank 1 \(\[3\]\), expected rank 2"),
            ({"x": np.zeros((3, 5), np.float32)}, r"'x' .* size 5 along axis 1 instead of 4"),
            (
                {"x": np.zeros((2, 4), np.float32)},
                r"'z' has shape \[3, 5\], .* size 3 along axis 0 instead of n = 2 "
                r"\(n is 2 by axis 0 of input 'x'\)",
            ),
            (
                {"z": np.zeros((3, 11), np.int64)},
                r"'z': size 11 along axis 1 \(m\) is outside 2..10",
            ),
            ({"q": np.zeros(7, np.float32)}, r"'q' .* size 7 along axis 0 instead of .* = 8"),
            ({"extra": np.zeros(1)}, r"unknown inputs: extra"),
        ],
    )
    def test_arrays(self, model, more, message):
        with pytest.raises(InputError, match=message):
            model.run(None, self.feed(**more))

    def test_output_names(self, model):
        assert len(model.run(["w"], self.feed())) == 1
        with pytest.raises(InputError, match=r"no outputs: u; the model's outputs are y: float32"):
            model.run(["w", "u"], self.feed())
        for name in ("w", "yw"):  # letters are no names
            with pytest.raises(
                InputError, match=rf"names of outputs are a list, such as \['{name}'\]"
            ):
                model.run(name, self.feed())

    def test_call_arguments(self, model):
        feed = self.feed()
        y, w = model(feed["x"], feed["z"], q=feed["q"])
        assert (y.shape, w.shape) == ((3, 4), (3, 5))
        with pytest.raises(InputError, match="by name: x"):
            model(feed["x"], x=feed["x"])
        with pytest.raises(InputError, match="4 inputs given"):
            model(*feed.values(), 1)

    def test_arrays_for_outputs(self, model):
        feed = self.feed(x=random("f32", 3, 4))
        y = np.zeros((3, 4), np.float32)
        results = model.run(None, feed, out={"y": y})
        assert results[0] is y
        np.testing.assert_array_equal(y, -feed["x"])
        for bad, message in (
            (np.zeros((3, 5), np.float32), r"is float32\[3, 5\], expected float32\[3, 4\]"),
            (np.zeros((3, 4)), r"is float64\[3, 4\], expected"),
            (np.zeros((4, 3), np.float32).T, "C order"),
            (feed["x"], "shares memory"),
            ([], "must be a numpy array, not a list"),
        ):
            with pytest.raises(InputError, match=message):
                model.run(None, feed, out={"y": bad})
        with pytest.raises(InputError, match="no outputs: u"):
            model.run(None, feed, out={"u": y})
