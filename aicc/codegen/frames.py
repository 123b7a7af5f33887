"""What passes between `aicc.codegen.parallel` and the processes that compile.

in     frame(target), then frame(b"S" kernel | b"K" kernel | b"L" opt LLVM text) ...
out    frame(b"T" scheduled kernel | b"O" object code | b"E" message) for each, in order
opt    one digit
frame  its length in 8 bytes, little-endian, and that many bytes
"""

from __future__ import annotations

from typing import IO

SCHEDULED, OBJECT, ERROR = b"T", b"O", b"E"
SCHEDULE, KERNEL, LLVM = b"S", b"K", b"L"


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
