"""Whole compiled models that are kept between processes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
import small_models
from onnx import numpy_helper

import aicc
from aicc import driver, model_cache
from aicc.frontend import load_model
from aicc.model_cache import Entry, ModelCache
from aicc.target import Target

MIB = 1 << 20
HOST = Target.host()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("AICC_CACHE", "800")
    return tmp_path / "models"


@pytest.fixture
def passes_run(monkeypatch):
    """How often the passes ran."""
    runs: list[int] = []
    real = driver.run_passes

    def counted(*args, **more):
        runs.append(1)
        return real(*args, **more)

    monkeypatch.setattr(driver, "run_passes", counted)
    return runs


def entries(folder):
    return sorted(p for p in folder.iterdir() if p.name != "written") if folder.exists() else []


def results(model: onnx.ModelProto, **options) -> list[bytes]:
    (feed,) = small_models.feeds("convnet")[:1]
    return [a.tobytes() for a in aicc.compile(model, **options).run(None, feed)]


def test_the_second_time_no_pass_runs(folder, passes_run):
    expected = results(small_models.convnet(), threads=1)
    assert len(entries(folder)) == 1 and len(passes_run) == 1
    stages = []
    again = results(small_models.convnet(), threads=2, progress=lambda n, s: stages.append(n))
    assert again == expected and len(passes_run) == 1
    assert stages == ["import", "load"]


def test_another_process_finds_it(folder):
    results(small_models.convnet())
    path = folder.parent / "m.onnx"
    onnx.save(small_models.convnet(), path)
    code = (
        "import sys, aicc; m = aicc.compile(sys.argv[1]); print(list(m.report().seconds));"
        "print('aicc.codegen.kernel' in sys.modules)"
    )
    made = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert made.stdout.splitlines()[0] == "['import', 'load']"


def test_whatever_differs_is_another_model(folder, passes_run, monkeypatch):
    results(small_models.convnet())
    other = small_models.convnet()
    weights = numpy_helper.to_array(other.graph.initializer[0]).copy()
    weights.reshape(-1)[-1] += 1
    other.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(weights, other.graph.initializer[0].name)
    )
    assert results(other) != results(small_models.convnet())
    assert len(passes_run) == 2
    results(small_models.convnet(), target="x86-64-v3" if HOST.arch == "x86_64" else HOST)
    monkeypatch.setenv("AICC_WINOGRAD", "0")
    results(small_models.convnet())
    monkeypatch.setattr(model_cache, "compiler_identity", lambda sources: "changed")
    results(small_models.convnet())
    assert len(passes_run) == 5 - (HOST.arch != "x86_64")


@pytest.mark.parametrize("part", ["manifest", "code", "weights", "end"])
def test_damage_is_compiled_anew(folder, passes_run, part):
    expected = results(small_models.convnet())
    (path,) = entries(folder)
    whole = bytearray(path.read_bytes())
    place = {"manifest": 100, "code": whole.find(b"aicc_run"), "weights": -1, "end": -1}[part]
    whole[place] ^= 255
    path.write_bytes(whole if part != "end" else whole[:place])
    assert results(small_models.convnet()) == expected and len(passes_run) == 2
    assert results(small_models.convnet()) == expected and len(passes_run) == 2


def test_who_looks_at_passes_gets_them(folder, passes_run, tmp_path):
    results(small_models.convnet())
    aicc.compile(small_models.convnet(), stop_after="fuse")
    aicc.compile(small_models.convnet(), dump=tmp_path / "dump")
    aicc.compile(small_models.convnet(), check=2)
    assert len(passes_run) == 4


def test_what_python_computes_is_not_kept(folder, passes_run):
    for _ in range(2):
        with pytest.warns(aicc.AiccWarning):
            aicc.compile(small_models.with_host_operators())
    assert len(passes_run) == 2 and not entries(folder)


def test_it_can_be_switched_off(folder, passes_run, monkeypatch):
    monkeypatch.setenv("AICC_CACHE", "0")
    results(small_models.convnet())
    results(small_models.convnet())
    assert len(passes_run) == 2 and not folder.exists()


def test_large_models_are_not_kept_and_the_oldest_go(tmp_path):
    graph = load_model(small_models.convnet(), None)
    assert ModelCache(tmp_path / "m", 16).find(graph, HOST, 1) is None
    cache = ModelCache(tmp_path / "m", 8 * MIB)
    entry = cache.find(graph, HOST, 1)
    assert isinstance(entry, Entry)
    model = aicc.compile(small_models.convnet())
    size = 0
    for n in range(40):
        text = Entry(f"{n:064}", entry.weights)
        cache.put(text, model)
        size = max(size, sum(p.stat().st_size for p in entries(cache.folder)))
    assert size <= 8 * MIB
    assert isinstance(cache.find(graph, HOST, 1), Entry)
    cache.put(entry, model)
    found = cache.find(graph, HOST, 1)
    (feed,) = small_models.feeds("convnet")[:1]
    assert isinstance(found, aicc.CompiledModel)
    for a, b in zip(found.run(None, feed), model.run(None, feed)):
        np.testing.assert_array_equal(a, b)


def test_a_folder_that_cannot_be_used_is_no_error(folder, passes_run):
    folder.write_text("a file")
    assert results(small_models.convnet()) == results(small_models.convnet())
    assert len(passes_run) == 2
