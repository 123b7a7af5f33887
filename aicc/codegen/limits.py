"""What one core of this machine can do at most: multiply-adds in registers, and bytes read.

The limits that the roofline is made of, measured with loops of the same LLVM vectors that kernels
are made of: one of independent chains of multiply-adds that touches no memory, and one that only
loads. Each is timed in short runs and the best is taken, since whatever else the machine does can
only slow a run down. A figure takes about 50 ms, that of a footprint beyond the caches up to 200
ms.
"""

from __future__ import annotations

import ctypes
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.errors import TargetError
from aicc.target import Target

_RUNS = 16
_RUN_SECONDS = 1e-3
_MEMORY_SECONDS = 0.1  # for footprints of which one read takes longer than a run should
_UNROLL = 4  # how often the chains are advanced before the loop branches
_LOADS = 8  # vectors loaded before the loop branches


def fma_limit(target: Target, dtype: str = "f32") -> float:
    """The multiply-add limit of one core for `target`, in 1e9 operations per second (GFLOP/s).

    A multiply-add counts as two operations. `dtype` is that of the factors: f64 and f32 (fused
    where the target has it, else a multiplication and an addition), bf16 (dot products into f32),
    i8 (dot products into i32). Raises TargetError where the target has no such instruction, or
    where this machine cannot run its code.
    """
    run, operations = _fma_loop(target, dtype)
    return operations * _best_rate(run) / 1e9


def bandwidth(target: Target, footprint: int) -> float:
    """How fast one core reads `footprint` bytes again and again, in 1e9 bytes per second.

    The footprint selects the cache level; it is rounded up to a multiple of eight vectors. Raises
    TargetError if this machine cannot run code for the target, ValueError if the footprint is not
    positive.
    """
    if footprint <= 0:
        raise ValueError(f"a footprint is a positive number of bytes, not {footprint}")
    block = _LOADS * target.vector_bits // 8
    blocks = -(-footprint // block)
    memory = np.ones(blocks * block + 64, np.uint8)
    start = memory.ctypes.data + (-memory.ctypes.data) % 64
    result = np.zeros(target.vector_bits // 8, np.uint8)
    address = _read_library(target).address("read")
    read = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)(address)
    sweeps = _best_rate(lambda count: read(start, result.ctypes.data, blocks, count))
    return sweeps * blocks * block / 1e9


def _best_rate(run: Callable[[int], None]) -> float:
    """The best iterations per second of `run(count)`, over runs of about `_RUN_SECONDS`."""

    def seconds(count: int) -> float:
        begin = time.perf_counter()
        run(count)
        return time.perf_counter() - begin

    count, elapsed = 1, seconds(1)
    while elapsed < _RUN_SECONDS / 2:
        count *= 2
        elapsed = seconds(count)
    # The first runs also warm up: caches, pages, and the clock that wide vectors need.
    count = max(1, round(count * _RUN_SECONDS / elapsed))
    runs = max(3, min(_RUNS, int(_MEMORY_SECONDS / elapsed)))
    return count / min(seconds(count) for _ in range(runs))


# ---- multiply-adds -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _MultiplyAdd:
    """One instruction's worth: the types, the number of products, LLVM text with {0} {1} for
    result and accumulator, and the bytes of one factor that make the chain neither grow nor decay
    to subnormals."""

    accumulator: str
    factor: str
    products: int
    text: str
    declaration: str
    filling: bytes


def _multiply_add(target: Target, dtype: str) -> _MultiplyAdd:
    bits = target.vector_bits
    if dtype in ("f32", "f64"):
        word, name = ("float", "f32") if dtype == "f32" else ("double", "f64")
        lanes = target.lanes(dtype)
        vector = f"<{lanes} x {word}>"
        # the largest number below 1
        filling = b"\xff\xff\x7f\x3f" if dtype == "f32" else b"\xff\xff\xff\xff\xff\xff\xef\x3f"
        if target.has_fma:
            function = f"@llvm.fma.v{lanes}{name}"
            text = f"{{0}} = call {vector} {function}({vector} {{1}}, {vector} %a, {vector} %a)"
            declaration = f"declare {vector} {function}({vector}, {vector}, {vector})"
            return _MultiplyAdd(vector, vector, lanes, text, declaration, filling)
        text = f"{{0}}.m = fmul {vector} {{1}}, %a\n  {{0}} = fadd {vector} {{0}}.m, %a"
        return _MultiplyAdd(vector, vector, lanes, text, "", filling)
    found = None
    if dtype == "bf16" and target.has_bf16:
        found = (
            (f"llvm.x86.avx512bf16.dpbf16ps.{bits}", "float", "bfloat", 2)
            if target.arch == "x86_64"
            else ("llvm.aarch64.neon.bfdot.v4f32.v8bf16", "float", "bfloat", 2)
        )
    elif dtype == "i8" and target.has_dot8:
        found = (
            (f"llvm.x86.avx512.vpdpbusd.{bits}", "i32", "i32", 4)
            if target.arch == "x86_64"
            else ("llvm.aarch64.neon.sdot.v4i32.v16i8", "i32", "i8", 4)
        )
    if found is None:
        raise TargetError(f"target {target.name!r} has no multiply-add instruction for {dtype}")
    function, sum_type, factor_type, depth = found
    sums = target.lanes("f32")
    elements = bits // {"bfloat": 16, "i32": 32, "i8": 8}[factor_type]
    accumulator, factor = f"<{sums} x {sum_type}>", f"<{elements} x {factor_type}>"
    text = f"{{0}} = call {accumulator} @{function}({accumulator} {{1}}, {factor} %a, {factor} %a)"
    declaration = f"declare {accumulator} @{function}({accumulator}, {factor}, {factor})"
    filling = b"\x80\x3f" if dtype == "bf16" else b"\x01"
    return _MultiplyAdd(accumulator, factor, sums * depth, text, declaration, filling)


def _chains(target: Target) -> int:
    """Enough chains to hide the latency, few enough to leave registers for the factors."""
    return target.vector_registers * 3 // 4


def fma_text(target: Target, dtype: str) -> str:
    """The LLVM text of `void chains(ptr factors, ptr result, i64 count)`, which advances each of
    the independent chains by four multiply-adds, `count` times."""
    kind = _multiply_add(target, dtype)
    count = _chains(target)
    add = "add" if " x i" in kind.accumulator else "fadd"
    heads = [
        f"%c{c}.0 = phi {kind.accumulator} [zeroinitializer, %entry], [%c{c}.{_UNROLL}, %loop]"
        for c in range(count)
    ]
    steps = [
        kind.text.format(f"%c{c}.{u + 1}", f"%c{c}.{u}")
        for u in range(_UNROLL)
        for c in range(count)
    ]
    sums = [
        f"%s{c} = {add} {kind.accumulator} {f'%s{c - 1}' if c > 1 else f'%c0.{_UNROLL}'}, "
        f"%c{c}.{_UNROLL}"
        for c in range(1, count)
    ]
    return f"""
{kind.declaration}
define void @chains(ptr %factors, ptr %result, i64 %count) nounwind {{
entry:
  %a = load {kind.factor}, ptr %factors, align 1
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  {_lines(heads)}
  {_lines(steps)}
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %count
  br i1 %more, label %loop, label %done
done:
  {_lines(sums)}
  store {kind.accumulator} %s{count - 1}, ptr %result, align 1
  ret void
}}
"""


def _lines(lines: list[str]) -> str:
    return "\n  ".join(lines)


@functools.lru_cache(maxsize=16)
def _fma_loop(target: Target, dtype: str) -> tuple[Callable[[int], None], float]:
    """The compiled loop, and the operations of one iteration."""
    kind = _multiply_add(target, dtype)
    library = NativeLibrary([compile_object(fma_text(target, dtype), target)], target)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, ctypes.c_int64)(library.address("chains"))
    size = target.vector_bits // 8
    factors = np.frombuffer(kind.filling * (size // len(kind.filling)), np.uint8).copy()
    result = np.zeros(size, np.uint8)

    def run(count: int, _keeps_the_code: NativeLibrary = library) -> None:
        call(factors.ctypes.data, result.ctypes.data, count)

    return run, 2.0 * _chains(target) * _UNROLL * kind.products


# ---- reading -------------------------------------------------------------------------------------


def read_text(target: Target) -> str:
    """The LLVM text of `void read(ptr data, ptr result, i64 blocks, i64 sweeps)`: loads each vector
    of `blocks` blocks of eight, and combines them so that none can be left out."""
    lanes = target.lanes("i64")
    vector, size = f"<{lanes} x i64>", target.vector_bits // 8
    outer = [
        f"%o{k} = phi {vector} [zeroinitializer, %entry], [%x{k}, %next]" for k in range(_LOADS)
    ]
    inner = [f"%v{k} = phi {vector} [%o{k}, %sweep], [%x{k}, %loop]" for k in range(_LOADS)]
    loads = [
        f"%p{k} = getelementptr i8, ptr %at, i64 {k * size}\n"
        f"  %l{k} = load {vector}, ptr %p{k}, align {size}\n"
        f"  %x{k} = xor {vector} %v{k}, %l{k}"
        for k in range(_LOADS)
    ]
    sums = [
        f"%s{k} = or {vector} {f'%s{k - 1}' if k > 1 else '%x0'}, %x{k}" for k in range(1, _LOADS)
    ]
    return f"""
define void @read(ptr %data, ptr %result, i64 %blocks, i64 %sweeps) nounwind {{
entry:
  br label %sweep
sweep:
  %s = phi i64 [0, %entry], [%s.next, %next]
  {_lines(outer)}
  br label %loop
loop:
  %b = phi i64 [0, %sweep], [%b.next, %loop]
  {_lines(inner)}
  %offset = mul i64 %b, {_LOADS * size}
  %at = getelementptr i8, ptr %data, i64 %offset
  {_lines(loads)}
  %b.next = add i64 %b, 1
  %more = icmp slt i64 %b.next, %blocks
  br i1 %more, label %loop, label %next
next:
  %s.next = add i64 %s, 1
  %again = icmp slt i64 %s.next, %sweeps
  br i1 %again, label %sweep, label %done
done:
  {_lines(sums)}
  store {vector} %s{_LOADS - 1}, ptr %result, align 1
  ret void
}}
"""


@functools.lru_cache(maxsize=8)
def _read_library(target: Target) -> NativeLibrary:
    return NativeLibrary([compile_object(read_text(target), target)], target)
