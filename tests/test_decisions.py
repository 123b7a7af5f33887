"""What compiling weighed, and what the report tells of it."""

from __future__ import annotations

import aicc
from aicc.decisions import Decision, collect, note, summary
from zoo.builder import GraphBuilder

TAKEN = Decision("fusion", "A | B", True, 2e-6, 3e-6, ("a", "b"))


def test_what_is_noted_reaches_the_collector() -> None:
    note(TAKEN)  # nobody listens
    with collect() as outer:
        with collect() as inner:
            note(TAKEN)
        note(TAKEN)
    assert inner == [TAKEN]
    assert outer == [TAKEN]


def test_equal_decisions_share_a_line() -> None:
    again = [Decision("fusion", "A | B", True, 2e-6, 3e-6, (f"c{n}",)) for n in range(4)]
    refused = Decision("fusion", "A | C", False, float("inf"), 9e-6, ("d",))
    large = Decision("winograd", "tiles of 4", False, 8e-6, 1e-6)
    assert summary([refused, TAKEN, *again, large]) == (
        "winograd refused: tiles of 4: 8.0 us, else 1.0 us ()",
        "fusion taken 5 times: A | B: 2.0 us, else 3.0 us (a, c0, c1, ..)",
        "fusion refused: A | C: no schedule fits it (d)",
    )


def attention(rows: int) -> aicc.CompiledModel:
    g = GraphBuilder("attention")
    q, k, v = (g.input(n, (1, 8, rows if n == "q" else 40, 16)) for n in "qkv")
    g.output(g.attention(q, g.op("Transpose", k, perm=[0, 1, 3, 2]), v, 16), "y", (1, 8, rows, 16))
    return aicc.compile(g.build(), threads=1)


def test_the_report_tells_why_kernels_were_fused() -> None:
    """Attention is one kernel, but for a single query row: no block of rows."""
    many, one = attention(40), attention(1)
    assert many.report().calls == 1
    assert one.report().calls > 1
    told = str(many.report(verbose=True))
    assert "fusion taken" in told
    assert "MatMul" in told
    assert "fusion" not in str(many.report())
    assert list(many.report().decisions) == many.report().as_dict()["decisions"]
    assert any("refused" in d and "no schedule" in d for d in one.report().decisions)


def test_decisions_are_saved_with_the_model(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = attention(40)
    model.save(tmp_path / "m.aicc")
    assert aicc.load(tmp_path / "m.aicc").report().decisions == model.report().decisions
