from dataclasses import dataclass

import numpy as np
import pytest

from aicc import config
from aicc.errors import AiccError, IRError
from aicc.passes import Level, disagreement, run_passes


class Numbers(list):
    """A level for tests: a list of numbers whose meaning is their sum times the input."""


class Total(Numbers):
    """The next level: one number."""


def verify(v):
    if any(x < 0 for x in v):
        raise IRError("a number is negative")


LEVELS = {
    Numbers: Level(
        "Numbers",
        show=lambda v: " ".join(map(str, v)),
        verify=verify,
        parse=lambda text, data, source: Numbers(map(int, text.split())),
        feed=lambda v, seed: {"x": np.random.default_rng(seed).random(3)},
        evaluate=lambda v, feed: [sum(v) * feed["x"]],
    ),
    Total: Level(
        "Total",
        show=str,
        verify=verify,
        evaluate=lambda v, feed: [v[0] * feed["x"]],
    ),
}


@dataclass(frozen=True)
class Sort:
    """[b, a] -> [a, b]"""

    name = "sort"

    def __call__(self, v):
        return Numbers(sorted(v))


@dataclass(frozen=True)
class Grow:
    """[a] -> [a, by]"""

    by: int = 0
    name = "grow"

    def __call__(self, v):
        return Numbers([*v, self.by])


@dataclass(frozen=True)
class Sum:
    """[a, b] -> a+b"""

    name = "sum"

    def __call__(self, v):
        return Total([sum(v)])


START = Numbers([3, 1, 2])


def test_passes_run_in_order_across_levels_and_are_timed():
    told = []
    made = run_passes(
        START, [Sort(), Grow(), Sum()], LEVELS, check=3, on_time=lambda n, s: told.append(n)
    )
    assert made.result == Total([6]) and isinstance(made.result, Total)
    assert [n for n, _ in made.times] == told == ["sort", "grow", "sum"]
    assert all(s >= 0 for _, s in made.times)
    assert not made.stopped


def test_stopping_and_resuming():
    passes = [Sort(), Grow(5), Grow(7), Sum()]
    made = run_passes(START, passes, LEVELS, stop_after="grow")
    assert made.result == [1, 2, 3, 5] and made.stopped
    assert run_passes(START, passes, LEVELS, stop_after="03_grow").result == [1, 2, 3, 5, 7]
    rest = run_passes(made.result, passes, LEVELS, start_after="02_grow")
    assert rest.result == Total([18])
    assert run_passes(START, passes, LEVELS, start_after="sum").result is START
    with pytest.raises(AiccError, match="01_sort, 02_grow, 03_grow, 04_sum"):
        run_passes(START, passes, LEVELS, stop_after="fold")
    with pytest.raises(AiccError, match="does not come after"):
        run_passes(START, passes, LEVELS, start_after="sum", stop_after="sort")


def test_dumps(tmp_path):
    run_passes(START, [Sort(), Sum()], LEVELS, dump=tmp_path / "ir")
    texts = {p.name: p.read_text() for p in (tmp_path / "ir").iterdir()}
    assert texts == {"00_numbers.txt": "3 1 2", "01_sort.txt": "1 2 3", "02_sum.txt": "[6]"}


def test_verification_names_the_pass():
    for check in (0, 1):
        with pytest.raises(IRError, match="after pass 'grow': a number is negative"):
            run_passes(START, [Sort(), Grow(-1)], LEVELS, check=check)
    with pytest.raises(IRError, match="after the Numbers that passes start from"):
        run_passes(Numbers([-1]), [], LEVELS)


def test_texts_are_read_back():
    lossy = Level("Numbers", lambda v: "1 2", verify, parse=lambda t, data, source: Numbers([1]))
    run_passes(Numbers([1, 2]), [], {Numbers: lossy}, check=1)
    with pytest.raises(IRError, match="read back from its text is another one"):
        run_passes(Numbers([1, 2]), [], {Numbers: lossy}, check=2)

    def refuse(text, data, source):
        raise IRError("line 1")

    unread = Level("Numbers", lambda v: "1 2", verify, parse=refuse)
    with pytest.raises(IRError, match="cannot be read back: line 1"):
        run_passes(Numbers([1, 2]), [], {Numbers: unread}, check=2)


def test_changed_meanings_are_seen():
    run_passes(START, [Grow(1)], LEVELS, check=2)
    with pytest.raises(IRError, match="pass 'grow' changes output 0: 3 of 3 elements"):
        run_passes(START, [Sort(), Grow(1)], LEVELS, check=3)


def test_the_environment_sets_the_default(monkeypatch):
    monkeypatch.setenv("AICC_CHECK", "3")
    with pytest.raises(IRError, match="changes output"):
        run_passes(START, [Grow(1)], LEVELS)
    monkeypatch.setenv("AICC_CHECK", "7")
    with pytest.raises(AiccError, match=r"AICC_CHECK='7': 0, 1, 2 or 3"):
        run_passes(START, [], LEVELS)


@pytest.mark.parametrize(
    "a, b, fault",
    [
        ([1.0, 2.0], [1.0, 2.0001], ""),
        ([1.0, 2.0], [1.0, 2.1], "1 of 2 elements; 2.0 became 2.1 at [1]"),
        ([np.nan, np.inf], [np.nan, np.inf], ""),
        ([np.nan, 1.0], [1.0, 1.0], "1 of 2 elements; nan became 1.0 at [0]"),
        ([np.inf], [-np.inf], "1 of 1 elements; inf became -inf at [0]"),
        ([1, 2], [1, 3], "1 of 2 elements; 2 became 3 at [1]"),
        ([1, 2], [1.0, 2.0], "int64[2] became float64[2]"),
        ([1.0], [[1.0]], "float64[1] became float64[1, 1]"),
        ([], [], ""),
    ],
)
def test_disagreements(a, b, fault):
    assert disagreement(np.array(a), np.array(b)) == fault


def test_all_variables_are_read_and_documented(monkeypatch, tmp_path):
    for name, variable in config.VARIABLES.items():
        assert name.startswith("AICC_") and variable.meaning
        monkeypatch.delenv(name, raising=False)
        assert config.get(name) == variable.default
    assert len(config.VARIABLES) <= 8
    monkeypatch.setenv("AICC_DUMP", str(tmp_path / "texts"))
    assert config.get("AICC_DUMP") == tmp_path / "texts"
    monkeypatch.setenv("AICC_THREADS", "-1")
    with pytest.raises(AiccError, match="AICC_THREADS"):
        config.get("AICC_THREADS")
    monkeypatch.setenv("AICC_THREADS", "two")
    with pytest.raises(AiccError, match="AICC_THREADS='two'"):
        config.get("AICC_THREADS")


def test_a_pass_may_round_less_only_where_it_says_so():
    def evaluate(v, feed):
        return [np.array(v, np.float16)]

    level = Level("Numbers", str, verify, feed=lambda v, seed: {}, evaluate=evaluate)

    @dataclass(frozen=True)
    class Round:
        by: int
        rounds_less: bool
        name = "round"

        def __call__(self, v):
            return Numbers([v[0] + self.by])

    start = Numbers([1024])
    run_passes(start, [Round(8, True)], {Numbers: level}, check=3)
    for by, less in ((8, False), (3, False), (32, True)):
        with pytest.raises(IRError, match="pass 'round' changes output 0"):
            run_passes(start, [Round(by, less)], {Numbers: level}, check=3)
