import time

import pytest

from aicc.codegen.jit import assembly
from aicc.codegen.limits import bandwidth, fma_limit, fma_text, read_text
from aicc.errors import TargetError
from aicc.target import Target

HOST = Target.host()
X86 = HOST.arch == "x86_64"


def loop_of(text, target):
    """The instructions between the loop's label and the branch back."""
    lines = [line.split("#")[0].strip() for line in assembly(text, target).splitlines()]
    lines = [line for line in lines if line and (not line.startswith(".") or line.endswith(":"))]
    labels = {line[:-1]: i for i, line in enumerate(lines) if line.endswith(":")}
    for i, line in enumerate(lines):
        goal = line.split()[-1]
        if line.startswith("j") and goal in labels and labels[goal] < i:
            return lines[labels[goal] + 1 : i]
    raise AssertionError("no loop")


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4"])
@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_the_loop_of_multiply_adds_touches_no_memory(name, dtype):
    target = Target.from_name(name)
    loop = loop_of(fma_text(target, dtype), target)
    assert not [line for line in loop if "(" in line]
    products = [line for line in loop if "mul" in line or "vfmadd" in line]
    assert len(products) == target.vector_registers * 3 // 4 * 4
    assert len(loop) <= len(products) * (1 if target.has_fma else 2) + 3


@pytest.mark.parametrize("name", ["x86-64", "x86-64-v3", "x86-64-v4"])
def test_the_loop_that_reads_loads_every_vector_once(name):
    target = Target.from_name(name)
    loop = loop_of(read_text(target), target)
    assert len([line for line in loop if "(" in line and "lea" not in line]) == 8


def test_aarch64_text_compiles():
    target = Target.from_name("aarch64")
    assert assembly(fma_text(target, "f32"), target).count("fmla") == 96
    assert "ldp\tq" in assembly(read_text(target), target)


def test_limits_of_this_machine_are_measured_quickly_and_plausible():
    begin = time.process_time()
    single, double = fma_limit(HOST), fma_limit(HOST, "f64")
    near = bandwidth(HOST, HOST.l1d // 2)
    far = bandwidth(HOST, 4 * HOST.l2)
    assert time.process_time() - begin < 1
    assert 1 < single < 2000
    assert 0.3 < double / single < 0.8
    assert 1 < far < near < 2000


@pytest.mark.skipif(not X86 or HOST.vector_bits < 256, reason="needs vectors wider than the base")
def test_wider_vectors_have_a_higher_limit():
    assert fma_limit(HOST) > 1.5 * fma_limit(Target.from_name("x86-64"))


@pytest.mark.parametrize("dtype", ["bf16", "i8"])
def test_dot_products_where_the_target_has_them(dtype):
    if HOST.has_bf16 if dtype == "bf16" else HOST.has_dot8:
        assert fma_limit(HOST, dtype) > fma_limit(HOST)
    with pytest.raises(TargetError, match=dtype):
        fma_limit(Target.from_name("x86-64"), dtype)


def test_what_cannot_be_measured_is_refused():
    other = Target.from_name("aarch64" if X86 else "x86-64")
    with pytest.raises(TargetError, match="cannot run"):
        fma_limit(other)
    with pytest.raises(TargetError, match="cannot run"):
        bandwidth(other, 4096)
    with pytest.raises(TargetError, match="i64"):
        fma_limit(HOST, "i64")
    with pytest.raises(ValueError, match="-1"):
        bandwidth(HOST, -1)
