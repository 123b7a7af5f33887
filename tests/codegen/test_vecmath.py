"""Vector math against numpy in double, in units in the last place of float."""

import ctypes
import itertools
import math

import ml_dtypes
import numpy as np
import pytest

from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.codegen.support import support_objects
from aicc.codegen.vecmath import OPERATIONS, Abilities, Block, expand, remainder, supports
from aicc.errors import CodegenError
from aicc.target import Target

HOST = Target.host()
# Without and with fused multiply-add, with AVX-512 where this machine has it.
TARGETS = [
    t
    for t in map(Target.from_name, ("x86-64", "x86-64-v3", "x86-64-v4", "native"))
    if not t.missing_on_host()
]
TWO = ("pow", "remainder")
LANES = (1, 4, 8, 16)
KINDS = {"f64": "double", "f32": "float", "f16": "half", "bf16": "bfloat", "i64": "i64", "u8": "i8"}
NUMPY = {"f64": "f8", "f32": "f4", "f16": "f2", "bf16": ml_dtypes.bfloat16, "i64": "i8", "u8": "u1"}


def function_text(op, dtype, lanes, target):
    """A function that applies `op` to arrays, `lanes` elements at a time."""
    arity = 2 if op in TWO else 1
    block = Block(lanes, Abilities.of(target))
    kind = KINDS[dtype]
    t = block.type(kind)
    arguments = []
    for i in range(arity):
        place = block.instruction(f"getelementptr {kind}, ptr %p{i}, i64 %i", "i64").ref
        arguments.append(block.instruction(f"load {t}, ptr {place}, align 1", kind).ref)
    if op == "remainder":
        result = remainder(block, dtype, *arguments)
    else:
        result = expand(block, op, dtype, arguments)
    place = block.instruction(f"getelementptr {kind}, ptr %out, i64 %i", "i64").ref
    body = "\n  ".join(block.lines)
    outside = "\n".join(block.module.values())
    parameters = ", ".join(f"ptr %p{i}" for i in range(arity))
    return f"""{outside}
define void @apply({parameters}, ptr %out, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  {body}
  store {t} {result}, ptr {place}, align 1
  %next = add i64 %i, {lanes}
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}"""


def native(op, dtype="f32", lanes=16, target=HOST):
    objects = [compile_object(function_text(op, dtype, lanes, target), target)]
    library = NativeLibrary([*objects, *support_objects(objects, target)], target)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (3 if op in TWO else 2), ctypes.c_int64)(
        library.address("apply")
    )

    def run(*arrays):
        out = np.empty_like(arrays[0])
        assert out.size % lanes == 0
        call(*(a.ctypes.data for a in (*arrays, out)), out.size)
        return out

    run.library = library
    return run


def ulps(got, exact):
    """The distance of floats from doubles, in units in the last place of the exact value.

    Infinite where only one of them is NaN or, after rounding, infinite."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        _, exponent = np.frexp(np.where(np.isfinite(exact), exact, 1.0))
        distance = np.abs(got - exact) / np.ldexp(1.0, np.maximum(exponent - 24, -149))
        special = ~(np.isfinite(got) & np.isfinite(rounded))
        same = (got == rounded) | (np.isnan(got) & np.isnan(exact))
        return np.where(special, np.where(same, 0.0, np.inf), distance)


# erf in double: its series up to 2, the continued fraction of 1 - erf beyond.
def erf(x):
    a = np.minimum(np.abs(x), 6.0)
    series, term = a.copy(), a.copy()
    inner = a < 2.0
    square = np.where(inner, a * a, 0.0)
    for n in range(1, 30):
        term = term * (2.0 * square / (2 * n + 1))
        series = series + term
    series = series * (2.0 / math.sqrt(math.pi)) * np.exp(-square)
    outer = np.where(inner, 2.0, a)
    fraction = outer.copy()
    for n in range(60, 0, -1):
        fraction = outer + (n / 2) / fraction
    tail = np.exp(-outer * outer) / (fraction * math.sqrt(math.pi))
    return np.copysign(np.where(inner, series, 1.0 - tail), x)


REFERENCES = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "erf": erf,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "pow": np.power,
    "sinh": np.sinh, "cosh": np.cosh, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh,
    "sqrt": np.sqrt, "floor": np.floor, "ceil": np.ceil, "trunc": np.trunc, "round": np.rint,
}  # fmt: skip
DOUBLE_BOUNDS = {"exp": 1.0, "log": 1.0, "tanh": 3.0, "sin": 2.5, "cos": 2.5}
BOUNDS = {"exp": 1.2, "log": 1.0, "tanh": 2.0, "erf": 2.0, "sin": 2.0, "cos": 2.0, "tan": 3.0}
SPECIALS = np.array(
    [
        0.0, np.inf, np.nan, 1e-45, 1e-40, 2.0**-126, 2.0**-12, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 3.92,
        9.01, 87.4, 88.72, 88.73, 89.0, 103.0, 103.97, 103.98, 104.0, 127.0, 128.0,
        2.0**20, 2.0**23 + 1, 2.0**24, 2.0**24 + 2, 2.0**31, 1e38, 3.4e38,
    ],
    np.float32,
)  # fmt: skip
SPECIALS = np.concatenate([SPECIALS, -SPECIALS])  # 64


def exact(op, *arrays):
    with np.errstate(all="ignore"):
        return REFERENCES[op](*(a.astype(np.float64) for a in arrays))


def samples(op):
    """Bit patterns at random, values where the function does something, and special values."""
    rng = np.random.default_rng(1)
    count = 1 << 16

    def uniform(low, high):
        return rng.uniform(low, high, count).astype(np.float32)

    patterns = rng.integers(0, 2**32, (2, count), dtype=np.uint32).view(np.float32)
    if op == "pow":
        pairs = np.array(list(itertools.product(SPECIALS, SPECIALS)), np.float32)
        base = np.exp(uniform(-87, 87))
        power = (uniform(-80, 80) / np.log(base)).astype(np.float32)
        integers = rng.integers(-200, 200, count).astype(np.float32)
        return (
            np.concatenate([patterns[0], base, uniform(0.5, 2), uniform(-3, 3), pairs[:, 0]]),
            np.concatenate([patterns[1], power, uniform(-300, 300), integers, pairs[:, 1]]),
        )
    parts = [uniform(-1, 1), uniform(-10, 10), uniform(-110, 110), uniform(-1e5, 1e5)]
    return (np.concatenate([patterns[0], *parts, uniform(0.99, 1.01), SPECIALS]),)


def test_erf_in_double_agrees_with_the_c_library():
    x = np.concatenate([np.linspace(-7, 7, 4001), np.logspace(-300, 0, 1000), [0.0, np.inf]])
    want = np.array([math.erf(v) for v in x])
    np.testing.assert_allclose(erf(x), want, rtol=4e-14)
    assert np.isnan(erf(np.array([np.nan]))[0])


@pytest.mark.parametrize("op", sorted(REFERENCES))
def test_float_is_within_its_bound_and_the_same_for_all_lanes(op):
    arrays = samples(op)
    want = exact(op, *arrays)
    for target in TARGETS:
        results = [native(op, "f32", lanes, target)(*arrays) for lanes in LANES]
        error = ulps(results[0], want)
        worst = int(np.argmax(error))
        shown = [a[worst] for a in arrays], results[0][worst], want[worst]
        assert error[worst] <= BOUNDS.get(op, 0.51), (target.name, *shown)
        zero = want == 0
        np.testing.assert_array_equal(np.signbit(results[0][zero]), np.signbit(want[zero]))
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


def test_every_operation_is_tested():
    assert set(REFERENCES) == OPERATIONS


@pytest.mark.parametrize("lanes", [2, 3, 32])
def test_unusual_numbers_of_lanes(lanes):
    for op in ("exp", "erf", "sin", "pow"):
        arrays = [a[: 96 * 512] for a in samples(op)]
        np.testing.assert_array_equal(
            native(op, "f32", lanes)(*arrays), native(op, "f32", 16)(*arrays)
        )


def test_sines_of_arguments_close_to_multiples_of_a_quarter_turn():
    """The floats nearest to k pi/2: what remains of them is small, and needs most digits of pi."""
    k = np.concatenate([np.arange(1, 1 << 18), 2 ** np.arange(18, 52)]).astype(np.float64)
    x = (k * (math.pi / 2)).astype(np.float32)
    # Of all floats this one is closest to a multiple of pi/2, by 1.6e-9.
    x = np.concatenate([x, np.full(16, 16367173.0 * 2.0**72, np.float32)])
    x = x[: x.size // 16 * 16]
    for op in ("sin", "cos", "tan"):
        for target in TARGETS:
            assert ulps(native(op, "f32", 16, target)(x), exact(op, x)).max() <= BOUNDS[op]


@pytest.mark.parametrize("op", sorted(REFERENCES))
@pytest.mark.parametrize("dtype", ["f64", "f16", "bf16"])
def test_other_floats(op, dtype):
    with np.errstate(over="ignore", invalid="ignore"):
        few = [np.concatenate([a[::31][:8192], a[-1024:]]) for a in samples(op)]
        arrays = [a.astype(np.float64).astype(NUMPY[dtype]) for a in few]
    want = exact(op, *arrays)
    for target in TARGETS:
        for lanes in (1, 8):
            got = native(op, dtype, lanes, target)(*arrays)
            with np.errstate(all="ignore"):
                if dtype == "f64":
                    np.testing.assert_allclose(got, want, rtol=2e-13)
                    continue
                # Rounded twice, to float and from there: that moves a tie at most.
                wide = want.astype(np.float32)
                near = [np.nextafter(wide, np.float32(s * np.inf)) for s in (-1, 1)]
                near = [v for w in near for v in (w, np.nextafter(w, 2 * w - wide))]
                allowed = [v.astype(NUMPY[dtype]).astype(np.float32) for v in (wide, *near)]
                value = got.astype(np.float32)
                fits = np.any([(value == v) | (np.isnan(value) & np.isnan(v)) for v in allowed], 0)
                if dtype == "bf16" and target.has_bf16:
                    # x86's conversion instruction takes denormal numbers for 0.
                    fits |= (value == 0) & (np.abs(wide) < 2.0**-126)
                assert fits.all(), [a[~fits][:4] for a in (*arrays, got, want)]


def double_samples():
    """As `samples`, and the doubles nearest to multiples of a quarter turn."""
    rng = np.random.default_rng(2)
    count = 1 << 14
    ends = ((1, 1), (-1, 1), (-10, 10), (-720, 720), (-760, 760), (-1e5, 1e5), (0.99, 1.01))
    parts = [rng.uniform(low, high, count) for low, high in ends]
    parts.append(rng.integers(0, 2**64, count, dtype=np.uint64).view(np.float64))
    parts.append(10.0 ** rng.uniform(-300, 300, count))
    parts.append(np.arange(-count, count) * (math.pi / 2))
    special = [0.0, np.inf, np.nan, 5e-324, 1e-310, 2.0**-1022, 709.78, 709.79, 745.1, 745.2, 19.0]
    special += [2.0**20, np.nextafter(2.0**20, 0.0), 1.0]
    x = np.concatenate([special, np.negative(special), *parts])
    return x[: x.size // 16 * 16]


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="needs 80-bit numbers")
@pytest.mark.parametrize("op", sorted(DOUBLE_BOUNDS))
def test_double_is_within_its_bound_and_the_same_for_all_lanes(op):
    x = double_samples()
    with np.errstate(all="ignore"):
        want = REFERENCES[op](x.astype(np.longdouble))
        near = want.astype(np.float64)
        _, exponent = np.frexp(np.where(np.isfinite(want), want, 1))
        unit = np.ldexp(np.longdouble(1), np.maximum(exponent - 53, -1074))
    for target in TARGETS:
        results = [native(op, "f64", lanes, target)(x) for lanes in (*LANES[:3], 2, 16)]
        got = results[0]
        with np.errstate(all="ignore"):
            special = ~(np.isfinite(got) & np.isfinite(near))
            same = (got == near) | (np.isnan(got) & np.isnan(want))
            error = np.where(special, np.where(same, 0, np.inf), np.abs(got - want) / unit)
        worst = int(np.argmax(error))
        shown = x[worst], got[worst], near[worst]
        assert error[worst] <= DOUBLE_BOUNDS[op], (target.name, *shown)
        zero = want == 0
        np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(want[zero]))
        for other in results[1:]:
            np.testing.assert_array_equal(got, other)


@pytest.mark.parametrize("dtype", ["f32", "f64", "f16", "bf16"])
def test_remainders_are_exact(dtype):
    """Also of quotients far beyond the precision, or just below an integer; special values."""
    rng = np.random.default_rng(4)
    count, t = 1 << 12, np.dtype(NUMPY[dtype]).type
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[t(0).itemsize]
    patterns = rng.integers(0, np.iinfo(bits).max, (2, count), dtype=bits, endpoint=True).view(t)
    y = rng.uniform(-9, 9, count).astype(t)
    with np.errstate(all="ignore"):
        multiple = (y.astype(np.float64) * rng.integers(-300, 300, count)).astype(t)
        special = np.array([0, -0.0, 1, -1, 3, 0.5, np.inf, -np.inf, np.nan, 1e-45, 6e4, 1e300], t)
        pairs = np.array(list(itertools.product(special, special)), t)
        groups = [(patterns[0], patterns[1]), (multiple, y), (pairs[:, 0], pairs[:, 1])]
        groups += [(np.nextafter(multiple, t(s)), y) for s in (-9, 9)] if dtype != "bf16" else []
        groups.append((rng.uniform(-1e4, 1e4, count).astype(t), y))
        x, y = (
            np.concatenate(v)[: sum(g[0].size for g in groups) // 16 * 16] for v in zip(*groups)
        )
        want = np.fmod(x.astype(np.float64), y.astype(np.float64)).astype(t)
    for target in TARGETS:
        for lanes in LANES:
            got = native("remainder", dtype, lanes, target)(x, y)
            if dtype == "bf16":
                # x86's conversion instruction takes denormal numbers for 0.
                got, want = (np.where(np.abs(v) < 2.0**-126, v * 0, v) for v in (got, want))
            np.testing.assert_array_equal(got.astype(np.float64), want.astype(np.float64))
            signed = ~np.isnan(want)
            np.testing.assert_array_equal(np.signbit(got[signed]), np.signbit(want[signed]))


@pytest.mark.parametrize("dtype", ["i64", "u8"])
@pytest.mark.parametrize("lanes", LANES)
def test_powers_of_integers(dtype, lanes):
    signed = dtype == "i64"
    base = [0, 1, 2, 3, 7, 10, 15, 255] + ([-1, -2, -3, -10] if signed else [])
    power = [0, 1, 2, 3, 5, 8, 63, 64, 100] + ([-1, -2, -3, 2**40] if signed else [])
    pairs = [(x, y) for x, y in itertools.product(base, power)]
    pairs = (pairs * 16)[: len(pairs) // 16 * 16 * 2]
    bits = 64 if signed else 8

    def meaning(x, y):
        if y < 0:
            return 0 if abs(x) != 1 else x ** (-y)
        value = pow(x, y, 1 << bits)
        return value - (1 << bits) if signed and value >> (bits - 1) else value

    x, y = (np.array(v, NUMPY[dtype]) for v in zip(*pairs))
    want = [meaning(int(a), int(b)) for a, b in zip(x, y)]
    assert native("pow", dtype, lanes)(x, y).tolist() == want


def symbols(data):
    """The strings of an object file, names of symbols among them."""
    return {s.decode("latin-1") for s in data.split(b"\0")}


@pytest.mark.parametrize("name", ["aarch64", "x86-64-v3"])
@pytest.mark.parametrize("op", sorted(OPERATIONS))
def test_object_code_of_other_machines_calls_nothing(name, op):
    """Where vectors have the instructions, nothing of the C library is named."""
    target = Target.from_name(name)
    lanes = target.lanes("f32")
    data = compile_object(function_text(op, "f32", lanes, target), target)
    assert data[:4] == b"\x7fELF"
    called = {op, f"{op}f", "fmaf", "fma", "floorf", "rintf"}
    assert not called & symbols(data)
    if op not in ("sqrt", "floor", "ceil", "trunc", "round"):
        # Sines of large doubles are the C library's.
        own = op in ("exp", "log", "tanh")
        double = symbols(compile_object(function_text(op, "f64", lanes, target), target))
        assert (op in double) is not own


def test_what_is_not_there_is_refused():
    block = Block(4, Abilities(has_fma=True, has_scalef=False))
    assert supports("pow", "i32") and not supports("exp", "i32") and not supports("exp", "bool")
    with pytest.raises(CodegenError, match="no 'exp' of i32"):
        expand(block, "exp", "i32", ["%x"])
    with pytest.raises(CodegenError, match="no 'gamma' of f32"):
        expand(block, "gamma", "f32", ["%x"])
    with pytest.raises(CodegenError, match="pow takes 2 operands, not 1"):
        expand(block, "pow", "f32", ["%x"])
    assert not block.lines


def erf_everywhere(x):
    """erf in double, quickly where it is 1 or a line, as it is for most bit patterns."""
    a = np.abs(x)
    y = np.sign(x) * np.where(np.isnan(a), np.nan, 1.0)
    small = a < 2.0**-9
    y[small] = (2.0 / math.sqrt(math.pi)) * (x[small] - x[small] ** 3 / 3)
    middle = (a >= 2.0**-9) & (a < 4.5)
    y[middle] = erf(x[middle])
    return y


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS[:-1], ids=lambda t: t.name)
@pytest.mark.parametrize("op", ["exp", "log", "tanh", "erf", "sin", "cos", "tan"])
def test_every_float(op, target):
    """All 2^32 arguments; of odd functions one half, and that the other mirrors it."""
    reference = erf_everywhere if op == "erf" else REFERENCES[op]
    run = native(op, "f32", 16, target)
    odd = op in ("tanh", "erf", "sin", "tan")
    worst = (0.0, 0.0)
    chunk = 1 << 22
    for start in range(0, 1 << (31 if odd else 32), chunk):
        x = np.arange(start, start + chunk, dtype=np.uint32).view(np.float32)
        got = run(x)
        with np.errstate(all="ignore"):
            error = ulps(got, reference(x.astype(np.float64)))
        if odd:
            np.testing.assert_array_equal(run(-x), -got)
        at = int(np.argmax(error))
        worst = max(worst, (float(error[at]), float(x[at])))
    print(f"{op} on {target.name}: {worst[0]:.3f} units in the last place at {worst[1]!r}")
    assert worst[0] <= BOUNDS[op], worst
