"""Models compiled for less memory than they take: what they compute, and what is refused."""

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import aicc
from aicc.cli.app import app
from zoo.builder import GraphBuilder


def inverted(g, x, name, channels, filters, wide, stride=1):
    """An inverted bottleneck, with a shortcut where the shapes allow it."""
    y = g.op("Relu", g.conv(x, f"{name}.expand", channels, wide, 1))
    y = g.op("Relu", g.conv(y, f"{name}.depthwise", wide, wide, 3, stride, groups=wide))
    y = g.conv(y, f"{name}.project", wide, filters, 1)
    return g.op("Add", x, y) if stride == 1 and channels == filters else y


def mobile(size=32, batch=1):
    """A small MobileNet: its first layers need most of the memory."""
    g = GraphBuilder("mobile")
    x = g.op("Relu", g.conv(g.input("x", (batch, 3, size, size)), "stem", 3, 8, 3, 2))
    x = inverted(g, x, "a", 8, 8, 24)
    x = inverted(g, x, "b", 8, 12, 24, stride=2)
    x = inverted(g, x, "c", 12, 12, 24)
    x = g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
    g.output(g.gemm(x, "head", 12, 5), "y", (batch, 5))
    return g.build()


def plain(size=32):
    """3x3 convolutions, pooling, channels joined: what Winograd's convolution is chosen for."""
    g = GraphBuilder("plain")
    x = g.op("Relu", g.conv(g.input("x", (1, 3, size, size)), "stem", 3, 16, 3))
    x = g.op("Relu", g.conv(x, "second", 16, 16, 3))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2])
    x = g.op("Concat", g.conv(x, "one", 16, 8, 1), g.conv(x, "three", 16, 8, 3), axis=1)
    x = g.op("Sigmoid", g.conv(x, "last", 16, 4, 3, 2))
    g.output(x, "y", (1, 4, (size // 2 - 1) // 2 + 1, (size // 2 - 1) // 2 + 1))
    return g.build()


def squeezed(size=32):
    """Squeeze and excitation: a mean over all rows between the layers."""
    g = GraphBuilder("squeezed")
    x = g.op("Relu", g.conv(g.input("x", (1, 3, size, size)), "stem", 3, 16, 3))
    x = g.op("Relu", g.conv(x, "depthwise", 16, 16, 3, groups=16))
    s = g.op("Sigmoid", g.conv(g.op("GlobalAveragePool", x), "gate", 16, 16, 1))
    x = g.conv(g.op("Mul", x, s), "project", 16, 8, 1)
    x = inverted(g, x, "a", 8, 8, 48, stride=2)
    g.output(g.op("GlobalAveragePool", x), "y", (1, 8, 1, 1))
    return g.build()


def feed(model, seed=0):
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}


def planned(model, **options):
    """The program, without native code."""
    return aicc.compile(model, stop_after="plan", **options).program


@pytest.mark.parametrize(
    ("model", "share"),
    ((mobile(), 0.4), (mobile(batch=3), 0.5), (plain(), 0.4), (squeezed(), 0.6)),
    ids=("mobile", "samples", "plain", "squeezed"),
)
def test_the_budget_is_met_and_results_stay(model, share):
    whole = aicc.compile(model, threads=1)
    budget = int(share * whole.report().arena)
    small = aicc.compile(model, threads=2, memory_budget=budget)
    assert small.report().arena <= budget
    assert small.report().calls > whole.report().calls
    for seed in range(2):
        (a,), (b,) = whole.run(None, feed(model, seed)), small.run(None, feed(model, seed))
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5 * np.abs(a).max())


def test_a_model_that_fits_is_what_it_is_without_a_budget():
    program = planned(mobile())
    assert planned(mobile(), memory_budget=program.arena) == program


def test_every_pass_keeps_the_meaning_of_patches():
    program = planned(mobile(16), memory_budget="9KiB", check=3)
    assert program.arena <= 9 << 10


def test_a_budget_out_of_reach_tells_the_least_which_can_be_reached():
    model = mobile()
    with pytest.raises(aicc.MemoryBudgetError, match="cannot be met: the least that 'mobile'") as e:
        aicc.compile(model, memory_budget=64)
    assert e.value.budget == 64
    assert planned(model, memory_budget=e.value.least).arena == e.value.least
    with pytest.raises(aicc.MemoryBudgetError):
        aicc.compile(model, memory_budget=e.value.least - 1)


def test_sizes_have_to_be_numbers():
    g = GraphBuilder("open")
    x = g.op("Relu", g.conv(g.input("x", (1, 3, "height", 20)), "a", 3, 8, 3))
    g.output(g.conv(x, "b", 8, 4, 3), "y", (1, 4, "height", 20))
    model = g.build()
    with pytest.raises(aicc.MemoryBudgetError, match=r'pin them: dims={"height": ...}') as e:
        aicc.compile(model, memory_budget="1KiB")
    assert e.value.least is None
    assert planned(model, dims={"height": 20}, memory_budget="12KiB").arena <= 12 << 10


def test_a_budget_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'2 miles' is no amount of memory"):
        aicc.compile(mobile(), memory_budget="2 miles")


def test_a_dumped_text_goes_on_with_its_budget(tmp_path):
    program = planned(mobile(), memory_budget="20KiB", dump=tmp_path)
    for after in ("patches", "fuse"):
        again = aicc.resume(tmp_path, after, memory_budget="20KiB", stop_after="plan")
        assert again.program == program
    with pytest.raises(aicc.MemoryBudgetError, match="the memory budget is 1000 bytes"):
        aicc.resume(tmp_path, "schedule", memory_budget=1000)


def test_the_command_line_takes_a_budget(tmp_path):
    path = tmp_path / "mobile.onnx"
    onnx.save(mobile(), path)
    made = CliRunner().invoke(
        app, ["compile", str(path), "--memory-budget", "40KiB", "--stop-after", "plan"]
    )
    assert made.exit_code == 0 and "aicc::Part" not in made.stdout and "copy" in made.stdout
    refused = CliRunner().invoke(app, ["compile", str(path), "--memory-budget", "10"])
    assert refused.exit_code == 1 and "cannot be met" in refused.stderr
    wrong = CliRunner().invoke(app, ["compile", str(path), "--memory-budget", "some"])
    assert wrong.exit_code == 2 and "is no amount of memory" in wrong.stderr
