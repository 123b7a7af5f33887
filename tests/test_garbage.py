"""How often Python looks for garbage while a model is compiled, and afterwards."""

import gc
import threading

import pytest
from small_models import mlp

import aicc
from aicc.garbage import OBJECTS, rarely_looked_for


@pytest.fixture(autouse=True)
def as_before():
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_rarely_while_a_model_is_compiled_and_as_before_afterwards():
    gc.set_threshold(300, 7, 9)
    seen = set()
    aicc.compile(mlp(), threads=1, progress=lambda *_: seen.add(gc.get_threshold())).close()
    assert seen == {(OBJECTS, 7, 9)}
    assert gc.get_threshold() == (300, 7, 9)


def test_as_before_after_an_error():
    gc.set_threshold(300, 7, 9)
    with pytest.raises(aicc.ModelError):
        aicc.compile(b"no model")
    assert gc.get_threshold() == (300, 7, 9)


@pytest.mark.parametrize("first", [0, 2 * OBJECTS])
def test_what_is_rarer_stays(first):
    gc.set_threshold(first, 10, 10)
    with rarely_looked_for():
        assert gc.get_threshold()[0] == first
    assert gc.get_threshold()[0] == first


def test_the_last_of_several_threads_puts_it_back():
    gc.set_threshold(300, 10, 10)
    inside, leave = threading.Event(), threading.Event()

    def other():
        with rarely_looked_for():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with rarely_looked_for():
        pass
    assert gc.get_threshold()[0] == OBJECTS
    leave.set()
    thread.join()
    assert gc.get_threshold()[0] == 300
