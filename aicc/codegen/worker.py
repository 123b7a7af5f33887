"""A process that compiles kernels: their texts come in through a pipe, object code goes out.

    in     frame(target), then frame(kernel) ...      each as text
    out    frame(b"O" object code | b"E" message) for each kernel, in order
    frame  its length in 8 bytes, little-endian, and that many bytes

The process ends with its input. `aicc.codegen.parallel` starts it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import IO

from aicc.codegen.jit import compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.codegen.target import Target
from aicc.tensor_ir.parse import parse_kernel

OBJECT, ERROR = b"O", b"E"


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Sends one frame. Raises OSError where nobody reads."""
    stream.write(len(data).to_bytes(8, "little"))
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> bytes:
    """The next frame. Raises EOFError where the stream ends before it does."""
    size = int.from_bytes(_exactly(stream, 8), "little")
    return _exactly(stream, size)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Answers frames until the input ends."""
    try:
        target = Target.parse(read_frame(source).decode())
        while True:
            text = read_frame(source).decode()
            try:
                answer = OBJECT + compile_object(lower_kernel(parse_kernel(text), target), target)
            except Exception as error:  # who asked compiles it again and raises what that raises
                answer = ERROR + str(error).encode()
            write_frame(sink, answer)
    except (EOFError, OSError):
        return


def main() -> None:
    """Serves standard input and output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started the process ends it
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints does not write into the answers
    serve(sys.stdin.buffer, sink)
