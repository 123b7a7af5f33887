"""Kernels compiled by several processes at once.

LLVM is entered through one lock per process, and the text it reads is written by Python under
another, so threads do not help. A kernel depends on nothing but its text and its Target; both go
through a pipe to `aicc.codegen.worker`. The calling process compiles too. What no worker answers,
for whatever reason (no process can be started, one dies, a kernel is refused), is compiled in the
calling process, so that results and errors are the same with and without workers.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from aicc.codegen.jit import compile_object
from aicc.codegen.kernel import lower_kernel
from aicc.codegen.target import Target
from aicc.codegen.worker import OBJECT, read_frame, write_frame
from aicc.tensor_ir.ir import For, If, Kernel, Stmt, While
from aicc.tensor_ir.text import print_kernel

KERNELS_PER_WORKER = 6
"""Fewer take less time than starting a process."""

MOST = 7
"""Processes beside this one."""

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from aicc.codegen.worker import main; main()"
)
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Workers:
    """Processes that compile kernels for `target`: none before `start`, none after `close`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answered: list[str] = []
        """The kernels that processes have compiled."""
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int) -> None:
        """Starts up to `count` processes, at most MOST; fewer where the system refuses."""
        for _ in range(min(count, MOST)):
            process = _start(self.target)
            if process is None:
                break
            self._processes.append(process)

    def compile(self, kernels: Mapping[str, Kernel]) -> dict[str, bytes]:
        """The object code of each kernel. Raises CodegenError as the code generator does."""
        return self.begin(kernels)()

    def begin(self, kernels: Mapping[str, Kernel]) -> Callable[[], dict[str, bytes]]:
        """Lets the processes begin; what is returned compiles the rest here and waits for them."""
        # The longest first: what is left at the end is short, so that all finish together.
        jobs = deque(sorted(kernels, key=lambda name: -_effort(kernels[name].body)))
        made: dict[str, bytes] = {}
        wanted = len(jobs) // KERNELS_PER_WORKER
        threads = [
            threading.Thread(target=self._feed, args=(p, jobs, kernels, made), daemon=True)
            for p in self._processes[:wanted]
        ]
        for t in threads:
            t.start()

        def finish() -> dict[str, bytes]:
            while jobs:
                try:
                    name = jobs.popleft()
                except IndexError:  # a process took the last one
                    break
                made[name] = self._compile(kernels[name])
            for t in threads:
                t.join()
            return {n: made[n] if n in made else self._compile(k) for n, k in kernels.items()}

        return finish

    def _compile(self, kernel: Kernel) -> bytes:
        return compile_object(lower_kernel(kernel, self.target), self.target)

    def _feed(
        self,
        process: subprocess.Popen[bytes],
        jobs: deque[str],
        kernels: Mapping[str, Kernel],
        made: dict[str, bytes],
    ) -> None:
        """Hands jobs to a process, one by one, until none is left or the process is gone."""
        assert process.stdin is not None and process.stdout is not None
        try:
            while True:
                name = jobs.popleft()
                write_frame(process.stdin, print_kernel(kernels[name]).encode())
                answer = read_frame(process.stdout)
                if answer[:1] == OBJECT:
                    made[name] = answer[1:]
                    self.answered.append(name)
        except (IndexError, EOFError, OSError, ValueError):
            return

    def close(self) -> None:
        """Ends the processes. Closing twice is allowed."""
        processes, self._processes = self._processes, []
        for p in processes:
            p.kill()
        for p in processes:
            p.wait()
            for stream in (p.stdin, p.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):  # what it still holds has no reader
                        stream.close()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._processes)


def _start(target: Target) -> subprocess.Popen[bytes] | None:
    """A worker, or None where Python cannot be started again as what it is."""
    name = Path(sys.executable or "").name.lower()
    if getattr(sys, "frozen", False) or not ("python" in name or "pypy" in name):
        return None
    here = str(Path(__file__).resolve().parents[2])
    path = json.dumps([here, *(os.path.abspath(p) for p in sys.path)])
    try:
        process = subprocess.Popen(
            # Isolated and without site: the modules are found where this process finds them.
            [sys.executable, "-I", "-S", "-c", _START, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: the first kernel will tell
            write_frame(process.stdin, target.text().encode())
    except (OSError, ValueError):
        return None
    return process


def _effort(body: Sequence[Stmt]) -> int:
    """About how many instructions a body becomes: unrolled loops count as often as they run."""
    total = 0
    for s in body:
        if isinstance(s, For):
            times = s.extent if s.kind == "unroll" and isinstance(s.extent, int) else 1
            total += 1 + times * _effort(s.body)
        elif isinstance(s, While):
            total += 1 + _effort(s.body)
        elif isinstance(s, If):
            total += 1 + _effort(s.then) + _effort(s.orelse)
        else:
            total += 1
    return total
