"""What LLVM says of this machine: asked once, kept, asked again where that is of no use."""

import json
import subprocess
import sys

import pytest

from aicc import child
from aicc import host as host_module
from aicc.host import answer_of_llvm, ask_llvm, host, processor

CPU = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 26
model\t\t: 2
model name\t: a fast one
stepping\t: 1
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse2 avx2{more}

processor\t: 1
flags\t\t: none
"""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """How often LLVM was asked; nothing is remembered before or after."""
    calls = []

    def counted():
        calls.append(1)
        return ask_llvm()

    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(host_module, "ask_llvm", counted)
    monkeypatch.setattr(host_module, "processor", lambda: "flags: a b")
    host.cache_clear()
    yield calls
    host.cache_clear()


def again():
    host.cache_clear()
    return host()


def test_it_is_asked_once(asked, monkeypatch):
    expected = ask_llvm()
    assert [again() for _ in range(3)] == [expected] * 3
    assert len(asked) == 1
    monkeypatch.setattr(host_module, "processor", lambda: "flags: a b c")
    assert again() == expected and len(asked) == 2
    monkeypatch.setattr(host_module, "llvm_identity", lambda: "another")
    assert again() == expected and len(asked) == 3


def test_another_process_asks(monkeypatch):
    expected = answer_of_llvm()

    def never():
        raise AssertionError("this process asks")

    monkeypatch.setattr(host_module, "answer_of_llvm", never)
    assert ask_llvm() == expected


@pytest.mark.parametrize("code", [None, "", "print('{}')", "import no_such_module"])
def test_this_process_asks_where_no_other_answers(code, monkeypatch):
    start = child.start
    monkeypatch.setattr(child, "start", lambda _: None if code is None else start(code))
    assert ask_llvm() == answer_of_llvm()


def test_asking_brings_no_llvm_into_the_process():
    code = "import sys, aicc.host as h; h.ask_llvm(); print('llvmlite.binding' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"


def test_no_process_of_a_program_that_brings_its_own_python(monkeypatch):
    monkeypatch.setattr(child.sys, "frozen", True, raising=False)
    assert child.start("pass") is None
    monkeypatch.delattr(child.sys, "frozen")
    for program in ("", "/usr/bin/editor", None):
        monkeypatch.setattr(child.sys, "executable", program)
        assert child.start("pass") is None
    monkeypatch.setattr(child.sys, "executable", "/nowhere/python")
    assert child.start("pass") is None


def test_of_an_unknown_processor_nothing_is_kept(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(host_module, "processor", lambda: "")
    again()
    again()
    assert len(asked) == 2 and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", json.dumps({"triple": 1, "cpu": "c", "features": []}), "\udcff"]
)
def test_damage(asked, tmp_path, text):
    expected = again()
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert again() == expected and len(asked) == 2
    assert again() == expected and len(asked) == 2  # it is whole again


def test_a_folder_that_cannot_be_written_to(asked, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert again() == again() and len(asked) == 2


def test_nobodys_home(asked, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(host_module.config, "cache_folder", nowhere)
    assert again() == ask_llvm() and asked


def test_what_tells_processors_apart(monkeypatch, tmp_path):
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(host_module, "CPUINFO", path)
    monkeypatch.setattr(host_module.sys, "platform", "linux")

    def told(text):
        path.write_text(text)
        return processor()

    first = told(CPU.format(mhz=3000, more=""))
    assert first.splitlines() == [
        "vendor_id: AuthenticAMD",
        "cpu family: 26",
        "model: 2",
        "stepping: 1",
        "flags: fpu sse2 avx2",
    ]
    assert told(CPU.format(mhz=1200, more="")) == first
    assert told(CPU.format(mhz=3000, more=" avx512f")) != first
    assert told("vendor_id : who knows\n") == ""  # nothing on instructions
    path.unlink()
    assert processor() == ""
    monkeypatch.setattr(host_module.sys, "platform", "darwin")
    assert processor() == ""
