"""Sizes are integers: whatever the algebra does to them, their value must not change."""

from __future__ import annotations

import gc
import importlib
import operator
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aicc import symbolic
from aicc.symbolic import (
    Size,
    Sym,
    ceildiv,
    coefficient,
    divides,
    evaluate,
    floordiv,
    gcd_of,
    loop_var,
    maximum,
    minimum,
    mod,
    opaque,
    opaques,
    product,
    proves_le,
    proves_lt,
    recombine,
    substitute,
    sym,
    symbols,
    value_range,
)
from aicc.symbolic import algebra as symbolic_algebra
from aicc.symbolic import inside as symbolic_inside
from aicc.text import Reader

atoms_module = importlib.import_module("aicc.symbolic.atoms")  # its name is a function too

RANGES: dict[str, tuple[int | None, int | None]] = {
    "n": (1, None),
    "m": (0, 7),
    "i": (0, 15),
    "j": (-3, 4),
    "k": (0, None),
    "u": (None, None),
    "v": (None, 5),
    "batch size": (1, 9),
}
SYMS = {name: Sym(name, *bounds) for name, bounds in RANGES.items()}
VARS = {name: sym(name, *bounds) for name, bounds in RANGES.items()}
Env = dict[str, int]


@dataclass
class Pair:
    """A size and, independently of it, its value as a function of the symbols."""

    size: Size
    value: Callable[[Env], int]

    def __repr__(self) -> str:
        return str(self.size)


def values_of(name: str) -> st.SearchStrategy[int]:
    lo, hi = RANGES[name]
    return st.integers(
        lo if lo is not None else (hi if hi is not None else 0) - 40,
        hi if hi is not None else (lo if lo is not None else 0) + 40,
    )


envs = st.fixed_dictionaries({name: values_of(name) for name in RANGES})


def _binary(size: Callable[[Size, Size], Size], value: Callable[[int, int], int]):
    def make(a: Pair, b: Pair) -> Pair:
        return Pair(size(a.size, b.size), lambda env: value(a.value(env), b.value(env)))

    return make


ADD = _binary(operator.add, operator.add)
SUB = _binary(operator.sub, operator.sub)
MUL = _binary(operator.mul, operator.mul)
FLOORDIV = _binary(floordiv, operator.floordiv)
MOD = _binary(mod, operator.mod)
CEILDIV = _binary(ceildiv, lambda a, b: -(-a // b))
MIN = _binary(minimum, min)
MAX = _binary(maximum, max)

constants = st.integers(-20, 20).map(lambda c: Pair(c, lambda env: c))
variables = st.sampled_from(sorted(RANGES)).map(lambda n: Pair(VARS[n], lambda env: env[n]))
leaves = st.one_of(constants, variables)


def _extend(inner: st.SearchStrategy[Pair]) -> st.SearchStrategy[Pair]:
    positive = st.one_of(
        st.integers(1, 17).map(lambda c: Pair(c, lambda env: c)),
        st.sampled_from(["n", "batch size"]).map(lambda n: Pair(VARS[n], lambda env: env[n])),
        inner.map(lambda a: MAX(a, Pair(1, lambda env: 1))),
    )
    return st.one_of(
        st.builds(
            lambda f, a, b: f(a, b), st.sampled_from([ADD, SUB, MUL, MIN, MAX]), inner, inner
        ),
        st.builds(
            lambda f, a, b: f(a, b), st.sampled_from([FLOORDIV, MOD, CEILDIV]), inner, positive
        ),
        st.builds(lambda a, c: ADD(MUL(a, c), c), inner, constants),
    )


pairs = st.recursive(leaves, _extend, max_leaves=8)


@given(pairs, envs)
def test_every_operation_means_what_it_does_on_integers(pair: Pair, env: Env) -> None:
    assert evaluate(pair.size, env) == pair.value(env)


@given(pairs, envs)
def test_ranges_are_sound(pair: Pair, env: Env) -> None:
    lo, hi = value_range(pair.size)
    value = pair.value(env)
    assert lo is None or lo <= value
    assert hi is None or value <= hi


@given(pairs, pairs, envs)
def test_proofs_are_sound(a: Pair, b: Pair, env: Env) -> None:
    if proves_le(a.size, b.size):
        assert a.value(env) <= b.value(env)
    if proves_lt(a.size, b.size):
        assert a.value(env) < b.value(env)


@given(pairs, st.integers(1, 12), envs)
def test_divisibility_is_sound(a: Pair, den: int, env: Env) -> None:
    if divides(den, a.size):
        assert a.value(env) % den == 0
    g = gcd_of(a.size)
    assert a.value(env) % g == 0 if g else a.value(env) == 0


@given(pairs, pairs, st.sampled_from(sorted(RANGES)), envs)
def test_substitution_commutes_with_evaluation(a: Pair, b: Pair, name: str, env: Env) -> None:
    value = b.value(env)
    lo, hi = RANGES[name]
    assume((lo is None or lo <= value) and (hi is None or value <= hi))
    replaced = substitute(a.size, {SYMS[name]: b.size})
    assert evaluate(replaced, env) == a.value({**env, name: value})
    if SYMS[name] not in symbols(b.size):
        assert SYMS[name] not in symbols(replaced)


@given(pairs, envs)
def test_substituting_all_symbols_leaves_an_int(a: Pair, env: Env) -> None:
    result = substitute(a.size, {SYMS[n]: v for n, v in env.items()})
    assert type(result) is int
    assert result == a.value(env)


@given(pairs, st.sampled_from(sorted(RANGES)), envs, st.data())
def test_coefficient_is_the_slope(a: Pair, name: str, env: Env, data: st.DataObject) -> None:
    slope = coefficient(a.size, SYMS[name])
    assume(slope is not None)
    assert SYMS[name] not in symbols(slope)
    other = {**env, name: data.draw(values_of(name))}
    rise = a.value(other) - a.value(env)
    assert rise == evaluate(slope, env) * (other[name] - env[name])


@given(pairs)
def test_symbols_are_those_that_the_value_may_depend_on(a: Pair) -> None:
    assert symbols(a.size) <= set(SYMS.values())
    if not symbols(a.size):
        assert type(a.size) is int


@given(pairs)
def test_text_round_trip(a: Pair) -> None:
    reader = Reader(str(a.size))
    assert reader.size(VARS.get) == a.size
    reader.finish()


@given(pairs)
def test_simplifying_again_changes_nothing(a: Pair) -> None:
    assert substitute(a.size, {s: VARS[n] for n, s in SYMS.items()}) == a.size


@given(st.permutations(range(5)), st.lists(st.integers(-6, 6), min_size=5, max_size=5), st.data())
def test_linear_expressions_are_canonical(
    order: list[int], coefficients: list[int], data: st.DataObject
) -> None:
    names = ["n", "m", "i", "j", "k"]
    straight: Size = 7
    for name, c in zip(names, coefficients):
        straight = straight + VARS[name] * c
    shuffled: Size = 0
    for at in order:
        part = data.draw(st.integers(-3, 3))
        shuffled = shuffled + coefficients[at] * VARS[names[at]] - part * VARS["u"]
        shuffled = shuffled + part * (VARS["u"] + 1) - part
    shuffled = shuffled + 7
    assert straight == shuffled
    assert hash(straight) == hash(shuffled)
    assert str(straight) == str(shuffled)
    assert straight - shuffled == 0


@given(pairs, pairs, pairs)
def test_ring_laws_hold_as_equality(a: Pair, b: Pair, c: Pair) -> None:
    x, y, z = a.size, b.size, c.size
    assert x + y == y + x
    assert (x + y) + z == x + (y + z)
    assert x * y == y * x
    assert (x * y) * z == x * (y * z)
    assert x * (y + z) == x * y + x * z
    assert x - x == 0
    assert minimum(x, y) == minimum(y, x)
    assert maximum(x, y) == maximum(y, x)


@given(pairs, st.integers(1, 9), envs)
def test_recombining_keeps_the_value(a: Pair, den: int, env: Env) -> None:
    split = floordiv(a.size, den) * (3 * den) + mod(a.size, den) * 3 + a.size % (den + 1)
    expected = 3 * a.value(env) + a.value(env) % (den + 1)
    assert evaluate(split, env) == expected
    assert evaluate(recombine(split), env) == expected


def test_a_split_index_recombines() -> None:
    n, k = VARS["n"], VARS["k"]
    assert recombine(k // 4 * 4 + k % 4) == k
    assert recombine(k // n * n + k % n) == k
    assert recombine(k // 4 * 20 + k % 4 * 5 + 1) == k * 5 + 1


def test_a_split_index_recombines_beside_another_factor() -> None:
    i, j, n = (sym(name, 0) for name in "ijn")
    for other in (n, j % 3, (j % 3) * n):
        assert recombine(i // 4 * 4 * other + i % 4 * other) == i * other
        assert recombine(i // 4 * 20 * other + i % 4 * other * 5) == i * other * 5


def test_a_split_index_recombines_where_its_parts_were_simplified() -> None:
    o, i = VARS["n"], VARS["k"]
    k = o * 64 + i
    assert k % 56 == (o * 8 + i) % 56
    assert recombine(k // 56 * 56 + k % 56) == k
    assert recombine(k // 56 * 112 + k % 56 * 2 + 3) == k * 2 + 3
    other = o * 64 + i + 1
    assert recombine(other // 56 * 56 + k % 56) != k


def test_a_difference_recombines_after_a_split() -> None:
    """The quotient and the remainder of `n*w - n` are of the same number."""
    n, k = VARS["n"], VARS["k"]
    count = k * n - k
    assert recombine(count // 8 * 8 + count % 8) == count


def test_split_loops_simplify() -> None:
    o, i, n = sym("o", 0, None), sym("i", 0, 15), sym("n", 1)
    assert (16 * o + i) // 16 == o
    assert (16 * o + i) % 16 == i
    assert (16 * o + i) // 4 == 4 * o + i // 4
    assert (16 * o + i) // 32 == o // 2
    assert (n * 16) // 16 == n
    assert (n * o + o) // o == n + 1
    assert (n // 4) // 4 == n // 16
    assert i // 16 == 0
    assert (n * 6 + 4) % 2 == 0
    assert minimum(i, 16) == i
    assert minimum(n, n + 3) == n
    assert maximum(o, -1) == o


def test_row_major_index_is_taken_apart_again() -> None:
    n = sym("n", 1)
    h, w, c = loop_var("h", 0, n), loop_var("w", 0, 56), loop_var("c", 0, 64)
    flat = (h * 56 + w) * 64 + c
    assert flat % 64 == c
    assert flat // 64 % 56 == w
    assert flat // (64 * 56) == h


def test_loop_variable_takes_its_range_from_the_bounds() -> None:
    n = sym("n", 1, 9)
    assert symbols(loop_var("i", 0, n)) == {Sym("i", 0, 8)}
    assert symbols(loop_var("i", 3, 7)) == {Sym("i", 3, 6)}
    assert symbols(loop_var("i", 0, sym("k"))) == {Sym("i", 0, None)}


def test_symbols_of_one_name_and_two_ranges_are_two() -> None:
    a, b = sym("i", 0, 3), sym("i", 0, 7)
    assert a != b
    assert a + b == b + a
    assert a * b == b * a
    assert a - b != 0


def test_opaque_parts_compare_by_payload_and_bounds() -> None:
    class Payload:
        def __init__(self, text: str) -> None:
            self.text = text

        def __str__(self) -> str:
            return self.text

        def size_symbols(self) -> frozenset[Sym]:
            return frozenset()

    p, q = Payload("p"), Payload("q")
    assert opaque(p) == opaque(p)
    assert opaque(p) != opaque(q)
    assert opaque(p, 0, 3) != opaque(p, 0, 4)
    assert str(opaque(p, 0, 3) * 2 + 1) == "int(p, 0..3)*2 + 1"
    assert value_range(opaque(p, 0, 3) * 2 + 1) == (1, 7)
    assert set(opaques(opaque(p) // 3 + opaque(q))) == {p, q}
    assert evaluate(opaque(p) * 2, {}, {p: 21}.__getitem__) == 42
    with pytest.raises(KeyError):
        evaluate(opaque(p), {})


def test_a_size_without_value_is_no_number() -> None:
    n = VARS["n"]
    with pytest.raises(TypeError):
        bool(n)
    with pytest.raises(TypeError):
        range(n)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="n"):
        evaluate(n, {"m": 1})
    with pytest.raises(ZeroDivisionError):
        _ = n // 0
    with pytest.raises(ZeroDivisionError):
        _ = n % 0


def test_product_of_sizes() -> None:
    n = VARS["n"]
    assert product([]) == 1
    assert product([n, 3, n]) == 3 * n * n
    assert product([n, 0]) == 0


def test_names_that_are_no_identifiers_are_quoted() -> None:
    assert str(VARS["batch size"] + 1) == "`batch size` + 1"
    assert symbolic.print_name("a.b_1") == "a.b_1"
    odd = sym("a`\\b\n", 0)
    assert Reader(str(odd)).size({"a`\\b\n": odd}.get) == odd


def test_of_equal_atoms_there_is_one():
    n = sym("n", 1)
    assert Sym("n", 1) is Sym("n", 1, None) is Sym(name="n", lo=1)
    assert Sym("n", 1) is not Sym("n", 2) and Sym("n") != "n"
    one, other = ((n + 3) // 4).terms[0][0][0], ((n + 3) // 4).terms[0][0][0]
    assert one is other


def test_atoms_go_with_what_uses_them():
    def remembered():
        gc.collect()
        return sum(str(name).startswith("unlike any other") for _, name, *_ in atoms_module._atoms)

    kept = [sym(f"unlike any other {i}") // 3 for i in range(50)]
    assert remembered() == 50
    del kept
    for module in (symbolic_algebra, symbolic_inside):
        for made in vars(module).values():
            if hasattr(made, "cache_clear"):
                made.cache_clear()
    assert remembered() == 0


def test_threads_make_the_same_atoms():
    made = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def run(out):
        start.wait()
        out.extend(Sym(f"shared{i}", 0, i) for i in range(2000))

    threads = [threading.Thread(target=run, args=(out,)) for out in made]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(a is b for out in made for a, b in zip(out, made[0], strict=True))
