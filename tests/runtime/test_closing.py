"""The end of a model: closed while it runs, dropped, in a child process, pickled."""

import copy
import operator
import os
import threading
import time

import numpy as np
import pytest
from modules import Sketch, random, unary

from aicc.build import build
from aicc.errors import ExecutionError
from aicc.plan import plan
from aicc.runtime.state import State, States
from aicc.symbolic import sym
from aicc.target import Target

HOST = Target.host()
N = sym("n", 1)


def exponential(threads=1):
    s = Sketch()
    s.input("x", "f32", N, 64)
    s.call(unary("k", "exp", "f32", (N, 64)), ["x"], "y")
    return build(plan(s.finish("y")), HOST, threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_closing_waits_for_runs_of_other_threads(threads):
    model = exponential(threads)
    feeds = [random("f32", 3000 + 1000 * n, 64, seed=n) for n in range(3)]
    told = []

    def work(x):
        expected, runs = np.exp(x), 0
        try:
            while True:
                np.testing.assert_allclose(model(x), expected, rtol=1e-5)
                runs += 1
        except Exception as error:
            told.append((runs, type(error), str(error)))

    workers = [threading.Thread(target=work, args=(x,)) for x in feeds]
    for w in workers:
        w.start()
    time.sleep(0.1)
    model.close()
    for w in workers:
        w.join()
    assert sum(runs for runs, _, _ in told) > 0
    assert [t[1:] for t in told] == [(ExecutionError, "the model is closed")] * len(feeds)
    model.close()


def test_a_run_that_does_not_end_keeps_the_code():
    states = States()
    held, free = (states.add(lambda: State(8, 1)) for _ in range(2))
    states.free.append(free)
    assert not states.close(patience=0.01)
    with pytest.raises(ExecutionError, match="the model is closed"):
        states.add(lambda: State(8, 1))
    states.free.append(held)
    assert states.close(patience=0.0)
    assert states.close(patience=0.0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", [1, 2])
def test_a_child_runs_what_its_parent_compiled(threads):
    model = exponential(threads)
    x = random("f32", 5000, 64)
    y = model(x)
    child = os.fork()
    if child == 0:
        same = False
        try:
            same = np.array_equal(model(x), y)
            model.close()
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(model(x), y)


@pytest.mark.parametrize(
    "take", [operator.methodcaller("__reduce_ex__", 5), copy.copy, copy.deepcopy]
)
def test_models_are_not_pickled(take):
    with pytest.raises(TypeError, match=r"`save` writes one, `aicc.load` reads it"):
        take(exponential())
