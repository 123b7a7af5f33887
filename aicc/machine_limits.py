"""The limits of this machine, measured once and kept in a file of the cache folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import tempfile
from pathlib import Path

from aicc import config
from aicc.codegen.limits import bandwidth, fma_limit
from aicc.digest import sha256
from aicc.errors import TargetError
from aicc.runtime.limits import Limits
from aicc.target import Target

log = logging.getLogger("aicc")
FORMAT = 2
"""Changes when what is measured does."""
DTYPES = ("f32", "f64")


def machine_limits(target: Target) -> Limits:
    """The limits of one core for code of a target: from the cache, or measured, which takes about a
    second. Raises TargetError where this machine cannot run the target's code."""
    path = config.cache_folder() / f"limits-{_key(target)}.json"
    known = _read(path)
    if known is not None:
        return known
    made = measure(target)
    _write(path, made)
    return made


def measure(target: Target) -> Limits:
    """The limits as they are now; other work on the machine makes them lower."""
    peak = {}
    for dtype in DTYPES:
        try:
            peak[dtype] = fma_limit(target, dtype)
        except TargetError:
            if dtype == "f32":
                raise
    footprints = sorted({target.l1d // 2, target.l2 // 2, target.l2, target.l3 // 2, 4 * target.l3})
    return Limits(peak, tuple((n, bandwidth(target, n)) for n in footprints))


def _key(target: Target) -> str:
    """Differs for machines and targets whose limits may differ."""
    text = f"{FORMAT} {target.text()} {platform.machine()} {_processor()}"
    return sha256(text.encode()).hex()[:16]


def _processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("model name")), platform.processor())


def _read(path: Path) -> Limits | None:
    try:
        return Limits.from_dict(json.loads(path.read_text("utf-8")))
    except OSError:
        return None
    except ValueError as error:
        log.warning("%s: %s; measured again", path, error)
        return None


def _write(path: Path, limits: Limits) -> None:
    """Writes a file of its own and moves it into place, so that nobody reads half of one. A folder
    that cannot be written to is no fault: the limits are measured again next time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(limits.as_dict(), file)
        os.replace(name, path)
    except OSError as error:
        log.debug("limits are not kept: %s", error)
