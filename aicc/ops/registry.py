"""What an operator is, and where it is found.

One decorated class gives everything the compiler knows of an operator:

    @operator("Relu", since=1, inputs=1)
    class Relu(Operator):
        def infer(self, ctx): return [ctx.input(0)]
        def reference(self, ctx, x): return [np.maximum(x, 0)]
        def lower(self, ctx, b, x): return [b.compute(x.shape, lambda *i: call("max", x[i], 0))]
        def cases(self): yield Case(...)

Registration alone brings import, inference, the oracle, fusion, cost and generated tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import numpy as np

from aicc.errors import OperatorError
from aicc.graph_ir.types import TensorType
from aicc.symbolic import Size
from aicc.tensor_ir.builder import KernelBuilder, Tensor
from aicc.tensor_ir.ir import Expr

if TYPE_CHECKING:
    from aicc.graph_ir.graph import Graph

Array = np.ndarray[Any, Any]
REQUIRED = object()
"""Marks an attribute without default."""


@dataclass
class OpContext:
    """Everything a rule of an operator may ask about the node it is applied to.

    op, node: names for messages. attrs: values with defaults filled in. types: operand types, None
    for an omitted operand. constants: data of the operands that are constant (None otherwise).
    outputs: the result types, in `reference`, `lower` and `decompose`.

    fresh_symbol(base, hi=None): a size that only a run can tell, at most `hi`; the same one each
    time a node's types are inferred. regions: the node's subgraphs, in the order in which the
    operator declares its graph attributes. infer_region(i, types): result types of region `i` for
    these types of its inputs; `infer` calls it once or more for every region, and the last call
    stands. run_region(i, arrays): its results, in `reference`.
    """

    op: str
    attrs: Mapping[str, Any]
    types: Sequence[TensorType | None]
    constants: Sequence[Array | None] = ()
    outputs: Sequence[TensorType] = ()
    n_outputs: int = 1
    node: str = ""
    fresh_symbol: Callable[..., Size] | None = None
    regions: Sequence[Graph] = ()
    infer_region: Callable[[int, Sequence[TensorType]], list[TensorType]] | None = None
    run_region: Callable[[int, Sequence[Array]], list[Array]] | None = None

    def input(self, i: int) -> TensorType:
        """The type of a required operand. Raises OperatorError where it is missing."""
        t = self.types[i] if i < len(self.types) else None
        if t is None:
            self.fail(f"input {i} is missing")
        return t

    def has(self, i: int) -> bool:
        return i < len(self.types) and self.types[i] is not None

    def value(self, i: int) -> tuple[Size, ...] | None:
        """The known contents of a small integer operand, row-major; None where not known."""
        return self.types[i].value if self.has(i) else None  # type: ignore[union-attr]

    def require_value(self, i: int, what: str) -> tuple[Size, ...]:
        """`value`, or OperatorError: `what` has to be known at compile time."""
        v = self.value(i)
        if v is None:
            self.fail(f"{what} (input {i}) must be known at compile time")
        return v

    def ints(self, i: int, what: str) -> tuple[int, ...]:
        """`require_value` where all elements are plain numbers."""
        v = self.require_value(i, what)
        if not all(isinstance(x, int) for x in v):
            self.fail(f"{what} (input {i}) must be constant, not {v}")
        return tuple(int(x) for x in v)

    def constant(self, i: int) -> Array | None:
        return self.constants[i] if i < len(self.constants) else None

    def fail(self, message: str) -> NoReturn:
        """Raises OperatorError naming the node, the operator and its operand types."""
        operands = ", ".join("_" if t is None else str(t.without_value()) for t in self.types)
        raise OperatorError(f"{self.op}({operands}): {message}", node=self.node, op=self.op)


@dataclass(frozen=True)
class Case:
    """One generated test: inputs (None: omitted), attributes, and how close results must be.

    The operator runs on every executor and must agree with `reference`. `symbolic` names axes to
    make symbolic in a second run: {(input, axis): "n"}. `constant` are inputs given as constants.
    """

    name: str
    inputs: tuple[Array | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    n_outputs: int = 1
    constant: tuple[int, ...] = ()
    symbolic: Mapping[tuple[int, int], str] = field(default_factory=dict)
    rtol: float = 1e-5
    atol: float = 1e-6


class GraphRewriter:
    """What `decompose` may do: apply other operators to values. The decompose pass has one."""

    def op(
        self, op: str, *inputs: str, n_outputs: int = 1, **attrs: Any
    ) -> Any:  # str, or tuple[str, ...]
        """The result name (or names) of a new node; operands are value names, "" for none."""
        raise NotImplementedError

    def constant(self, data: Any, dtype: str) -> str:
        raise NotImplementedError

    def type_of(self, value: str) -> TensorType:
        raise NotImplementedError

    def made_by(self, value: str, op: str | None = None) -> Any:
        """The node that defines `value`, where it is known and is an `op`; else None."""
        return None


@dataclass(frozen=True)
class Instead:
    """Another operator with the same results. cond: on sizes, where it is faster. op, attrs: the
    operator. operands: its operands, by number of the operands of the one that it replaces."""

    cond: Expr
    op: str
    operands: tuple[int, ...]
    attrs: Mapping[str, Any]


class Operator:
    """The rules of one operator. All are without state; `ctx` says what they are applied to."""

    name: str = ""
    since: int = 1
    domain: str = ""
    attributes: Mapping[str, Any] = {}
    min_inputs: int = 1
    max_inputs: int | None = None

    # Properties that passes ask for.
    deterministic: bool = True
    has_regions: bool = False
    """True where attributes are subgraphs, which the meaning runs."""
    view: bool = False
    """True where the result has the operand's elements in the same row-major order (Reshape), or a
    run or a box of them (see `part`, `box`)."""
    counted: int | None = None
    """For a view of the first elements along axis 0: the operand whose only element, an i64, tells
    a run how many; they are a new symbol."""
    copies: bool = False
    """True where the result is the operand in memory of its own, whatever else would do."""

    def upgrade(
        self, attrs: dict[str, Any], inputs: list[str], opset: int, graph: Any
    ) -> tuple[dict[str, Any], list[str]]:
        """Attributes and operands of an older opset in the newest one's terms.

        `graph.add_constant(base, array) -> name` makes an operand of what was an attribute;
        `graph.types` has the types of all values so far. An attribute that is a tensor arrives as
        an array, and leaves as an operand or a plain attribute. Attributes arrive as written in
        the model; defaults are filled in after.
        """
        return attrs, inputs

    def infer(self, ctx: OpContext) -> list[TensorType]:
        """Result types, with `value` where small integer contents follow."""
        raise NotImplementedError

    def reference(self, ctx: OpContext, *inputs: Array | None) -> Sequence[Array]:
        """The meaning in numpy, independent of `lower`."""
        raise NotImplementedError

    def lower(self, ctx: OpContext, b: KernelBuilder, *inputs: Tensor | None) -> Sequence[Tensor]:
        """Appends the stages that compute the results. Not overridden: a host operator."""
        raise NotImplementedError

    def decompose(self, ctx: OpContext, g: GraphRewriter, *inputs: str) -> Sequence[str] | None:
        """Result values from other operators, or None where this node is kept."""
        return None

    def part(self, ctx: OpContext) -> int | None:
        """For a view of a run of the operand's elements: the first of them; None where the result
        has all."""
        return None

    def box(self, ctx: OpContext) -> tuple[int, int] | None:
        """For a view of the operand's elements from an index of one axis on: that axis, and the
        index; None for others."""
        return None

    def sections(self, ctx: OpContext) -> tuple[tuple[int, int, int], ...] | None:
        """Where the result is a box of the operand's elements: axis, first index and extent for
        each axis that is not there whole, from the outermost on; else None. Then it can be read
        where it is."""
        return None

    def joined(self, ctx: OpContext) -> tuple[int, ...] | None:
        """Where the result is its operands side by side: the element of the result at which each of
        them starts, to go on with the result's strides; else None. Then they can be written there
        at once."""
        return None

    def instead(self, ctx: OpContext) -> Instead | None:
        """What else computes the results, where it is faster for some sizes that only a run knows;
        else None. Kernels then have both, and each run takes one of them."""
        return None

    def cases(self) -> Iterable[Case]:
        """Inputs for the generated tests."""
        return ()

    @property
    def has_lowering(self) -> bool:
        return type(self).lower is not Operator.lower


_REGISTRY: dict[str, Operator] = {}
C = TypeVar("C", bound=type[Operator])


def operator(
    name: str,
    *,
    since: int = 1,
    domain: str = "",
    inputs: int | tuple[int, int | None] = 1,
    attributes: Mapping[str, Any] | None = None,
) -> Callable[[C], C]:
    """Registers an operator class under "Name", or "domain::Name" outside ONNX's own domain.

    since: the first opset version that `upgrade` understands. inputs: how many operands, or
    (least, most), most None for any number. attributes: name -> default, REQUIRED for none.
    """

    def register(cls: C) -> C:
        key = f"{domain}::{name}" if domain else name
        made = cls()
        made.name, made.since, made.domain = key, since, domain
        made.attributes = dict(attributes or {})
        made.min_inputs, made.max_inputs = (inputs, inputs) if isinstance(inputs, int) else inputs
        if key in _REGISTRY:
            raise ValueError(f"operator {key} is registered twice")
        _REGISTRY[key] = made
        return cls

    return register


def find(name: str) -> Operator | None:
    """The operator named `name` ("Name" or "domain::Name"), or None."""
    _load_all()
    return _REGISTRY.get(name)


def get(name: str) -> Operator:
    """The operator named `name`; KeyError where there is none."""
    found = find(name)
    if found is None:
        raise KeyError(name)
    return found


def all_operators() -> Iterator[Operator]:
    """Every operator, by name."""
    _load_all()
    yield from (_REGISTRY[k] for k in sorted(_REGISTRY))


_loaded = False


def _load_all() -> None:
    global _loaded
    if not _loaded:
        from aicc import ops

        ops.load()
        _loaded = True
