"""Processes that run Python code with the modules of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_PATH = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def start(code: str) -> subprocess.Popen[bytes] | None:
    """Python with `code`, its input and output in pipes, or None where Python cannot be started
    again as what it is: in a program that brings its own."""
    name = Path(sys.executable or "").name.lower()
    if getattr(sys, "frozen", False) or not ("python" in name or "pypy" in name):
        return None
    here = str(Path(__file__).resolve().parents[1])
    path = json.dumps([here, *(os.path.abspath(p) for p in sys.path)])
    try:
        return subprocess.Popen(
            # Isolated and without site: the modules are found where this process finds them.
            [sys.executable, "-I", "-S", "-c", _PATH + code, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
    except (OSError, ValueError):
        return None
