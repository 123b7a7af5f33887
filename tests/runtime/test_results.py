"""Large results: their memory is used again, but never while somebody sees it."""

import gc
import threading

import numpy as np
import pytest
from modules import Sketch, unary

from aicc.build import build
from aicc.plan import plan
from aicc.runtime import layout, results
from aicc.runtime.results import Results
from aicc.symbolic import sym
from aicc.target import Target


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(results, "LARGE", 1000)
    monkeypatch.setattr(layout, "LARGE", 1000)


def place(a):
    return a.__array_interface__["data"][0]


def test_memory_is_used_again_once_the_last_view_is_gone():
    made = Results(1)
    a = made.empty((40, 50), np.dtype(np.float32))
    first = place(a)
    assert a.flags.c_contiguous and a.flags.writeable and a.flags.aligned
    a[:] = 1.0
    view = a[3:].T
    del a
    gc.collect()
    b = made.empty((40, 50), np.dtype(np.float32))
    assert place(b) != first  # the view lives
    b[:] = 2.0
    assert np.all(view == 1.0)
    del view
    gc.collect()
    assert place(made.empty((500, 4), np.dtype(np.int32))) == first


def test_much_larger_memory_is_not_used_and_only_as_much_is_kept_as_a_run_needs():
    made = Results(2)
    large = [made.empty((n,), np.dtype(np.uint8)) for n in (8000, 8001, 8002, 8003)]
    places = [place(a) for a in large]
    while large:
        large.pop(0)
    assert place(made.empty((2000,), np.dtype(np.uint8))) not in places[2:]
    assert place(made.empty((7900,), np.dtype(np.uint8))) in places[2:]
    small = made.empty((10,), np.dtype(np.uint8))
    assert small.flags.owndata


def model(n):
    s = Sketch()
    s.input("x", "f32", n, 64)
    s.call(unary("k0", "neg", "f32", (n, 64)), ["x"], "y")
    return build(plan(s.finish("y")), Target.host(), 1)


@pytest.mark.parametrize("n", (32, sym("n", 1)))
def test_results_of_runs_are_the_callers_own(n):
    compiled = model(n)
    x = np.arange(32 * 64, dtype=np.float32).reshape(32, 64)
    kept = [compiled(x + k) for k in range(4)]
    for k, y in enumerate(kept):
        np.testing.assert_array_equal(y, -(x + k))
    assert len({place(y) for y in kept}) == 4
    tail = kept[3][1:, :3]
    compiled.close()
    del kept, compiled
    gc.collect()
    np.testing.assert_array_equal(tail, -(x + 3)[1:, :3])  # also when the model is gone


def test_threads_do_not_get_each_others_results():
    compiled = model(32)
    wrong = []

    def work(seed):
        x = np.full((32, 64), seed, np.float32)
        for _ in range(200):
            y = compiled(x)
            if not np.all(y == -seed):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
