"""The text form of graphs: printing and parsing. `aicc.graph_ir.data` keeps the constants beside.

    graph @mlp(n: 1..)                              sizes, each with its inclusive range
      in %x: f32[n, 256]
      const @w: f32[256, 10] sha=5f1c0d2ab3e49876   data beside the text, told by their hash
      const @shape: i64[2] = [-1, 64]               at most 16 elements: here
      %y: f32[n, 10] = MatMul(%x, @w) at "fc/MatMul"
      %s: i64[2](n, 10) = Shape(%y) {start=0}       contents that are known follow the shape
      %z: f32[n, 10], _ = Dropout(%y, _)            "_": an unwanted result, an omitted operand
      %r: f32[n, 10] = If(%c)
        graph @then_branch                          regions; they see the values around them
          out %z
        graph @else_branch
          out %y
      out %r

Attributes are numbers, strings, lists of them, types (`f32[n, 3]`) and `bytes "6f6b"`. `at` names
the ONNX nodes that a node stands for, where that is not its result's name. Data are written as
numbers where those say every bit, else as `hex "..."`. A name that is no identifier stands in
backquotes, an operator of another domain too: `com.acme::Foo`.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aicc.digest import sha256
from aicc.dtypes import ALL, is_float, to_numpy
from aicc.errors import IRError
from aicc.graph_ir.graph import AttributeValue, Graph, Node, make_node, same_array
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Bound, Size, Sym, print_range, sym, symbols
from aicc.text import Reader, print_name, print_value

Array = np.ndarray[Any, Any]
INLINE_LIMIT = 16
"""Constants of at most this many elements are written out."""


# --- printing -----------------------------------------------------------------------------------


def print_graph(graph: Graph, with_sha: bool = True) -> str:
    """The graph's text. with_sha: hash the constants that are not written out."""
    sizes = ", ".join(
        f"{s}: {print_range(s.lo, s.hi)}"
        for s in sorted(graph_symbols(graph), key=lambda s: s.name)
    )
    header = f"graph @{print_name(graph.name)}{f'({sizes})' if sizes else ''}"
    return "\n".join([header, *_print_body(graph, "  ", set(), with_sha)]) + "\n"


def graph_symbols(graph: Graph) -> set[Sym]:
    """All sizes that a graph's types and attributes mention, regions included.

    Raises IRError where one name stands for two ranges.
    """
    found: dict[str, Sym] = {}
    for t in _types(graph):
        for size in (*t.shape, *(t.value or ())):
            for s in symbols(size):
                if found.setdefault(s.name, s) != s:
                    raise IRError(
                        f"graph {graph.name!r}: the size {s.name!r} has two ranges: "
                        f"{print_range(s.lo, s.hi)}, "
                        f"{print_range(found[s.name].lo, found[s.name].hi)}"
                    )
    return set(found.values())


def _types(graph: Graph) -> Iterator[TensorType]:
    yield from (graph.types[name] for name in graph.defined() if name in graph.types)
    for n in graph.nodes:
        yield from (v for _, v in n.attrs if isinstance(v, TensorType))
        for region in n.regions:
            yield from _types(region)


def _print_body(graph: Graph, indent: str, around: set[str], with_sha: bool) -> list[str]:
    """around: names of the constants of the graphs around a region."""
    lines = [f"{indent}in %{print_name(i)}: {print_type(_typed(graph, i))}" for i in graph.inputs]
    for name, data in graph.constants.items():
        t = constant_type(data).without_value()
        rest = f" = {_print_data(data)}" if data.size <= INLINE_LIMIT else ""
        if not rest and with_sha:
            rest = f" sha={digest(data)}"
        lines.append(f"{indent}const @{print_name(name)}: {print_type(t)}{rest}")
    constants = (around - set(graph.defined())) | graph.constants.keys()
    for node in graph.nodes:
        lines.append(f"{indent}{_print_node(graph, node, constants)}")
        for region in node.regions:
            lines.append(f"{indent}  graph @{print_name(region.name)}")
            lines += _print_body(region, f"{indent}    ", constants, with_sha)
    operands = ", ".join(_print_operand(o, constants) for o in graph.outputs)
    return [*lines, f"{indent}out {operands}".rstrip()]


def _typed(graph: Graph, name: str) -> TensorType:
    if name not in graph.types:
        raise IRError(f"graph {graph.name!r}: the value {name!r} has no type")
    return graph.types[name]


def _print_operand(name: str, constants: set[str]) -> str:
    if not name:
        return "_"
    return f"{'@' if name in constants else '%'}{print_name(name)}"


def _print_node(graph: Graph, node: Node, constants: set[str]) -> str:
    results = ", ".join(
        f"%{print_name(o)}: {print_type(_typed(graph, o))}" if o else "_" for o in node.outputs
    )
    operands = ", ".join(_print_operand(i, constants) for i in node.inputs)
    text = f"{results} = {print_name(node.op)}({operands})"
    if node.attrs:
        text += f" {{{', '.join(f'{print_name(k)}={_print_attr(v)}' for k, v in node.attrs)}}}"
    if node.origin and node.origin != _own_origin(node.outputs):
        text += f" at {', '.join(map(_quote, node.origin))}"
    return text


def _own_origin(outputs: tuple[str, ...]) -> tuple[str, ...]:
    """The origin of a node whose text names none: its first result."""
    return tuple(o for o in outputs if o)[:1]


def _quote(text: str) -> str:
    return json.dumps(text)  # ASCII only: strings may hold lone surrogates


def print_type(t: TensorType) -> str:
    """`f32[n, 3]`, with known contents behind: `i64[2](n, 3)`."""
    text = f"{t.dtype}[{', '.join(map(str, t.shape))}]"
    return text if t.value is None else f"{text}({', '.join(map(str, t.value))})"


def _print_attr(value: AttributeValue) -> str:
    if isinstance(value, TensorType):
        return print_type(value)
    if isinstance(value, bytes):
        return f'bytes "{value.hex()}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_print_attr, value))}]"
    return _quote(value) if isinstance(value, str) else print_value(value)


def _print_data(data: Array) -> str:
    dtype = constant_type(data).dtype
    flat = data.reshape(-1)
    if dtype == "str":
        return f"[{', '.join(_quote(str(x)) for x in flat)}]"
    if is_float(dtype):
        # The shortest text that gives the same number; bf16 has none of its own.
        numbers = [float(x) if dtype == "bf16" else float(str(x)) for x in flat]
    else:
        numbers = flat.tolist()
    if same_array(np.array(numbers, data.dtype).reshape(data.shape), data):
        return print_value(numbers)
    return f'hex "{np.ascontiguousarray(data).tobytes().hex()}"'


def digest(data: Array) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the elements in row-major order.

    Strings count as UTF-8, each behind its length in 8 bytes.
    """
    if data.dtype.kind == "O":
        encoded = [str(x).encode("utf-8", "surrogatepass") for x in data.reshape(-1)]
        payload = b"".join(len(x).to_bytes(8, "little") + x for x in encoded)
        return sha256(payload).hex()[:16]
    known = _digests.get(id(data))
    if known is not None and known[0]() is data and not data.flags.writeable:
        return known[1]
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    made = sha256(flat.data).hex()[:16]
    if not data.flags.writeable:
        number = id(data)
        _digests[number] = weakref.ref(data, lambda _: _digests.pop(number, None)), made
    return made


_digests: dict[int, tuple[weakref.ref[Array], str]] = {}
"""Of arrays that cannot change, such as mapped weights: each pass prints them again."""


# --- parsing ------------------------------------------------------------------------------------


def parse_graph(text: str, constants: Mapping[str, Array] | None = None, source: str = "") -> Graph:
    """The graph that a text stands for.

    constants: data of the constants that are not written out, by name. source: what errors call
    the text. Raises IRError with the place: text that does not parse, data that are missing, of
    another type or with another hash.
    """
    reader = Reader(text, source)
    graph = read_graph(reader, constants or {})
    reader.finish()
    return graph


def read_graph(reader: Reader, constants: Mapping[str, Array]) -> Graph:
    """Reads one graph, as part of a larger text."""
    return _GraphReader(reader, constants).graph()


class _GraphReader:
    def __init__(self, reader: Reader, constants: Mapping[str, Array]) -> None:
        self.r = reader
        self.data = constants
        self.sizes: dict[str, Size] = {}

    def graph(self) -> Graph:
        r = self.r
        r.expect("graph")
        r.expect("@")
        graph = Graph(r.name("a graph's name"))
        if r.at("("):
            for name, lo, hi in r.listed(self._size_parameter, "(", ")"):
                self.sizes[name] = sym(name, lo, hi)
        r.block(lambda: self._line(graph))
        return graph

    def _size_parameter(self) -> tuple[str, Bound, Bound]:
        name = self.r.name("a size")
        self.r.expect(":")
        return (name, *self.r.range())

    def _line(self, graph: Graph) -> None:
        r = self.r
        if r.accept("in"):
            r.expect("%")
            name = self._new(graph)
            graph.inputs.append(name)
            r.expect(":")
            graph.types[name] = self.type()
            r.newline()
        elif r.accept("const"):
            r.expect("@")
            self._constant(graph, self._new(graph))
            r.newline()
        elif r.accept("out"):
            while not r.at_kind("newline") and not r.at_kind("end"):
                graph.outputs.append(self._operand())
                if not r.accept(","):
                    break
            r.newline()
        else:
            self._node(graph)

    def _new(self, graph: Graph) -> str:
        token = self.r.expect_kind("name", "a value's name")
        if token.text in graph.types:
            self.r.fail(f"the value {token.text!r} is defined twice", token)
        return token.text

    def type(self) -> TensorType:
        r = self.r
        token = r.expect_kind("name", "a type")
        if token.text not in ALL:
            r.fail(f"no element type is called {token.text!r}", token)
        shape = r.sizes(self.sizes.get)
        value = None
        if r.at("("):
            value = tuple(r.listed(lambda: r.size(self.sizes.get), "(", ")"))
        return TensorType(token.text, shape, value)

    def _constant(self, graph: Graph, name: str) -> None:
        r = self.r
        r.expect(":")
        start = r.token
        t = self.type()
        if not all(isinstance(d, int) and d >= 0 for d in t.shape):
            r.fail(f"a constant of the sizes {list(t.shape)}", start)
        if r.accept("="):
            data = self._inline(t)
        else:
            sha = ""
            if r.accept("sha"):
                r.expect("=")
                sha = self._hex_digits()
            if name not in self.data:
                r.fail(f"the data of the constant {name!r} are missing", start)
            data = np.asarray(self.data[name])
            found = constant_type(data).without_value()
            if found != t:
                r.fail(f"the data of {name!r} are {found}", start)
            if sha and digest(data) != sha:
                r.fail(f"the data of {name!r} have another hash, {digest(data)}", start)
        graph.constants[name] = data
        graph.types[name] = constant_type(data)

    def _hex_digits(self) -> str:
        """Hexadecimal digits, which the lexer may have split in numbers and names."""
        r, start = self.r, self.r.token
        digits = r.take().text
        while len(digits) < 16 and not r.token.spaced and r.token.kind in ("int", "name", "float"):
            digits += r.take().text
        if not re.fullmatch("[0-9a-f]{16}", digits):
            r.fail("expected 16 hexadecimal digits", start)
        return digits

    def _inline(self, t: TensorType) -> Array:
        r = self.r
        start = r.token
        dtype = to_numpy(t.dtype)
        shape = tuple(d for d in t.shape if isinstance(d, int))
        try:
            if r.accept("hex"):
                return np.frombuffer(bytes.fromhex(r.string()), dtype).reshape(shape).copy()
            values = r.listed(r.value)
            if t.dtype == "str":
                out = np.empty(len(values), np.object_)
                out[:] = values
                return out.reshape(shape)
            made = np.array(values, dtype)
            if not is_float(t.dtype) and made.tolist() != values:
                r.fail(f"elements that do not fit in {t.dtype}", start)
            return made.reshape(shape)
        except (OverflowError, TypeError, ValueError) as error:
            if isinstance(error, IRError):
                raise
            raise r.error(f"not the elements of {print_type(t)}: {error}", start) from None

    def _operand(self) -> str:
        if self.r.accept("_"):
            return ""
        self.r.expect("%", "@", "_")
        return self.r.name("a value's name")

    def _result(self, graph: Graph) -> str:
        if self.r.accept("_"):
            return ""
        self.r.expect("%", "in", "const", "out", "_")
        name = self._new(graph)
        self.r.expect(":")
        graph.types[name] = self.type()
        return name

    def _node(self, graph: Graph) -> None:
        r = self.r
        outputs = [self._result(graph)]
        while r.accept(","):
            outputs.append(self._result(graph))
        r.expect("=")
        op = r.name("an operator")
        inputs = r.listed(self._operand, "(", ")")
        attrs = dict(r.listed(self._attr, "{", "}")) if r.at("{") else {}
        origin: tuple[str, ...] = _own_origin(tuple(outputs))
        if r.accept("at"):
            named = [r.string()]
            while r.accept(","):
                named.append(r.string())
            origin = tuple(named)
        regions: list[Graph] = []
        if r.at_kind("newline") and r.ahead().kind == "indent":
            regions = r.block(self.graph)
        else:
            r.newline()
        graph.nodes.append(make_node(op, inputs, outputs, attrs, regions, origin))

    def _attr(self) -> tuple[str, AttributeValue]:
        name = self.r.name("an attribute")
        self.r.expect("=")
        return name, self._attr_value()

    def _attr_value(self) -> Any:
        r = self.r
        if r.at("["):
            return tuple(r.listed(self._attr_value))
        if r.accept("bytes"):
            start = r.token
            try:
                return bytes.fromhex(r.string())
            except ValueError as error:
                raise r.error(f"not bytes: {error}", start) from None
        if r.at_kind("name") and r.token.text in ALL and r.ahead().text == "[":
            return self.type()
        return r.value()


def all_constants(graph: Graph) -> dict[str, Array]:
    """The constants of a graph and its regions by name.

    Raises IRError where one name stands for two of them.
    """
    found = dict(graph.constants)
    for node in graph.nodes:
        for region in node.regions:
            for name, data in all_constants(region).items():
                if name in found and not same_array(found[name], data):
                    raise IRError(f"the name {name!r} stands for two constants")
                found[name] = data
    return found
