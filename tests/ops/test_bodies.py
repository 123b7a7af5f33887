import numpy as np
import pytest
from op_cases import bind

from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.passes.bodies import bodies
from aicc.ops import registry

CASES = [(op, case) for op in registry.all_operators() for case in op.cases()]


def lowered(op, case):
    """What a case lowers to, its result types known, and its context."""
    bound = bind(op, case, False)
    ctx = bound.context()
    operands = {f"x{i}": o for i, o in enumerate(bound.operands) if o is not None}
    names = [f"x{i}" if o is not None else "" for i, o in enumerate(bound.operands)]
    results = {f"y{i}": t for i, t in enumerate(ctx.outputs)}
    graph = Graph(
        "g",
        [n for n, o in operands.items() if not o.constant],
        list(results),
        [make_node(op.name, names, list(results), dict(ctx.attrs))],
        {n: o.data for n, o in operands.items() if o.constant},
        {**{n: o.type for n, o in operands.items()}, **results},
    )
    return ctx, list(bodies(graph))


def floats(op):
    """The cases whose first operand is of floats."""
    return [c for o, c in CASES if o.name == op and np.asarray(c.inputs[0]).dtype.kind == "f"]


@pytest.mark.parametrize(
    "op",
    sorted({o.name for o, c in CASES if c.inputs and np.asarray(c.inputs[0]).dtype.kind == "f"}),
)
def test_what_only_moves_gives_elements_of_its_operands(op):
    known = registry.get(op)
    for case in floats(op):
        ctx, made = lowered(known, case)
        if None in made or not all(b.moves for b in made):
            continue
        given = np.concatenate([np.ravel(x) for x in case.inputs if x is not None])
        for y in known.reference(ctx, *case.inputs):
            y = np.asarray(y)
            if y.dtype.kind == "f":
                assert np.isin(y[~np.isnan(y)], [*given, -1, 0, 1]).all()


@pytest.mark.parametrize(
    "op, moves, checks",
    [
        ("Transpose", True, False),
        ("Where", True, False),
        ("Pad", True, False),
        ("Gather", True, True),
        ("Relu", False, False),
        ("Softmax", False, False),
        ("MatMul", False, False),
        ("ReverseSequence", True, True),
    ],
)
def test_what_operators_do_is_read_off_their_loops(op, moves, checks):
    made = [b for o, c in CASES if o.name == op for b in lowered(o, c)[1]]
    assert all(b.moves for b in made) == moves
    assert any(b.checks for b in made) == checks
