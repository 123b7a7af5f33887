"""What a benchmark leaves: tables on the screen and in Markdown, and all figures in JSON, with the
machine, the versions and the command that they are from."""

from __future__ import annotations

import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.table import Table

PACKAGES = ("numpy", "llvmlite", "onnx", "onnxruntime", "openvino")


class Record:
    """Collects tables and figures; `write` makes the files that the options ask for."""

    def __init__(self, title: str, description: str | None, argv: Sequence[str] | None) -> None:
        self.title = title
        text = (description or "").strip().split("\n\n")
        self.notes = " ".join(text[-1].split()) if len(text) > 1 else ""
        self.environment = environment(argv)
        self.tables: list[tuple[str, Table]] = []
        self.results: list[dict[str, Any]] = []
        self.summary: list[dict[str, Any]] = []
        self.lines: list[str] = []

    def table(self, columns: Sequence[tuple[str, int]], title: str = "") -> Table:
        """A new table, whose rows are printed as they come."""
        if title:
            print(f"\n{title}")
        made = Table(columns)
        self.tables.append((title, made))
        return made

    def line(self, text: str) -> None:
        """A line of the summary."""
        print(text, flush=True)
        self.lines.append(text)

    def write(self, markdown: Path | None, figures: Path | None) -> None:
        """Writes what there is to the files that are not None."""
        if markdown is not None:
            markdown.write_text(self.markdown(), "utf-8")
        if figures is not None:
            told = {"benchmark": self.title, **self.environment, "results": self.results}
            figures.write_text(json.dumps(told | {"summary": self.summary}, indent=2) + "\n")

    def markdown(self) -> str:
        """All tables, with where they are from."""
        e, machine = self.environment, self.environment["machine"]
        versions = ", ".join(f"{name} {v}" for name, v in e["versions"].items())
        parts = [
            f"# {self.title}",
            f"{machine['processor']}, {machine['cores']} usable cores, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}; {versions}; "
            f"{e['date']}; load {machine['load']:.2f} at the start.",
            f"`{e['command']}`",
        ]
        if self.notes:
            parts.append(self.notes)
        for title, table in self.tables:
            parts += [f"## {title}"] * bool(title)
            parts.append(table.markdown())
        if self.lines:
            parts.append("\n".join(f"- {line}" for line in self.lines))
        return "\n\n".join(parts) + "\n"


def environment(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The date, the command, the machine and the versions of what is installed."""
    import aicc

    script = os.path.relpath(sys.argv[0])
    words = ["python", script, *(sys.argv[1:] if argv is None else argv)]
    versions = {"python": platform.python_version(), "aicc": aicc.__version__}
    versions |= {p: importlib.metadata.version(p) for p in PACKAGES if installed(p)}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(words),
        "machine": {
            "processor": processor(),
            "cores": usable_cores(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "system": platform.platform(),
            "load": os.getloadavg()[0],
        },
        "versions": versions,
    }


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def installed(package: str) -> bool:
    """Whether a package is there to be imported."""
    return importlib.util.find_spec(package) is not None
