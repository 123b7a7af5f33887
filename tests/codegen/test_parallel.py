"""Kernels compiled by several processes: the same code, and what happens when one is lost."""

import io
import subprocess
import sys

import pytest

from aicc.codegen import parallel, worker
from aicc.codegen.frames import read_frame, write_frame
from aicc.codegen.jit import compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.codegen.parallel import LlvmText, Workers
from aicc.errors import CodegenError
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.builder import KernelBuilder
from aicc.tensor_ir.ir import call
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.transfer import from_bytes, to_bytes

HOST = Target.host()


def kernels(count=14):
    made = {}
    for i in range(count):
        b = KernelBuilder(f"k{i}")
        n = sym("n", 1)
        x = b.input("x", "f32", (n, i + 1))
        b.mark_output(b.compute((n, i + 1), lambda *j, x=x: call("exp", x[j]) * 2.5, name="y"))
        made[f"k{i}"] = b.build()
    return made


@pytest.fixture(scope="module")
def expected():
    return {n: compile_object(lower_kernel(k, HOST), HOST) for n, k in kernels().items()}


def test_processes_make_the_same_objects(expected):
    with Workers(HOST) as workers:
        workers.start(2)
        assert len(workers) == 2
        finish = workers.begin(kernels())
        got = finish()
        assert workers.answered
        assert got == expected and list(got) == list(expected)
        assert workers.compile(kernels()) == expected  # processes serve more than once
        processes = list(workers._processes)
    assert all(p.returncode is not None for p in processes)
    workers.close()


def test_without_processes(expected):
    assert Workers(HOST).compile(kernels()) == expected
    assert Workers(HOST).compile({}) == {}


def test_texts_of_llvm():
    text = "define i32 @f() nounwind {\n  ret i32 3\n}\n"
    jobs = {"fast": LlvmText(text, 1), "best": LlvmText(text), **kernels(1)}
    with Workers(HOST) as workers:
        here = workers.compile(jobs)
        workers.start(1)
        assert workers.compile(jobs) == here
        assert sorted(workers.answered) == ["best", "fast", "k0"]
    assert here["fast"] == compile_object(text, HOST, 1)


def test_what_compiles_elsewhere_brings_no_llvm_here():
    code = (
        "import sys; from aicc.codegen.parallel import LlvmText, Workers\n"
        "from aicc.target import Target\n"
        "before = 'llvmlite.binding' in sys.modules\n"
        "with Workers(Target.from_name('native')) as workers:\n"
        "    asked = 'llvmlite.binding' in sys.modules\n"
        "    workers.start(1)\n"
        "    workers.compile({'f': LlvmText('define void @f() nounwind {\\n  ret void\\n}')})\n"
        "    print(before, workers.answered, asked, 'llvmlite.binding' in sys.modules)\n"
    )
    for _ in range(2):  # the second process finds what LLVM said to the first
        made = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert made.stdout.split()[:2] == ["False", "['f']"]
    assert made.stdout.split()[2:] == ["False", "False"]


def test_a_process_that_dies_is_done_without(expected):
    with Workers(HOST) as workers:
        workers.start(1)
        workers._processes[0].kill()
        workers._processes[0].wait()
        assert workers.compile(kernels()) == expected
        assert not workers.answered


@pytest.mark.parametrize("executable", ["", "/no/such/python", sys.executable + "x"])
def test_no_process_can_be_started(executable, monkeypatch, expected):
    monkeypatch.setattr(sys, "executable", executable)
    with Workers(HOST) as workers:
        workers.start(2)
        assert len(workers) == 0
        assert workers.compile(kernels()) == expected


def test_a_frozen_program_is_never_started_again(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with Workers(HOST) as workers:
        workers.start(1)
        assert len(workers) == 0


def test_a_python_that_is_something_else(tmp_path, monkeypatch, expected):
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\necho hello\n")
    other.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(other))
    with Workers(HOST) as workers:
        workers.start(1)
        assert workers.compile(kernels()) == expected


def test_refused_kernels_raise_here(monkeypatch):
    def refuse(*_):
        raise CodegenError("no")

    monkeypatch.setattr(parallel, "lower_kernel", refuse)
    with Workers(HOST) as workers, pytest.raises(CodegenError, match="no"):
        workers.compile(kernels())


def frame(data):
    stream = io.BytesIO()
    write_frame(stream, data)
    return stream.getvalue()


def answers(*frames):
    sink = io.BytesIO()
    worker.serve(io.BytesIO(b"".join(frames)), sink)
    sink.seek(0)
    found = []
    while True:
        try:
            found.append(read_frame(sink))
        except EOFError:
            return found


def test_the_worker_answers_each_frame(expected):
    sent = [frame(b"K" + to_bytes(k)) for k in kernels(2).values()]
    made = answers(frame(HOST.text().encode()), sent[0], frame(b"K[]"), sent[1])
    assert made[0] == b"O" + expected["k0"] and made[2] == b"O" + expected["k1"]
    assert made[1].startswith(b"E") and b"no kernel" in made[1]


def test_processes_schedule_as_this_one_does(caplog):
    wanted = {n: scheduled(k, HOST)[0] for n, k in kernels().items()}
    assert wanted != kernels()
    with Workers(HOST) as workers:
        assert workers.schedule(kernels()) == wanted  # here
        workers.start(2)
        found = workers.schedule(kernels())
        assert found == wanted and list(found) == list(wanted)
        with caplog.at_level("DEBUG", "aicc"):
            assert workers.schedule(kernels(1)) == {"k0": wanted["k0"]}
        workers._processes[0].kill()
        workers._processes[1].kill()
        assert workers.schedule(kernels()) == wanted


def test_the_worker_schedules():
    (kernel,) = kernels(1).values()
    target = frame(HOST.text().encode())
    made = answers(target, frame(b"S" + to_bytes(kernel)), frame(b"Snothing"))
    assert made[0][:1] == b"T" and from_bytes(made[0][1:]) == scheduled(kernel, HOST)[0]
    assert made[1].startswith(b"E")


def test_the_worker_ends_with_its_input():
    assert answers() == []
    assert answers(frame(HOST.text().encode())[:-3]) == []
