"""What is told about a model's memory, and how it is drawn."""

import builtins
import re

import onnx
import pytest

import aicc
from aicc.errors import InputError, MissingPackageError
from aicc.memory.placement import Buffer, check_placement
from aicc.runtime.memory_map import MemoryMap, Tensor, exactly, readable
from zoo.builder import GraphBuilder


def model(rows=4) -> onnx.ModelProto:
    """Two wide branches over one value: 1, 2 and 4 units of memory."""
    g = GraphBuilder("branches")
    x = g.input("x", (rows, 64))
    x = g.op("Softmax", g.gemm(x, "stem", 64, 256), axis=-1)
    left = g.op("Softmax", g.gemm(x, "left", 256, 512), axis=-1)
    right = g.op("Softmax", g.gemm(x, "right", 256, 1024), axis=-1)
    g.output(g.gemm(left, "a", 512, 8), "y", (rows, 8))
    g.output(g.gemm(right, "b", 1024, 8), "z", (rows, 8))
    return g.build()


@pytest.fixture(scope="module")
def compiled():
    return aicc.compile(model(), threads=1)


def test_the_figures_are_those_of_the_program(compiled):
    m, program = compiled.memory(), compiled.program
    assert (m.arena, m.live_peak, m.bound) == (program.arena, program.least, program.bound)
    assert m.bound is not None and m.bound <= m.live_peak <= m.arena and m.arena > 0
    check_placement(
        [Buffer(t.bytes, t.first, t.last) for t in m.tensors],
        [t.offset for t in m.tensors],
        m.arena,
    )
    assert m.live[m.peak_step] == max(m.live) == sum(t.bytes for t in m.at_peak)
    assert len(m.steps) == len(program.steps)
    assert {t.name for t in m.tensors} == {b.name for b in program.buffers if b.space == "arena"}


def test_tensors_at_the_peak_have_the_names_of_their_onnx_nodes(compiled):
    m = compiled.memory()
    names = {n.name for n in model().graph.node}
    assert m.at_peak and all(t.nodes and set(t.nodes) <= names for t in m.at_peak)
    sizes = [t.bytes for t in m.at_peak]
    assert sizes == sorted(sizes, reverse=True)
    text = str(compiled.report())
    assert repr(m.at_peak[0].nodes[0]) in text and "bound for any order" in text
    told = compiled.report().as_dict()["memory"]
    assert told["at_peak"][0]["nodes"] == list(m.at_peak[0].nodes) and "tensors" not in told


def test_open_sizes_are_those_that_are_asked_for():
    made = aicc.compile(model("rows"), threads=1)
    assert made.memory() is None and made.report().memory is None
    assert "report(sizes)" in str(made.report())
    small, large = made.memory({"x": (4, 64)}), made.memory({"x": (40, 64)})
    assert small.sizes == {"rows": 4} and large.live_peak > small.live_peak
    for m in (small, large):
        assert m.bound is None and not m.proven and "not known" in str(m)
        check_placement(
            [Buffer(t.bytes, t.first, t.last) for t in m.tensors],
            [t.offset for t in m.tensors],
            m.arena,
        )
    assert made.report({"x": (4, 64)}).memory == small
    with pytest.raises(InputError, match="memory: no shape for the inputs x"):
        made.memory({})


def test_a_saved_model_tells_the_same(compiled, tmp_path):
    compiled.save(tmp_path / "m.aicc")
    assert aicc.load(tmp_path / "m.aicc").memory() == compiled.memory()


def map_of(tensors, arena, bound, steps=3) -> MemoryMap:
    return MemoryMap("m", tuple(tensors), arena, bound, (("@k_0", ("n",)),) * steps)


def test_what_is_proven():
    tensors = [
        Tensor("a", 64, 0, 0, 1, ("n",), ("a",)),
        Tensor("b", 128, 64, 1, 2, ("n",), ("b", "c")),
    ]
    best = map_of(tensors, 192, 192)
    assert best.proven and best.order_proven and best.placement_proven
    assert "proven the smallest" in best.verdict() and best.peak_step == 1
    assert best.live == (64, 192, 128) and [t.name for t in best.at_peak] == ["b", "a"]
    assert "b = c" in str(best)
    holes = map_of(tensors, 256, 192)
    assert not holes.placement_proven and holes.order_proven and not holes.proven
    assert "133.33 % of the live peak; no order has a lower" in holes.verdict()
    worse = map_of(tensors, 192, 128)
    assert worse.placement_proven and not worse.order_proven and not worse.proven
    assert "150.00 % of the bound for any order" in worse.verdict()
    unknown = map_of(tensors, 192, None)
    assert "smallest arena for this order" in unknown.verdict()
    assert "133.33 %" in map_of(tensors, 256, None).verdict()
    assert "and 1 more, 64 B" in best.text(1)


def test_of_many_nodes_the_first_and_the_last_are_named():
    t = Tensor("t", 64, 0, 0, 0, tuple("abcdef"), ("t",))
    assert "from 'a', 'b', ... 'f' (6 nodes)" in str(map_of([t], 64, 64, steps=1))
    t = Tensor("t", 64, 0, 0, 0, tuple("abc"), ("t",))
    assert "from 'a', 'b', 'c'\n" in str(map_of([t], 64, 64, steps=1)) + "\n"


def test_a_model_without_an_arena():
    empty = map_of([], 0, 0, steps=1)
    assert empty.proven and empty.at_peak == () and empty.live == (0,)
    assert map_of([], 0, 0, steps=0).peak_step == -1 and "arena" in str(map_of([], 0, 0, 0))


def test_bytes_for_people():
    assert [readable(n) for n in (0, 1023, 2048, 3 << 20, 5 << 30)] == [
        "0 B", "1023 B", "2.0 KiB", "3.000 MiB", "5.000 GiB",
    ]  # fmt: skip
    assert exactly(4616192) == "4.402 MiB (4,616,192 B)"


# --- drawings ---------------------------------------------------------------------------------


def test_a_drawing_has_a_rectangle_for_each_tensor_and_the_bounds(compiled):
    pytest.importorskip("matplotlib")
    from matplotlib.collections import PolyCollection

    from aicc.viz import memory_figure

    m = compiled.memory()
    axes = memory_figure(m).axes[0]
    (boxes,) = (c for c in axes.collections if isinstance(c, PolyCollection))
    drawn = [p.get_extents().extents.tolist() for p in boxes.get_paths()]
    mib = 1 << 20
    expected = [
        [t.first, t.offset / mib, t.last + 1, (t.offset + t.bytes) / mib] for t in m.tensors
    ]
    assert drawn == expected
    labels = [line.get_label() for line in axes.lines]
    assert any("bound for any order" in label for label in labels)
    levels = {line.get_ydata()[0] for line in axes.lines}
    assert levels == {n / mib for n in (m.arena, m.live_peak, m.bound)}
    assert any(t.get_text().startswith(m.at_peak[0].name) for t in axes.texts)


def test_labels_fit_their_rectangles():
    pytest.importorskip("matplotlib")
    from aicc.viz import memory_figure

    tensors = [Tensor(f"a_tensor_{n}", (64 << n) * 16, 0, n, n) for n in range(12)]
    tensors.append(Tensor("$x_1$", 1 << 19, 0, 12, 15))  # no formula
    figure = memory_figure(map_of(tensors, 1 << 20, 1 << 20, steps=16))
    axes = figure.axes[0]
    figure.canvas.draw()
    assert 0 < len(axes.texts) < len(tensors)
    for text in axes.texts:
        (t,) = (t for t in tensors if text.get_text().split()[0] == t.name)
        box = axes.transData.transform(
            [(t.first, t.offset / (1 << 20)), (t.last + 1, (t.offset + t.bytes) / (1 << 20))]
        )
        extent = text.get_window_extent()
        assert extent.width <= box[1][0] - box[0][0] and extent.height <= box[1][1] - box[0][1]


def test_files(compiled, tmp_path):
    pytest.importorskip("matplotlib")
    from aicc.viz import plot_memory

    plot_memory(compiled.memory(), tmp_path / "m.svg")
    assert re.search(r"<svg\b", (tmp_path / "m.svg").read_text())
    plot_memory(compiled.memory(), tmp_path / "m.PNG")
    assert (tmp_path / "m.PNG").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="a drawing ends with one of"):
        plot_memory(compiled.memory(), tmp_path / "m.onnx")


def test_without_matplotlib_the_extra_is_named(compiled, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.split(".")[0] == "matplotlib":
            raise ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    from aicc.viz import memory_figure

    with pytest.raises(MissingPackageError, match=r"need matplotlib; pip install 'aicc\[viz\]'"):
        memory_figure(compiled.memory())
