"""What LLVM says of this machine, without asking it each time.

To ask LLVM is to bring its library, tens of megabytes, into a process. So another process asks, and
the answer is kept in a file of the cache folder; it holds while processor and LLVM are the same. A
file that cannot be read or written is no fault: LLVM is asked.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from aicc import config
from aicc.digest import sha256

log = logging.getLogger("aicc")
CPUINFO = Path("/proc/cpuinfo")
TELLING = (
    "vendor_id", "cpu family", "model", "stepping", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features",
)  # fmt: skip
"""Lines of `CPUINFO` that say which instructions there are."""
_TELL = "from aicc.host import tell; tell()"
_DAMAGE = (ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Host:
    """triple: of code for this machine. cpu: LLVM's name of it. features: "+avx2", "-sse4a" and so
    on, empty where LLVM cannot tell."""

    triple: str
    cpu: str
    features: tuple[str, ...]


@functools.cache
def host() -> Host:
    """This machine, as LLVM sees it."""
    known = processor()
    if not known:
        return ask_llvm()
    key = sha256(f"{llvm_identity()}\n{known}".encode()).hex()[:16]
    try:
        path = config.cache_folder() / f"host-{key}.json"
    except RuntimeError:  # nobody's home
        return ask_llvm()
    found = _read(path)
    if found is None:
        found = ask_llvm()
        _write(path, found)
    return found


def ask_llvm() -> Host:
    """LLVM's answer of now, from another process where one can be started."""
    from aicc import child  # loading a saved model asks for the processor alone

    process = child.start(_TELL)
    if process is not None:
        answer, _ = process.communicate()
        with contextlib.suppress(*_DAMAGE):
            return _parsed(answer.decode())
    return answer_of_llvm()


def answer_of_llvm() -> Host:
    """What LLVM in this process says."""
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    return Host(
        llvm.get_default_triple(),
        llvm.get_host_cpu_name(),
        tuple(("+" if on else "-") + name for name, on in sorted(features.items())),
    )


def tell() -> None:
    """Writes LLVM's answer to the standard output, for the process that waits for it."""
    sys.stdout.write(json.dumps(asdict(answer_of_llvm())))


def processor() -> str:
    """What Linux says of the processor's kind and instructions; "" where it says nothing. Machines
    of which it says the same run the same code."""
    if not sys.platform.startswith("linux"):
        return ""
    try:
        with CPUINFO.open(encoding="utf-8", errors="replace") as file:
            lines = []
            for line in file:
                if not line.strip():  # the next one of many equal ones
                    break
                lines.append(line)
    except OSError:
        return ""
    words = (line.partition(":") for line in lines)
    told = [(name.strip(), value.strip()) for name, _, value in words]
    kept = [f"{name}: {value}" for name, value in told if name in TELLING]
    return "\n".join(kept) if any(k.startswith(("flags", "Features")) for k in kept) else ""


@functools.cache
def llvm_identity() -> str:
    """Differs for versions of llvmlite and builds of LLVM."""
    import llvmlite

    found = importlib.util.find_spec("llvmlite.binding")
    folders = (found.submodule_search_locations or []) if found is not None else []
    parts = [str(llvmlite.__version__)]
    for library in sorted(p for folder in folders for p in Path(folder).glob("*llvmlite*")):
        status = library.stat()
        parts.append(f"{library.name} {status.st_size} {status.st_mtime_ns}")
    return " ".join(parts)


def _parsed(text: str) -> Host:
    """Raises one of `_DAMAGE` for a text that does not hold an answer."""
    data = json.loads(text)
    made = Host(data["triple"], data["cpu"], tuple(data["features"]))
    if not all(isinstance(s, str) for s in (made.triple, made.cpu, *made.features)):
        raise TypeError
    return made


def _read(path: Path) -> Host | None:
    try:
        return _parsed(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, *_DAMAGE) as error:
        log.debug("%s cannot be read: %r", path, error)
        return None


def _write(path: Path, found: Host) -> None:
    """Moves a file of its own into place, so that nobody reads half of one."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(found), file)
        os.replace(name, path)
    except OSError as error:
        log.debug("what LLVM says of this machine is not kept: %s", error)
