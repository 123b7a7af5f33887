"""Runs kernels as native code, and compares them with the interpreter."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.codegen.support import support_objects
from aicc.codegen.threadpool import pool_text
from aicc.dtypes import is_float, to_numpy
from aicc.symbolic import evaluate
from aicc.target import Target
from aicc.tensor_ir.interp import run
from aicc.tensor_ir.ir import Buffer, For, Kernel
from aicc.tensor_ir.packing import pack_array
from aicc.tensor_ir.verify import verify
from aicc.tensor_ir.walk import walk_stmts

sys.path.append(str(Path(__file__).parent.parent / "tensor_ir"))
from larger_arrays import GAP, gaps, memory_of, seen

Array = np.ndarray[Any, Any]
PAGE = mmap.PAGESIZE

HOST = Target.host()
NAMES = ("native", "x86-64-v3", "x86-64") if HOST.arch == "x86_64" else ("native",)
TARGETS = [Target.from_name(n) for n in NAMES if not Target.from_name(n).missing_on_host()]
all_targets = pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)

# The loop of the pool, cut into ranges of one iteration and run backwards.
SERIAL_POOL = """
define void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %args, i64 %n, i64 %grain) {
entry:
  br label %test
test:
  %i = phi i64 [ %n, %entry ], [ %begin, %body ]
  %more = icmp sgt i64 %i, 0
  br i1 %more, label %body, label %end
body:
  %begin = sub i64 %i, 1
  call void %fn(ptr %args, i64 %begin, i64 %i)
  br label %test
end:
  ret void
}
define void @aicc_parallel_nest(ptr %pool, ptr %fn, ptr %args, i64 %n, i64 %grain) {
  call void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %args, i64 %n, i64 %grain)
  ret void
}
"""


@functools.cache
def serial_pool(target: Target) -> bytes:
    return compile_object(SERIAL_POOL, target)


@functools.cache
def real_pool(target: Target) -> bytes:
    return compile_object(pool_text(target), target)


class Native:
    """A kernel's entry point; `threads` 0 runs parallel loops backwards, one by one."""

    def __init__(self, kernel: Kernel, target: Target, threads: int = 0, opt: int = 1) -> None:
        verify(kernel)
        self.kernel = kernel
        self.text = lower_kernel(kernel, target)
        objects = [compile_object(self.text, target, opt)]
        objects.append(real_pool(target) if threads else serial_pool(target))
        objects += support_objects(objects, target)
        self.library = NativeLibrary(objects, target)
        kinds = [ctypes.c_void_p] * (1 + len(kernel.params)) + [ctypes.c_int64] * len(kernel.sizes)
        self.function = ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(self.library.address(kernel.name))
        self.pool = None
        if threads:
            create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int)
            self.pool = create(self.library.address("aicc_pool_create"))(threads)

    def __call__(self, arrays: Mapping[str, Array], sizes: Mapping[str, int]) -> int:
        pointers = [arrays[b.name].ctypes.data for b in self.kernel.params]
        return int(self.function(self.pool, *pointers, *(sizes[s.name] for s in self.kernel.sizes)))

    def close(self) -> None:
        if self.pool:
            destroy = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
            destroy(self.library.address("aicc_pool_destroy"))(self.pool)
        self.library.close()


def loops(kernel: Kernel) -> list[str]:
    """The names of all loops, outer ones first."""
    return [s.var.name for s in walk_stmts(kernel.body) if isinstance(s, For)]


def shape_of(kernel: Kernel, name: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, sizes) for d in kernel.buffer(name).shape)


def sample(kernel: Kernel, sizes: Mapping[str, int], seed: int = 0) -> dict[str, Array]:
    """Small whole numbers for every parameter: sums and products of them are exact in any order."""
    rng = np.random.default_rng(seed)
    made = {}
    for b in kernel.params:
        shape, dtype = shape_of(kernel, b.name, sizes), to_numpy(b.dtype)
        lo = -4 if b.dtype.startswith("i") or is_float(b.dtype) else 0
        made[b.name] = rng.integers(lo, 2 if b.dtype == "bool" else 5, shape).astype(dtype)
    return made


def expected(
    kernel: Kernel, arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> dict[str, Array]:
    """What the interpreter leaves in the arrays."""
    copies = {name: a.copy() for name, a in arrays.items()}
    run(kernel, copies, sizes)
    return copies


def for_kernel(
    kernel: Kernel, arrays: Mapping[str, Array], sizes: Mapping[str, int]
) -> dict[str, Array]:
    """Arrays of another schedule's kernel in the layouts and shapes of this one, copied."""
    made = {}
    for b in kernel.params:
        a = arrays[b.name]
        a = pack_array(a, b.pack) if b.pack else a.copy()
        made[b.name] = a.reshape(shape_of(kernel, b.name, sizes))
    return made


class Guarded:
    """Copies of arrays that end (or begin) where a page begins that must not be touched."""

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []
        self._protect = ctypes.CDLL(None, use_errno=True).mprotect
        self._protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def place(self, array: Array, at_end: bool) -> Array:
        pages = -(-max(1, array.nbytes) // PAGE)
        area = mmap.mmap(-1, (pages + 2) * PAGE)
        self._maps.append(area)
        raw = np.frombuffer(area, np.uint8)
        start = PAGE + (pages * PAGE - array.nbytes if at_end else 0)
        for guard in (0, pages + 1):
            address = raw.ctypes.data + guard * PAGE
            assert (
                self._protect(address, PAGE, mmap.PROT_NONE if hasattr(mmap, "PROT_NONE") else 0)
                == 0
            )
        placed: Array = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    def place_part(
        self, b: Buffer, array: Array, sizes: Mapping[str, int], at_end: bool
    ) -> tuple[Array, Array]:
        """As `place`, for an array whose elements have the strides of a parameter: the elements,
        and all the bytes from the first one on."""
        held = self.place(memory_of(b, array, sizes), at_end)
        return seen(b, held, array.dtype, sizes), held


def same(a: Array, b: Array, rtol: float = 0.0) -> bool:
    """Equal, with NaN equal to NaN; within `rtol` of the largest magnitude where it is given."""
    x, y = np.asarray(a), np.asarray(b)
    if x.dtype.kind not in "iub":
        x, y = x.astype(np.float64), y.astype(np.float64)
    if not rtol:
        return bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f"))
    return bool(np.allclose(x, y, rtol=rtol, atol=rtol, equal_nan=True))


def check(
    kernel: Kernel,
    target: Target,
    sizes: Mapping[str, int] | None = None,
    original: Kernel | None = None,
    arrays: Mapping[str, Array] | None = None,
    rtol: float = 0.0,
    threads: int = 0,
    opt: int = 1,
    guards: bool = True,
) -> dict[str, Array]:
    """Asserts that native code computes what the interpreter says the original kernel means.

    Every parameter lies against a page that must not be touched, first behind it, then before it.
    """
    sizes = sizes or {}
    original = original or kernel
    arrays = arrays or sample(original, sizes)
    want = expected(original, arrays, sizes)
    native = Native(kernel, target, threads, opt)
    try:
        for at_end in (True, False) if guards else (True,):
            pages = Guarded()
            given = for_kernel(kernel, arrays, sizes)
            parts = {
                b.name: pages.place_part(b, given[b.name], sizes, at_end)
                for b in kernel.params
                if b.pitch
            }
            placed = {n: pages.place(a, at_end) for n, a in given.items() if n not in parts}
            placed |= {n: elements for n, (elements, _) in parts.items()}
            code = native(placed, sizes)
            assert code == 0, code
            for b in kernel.params:
                if b.scope == "out":
                    got = placed[b.name].reshape(want[b.name].shape)
                    assert same(want[b.name], got, rtol), (
                        f"{b.name}: {want[b.name]!r} expected, {got!r} found\n{kernel}"
                    )
                else:
                    assert same(given[b.name], placed[b.name]), f"{b.name} was overwritten"
                if b.name in parts:
                    between = gaps(b, parts[b.name][1], placed[b.name].dtype, sizes)
                    assert (between == GAP).all(), f"{b.name}: what lies between was overwritten"
    finally:
        native.close()
    return want
