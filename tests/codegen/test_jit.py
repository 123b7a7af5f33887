import ctypes
import gc
import math

import ml_dtypes
import numpy as np
import pytest

from aicc.codegen.jit import NativeLibrary, assembly, compile_object
from aicc.codegen.support import SYMBOLS, support_objects
from aicc.errors import CodegenError, TargetError
from aicc.target import Target

HOST = Target.host()
X86 = HOST.arch == "x86_64"
LEVELS = [n for n in ("x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4") if X86]
RUNNABLE = ["native", *(n for n in LEVELS if not Target.from_name(n).missing_on_host())]

ADD = """
define i32 @add(i32 %a, i32 %b) {
  %c = add i32 %a, %b
  ret i32 %c
}"""


def function(library, name, result, *arguments):
    return ctypes.CFUNCTYPE(result, *arguments)(library.address(name))


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("opt", [0, 3])
def test_compile_link_call(name, opt):
    target = Target.from_name(name)
    with NativeLibrary([compile_object(ADD, target, opt)], target) as library:
        i32 = ctypes.c_int32
        assert function(library, "add", i32, i32, i32)(2, 40) == 42
        assert library.address("add") == library.address("add")


def test_foreign_target_compiles_but_does_not_load():
    name, machine = ("aarch64", 183) if X86 else ("x86-64-v3", 62)
    target = Target.from_name(name)
    data = compile_object(ADD, target)
    assert data[:4] == b"\x7fELF"
    assert int.from_bytes(data[18:20], "little") == machine
    assert "add" in assembly(ADD, target)
    with pytest.raises(TargetError, match="cannot run on this machine"):
        NativeLibrary([data], target)


def test_text_that_does_not_parse_is_shown_with_its_line():
    with pytest.raises(CodegenError, match=r"> +2 +ret i33 0"):
        compile_object("define i32 @f() {\n  ret i33 0\n}", HOST)


def test_text_that_does_not_verify_is_refused():
    text = """
    define i32 @f(i1 %c) {
      br i1 %c, label %a, label %b
    a:
      %x = add i32 1, 2
      br label %b
    b:
      ret i32 %x
    }"""
    with pytest.raises(CodegenError, match="dominate"):
        compile_object(text, HOST)


def test_levels_of_optimisation_are_0_to_3():
    with pytest.raises(ValueError, match="4"):
        compile_object(ADD, HOST, 4)


def test_loops_stay_as_written():
    text = """
    define void @f(ptr noalias %a, ptr noalias %b) {
    entry:
      br label %loop
    loop:
      %i = phi i64 [0, %entry], [%j, %loop]
      %p = getelementptr float, ptr %a, i64 %i
      %q = getelementptr float, ptr %b, i64 %i
      %x = load float, ptr %p
      %y = fadd float %x, 1.0
      store float %y, ptr %q
      %j = add i64 %i, 1
      %more = icmp ult i64 %j, 1024
      br i1 %more, label %loop, label %done
    done:
      ret void
    }"""
    after = assembly(text, Target.from_name("x86-64-v3"))
    assert "addps" not in after
    assert after.count("addss") == 1


CONTRACTION = """
declare float @llvm.fmuladd.f32(float, float, float)
define float @separate(float %a, float %b, float %c) {
  %m = fmul float %a, %b
  %s = fadd float %m, %c
  ret float %s
}
define float @allowed(float %a, float %b, float %c) {
  %s = call float @llvm.fmuladd.f32(float %a, float %b, float %c)
  ret float %s
}"""


def test_only_fmuladd_is_contracted():
    f32 = ctypes.c_float
    a = np.float32(1 + 2**-12)
    rounded, exact = float(a * a - np.float32(1)), (1 + 2**-12) ** 2 - 1
    assert rounded != exact
    with NativeLibrary([compile_object(CONTRACTION, HOST)], HOST) as library:
        assert function(library, "separate", f32, f32, f32, f32)(a, a, -1.0) == rounded
        got = function(library, "allowed", f32, f32, f32, f32)(a, a, -1.0)
        assert got == (exact if HOST.has_fma else rounded)


def chain(index, count):
    """Function i calls function i + 1 in another object, reads a table of its own and a global of i
    + 1."""
    last = index == count - 1
    following = index if last else index + 1
    declared = (
        "" if last else f"declare i64 @f{following}(i64)\n@g{following} = external global i64"
    )
    call = f"call i64 @f{following}(i64 %y)" if not last else "add i64 %y, 0"
    return f"""
    {declared}
    @g{index} = global i64 {index}
    @big{index} = global [65536 x i64] zeroinitializer
    @table{index} = internal constant [4 x i64] [i64 1, i64 2, i64 3, i64 4]
    define i64 @f{index}(i64 %x) {{
      %m = and i64 %x, 3
      %p = getelementptr i64, ptr @table{index}, i64 %m
      %v = load volatile i64, ptr %p
      %g = load i64, ptr @g{following}
      %q = getelementptr i64, ptr @big{index}, i64 %m
      %b = load i64, ptr %q
      %t = add i64 %v, %g
      %u = add i64 %t, %b
      %y = add i64 %x, %u
      %r = {call}
      ret i64 %r
    }}"""


def test_many_objects_that_refer_to_each_other():
    count = 100
    objects = [compile_object(chain(i, count), HOST) for i in range(count)]
    x = 0
    for i in range(count):
        x += (x & 3) + 1 + min(i + 1, count - 1)
    with NativeLibrary(objects, HOST) as library:
        i64 = ctypes.c_int64
        assert function(library, "f0", i64, i64)(0) == x
        assert function(library, "f99", i64, i64)(0) == 100


def test_process_symbols_resolve():
    text = """
    declare float @expf(float)
    declare double @lgamma(double)
    declare double @fmod(double, double)
    declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
    declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
    declare i64 @pthread_self()
    define float @exp(float %x) {
      %r = call float @expf(float %x)
      ret float %r
    }
    define double @gamma(double %x) {
      %r = call double @lgamma(double %x)
      ret double %r
    }
    define double @rest(double %x, double %y) {
      %r = frem double %x, %y
      ret double %r
    }
    define void @copy(ptr %a, ptr %b, i64 %n) {
      call void @llvm.memcpy.p0.p0.i64(ptr %a, ptr %b, i64 %n, i1 false)
      ret void
    }
    define void @zero(ptr %a, i64 %n) {
      call void @llvm.memset.p0.i64(ptr %a, i8 0, i64 %n, i1 false)
      ret void
    }
    define i64 @self() {
      %r = call i64 @pthread_self()
      ret i64 %r
    }"""
    with NativeLibrary([compile_object(text, HOST)], HOST) as library:
        f32, f64, i64, ptr = ctypes.c_float, ctypes.c_double, ctypes.c_int64, ctypes.c_void_p
        assert function(library, "exp", f32, f32)(1.0) == pytest.approx(math.e, rel=1e-6)
        assert function(library, "gamma", f64, f64)(10.0) == pytest.approx(math.lgamma(10.0))
        assert function(library, "rest", f64, f64, f64)(-7.5, 2.0) == math.fmod(-7.5, 2.0)
        assert function(library, "self", i64)() != 0
        a, b = np.zeros(1000, np.uint8), np.arange(1000).astype(np.uint8)
        function(library, "copy", None, ptr, ptr, i64)(a.ctypes.data, b.ctypes.data, 1000)
        assert (a == b).all()
        function(library, "zero", None, ptr, i64)(a.ctypes.data, 1000)
        assert not a.any()


def test_imports_are_found_first():
    text = """
    declare i32 @given(i32)
    define i32 @twice(i32 %x) {
      %r = call i32 @given(i32 %x)
      %s = call i32 @given(i32 %r)
      ret i32 %s
    }"""
    given = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(lambda x: 3 * x)
    address = ctypes.cast(given, ctypes.c_void_p).value
    with NativeLibrary([compile_object(text, HOST)], HOST, {"given": address}) as library:
        assert function(library, "twice", ctypes.c_int32, ctypes.c_int32)(5) == 45


def test_undefined_symbols_are_named():
    text = """
    declare void @nowhere_to_be_found()
    define void @f() {
      call void @nowhere_to_be_found()
      ret void
    }"""
    with NativeLibrary([compile_object(text, HOST)], HOST) as library:
        with pytest.raises(CodegenError, match="nowhere_to_be_found"):
            library.address("f")
        with pytest.raises(CodegenError, match="absent"):
            library.address("absent")


def test_two_definitions_do_not_link():
    data = compile_object(ADD, HOST)
    with pytest.raises(CodegenError, match="add"):
        NativeLibrary([data, data], HOST).address("add")


def test_what_is_no_object_is_refused():
    with pytest.raises(CodegenError):
        NativeLibrary([b"no object file at all" * 10], HOST).address("add")


def test_closing():
    library = NativeLibrary([compile_object(ADD, HOST)], HOST)
    library.address("add")
    library.close()
    library.close()
    with pytest.raises(CodegenError, match="closed"):
        library.address("add")


def test_libraries_are_independent_and_freed():
    data = compile_object(ADD, HOST)
    i32 = ctypes.c_int32
    libraries = [NativeLibrary([data], HOST) for _ in range(20)]
    assert len({library.address("add") for library in libraries}) == 20
    kept = libraries[7]
    del libraries
    gc.collect()
    assert function(kept, "add", i32, i32, i32)(20, 3) == 23


# ---- 16-bit floats, through the runtime functions that the baseline needs -----------------------

CONVERT = """
define void @{name}(ptr %to, ptr %from, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  %p = getelementptr {source}, ptr %from, i64 %i
  %q = getelementptr {result}, ptr %to, i64 %i
  %x = load {source}, ptr %p
  %y = {operation} {source} %x to {result}
  store {result} %y, ptr %q
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}"""
CONVERSIONS = {
    "half_to_float": ("half", "float", "fpext"),
    "half_to_double": ("half", "double", "fpext"),
    "float_to_half": ("float", "half", "fptrunc"),
    "double_to_half": ("double", "half", "fptrunc"),
    "float_to_bfloat": ("float", "bfloat", "fptrunc"),
    "double_to_bfloat": ("double", "bfloat", "fptrunc"),
}


@pytest.fixture(scope="module", params=["x86-64", "native"] if X86 else ["native"])
def convert(request):
    target = Target.from_name(request.param)
    if request.param == "native" and target.has_bf16:
        # LLVM then uses vcvtneps2bf16, which flushes subnormals: not what is tested here.
        target = Target.from_name("x86-64-v3")
    text = "\n".join(
        CONVERT.format(name=name, source=s, result=r, operation=o)
        for name, (s, r, o) in CONVERSIONS.items()
    )
    objects = [compile_object(text, target)]
    with NativeLibrary(objects + support_objects(objects, target), target) as library:

        def run(name, values, dtype):
            values = np.ascontiguousarray(values)
            out = np.empty(values.shape, dtype)
            call = function(library, name, None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
            call(out.ctypes.data, values.ctypes.data, values.size)
            return out

        yield run


def assert_same(got, want):
    """Equal bit for bit, but that any NaN stands for any other of its sign."""
    bits = {2: np.uint16, 4: np.uint32, 8: np.uint64}[got.dtype.itemsize]
    nan = np.isnan(want.astype(np.float64))
    assert (np.isnan(got.astype(np.float64)) == nan).all()
    wrong = np.flatnonzero((got.view(bits) != want.view(bits)) & ~nan)
    assert wrong.size == 0, (wrong[:5], got[wrong[:5]], want[wrong[:5]])


def finite(dtype):
    """All finite values of a 16-bit float, ascending."""
    with np.errstate(invalid="ignore"):
        values = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def doubles():
    """Numbers around every value that a 16-bit float can round to: the value, ties, and their
    neighbours."""
    halves, brain = finite(np.float16), finite(ml_dtypes.bfloat16)
    random = np.random.default_rng(0).integers(0, 2**64, 100000, np.uint64).view(np.float64)
    exact = []
    for grid in (halves, brain):
        exact += [grid, (grid[1:] + grid[:-1]) / 2]
    edges = [65504.0, 65519.99999, 65520.0, 65536.0, 1e300, np.inf, -np.inf, np.nan, -0.0, 5e-324]
    values = np.concatenate([*exact, edges])
    near = [np.nextafter(values, np.inf), np.nextafter(values, -np.inf)]
    return np.concatenate([values, *near, random[np.isfinite(random)]])


def test_half_widens_exactly(convert):
    bits = np.arange(65536, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        assert_same(
            convert("half_to_float", bits, np.float32), bits.view(np.float16).astype(np.float32)
        )
        assert_same(
            convert("half_to_double", bits, np.float64), bits.view(np.float16).astype(np.float64)
        )


@pytest.mark.parametrize("result", ["half", "bfloat"])
def test_double_narrows_with_one_rounding(convert, result):
    values = doubles()
    got = convert(f"double_to_{result}", values, np.uint16)
    if result == "half":
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            assert_same(got.view(np.float16), values.astype(np.float16))
        return
    # ml_dtypes rounds twice: compare with the nearer neighbour, ties to even, found by exact
    # arithmetic.
    got = got.view(ml_dtypes.bfloat16).astype(np.float64)
    grid = finite(ml_dtypes.bfloat16)
    inside = np.abs(values) <= grid[-1]
    at = np.searchsorted(grid, values[inside]).clip(1, grid.size - 1)
    low, high = grid[at - 1], grid[at]
    # the distances are exact in extended precision or their comparison is not close
    below = np.longdouble(1) * values[inside] - low
    above = high - np.longdouble(1) * values[inside]
    even_low = (low.astype(ml_dtypes.bfloat16).view(np.uint16) & 1) == 0
    want = np.where((below < above) | ((below == above) & even_low), low, high)
    assert (got[inside] == want).all()
    assert (np.isnan(got) == np.isnan(values)).all()
    huge = np.abs(values) >= 2.0**128
    assert (np.isinf(got[huge])).all()


@pytest.mark.parametrize(
    ("result", "dtype"), [("half", np.float16), ("bfloat", ml_dtypes.bfloat16)]
)
def test_float_narrows_to_nearest_even(convert, result, dtype):
    with np.errstate(all="ignore"):
        values = doubles().astype(np.float32)
        bits = values.view(np.uint32)
        values = np.concatenate([bits, bits + 1, bits - 1]).view(np.float32)
        assert_same(
            convert(f"float_to_{result}", values, np.uint16).view(dtype), values.astype(dtype)
        )


def test_support_is_linked_only_where_it_is_needed():
    assert support_objects([compile_object(ADD, HOST)], HOST) == []
    text = CONVERT.format(name="f", source="double", result="half", operation="fptrunc")
    baseline = Target.from_name("x86-64")
    (data,) = support_objects([compile_object(text, baseline)], baseline)
    assert all(symbol.encode() in data for symbol in SYMBOLS)
