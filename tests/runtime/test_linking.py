"""The linker for generated objects: it agrees with LLVM's, and refuses what it does not know."""

import contextlib
import ctypes
import struct

import pytest

from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.errors import CodegenError
from aicc.loading import place_code
from aicc.runtime import linking
from aicc.runtime.linking import LinkedLibrary, LinkError
from aicc.target import Target

HOST = Target.host()
pytestmark = pytest.mark.skipif(not linking.usable(), reason="another kind of machine")

MAIN = """
@table = internal constant [4 x i32] [i32 10, i32 20, i32 30, i32 40]
declare i32 @twice(i32)
declare double @cosh(double)
declare i64 @strlen(ptr)
@text = internal constant [6 x i8] c"hello\\00"
define i32 @look(i32 %n) {
  %i = zext i32 %n to i64
  %p = getelementptr [4 x i32], ptr @table, i64 0, i64 %i
  %v = load i32, ptr %p
  %r = call i32 @twice(i32 %v)
  ret i32 %r
}
define double @sum(double %x) {
  %c = call double @cosh(double %x)
  %n = call i64 @strlen(ptr @text)
  %f = uitofp i64 %n to double
  %k = fmul double %f, 1.25
  %r = fadd double %c, %k
  ret double %r
}
"""
OTHER = """
define i32 @twice(i32 %n) {
  %r = call i32 @inner(i32 %n)
  ret i32 %r
}
define internal i32 @inner(i32 %n) noinline {
  %r = mul i32 %n, 2
  ret i32 %r
}
"""


def objects(*texts):
    return [compile_object(t, HOST) for t in texts]


def functions(library):
    look = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int32)(library.address("look"))
    total = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(library.address("sum"))
    return look, total


def test_the_same_as_llvm():
    made = objects(MAIN, OTHER)
    with NativeLibrary(made, HOST) as other:
        ours, theirs = LinkedLibrary(made), other
        for a, b in zip(functions(ours), functions(theirs)):
            assert [a(n) for n in range(4)] == [b(n) for n in range(4)]
        ours.close()


def test_constants_calls_and_the_process():
    look, total = functions(library := LinkedLibrary(objects(OTHER, MAIN)))
    assert [look(n) for n in range(4)] == [20, 40, 60, 80]
    assert total(0.0) == 1 + 5 * 1.25
    library.close()


def test_memory_is_writeable_or_executable_never_both():
    library = LinkedLibrary(objects(MAIN, OTHER))
    at = library.address("look")
    with open("/proc/self/maps") as maps:
        for line in maps:
            ends, rights = line.split()[:2]
            low, high = (int(end, 16) for end in ends.split("-"))
            if low <= at < high:
                assert rights == "r-xp"
                break
        else:
            raise AssertionError("the code is nowhere")
    library.close()


def test_lookups():
    library = LinkedLibrary(objects(OTHER))
    assert library.address("twice") % 16 == 0
    for name in ("inner", "nothing"):
        with pytest.raises(CodegenError, match=f"'{name}': no object defines it"):
            library.address(name)
    library.close()
    library.close()
    with pytest.raises(CodegenError, match="closed"):
        library.address("twice")


def test_what_is_nowhere_and_what_is_twice():
    with pytest.raises(LinkError, match="undefined: twice"):
        LinkedLibrary(objects(MAIN))
    with pytest.raises(LinkError, match="two objects define 'twice'"):
        LinkedLibrary(objects(MAIN, OTHER, OTHER))


@pytest.mark.parametrize(
    "text",
    [
        "@v = global i32 3\ndefine ptr @f() {\n  ret ptr @v\n}",
        "@v = thread_local global i32 3\ndefine i32 @f() {\n %r = load i32, ptr @v\n ret i32 %r\n}",
        "@v = external global i32\ndefine i32 @f() {\n  %r = load i32, ptr @v\n  ret i32 %r\n}",
        "@v = constant ptr @f\ndefine ptr @f() {\n  ret ptr @v\n}",
    ],
)
def test_what_llvm_has_to_link(text):
    """Variables, of threads too, and addresses in constants; loading takes LLVM for them."""
    with pytest.raises(LinkError):
        LinkedLibrary(objects(text))
    if "external" not in text:
        library = place_code(objects(text), HOST)
        assert isinstance(library, NativeLibrary) and library.address("f")
        library.close()


def test_damaged_objects():
    (whole,) = objects(OTHER)
    LinkedLibrary([whole]).close()
    for size in (*range(64), *range(64, len(whole), 5)):
        with pytest.raises(LinkError):
            LinkedLibrary([whole[:size]])
    (table,) = struct.unpack_from("<Q", whole, 40)
    for at in (*range(64), *range(table, len(whole))):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        with contextlib.suppress(LinkError):
            LinkedLibrary([bytes(damaged)]).close()


def test_code_for_another_machine():
    other = compile_object(OTHER, Target.from_name("aarch64"))
    with pytest.raises(LinkError, match="no object file for x86-64"):
        LinkedLibrary([other])


def test_nothing_at_all():
    LinkedLibrary([]).close()
