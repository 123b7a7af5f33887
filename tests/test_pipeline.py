"""The pipeline from outside: options, stages, checks, dumps, going on from a dump."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
from small_models import MODELS, feeds, with_host_operators

import aicc
from aicc import driver, errors
from aicc.codegen.parallel import Workers
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.module import Module
from aicc.pipeline import passes
from aicc.planned import Planned
from aicc.target import Target

PASSES = passes(Target.host())
NAMES = [f"{n:02}_{p.name}" for n, p in enumerate(PASSES, start=1)]


@pytest.fixture(autouse=True)
def hosts_may_run(recwarn):
    warnings.simplefilter("ignore", aicc.AiccWarning)


def compiled(name, **options):
    return aicc.compile(MODELS[name](), **{"threads": 1, **options})


def results(model, name):
    return [out for feed in feeds(name) for out in model.run(None, feed)]


def same(a, b):
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.shape == y.shape and x.tolist() == y.tolist()
        for x, y in zip(a, b, strict=True)
    )


# --- the package ------------------------------------------------------------------------------


def test_importing_the_package_is_quick():
    code = (
        "import sys, aicc; aicc.CompiledModel, aicc.ModelError; "
        "print([m for m in ('onnx', 'llvmlite', 'networkx') if m in sys.modules]); "
        "aicc.compile; print('onnx' in sys.modules)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.split("\n")[:2] == ["[]", "True"]


def test_public_names():
    for name in aicc.__all__:
        assert getattr(aicc, name) is not None
    assert set(aicc.__all__) <= set(dir(aicc))
    types = [n for n, x in vars(errors).items() if isinstance(x, type)]
    assert set(types) <= set(aicc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = aicc.nothing


# --- stages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("after", NAMES)
def test_every_stage_can_be_the_last(after):
    made = compiled("convnet", stop_after=after)
    number = int(after[:2])
    first_module = next(n for n, p in enumerate(PASSES, 1) if p.name == "fuse")
    kind = Graph if number < first_module else Module if number < len(PASSES) else Planned
    assert type(made) is kind


def test_the_first_of_several_passes_of_a_name():
    assert compiled("mlp", stop_after="simplify") == compiled("mlp", stop_after=NAMES[1])


def test_an_unknown_stage():
    with pytest.raises(aicc.AiccError, match=r"no pass 'polish'.*01_fold.*_plan"):
        compiled("mlp", stop_after="polish")


def test_stages_are_told(tmp_path):
    told = []
    model = compiled("mlp", progress=lambda stage, seconds: told.append(stage))
    assert told[0] == "import" and told[-1] == "link"
    assert [p.name for p in PASSES] == told[1 : 1 + len(PASSES)]
    assert set(model.report().seconds) == set(told)


# --- options ----------------------------------------------------------------------------------


def test_dims_become_numbers():
    model = compiled("transformer", dims={"batch": 2, "seq": 7})
    assert model.inputs[0].shape == (2, 7)
    feed = feeds("transformer")[1]
    np.testing.assert_allclose(model(**feed), compiled("transformer")(**feed), 1e-4, 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is a whole number from 1, not 0"),
        ({"threads": -1}, "threads is a whole number from 1, not -1"),
        ({"threads": 1.5}, "threads is a whole number from 1, not 1.5"),
        ({"threads": "2"}, "threads is a whole number from 1, not '2'"),
        ({"check": 4}, "check is 0, 1, 2 or 3, not 4"),
        ({"check": "2"}, "check is 0, 1, 2 or 3, not '2'"),
        ({"dims": ["batch"]}, "dims maps names of sizes to numbers; this is a list"),
        ({"memory_budget": 1.5}, "1.5 is no amount of memory"),
    ],
)
def test_options_that_are_none(options, message):
    with pytest.raises(aicc.InputError, match=re.escape(message)):
        compiled("mlp", **options)


def test_threads_may_be_a_numpy_integer():
    assert compiled("mlp", threads=np.int64(2)).executable.threads == 2


def test_a_model_shows_itself_in_one_line():
    shown = repr(compiled("mlp"))
    assert re.fullmatch(r"<CompiledModel \S+: .*float32\[.*\] -> .*float32\[.*\]>", shown)


def test_an_unknown_target():
    with pytest.raises(aicc.TargetError, match="unknown target 'abacus'"):
        compiled("mlp", target="abacus")


def test_a_target_that_this_machine_cannot_run():
    other = "aarch64" if Target.host().arch == "x86_64" else "x86-64"
    assert isinstance(compiled("mlp", target=other, stop_after="plan"), Planned)
    with pytest.raises(aicc.TargetError, match="cannot run on this machine"):
        compiled("mlp", target=other)


def test_the_environment_gives_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("AICC_TARGET", "x86-64" if Target.host().arch == "x86_64" else "aarch64")
    monkeypatch.setenv("AICC_DUMP", str(tmp_path))
    monkeypatch.setenv("AICC_THREADS", "2")
    report = aicc.compile(MODELS["mlp"]()).report()
    assert report.threads == 2 and report.target != "native"
    assert (tmp_path / "00_graph.txt").exists()
    monkeypatch.setenv("AICC_TARGET", "abacus")
    with pytest.raises(aicc.TargetError):
        compiled("mlp")
    compiled("mlp", target="native")


def test_other_processes_change_nothing(monkeypatch):
    counts = []
    monkeypatch.setattr(driver, "MANY_NODES", 1)
    monkeypatch.setattr(Workers, "start", lambda self, count: counts.append(count))
    monkeypatch.setenv("AICC_JOBS", "3")
    first = results(compiled("convnet"), "convnet")
    assert counts == [3]
    compiled("convnet", stop_after="plan")
    assert counts == [3]
    monkeypatch.setenv("AICC_JOBS", "1")  # this process is one
    compiled("convnet")
    assert counts == [3, 0]
    monkeypatch.setattr(driver, "MUCH_WEIGHT", 1)  # but not beside so much
    compiled("convnet")
    assert counts == [3, 0, 1]
    monkeypatch.undo()
    monkeypatch.setattr(driver, "MANY_NODES", 1)
    monkeypatch.setenv("AICC_JOBS", "2")
    assert same(results(compiled("convnet"), "convnet"), first)


# --- checks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_every_pass_keeps_the_meaning(name):
    """AICC_CHECK=3 of every level: verified, read back from text, and evaluated."""
    assert results(compiled(name, check=3), name)


# --- dumps ------------------------------------------------------------------------------------


def test_the_files_of_a_dump(tmp_path):
    (tmp_path / "07_old.txt").write_text("of another model")
    (tmp_path / "notes.txt").write_text("mine")
    compiled("convnet", dump=tmp_path)
    texts = sorted(p.stem for p in tmp_path.glob("*_*.txt"))
    assert texts == ["00_graph", *NAMES]
    assert (tmp_path / "notes.txt").exists()
    assert re.search(r"^program @convnet$", (tmp_path / f"{NAMES[-1]}.txt").read_text(), re.M)
    # A constant is written where it is new: most passes have none.
    assert len(list(tmp_path.glob("*.npz"))) < len(texts) / 2


@pytest.mark.parametrize("name", MODELS)
def test_going_on_from_every_text(name, tmp_path, monkeypatch):
    """A resumed model is the same model, bit for bit. Equal kernels are compiled once."""
    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("AICC_CACHE", "64")
    expected = results(compiled(name, dump=tmp_path), name)
    program = (tmp_path / f"{NAMES[-1]}.txt").read_text()
    for after in ["graph", *NAMES]:
        model = aicc.resume(tmp_path, after, threads=1)
        assert same(results(model, name), expected), after
        assert str(model.program) in program


def test_going_on_with_a_dump(tmp_path):
    compiled("mlp", dump=tmp_path / "a")
    aicc.resume(tmp_path / "a", "fuse", dump=tmp_path / "b", threads=1)
    first = next(n for n in NAMES if n.endswith("fuse"))
    assert sorted(p.stem for p in (tmp_path / "b").glob("*.txt")) == [
        n for n in NAMES if n >= first
    ]
    for path in (tmp_path / "b").glob("*.txt"):
        assert path.read_text() == (tmp_path / "a" / path.name).read_text()
    again = aicc.resume(tmp_path / "b", "plan", threads=1)
    assert same(results(again, "mlp"), results(compiled("mlp"), "mlp"))


def test_an_edited_text(tmp_path):
    compiled("mlp", dump=tmp_path)
    name = next(n for n in NAMES if n.endswith("decompose"))
    path = tmp_path / f"{name}.txt"
    path.write_text(path.read_text().replace("Relu(", "Tanh("))
    edited = aicc.resume(tmp_path, "decompose", threads=1)
    assert not same(results(edited, "mlp"), results(compiled("mlp"), "mlp"))


def test_what_cannot_be_resumed(tmp_path):
    with pytest.raises(aicc.AiccError, match="cannot read"):
        aicc.resume(tmp_path / "nowhere", "fuse")
    compiled("mlp", dump=tmp_path, stop_after="fold")
    with pytest.raises(aicc.AiccError, match=r"no text after pass \d+; it has: 00_graph, 01_fold"):
        aicc.resume(tmp_path, "fuse")
    with pytest.raises(aicc.AiccError, match="no pass 'polish'"):
        aicc.resume(tmp_path, "polish")
    compiled("mlp", dump=tmp_path, stop_after="simplify")
    with pytest.raises(aicc.AiccError, match="'fold' does not come after 'simplify'"):
        aicc.resume(tmp_path, "simplify", stop_after="fold")


def test_faults_of_texts_and_constants_name_the_file(tmp_path):
    compiled("mlp", dump=tmp_path, stop_after="fold")
    path = tmp_path / "01_fold.txt"
    text = path.read_text()
    path.write_text(text.replace("Gemm(", "Gemm(("))
    with pytest.raises(aicc.IRError, match=r"01_fold\.txt.*line \d+"):
        aicc.resume(tmp_path, "fold")
    path.write_text(re.sub("sha=....", "sha=0000", text))
    with pytest.raises(aicc.IRError, match="another hash"):
        aicc.resume(tmp_path, "fold")
    path.write_text(text)
    (tmp_path / "00_graph.npz").write_bytes(b"PK not an archive")
    with pytest.raises(aicc.IRError, match=r"00_graph\.npz"):
        aicc.resume(tmp_path, "fold")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(aicc.AiccError, match="cannot dump to"):
        compiled("mlp", dump=tmp_path / "file")


def test_the_warning_of_host_operators_names_who_compiles():
    with pytest.warns(aicc.AiccWarning, match="run in Python") as caught:
        aicc.compile(with_host_operators(), threads=1).close()
    assert caught[0].filename == __file__
