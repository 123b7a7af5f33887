"""Arrays given for outputs and inputs: what a glance tells, what takes a closer look."""

import ctypes

import numpy as np
import pytest
from modules import Sketch, random, unary

from aicc.build import build
from aicc.errors import InputError
from aicc.plan import plan
from aicc.runtime.context import object_places
from aicc.runtime.executable import REMEMBERED
from aicc.runtime.feed import plain_outputs
from aicc.symbolic import sym
from aicc.target import Target

HOST = Target.host()
N = sym("n", lo=1)


def compiled(module):
    return build(plan(module), HOST, 1)


@pytest.fixture(scope="module")
def model():
    s = Sketch()
    s.input("x", "f32", N, 4)
    s.input("z", "f32", 4)
    s.call(unary("k", "neg", "f32", (N, 4)), ["x"], "y")
    s.call(unary("l", "abs", "f32", (4,)), ["z"], "w")
    return compiled(s.finish("y", "w"))


def arrays(n=3):
    x, z = random("f32", n, 4), random("f32", 4, seed=1)
    return {"x": x, "z": z}, [np.empty((n, 4), np.float32), np.empty(4, np.float32)]


def glance(model, feed, out):
    layout = model.executable.layout([a.shape for a in feed.values()])
    return plain_outputs(model.outputs, layout.results, out, list(feed.values()))


@pytest.mark.parametrize("form", [list, tuple, lambda out: {"w": out[1], "y": out[0]}])
def test_arrays_of_their_own_memory(model, form):
    feed, out = arrays()
    found = glance(model, feed, form(out))
    assert found is not None and all(a is b for a, b in zip(found, out, strict=True))
    results = model.run(None, feed, out=form(out))
    assert all(a is b for a, b in zip(results, out, strict=True))
    np.testing.assert_array_equal(out[0], -feed["x"])
    np.testing.assert_array_equal(out[1], np.abs(feed["z"]))


def test_some_of_the_arrays(model):
    feed, (y, w) = arrays()
    for out in ([y, None], {"y": y}):
        assert glance(model, feed, out) is None
        made = model.run(None, feed, out=out)
        assert made[0] is y and made[1] is not w
        np.testing.assert_array_equal(made[1], np.abs(feed["z"]))


def test_views_take_a_closer_look(model):
    feed, (y, w) = arrays()
    whole = np.zeros(8, np.float32)
    for z, out in ((whole[:4], [y, whole[4:]]), (feed["z"], [y, whole[4:]]), (whole[:4], [y, w])):
        given = {**feed, "z": z}
        assert glance(model, given, out) is None
        assert model.run(None, given, out=out)[1] is out[1]
        np.testing.assert_array_equal(out[1], np.abs(z))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, y, w: [y, w, w], "3 arrays for 2 outputs"),
        (lambda f, y, w: {"y": y, "u": w}, "no outputs: u"),
        (lambda f, y, w: [y, f["z"]], "shares memory"),
        (lambda f, y, w: [y, f["x"].reshape(-1)[2:6]], "shares memory"),
        (lambda f, y, w: [y, y.reshape(-1)[:4]], "shares memory"),
        (lambda f, y, w: [y, w.astype(np.float64)], "is float64"),
        (lambda f, y, w: [y[:2], w], r"is float32\[2, 4\]"),
        (lambda f, y, w: [y, np.broadcast_to(np.float32(0), 4)], "writeable"),
        (lambda f, y, w: [y, [0.0] * 4], "not a list"),
    ],
)
def test_arrays_that_do_not_serve(model, change, message):
    feed, (y, w) = arrays()
    out = change(feed, y, w)
    assert glance(model, feed, out) is None
    with pytest.raises(InputError, match=message):
        model.run(None, feed, out=out)


def test_the_same_array_for_two_inputs():
    s = Sketch()
    for name in "xz":
        s.input(name, "f32", 4)
    s.call(unary("k", "neg", "f32", (4,)), ["x"], "y")
    s.call(unary("l", "abs", "f32", (4,)), ["z"], "w")
    model = compiled(s.finish("y", "w"))
    a, out = random("f32", 4), [np.empty(4, np.float32) for _ in range(2)]
    model.run(None, {"x": a, "z": a}, out=out)
    np.testing.assert_array_equal(out, [-a, np.abs(a)])


def test_inputs_that_are_read_as_they_are_and_others(model):
    feed, _ = arrays()
    x, z = feed.values()
    frozen = x.copy()
    frozen.flags.writeable = False
    odd = np.frombuffer(b"\0" + z.tobytes(), np.uint8)[1:].view(np.float32)
    assert not odd.flags.aligned
    for a, b in ((frozen, z), (np.asfortranarray(x), z), (x, odd), (x, z.astype(">f4"))):
        y, w = model.run(None, {"x": a, "z": b})
        np.testing.assert_array_equal(y, -x)
        np.testing.assert_array_equal(w, np.abs(z))


def test_more_sizes_than_are_remembered(model):
    for _ in range(2):
        for n in range(1, REMEMBERED + 9):
            feed, _ = arrays(n)
            np.testing.assert_array_equal(model(*feed.values())[0], -feed["x"])


def test_places_in_objects_are_those_of_this_python():
    places = object_places()
    assert places is not None  # CPython, where the other tests run
    items, data = places
    a = np.arange(3.0)
    listed = [a]
    first = ctypes.c_size_t.from_address(id(listed) + items).value
    assert ctypes.c_size_t.from_address(first).value == id(a)
    assert ctypes.c_size_t.from_address(id(a) + data).value == a.ctypes.data
