"""A process that schedules and compiles: kernels come in through a pipe, object code goes out.

What passes through the pipes is in `aicc.codegen.frames`. The process ends with its input;
`aicc.codegen.parallel` starts it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from typing import IO

from aicc.codegen.frames import (
    ERROR,
    LLVM,
    OBJECT,
    SCHEDULE,
    SCHEDULED,
    read_frame,
    write_frame,
)
from aicc.codegen.jit import compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.garbage import look_rarely
from aicc.target import Target
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.transfer import from_bytes, to_bytes


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answers frames until the input ends."""
    try:
        target = Target.parse(read_frame(source).decode())
        while True:
            frame = read_frame(source)
            try:
                answer = _answer(frame, target)
            except Exception as error:  # who asked compiles it again and raises what that raises
                answer = ERROR + str(error).encode()
            write_frame(sink, answer)
    except (EOFError, OSError):
        return


def _answer(frame: bytes, target: Target) -> bytes:
    if frame[:1] == LLVM:
        return OBJECT + compile_object(frame[2:].decode(), target, int(frame[1:2]))
    kernel = from_bytes(frame[1:])
    if frame[:1] == SCHEDULE:
        return SCHEDULED + to_bytes(scheduled(kernel, target)[0])
    return OBJECT + compile_object(lower_kernel(kernel, target), target)


def main() -> None:
    """Serves standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started the process ends it
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not write into the answers
    gc.freeze()  # modules stay
    look_rarely()
    serve(sys.stdin.buffer, sink)
