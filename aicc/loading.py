"""A saved model comes back without the compiler, and where it can without LLVM."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from functools import partial

from aicc import config
from aicc.errors import CodegenError, SavedModelError, TargetError
from aicc.host import processor
from aicc.model import CompiledModel
from aicc.runtime.executable import Executable
from aicc.runtime.limits import Limits
from aicc.runtime.linking import LinkedLibrary, LinkError, usable
from aicc.runtime.saved import Parts, read_parts
from aicc.runtime.state import Library
from aicc.target import Target, usable_cores

log = logging.getLogger("aicc")


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    verify: bool = False,
    resident: bool = False,
) -> CompiledModel:
    """The model that `CompiledModel.save` wrote to a file, ready to run.

    threads: how many a run may use (default: AICC_THREADS, else as many as it was compiled for, at
    most the usable cores). verify: whether to read all weights and compare them with their
    checksum; program and code are compared in any case. Weights stay in the file, which must not be
    written to while the model lives; to replace or to remove it is allowed. resident: whether to
    copy them to memory of the process's own instead: loading takes as long as reading them, and
    models whose runs stream through large weights are up to a fifth faster.

    Load only files that you would run: they hold native code.

    Raises SavedModelError for a file that is none of a saved model, of another format, truncated or
    damaged, TargetError where this machine cannot run the code, and InputError for a number of
    threads that is none.
    """
    began = time.perf_counter()
    parts = read_parts(path, verify, resident)
    target = _target(path, parts)
    many = config.thread_count(threads) or max(1, min(parts.threads, usable_cores()))
    try:
        executable = Executable.of(parts, place_code(parts.code, target), many)
    except CodegenError as error:
        raise SavedModelError(f"{str(path)!r}: its parts do not fit together: {error}") from error
    model = CompiledModel(
        executable, parts, target=target.name, limits=partial(measured_limits, target)
    )
    model.seconds["load"] = time.perf_counter() - began
    return model


def place_code(code: Sequence[bytes], target: Target) -> Library:
    """Object files placed in memory and connected: by `runtime.linking` where it knows all that
    they have, else by LLVM. Raises CodegenError where they do not fit together."""
    if usable():
        try:
            return LinkedLibrary(code)
        except LinkError as error:
            log.debug("linked by LLVM: %s", error)
    from aicc.codegen.jit import NativeLibrary

    return NativeLibrary(code, target)


def _target(path: str | os.PathLike[str], parts: Parts) -> Target:
    try:
        target = Target.parse(parts.target)
    except TargetError as error:
        raise SavedModelError(f"{str(path)!r}: {error}") from error
    if parts.processor and parts.processor == processor():
        return target  # to know more of it takes LLVM
    try:
        target.require_host()
    except TargetError as error:
        raise TargetError(
            f"{str(path)!r}: {error}; compile the model on this machine, or for a target that both "
            f"machines can run, such as target='x86-64-v3'"
        ) from None
    return target


def measured_limits(target: Target) -> Limits:
    """What `machine_limits` tells of this machine."""
    from aicc.machine_limits import machine_limits  # generates code, which only profiles need

    return machine_limits(target)
