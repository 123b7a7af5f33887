"""Kernels scheduled and compiled by several processes at once.

LLVM is entered through one lock per process, and the text it reads is written by Python under
another, so threads do not help. A kernel depends on nothing but its text and its Target; both go
through a pipe to `aicc.codegen.worker`. The calling process, which holds the weights, waits: LLVM
would take a hundred megabytes of its memory. What no worker answers, for whatever reason (no
process can be started, one dies, a kernel is refused), is done in the calling process, so that
results and errors are the same with and without workers.
"""

from __future__ import annotations

import contextlib
import logging
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from aicc.child import start
from aicc.codegen.frames import (
    KERNEL,
    LLVM,
    OBJECT,
    SCHEDULE,
    SCHEDULED,
    read_frame,
    write_frame,
)
from aicc.codegen.kernel import lower_kernel
from aicc.target import Target
from aicc.tensor_ir.ir import For, If, Kernel, Stmt, While
from aicc.tensor_ir.recipes import scheduled
from aicc.tensor_ir.transfer import from_bytes, to_bytes

log = logging.getLogger("aicc")

MOST = 8
"""Processes beside this one."""

_WORK = "from aicc.codegen.worker import main; main()"


@dataclass(frozen=True)
class LlvmText:
    """A module as LLVM text. opt: the level that LLVM optimises it with."""

    text: str
    opt: int = 3


Job = Kernel | LlvmText


class Workers:
    """Processes that compile for `target`: none before `start`, none after `close`."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answered: list[str] = []
        """What processes have compiled."""
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, count: int) -> None:
        """Starts up to `count` processes, at most MOST; fewer where the system refuses."""
        for _ in range(min(count, MOST)):
            process = _start(self.target)
            if process is None:
                break
            self._processes.append(process)

    def compile(self, jobs: Mapping[str, Job]) -> dict[str, bytes]:
        """The object code of each job. Raises CodegenError as the code generator does."""
        return self.begin(jobs)()

    def begin(self, jobs: Mapping[str, Job]) -> Callable[[], dict[str, bytes]]:
        """Lets the processes begin; what is returned waits for them and compiles the rest here."""
        # The longest first: what is left at the end is short, so that all finish together.
        names = sorted(jobs, key=lambda name: -_effort(jobs[name]))
        made: dict[str, bytes] = {}

        def kept(name: str, answer: bytes) -> None:
            made[name] = answer
            self.answered.append(name)

        wait = self._ask(names, lambda name: _frame(jobs[name]), OBJECT, kept)

        def finish() -> dict[str, bytes]:
            wait()
            return {n: made[n] if n in made else self._compile(job) for n, job in jobs.items()}

        return finish

    def schedule(self, kernels: Mapping[str, Kernel]) -> dict[str, Kernel]:
        """Each kernel as `aicc.tensor_ir.recipes` schedules it for the target."""
        made: dict[str, Kernel] = {}

        def kept(name: str, answer: bytes) -> None:
            made[name] = from_bytes(answer)

        # What recipes say of their choices, the log of this process is to show.
        if self._processes and not log.isEnabledFor(logging.DEBUG):
            asked = {n: SCHEDULE + to_bytes(kernel) for n, kernel in kernels.items()}
            names = sorted(asked, key=lambda n: -len(asked[n]))  # the longest first, as above
            self._ask(names, asked.__getitem__, SCHEDULED, kept)()
        return {
            n: made[n] if n in made else scheduled(kernel, self.target)[0]
            for n, kernel in kernels.items()
        }

    def _ask(
        self,
        names: Sequence[str],
        request: Callable[[str], bytes],
        kind: bytes,
        kept: Callable[[str, bytes], None],
    ) -> Callable[[], None]:
        """Has the processes answer a request for each name, in about this order. kept: is told of
        answers of the right kind. What is returned waits for them."""
        left = deque(names)
        threads = [
            threading.Thread(target=_feed, args=(p, left, request, kind, kept), daemon=True)
            for p in self._processes[: len(names)]
        ]
        for t in threads:
            t.start()

        def wait() -> None:
            for t in threads:
                t.join()

        return wait

    def _compile(self, job: Job) -> bytes:
        from aicc.codegen.jit import compile_object  # brings LLVM

        if isinstance(job, LlvmText):
            return compile_object(job.text, self.target, job.opt)
        return compile_object(lower_kernel(job, self.target), self.target)

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
    """A worker, or None where there can be none."""
    process = start(_WORK)
    if process is not None:
        assert process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended already: the first kernel will tell
            write_frame(process.stdin, target.text().encode())
    return process


def _feed(
    process: subprocess.Popen[bytes],
    names: deque[str],
    request: Callable[[str], bytes],
    kind: bytes,
    kept: Callable[[str, bytes], None],
) -> None:
    """Asks a process for one name after the other, until none is left or the process is gone."""
    assert process.stdin is not None and process.stdout is not None
    try:
        while True:
            name = names.popleft()
            write_frame(process.stdin, request(name))
            answer = read_frame(process.stdout)
            if answer[:1] == kind:
                kept(name, answer[1:])
    except (IndexError, EOFError, OSError, ValueError):
        return


def _frame(job: Job) -> bytes:
    if isinstance(job, LlvmText):
        return LLVM + b"%d" % job.opt + job.text.encode()
    return KERNEL + to_bytes(job)


def _effort(job: Job) -> int:
    """About how many instructions a job becomes."""
    return job.text.count("\n") if isinstance(job, LlvmText) else _instructions(job.body)


def _instructions(body: Sequence[Stmt]) -> int:
    """Unrolled loops count as often as they run."""
    total = 0
    for s in body:
        if isinstance(s, For):
            times = s.extent if s.kind == "unroll" and isinstance(s.extent, int) else 1
            total += 1 + times * _instructions(s.body)
        elif isinstance(s, While):
            total += 1 + _instructions(s.body)
        elif isinstance(s, If):
            total += 1 + _instructions(s.then) + _instructions(s.orelse)
        else:
            total += 1
    return total
