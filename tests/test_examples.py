"""The examples run, say what they promise, and what they say is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aicc.target import Target

ROOT = Path(__file__).parent.parent


def run(name: str, *args: str) -> str:
    """What an example prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *args],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_schedule_a_kernel() -> None:
    sizes = ("--rows", "24", "--depth", "32", "--columns", "128", "--seconds", "0.01")
    text = run("schedule_a_kernel.py", *sizes)
    speeds = re.findall(
        r"^([a-z ]+): [\d.]+ ms, ([\d.]+) GFLOP/s, [\d.]+% of the limit", text, re.M
    )
    assert [name for name, _ in speeds] == [
        *("naive", "tiled", "vectorised", "register tile", "packed")
    ]
    assert float(speeds[-1][1]) > 3 * float(speeds[0][1])
    assert all(int(n) > 3 for n in re.findall(r"innermost loop, (\d+) instructions", text))
    if Target.host().arch == "x86_64":
        packed = text[text.rindex("machine code") :]
        assert "mul" in packed or "fma" in packed


@pytest.mark.parametrize("target", ["native", "x86-64", "x86-64-v3", "x86-64-v4", "aarch64"])
def test_read_the_ir(target: str) -> None:
    text = run("read_the_ir.py", "--target", target)
    titles = re.findall(r"^--- \d\. ([\w ]+) -+$", text, re.M)
    assert titles == ["Graph", "Module", "Schedule", "Kernel", "Program", "LLVM", "Machine code"]
    assert re.search(r"call <\d+ x float> @llvm\.fm(a|uladd)\.", text)
    machine_code = text[text.index("Machine code") :]
    assert re.search("fmla" if target == "aarch64" else "mul|fma", machine_code)


def test_file_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("magika", reason="the model of this example is in the package magika")
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from sample_files import write_samples

    truth = {str(path): label for path, label in write_samples(tmp_path).items()}
    found = re.findall(r"^(\S+): (\w+) \(", run("file_types.py", *truth), re.M)
    assert dict(found) == truth
