"""The thread pool's functions and small kernels for it, as Python functions."""

import ctypes

import numpy as np

from aicc.codegen.jit import NativeLibrary, compile_object
from aicc.codegen.threadpool import SYMBOLS, pool_text
from aicc.target import Target

HOST = Target.host()
PTR, I64, I32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32

# mark: counts[i] += 1, and stops[begin] = end, so that a test sees the ranges. nest: for each i
# runs mark over a row of `width` counts on the same pool. spin: about `turns` cycles of work for
# each i, then as mark. deep: as mark, with 6 MiB on the stack. uneven: spin for i < 32, else mark.
# square: to[i] = from[i] * from[i]. repeat: `times` parallel loops of mark, one after the other,
# without Python between them.
KERNELS = """
%args = type {ptr, ptr, ptr, i64}
declare void @aicc_parallel_for(ptr, ptr, ptr, i64, i64)

define void @mark(ptr %a, i64 %begin, i64 %end) nounwind {
entry:
  %counts = load ptr, ptr %a
  %stops.at = getelementptr %args, ptr %a, i64 0, i32 1
  %stops = load ptr, ptr %stops.at
  %recorded = icmp ne ptr %stops, null
  br i1 %recorded, label %record, label %start
record:
  %s = getelementptr i64, ptr %stops, i64 %begin
  store i64 %end, ptr %s
  br label %start
start:
  br label %loop
loop:
  %i = phi i64 [%begin, %start], [%j, %loop]
  %p = getelementptr i32, ptr %counts, i64 %i
  %x = load i32, ptr %p
  %y = add i32 %x, 1
  store i32 %y, ptr %p
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}

define void @nest(ptr %a, i64 %begin, i64 %end) nounwind {
entry:
  %counts = load ptr, ptr %a
  %pool.at = getelementptr %args, ptr %a, i64 0, i32 2
  %pool = load ptr, ptr %pool.at
  %width.at = getelementptr %args, ptr %a, i64 0, i32 3
  %width = load i64, ptr %width.at
  %inner = alloca %args
  %inner.stops = getelementptr %args, ptr %inner, i64 0, i32 1
  store ptr null, ptr %inner.stops
  br label %loop
loop:
  %i = phi i64 [%begin, %entry], [%j, %loop]
  %offset = mul i64 %i, %width
  %row = getelementptr i32, ptr %counts, i64 %offset
  store ptr %row, ptr %inner
  call void @aicc_parallel_for(ptr %pool, ptr @mark, ptr %inner, i64 %width, i64 1)
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}

define void @spin(ptr %a, i64 %begin, i64 %end) nounwind {
entry:
  %turns.at = getelementptr %args, ptr %a, i64 0, i32 3
  %turns.each = load i64, ptr %turns.at
  %length = sub i64 %end, %begin
  %turns = mul i64 %turns.each, %length
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  call void asm sideeffect "", ""()
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %turns
  br i1 %more, label %loop, label %done
done:
  call void @mark(ptr %a, i64 %begin, i64 %end)
  ret void
}

define void @uneven(ptr %a, i64 %begin, i64 %end) nounwind {
entry:
  %long = icmp slt i64 %begin, 32
  br i1 %long, label %work, label %skip
work:
  call void @spin(ptr %a, i64 %begin, i64 %end)
  ret void
skip:
  call void @mark(ptr %a, i64 %begin, i64 %end)
  ret void
}

define void @deep(ptr %a, i64 %begin, i64 %end) nounwind {
entry:
  %tile = alloca [6291456 x i8], align 64
  br label %loop
loop:
  %i = phi i64 [6291392, %entry], [%j, %loop]
  %p = getelementptr i8, ptr %tile, i64 %i
  store volatile i8 1, ptr %p
  %j = sub i64 %i, 4096
  %more = icmp sge i64 %j, 0
  br i1 %more, label %loop, label %done
done:
  call void @mark(ptr %a, i64 %begin, i64 %end)
  ret void
}

define void @square(ptr %a, i64 %begin, i64 %end) nounwind {
entry:
  %to = load ptr, ptr %a
  %from.at = getelementptr %args, ptr %a, i64 0, i32 1
  %from = load ptr, ptr %from.at
  br label %loop
loop:
  %i = phi i64 [%begin, %entry], [%j, %loop]
  %p = getelementptr float, ptr %from, i64 %i
  %q = getelementptr float, ptr %to, i64 %i
  %x = load float, ptr %p
  %y = fmul float %x, %x
  store float %y, ptr %q
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %end
  br i1 %more, label %loop, label %done
done:
  ret void
}

define void @repeat(ptr %pool, ptr %fn, ptr %a, i64 %n, i64 %grain, i64 %times) nounwind {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%j, %loop]
  call void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %a, i64 %n, i64 %grain)
  %j = add i64 %i, 1
  %more = icmp ult i64 %j, %times
  br i1 %more, label %loop, label %done
done:
  ret void
}
"""

FLUSH = """
declare void @llvm.x86.sse.ldmxcsr(ptr)
declare void @llvm.x86.sse.stmxcsr(ptr)
define i32 @set_mode(i32 %mode) nounwind {
  %old = alloca i32
  %new = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %old)
  store i32 %mode, ptr %new
  call void @llvm.x86.sse.ldmxcsr(ptr %new)
  %r = load i32, ptr %old
  ret i32 %r
}
define void @flushing(ptr %pool, ptr %fn, ptr %a, i64 %n, i64 %grain) nounwind {
  %old = call i32 @set_mode(i32 40896)
  call void @aicc_parallel_for(ptr %pool, ptr %fn, ptr %a, i64 %n, i64 %grain)
  %now = call i32 @set_mode(i32 %old)
  ret void
}
"""


class Args(ctypes.Structure):
    _fields_ = [("counts", PTR), ("stops", PTR), ("pool", PTR), ("width", I64)]


class Pools:
    """The pool's functions and the kernels of the tests, as Python functions."""

    def __init__(self):
        text = KERNELS + (FLUSH if HOST.arch == "x86_64" else "")
        objects = [compile_object(t, HOST) for t in (pool_text(HOST), text)]
        self.library = NativeLibrary(objects, HOST)
        create, destroy, parallel_for, parallel_nest = (self.library.address(s) for s in SYMBOLS)
        self.create = ctypes.CFUNCTYPE(PTR, I32)(create)
        self.destroy = ctypes.CFUNCTYPE(None, PTR)(destroy)
        self.parallel_for = ctypes.CFUNCTYPE(None, PTR, PTR, PTR, I64, I64)(parallel_for)
        self.parallel_nest = ctypes.CFUNCTYPE(None, PTR, PTR, PTR, I64, I64)(parallel_nest)
        repeat = self.library.address("repeat")
        self.repeat = ctypes.CFUNCTYPE(None, PTR, PTR, PTR, I64, I64, I64)(repeat)

    def mark(self, pool, n, grain, kernel="mark", width=0, nest=False):
        """Runs one loop; returns how often each i was run, and the ranges in order."""
        counts, stops = np.zeros(n + 1, np.int32), np.full(n + 1, -1, np.int64)
        args = Args(counts.ctypes.data, stops.ctypes.data, pool, width)
        run = self.parallel_nest if nest else self.parallel_for
        run(pool, self.library.address(kernel), ctypes.addressof(args), n, grain)
        begins = np.flatnonzero(stops >= 0)
        return counts, [(int(b), int(stops[b])) for b in begins]
