"""Large weights left in the file: a model's bytes without them, and where each of them lies.

Parsing a protobuf copies every field, so a model of 500 MB would stand in memory twice. This reads
just enough of the wire format to cut the `raw_data` of large initializers out of the bytes that
protobuf gets to see, and returns them as views of the original buffer, usually a mapped file.
Field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

MODEL_GRAPH, GRAPH_INITIALIZER, TENSOR_RAW_DATA = 7, 5, 9
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MODEL_FIELDS = {
    1: VARINT, 2: BYTES, 3: BYTES, 4: BYTES, 5: VARINT, 6: BYTES, 7: BYTES, 8: BYTES,
    14: BYTES, 20: BYTES, 25: BYTES, 26: BYTES,
}  # fmt: skip
"""The fields of ModelProto and how each is encoded."""


class WireError(ValueError):
    """Bytes that are no protobuf message. `truncated`: they end inside a field."""

    def __init__(self, message: str, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated


@dataclass(frozen=True)
class Field:
    """One field of a message: it occupies `start:end` of the buffer, its contents `body:end`."""

    number: int
    wire: int
    start: int
    body: int
    end: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in `data[start:end]`. Raises WireError."""
    at = start
    while at < end:
        tag, body = _varint(data, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
            raise WireError(f"byte {at} starts no field (number {number}, wire type {wire})")
        if wire == VARINT:
            stop = _varint(data, body, end)[1]
        elif wire == BYTES:
            size, body = _varint(data, body, end)
            stop = body + size
        else:
            stop = body + (8 if wire == FIXED64 else 4)
        if stop > end:
            text = f"field {number} at byte {at} ends at byte {stop}, past the end, {end}"
            raise WireError(text, truncated=True)
        yield Field(number, wire, at, body, stop)
        at = stop


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = 0
    for n in range(10):
        if at + n >= end:
            raise WireError(f"the number at byte {at} is cut off", truncated=True)
        byte = data[at + n]
        value |= (byte & 0x7F) << (7 * n)
        if byte < 0x80:
            return value, at + n + 1
    raise WireError(f"the number at byte {at} is longer than 64 bits")


def _encode_varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def detach_weights(data: memoryview, at_least: int = 4096) -> tuple[bytes, dict[int, memoryview]]:
    """A ModelProto's bytes without the raw data of its large initializers, and those data.

    data: the serialized model. at_least: smaller raw data, in bytes, stay in place. The result's
    dictionary maps the position of an initializer in the main graph to a view of its raw data.
    Raises WireError where `data` is no serialized ModelProto.
    """
    top = []
    for field in fields(data, 0, len(data)):
        if MODEL_FIELDS.get(field.number, field.wire) != field.wire:
            raise WireError(f"field {field.number} at byte {field.start} is no field of a model")
        top.append(field)
    graphs = [f for f in top if f.number == MODEL_GRAPH]
    if len(graphs) != 1:  # protobuf merges several, which shifts the positions
        return bytes(data), {}
    graph = graphs[0]
    found: dict[int, memoryview] = {}
    parts: list[bytes | memoryview] = []
    position, copied = 0, graph.body
    for field in fields(data, graph.body, graph.end):
        if field.number != GRAPH_INITIALIZER or field.wire != BYTES:
            continue
        raw = [f for f in fields(data, field.body, field.end) if f.number == TENSOR_RAW_DATA]
        if len(raw) == 1 and raw[0].wire == BYTES and raw[0].end - raw[0].body >= at_least:
            found[position] = data[raw[0].body : raw[0].end]
            rest = data[field.body : raw[0].start], data[raw[0].end : field.end]
            parts += [data[copied : field.start], bytes([GRAPH_INITIALIZER << 3 | BYTES])]
            parts += [_encode_varint(sum(map(len, rest))), *rest]
            copied = field.end
        position += 1
    if not found:
        return bytes(data), {}
    parts.append(data[copied : graph.end])
    header = bytes([MODEL_GRAPH << 3 | BYTES]) + _encode_varint(sum(map(len, parts)))
    return b"".join([data[: graph.start], header, *parts, data[graph.end :]]), found
