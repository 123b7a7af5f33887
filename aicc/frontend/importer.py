"""ModelProto -> Graph: node by node, with types inferred on the way.

What does not fit is collected (`Faults`) and the import goes on with the values behind it left
untyped, so that one error tells everything: a value without a type is one that a fault spoiled, and
a node that reads one is only looked at for whether aicc has its operator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from aicc.dtypes import INTEGERS
from aicc.errors import ModelError, OperatorError, UnsupportedError
from aicc.frontend import attributes as attr
from aicc.frontend.external import ExternalData
from aicc.frontend.faults import Faults
from aicc.frontend.float_sizes import FloatSizes
from aicc.frontend.functions import (
    FunctionKey,
    bind_attributes,
    domain_of,
    key_name,
    model_functions,
    opsets_of,
    resolve_attributes,
    schema_body,
    schema_defaults,
)
from aicc.frontend.interface import InputSizes, check_tensor, warn_of_differences
from aicc.frontend.order import node_name, ordered
from aicc.frontend.reader import ModelFile, read_model
from aicc.frontend.resampling import FACTORS, by_sizes
from aicc.frontend.scope import Names, Scope, regions_of
from aicc.frontend.tensors import TensorReader
from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import context, enclosing, few_numbers, result_types
from aicc.graph_ir.types import TensorType
from aicc.ops import registry
from aicc.ops.registry import Operator

NEWEST_OPSET = 28
"""The newest version of ONNX's own operators that the operators here are written for."""
NODE_LIMIT = 250_000
DEPTH_LIMIT = 48


def load_model(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, dims: Mapping[str, int] | None = None
) -> Graph:
    """Reads an ONNX model and types all of it.

    source: a path, a serialized model, or a ModelProto. dims: sizes of symbolic dimensions that are
    known, by name: `{"batch": 1}`.

    The graph has the model's value names, its nodes in the newest opset's form, and no functions.
    Weights may be read-only, unaligned views of the model's file, which must stay as it is while
    they are in use. Raises ModelError for a file that is no
    usable model, UnsupportedError with everything that aicc does not have, OperatorError for nodes
    whose operands do not fit, InputError for `dims` that the model does not have.
    """
    return _Importer(read_model(source)).run(dims)


class _Spoiled(Exception):
    """A region's results have no types: a fault in it is recorded already."""


class _Importer:
    def __init__(self, file: ModelFile) -> None:
        self.file = file
        self.model = file.model
        self.functions = model_functions(file.model)
        self.tensors = TensorReader(ExternalData(file.folder))
        self.names = Names()
        self.faults = Faults()
        self.count = 0

    def run(self, dims: Mapping[str, int] | None) -> Graph:
        proto = self.model.graph
        graph = Graph(proto.name or "main")
        opsets = opsets_of(self.model.opset_import)
        if not opsets and self.model.ir_version < 3:
            opsets = {"": 1}
        scope = Scope(graph, self.names, opsets, keep=True)
        for name in (
            *(v.name for v in proto.input),
            *(t.name for t in proto.initializer),
            *(o for n in proto.node for o in n.output),
        ):
            self.names.reserve(name)
        if not proto.output:
            raise ModelError("the model's graph has no outputs")
        self._constants(scope, proto, self.file.weights)
        self._inputs(scope, proto, dims)
        self._nodes(scope, proto.node, "the model's graph")
        for value in proto.output:
            if not scope.sees(value.name):
                raise ModelError(f"nothing defines the output {value.name!r}")
            self._refusable(value, "output")
            graph.outputs.append(scope.resolve(value.name))
        self.faults.raise_any()
        warn_of_differences([*proto.output, *proto.value_info], graph.types)
        return graph

    def _constants(
        self, scope: Scope, proto: onnx.GraphProto, weights: Mapping[int, memoryview]
    ) -> None:
        if proto.sparse_initializer:
            names = ", ".join(repr(s.values.name) for s in proto.sparse_initializer)
            raise UnsupportedError(f"sparse initializers: {names}")
        for i, tensor in enumerate(proto.initializer):
            if not tensor.name:
                raise ModelError(f"initializer {i} has no name")
            name = scope.define(tensor.name, "initializers")
            scope.set_constant(name, self.tensors.decode(tensor, weights.get(i)))

    def _inputs(self, scope: Scope, proto: onnx.GraphProto, dims: Mapping[str, int] | None) -> None:
        # An initialized input is a default that a caller may override; here it is a constant.
        given = {t.name for t in proto.initializer}
        inputs = [v for v in proto.input if v.name not in given]
        sizes = InputSizes(inputs, dims)
        for i, value in enumerate(inputs):
            if not value.name:
                raise ModelError(f"input {i} has no name")
            name = scope.define(value.name, "inputs")
            scope.graph.inputs.append(name)
            try:
                scope.graph.types[name] = sizes.type_of(value)
            except ModelError as error:
                self.faults.values.append(error)

    def _refusable(self, value: onnx.ValueInfoProto, what: str) -> None:
        if value.type.WhichOneof("value") is not None:
            try:
                check_tensor(value, what)
            except ModelError as error:
                self.faults.values.append(error)

    # nodes

    def _nodes(self, scope: Scope, nodes: Sequence[onnx.NodeProto], where: str) -> None:
        for i, node in enumerate(ordered(nodes, scope.sees, where)):
            self.count += 1
            if self.count > NODE_LIMIT:
                raise ModelError(f"with its functions expanded, more than {NODE_LIMIT} nodes")
            self._node(scope, node, scope.prefix + node_name(node, i))

    def _node(self, scope: Scope, node: onnx.NodeProto, name: str) -> None:
        domain = domain_of(node.domain)
        key: FunctionKey = (domain, node.op_type, node.overload)
        op = f"{domain}::{node.op_type}" if domain else node.op_type
        inputs = [scope.resolve(i) for i in node.input]
        while inputs and not inputs[-1]:
            inputs.pop()
        try:
            given = resolve_attributes(node.attribute, scope.bound)
            if key in self.functions:
                function = self.functions[key]
                bound = bind_attributes(function, given, strict=True)
                self._inline(scope, node, function, inputs, bound, key, name)
            elif key == ("", "Constant", ""):
                self._constant(scope, node, given, name)
            else:
                self._apply(scope, node, op, domain, inputs, given, name)
        except OperatorError as error:
            if not error.node:
                error = OperatorError(f"{op}: {error}", name, op)
            self.faults.error(error)
            self._spoil(scope, node, name)
        except UnsupportedError as error:
            self.faults.values.append(UnsupportedError(f"node {name!r}: {error}"))
            self._spoil(scope, node, name)

    def _spoil(self, scope: Scope, node: onnx.NodeProto, name: str) -> None:
        """Defines a node's results without types."""
        for o in node.output:
            if o and o not in scope.names:
                scope.define(o, f"node {name!r}")

    def _constant(
        self, scope: Scope, node: onnx.NodeProto, given: list[onnx.AttributeProto], name: str
    ) -> None:
        if len(given) != 1 or len(node.output) != 1 or node.input:
            raise OperatorError("a Constant has one attribute, one result and no operand")
        (a,) = given
        if a.name == "sparse_value":
            raise OperatorError("attribute 'sparse_value': sparse tensors are not supported")
        value = attr.value_of(a, self.tensors)
        kinds: dict[str, Any] = {
            "value": None,
            "value_float": np.float32,
            "value_floats": np.float32,
            "value_int": np.int64,
            "value_ints": np.int64,
            "value_string": np.object_,
            "value_strings": np.object_,
        }
        attr.check_kinds(given, attr.schema_of("Constant", NEWEST_OPSET, ""), kinds)
        data = value if a.name == "value" else np.array(value, kinds[a.name])
        scope.set_constant(scope.define(node.output[0], f"node {name!r}"), data)

    def _apply(
        self,
        scope: Scope,
        node: onnx.NodeProto,
        op: str,
        domain: str,
        inputs: list[str],
        given: list[onnx.AttributeProto],
        name: str,
    ) -> None:
        """Imports an operator: as a node, or by the function that ONNX defines it with."""
        opset = scope.opsets.get(domain)
        known = registry.find(op)
        schema = attr.schema_of(node.op_type, opset, domain) if opset else None
        reason = ""
        if opset is None:
            reason = "the model imports no opset of its domain"
        elif not domain and not 1 <= opset <= NEWEST_OPSET:
            reason = f"opset {NEWEST_OPSET} is the newest one known"
        elif known is not None and opset < known.since:
            reason = f"aicc has it since opset {known.since}"
        elif known is None:
            reason = self._by_schema(scope, node, schema, opset, inputs, given, name)
            if not reason:
                return
        if reason:
            version = "no opset" if opset is None else f"opset {opset}"
            self.faults.unknown(op, version, reason, self._types(scope, inputs), name)
            self._scan_regions(scope, given)
            self._spoil(scope, node, name)
            return
        assert known is not None and opset is not None
        if any(i and scope.type_of(i) is None for i in inputs):
            self._scan_regions(scope, given)
            self._spoil(scope, node, name)
            return
        attr.check_kinds(given, schema, known.attributes)
        values = {
            a.name: attr.value_of(a, self.tensors)
            for a in given
            if attr.kind_of(a) not in attr.GRAPH_KINDS
        }
        try:
            values, inputs = known.upgrade(values, list(inputs), opset, scope)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, OperatorError):
                raise
            raise OperatorError(f"opset {opset}: {type(error).__name__}: {error}") from error
        outputs = list(node.output)
        while outputs and not outputs[-1]:
            outputs.pop()
        results = [scope.define(o, f"node {name!r}") if o else "" for o in outputs]
        regions = {a.name: a.g for a in given if attr.kind_of(a) in attr.GRAPH_KINDS}
        self._emit(scope, known, values, inputs, results, name, regions)

    def _types(self, scope: Scope, inputs: Sequence[str]) -> str:
        def described(value: str) -> str:
            t = scope.type_of(value) if value else None
            return str(t.without_value()) if t is not None else ("?" if value else "_")

        return f"({', '.join(map(described, inputs))})"

    def _emit(
        self,
        scope: Scope,
        op: Operator,
        values: dict[str, Any],
        inputs: Sequence[str],
        results: Sequence[str],
        name: str,
        regions: Mapping[str, onnx.GraphProto] | None = None,
    ) -> None:
        """Adds a node and infers its results' types. regions: its subgraphs by attribute name."""
        if op.name in FACTORS:
            floats = self._float_sizes(scope, next(filter(None, results), name), name)
            sized = by_sizes(floats, op.name, values, inputs)
            if sized is not None:
                op, (values, inputs) = registry.get("Resize"), sized
        regions = regions or {}
        chosen = attr.chosen(op, values, regions)
        attr.check_count(op, len(inputs))
        if op.name == "Cast" and chosen["to"] in INTEGERS:
            whole = self._float_sizes(scope, inputs[0], name).truncated(inputs[0])
            inputs = [whole or inputs[0]]
        protos = [regions[a] for a in regions_of(scope, op, inputs, regions)]
        done: list[Graph | None] = [None] * len(protos)
        around = enclosing(scope.graph, scope.outer) if protos else None
        last = (-1, 0, 0)  # the region imported last, and the names and errors before it

        def infer_region(i: int, types: Sequence[TensorType]) -> list[TensorType]:
            nonlocal last
            assert around is not None
            if last[0] == i:
                # Anew, with other types: what the last attempt named and found is void.
                self.names.rollback(last[1])
                del self.faults.errors[last[2] :]
            last = (i, self.names.mark(), len(self.faults.errors))
            done[i] = region = self._region(scope, protos[i], types, around)
            found = [region.types.get(o) or around.types.get(o) for o in region.outputs]
            if any(t is None for t in found):
                raise _Spoiled
            return [t for t in found if t is not None]

        node = make_node(op.name, inputs, results, chosen, (), [name])
        ctx = context(scope.graph, node, scope.outer)
        ctx.infer_region = infer_region
        try:
            types = result_types(ctx)
        except _Spoiled:
            for proto, region in zip(protos, done):
                if region is None and around is not None:
                    self._region(scope, proto, None, around)
            return
        if any(region is None for region in done):
            raise OperatorError("its rule does not type all of its regions")
        known = few_numbers(ctx, op, types)
        if known is not None:
            for result, data in zip(results, known):
                if result:
                    scope.set_constant(result, data)
            return
        bodies = tuple(region for region in done if region is not None)
        scope.add_node(replace(node, regions=bodies), types)

    def _float_sizes(self, scope: Scope, base: str, name: str) -> FloatSizes:
        """Finds integers behind floating-point values: for the node `name`, by operators whose
        results are named after `base`."""

        def emit(op: str, inputs: Sequence[str], values: Mapping[str, Any]) -> str:
            result = self.names.fresh(f"{scope.prefix}{base}.whole")
            self._emit(scope, registry.get(op), dict(values), inputs, [result], name)
            return result

        return FloatSizes(scope, emit)

    # regions

    def _region(
        self,
        scope: Scope,
        proto: onnx.GraphProto,
        types: Sequence[TensorType] | None,
        around: Graph,
    ) -> Graph:
        """Imports a subgraph for these types of its inputs; None: they are not known."""
        depth = scope.depth + 1
        if depth > DEPTH_LIMIT:
            raise ModelError(f"subgraphs and functions nested more than {DEPTH_LIMIT} deep")
        graph = Graph(proto.name or "region")
        inner = replace(
            scope, graph=graph, outer=around, parent=scope, names={}, given={}, keep=False,
            depth=depth,
        )  # fmt: skip
        self._constants(inner, proto, {})
        given = {t.name for t in proto.initializer}
        formal = [v for v in proto.input if v.name not in given]
        if types is not None and len(formal) != len(types):
            raise OperatorError(
                f"the region {graph.name!r} has {len(formal)} inputs, but is given {len(types)}"
            )
        for i, value in enumerate(formal):
            name = inner.define(value.name, f"inputs of the region {graph.name!r}")
            graph.inputs.append(name)
            if types is not None:
                graph.types[name] = types[i]
        self._nodes(inner, proto.node, f"the region {graph.name!r}")
        graph.outputs = [inner.resolve(value.name) for value in proto.output]
        return graph

    def _scan_regions(self, scope: Scope, given: Sequence[onnx.AttributeProto]) -> None:
        """Looks for unknown operators in the subgraphs of a node that cannot be typed."""
        around = enclosing(scope.graph, scope.outer)
        for a in given:
            for g in [a.g] if a.HasField("g") else a.graphs:
                self._region(scope, g, None, around)

    # functions

    def _by_schema(
        self,
        scope: Scope,
        node: onnx.NodeProto,
        schema: onnx.defs.OpSchema | None,
        opset: int,
        inputs: list[str],
        given: list[onnx.AttributeProto],
        name: str,
    ) -> str:
        """Expands an operator by ONNX's own definition; "" where done, else why it cannot be."""
        if schema is None:
            return "unknown to ONNX and to aicc"
        if schema.deprecated:
            return "removed from ONNX"
        key: FunctionKey = (f"onnx {domain_of(node.domain)}", node.op_type, "")
        if key in scope.calls:
            return "not implemented"
        types = [scope.type_of(i) if i else None for i in inputs]
        if any(i and t is None for i, t in zip(inputs, types)):
            return "" if self._spoilable(scope, node, schema, name) else "not implemented"
        attr.check_kinds(given, schema, {})
        call = onnx.NodeProto()
        call.CopyFrom(node)
        del call.attribute[:]
        call.attribute.extend(given)
        body = schema_body(schema, call, opset, types)
        if body is None:
            return "not implemented"
        bound = bind_attributes(body, [*schema_defaults(schema), *given], strict=False)
        before = set(self.faults.operators)
        self._inline(scope, node, body, inputs, bound, key, name)
        needed = [k for k in self.faults.operators if k not in before]
        for k in needed:
            del self.faults.operators[k]
        return f"not implemented; by its definition it needs {needed[0][0]}" if needed else ""

    def _spoilable(
        self, scope: Scope, node: onnx.NodeProto, schema: onnx.defs.OpSchema, name: str
    ) -> bool:
        """Defines the results of a node with untyped operands that ONNX defines by a function."""
        bodies: Any = schema  # onnx's type stubs leave these out
        if not (bodies.has_function or bodies.has_context_dependent_function):
            return False
        self._spoil(scope, node, name)
        return True

    def _inline(
        self,
        scope: Scope,
        node: onnx.NodeProto,
        function: onnx.FunctionProto,
        inputs: list[str],
        bound: Mapping[str, onnx.AttributeProto],
        key: FunctionKey,
        name: str,
    ) -> None:
        """Imports a function's body in place of a call."""
        if key in scope.calls:
            path = " -> ".join(map(key_name, (*scope.calls[scope.calls.index(key) :], key)))
            raise ModelError(f"node {name!r}: the function is recursive: {path}")
        if scope.depth + 1 > DEPTH_LIMIT:
            raise ModelError(f"subgraphs and functions nested more than {DEPTH_LIMIT} deep")
        if len(inputs) > len(function.input) or len(node.output) > len(function.output):
            has = f"{len(function.input)} inputs and {len(function.output)} outputs"
            raise OperatorError(f"the function {key_name(key)} has only {has}")
        actual = dict(zip(node.output, function.output))
        results = {o: scope.define(o, f"node {name!r}") for o in node.output if o}
        inner = Scope(
            graph=scope.graph,
            all_names=self.names,
            opsets=opsets_of(function.opset_import) or scope.opsets,
            outer=scope.outer,
            names=dict(zip(function.input, [*inputs, *[""] * len(function.input)])),
            given={actual[o]: result for o, result in results.items()},
            bound=bound,
            prefix=f"{name}/",
            calls=(*scope.calls, key),
            depth=scope.depth + 1,
        )
        self._nodes(inner, function.node, f"the function {key_name(key)}")
        for o, result in results.items():
            if not inner.sees(actual[o]):
                raise ModelError(
                    f"nothing defines the output {actual[o]!r} of the function {key_name(key)}"
                )
            value = inner.resolve(actual[o])
            if value and value != result:  # an input passed through, or one output twice
                if scope.type_of(value) is not None:
                    self._emit(scope, registry.get("Identity"), {}, [value], [result], name)
