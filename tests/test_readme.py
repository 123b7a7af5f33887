"""What the README and docs/ show is what the compiler does: texts are compared, code runs."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from own_operators import own_operators

from aicc import config
from aicc.ops.registry import Operator
from aicc.pipeline import passes
from aicc.target import Target
from aicc.tensor_ir import recipes
from aicc.tensor_ir.parse import parse_kernel
from aicc.tensor_ir.schedule import schedule
from aicc.tensor_ir.schedule_text import parse_steps, step_types
from aicc.tensor_ir.verify import verify

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
LLVM = 22
"""The version of LLVM that the README's machine code is from; that of others differs in detail."""


@pytest.fixture
def section(request: pytest.FixtureRequest) -> Callable[[Path, str, str], None]:
    """`section(file, name, text)`: what stands between the markers of a section is the text."""

    def compare(path: Path, name: str, text: str) -> None:
        whole = path.read_text("utf-8")
        pattern = rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end of {name} -->)"
        match = re.search(pattern, whole, re.DOTALL)
        assert match, f"{path.name} has no section {name}"
        if request.config.getoption("--update-golden"):
            path.write_text(whole[: match.end(1)] + text + whole[match.start(3) :], "utf-8")
            return
        assert match[2] == text, f"{path.name} is out of date; --update-golden writes it"

    return compare


def code_after(path: Path, marker: str) -> str:
    match = re.search(rf"<!-- {marker}[^\n]*-->\n```[a-z]*\n(.*?)```", path.read_text(), re.DOTALL)
    assert match, marker
    return match[1]


# --- the way through the levels -------------------------------------------------------------------


def test_levels(section: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from read_the_ir import levels, small_model

    # A target by name, so that every machine writes the same text.
    parts = []
    for n, level in enumerate(levels(small_model(), Target.from_name("x86-64-v3")), start=1):
        text = level.text.rstrip()
        if level.title == "Machine code" and llvmlite.binding.llvm_version_info[0] != LLVM:
            text = code_of(README.read_text("utf-8"), level.title)
        parts.append(f"**{n}. {level.title}.** {level.why}\n\n```\n{text}\n```\n")
    section(README, "levels", "\n".join(parts))


def code_of(text: str, title: str) -> str:
    match = re.search(rf"\. {title}\.\*\*.*?```\n(.*?)\n```", text, re.DOTALL)
    assert match
    return match[1]


# --- code -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "name"), [(README, "schedule"), (ROOT / "docs" / "operators.md", "lower")]
)
def test_code_prints_what_is_shown(path: Path, name: str, request: pytest.FixtureRequest) -> None:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code_after(path, f"{name}:"), str(path), "exec"), {})
    text, shown = printed.getvalue().rstrip() + "\n", code_after(path, f"{name} output")
    if request.config.getoption("--update-golden"):
        marker = f"<!-- {name} output -->\n```\n"
        whole = path.read_text("utf-8")
        path.write_text(whole.replace(marker + shown, marker + text, 1), "utf-8")
        return
    assert shown == text


def test_extensions(request: pytest.FixtureRequest) -> None:
    """The code of docs/extending.md, in a process of its own: it defines a step."""
    path = ROOT / "docs" / "extending.md"
    names = re.findall(r"^<!-- (\w+): executed by", path.read_text("utf-8"), re.M)
    assert len(names) == 4
    code = "\nprint('<end>')\n".join(code_after(path, f"{name}:") for name in names)
    command = [sys.executable, "-"]
    made = subprocess.run(command, input=code, capture_output=True, text=True, cwd=ROOT)
    assert made.returncode == 0, made.stderr
    for name, printed in zip(names, made.stdout.split("<end>\n"), strict=True):
        text, shown = printed.rstrip() + "\n", code_after(path, f"{name} output")
        if request.config.getoption("--update-golden"):
            marker, whole = f"<!-- {name} output -->\n```\n", path.read_text("utf-8")
            path.write_text(whole.replace(marker + shown, marker + text, 1), "utf-8")
        else:
            assert shown == text, name


def test_the_ten_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = re.search(r"## Use\n\n```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert code
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "resnet50.onnx",
    )
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"x": np.array([-1, 2], np.float32)}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code[1], space)
    assert space["y"].tolist() == [0, 2]


# --- tables ---------------------------------------------------------------------------------------


def test_variables(section: Callable[..., None]) -> None:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for v in config.VARIABLES.values():
        default = "none" if v.default is None else f"`{v.default}`"
        lines.append(f"| `{v.name}` | {default} | {v.meaning} |")
    section(README, "variables", "\n".join(lines) + "\n")


def operator_kind(op: Operator) -> str:
    if op.view:
        return "views: the operand's memory in another shape, no code"
    if op.has_lowering:
        return "kernels"
    if type(op).decompose is not Operator.decompose:
        return "made of other operators"
    return "host operators: computed in Python"


def test_list_of_operators(section: Callable[..., None]) -> None:
    kinds: dict[str, list[str]] = {}
    for op in own_operators():
        kinds.setdefault(operator_kind(op), []).append(op.name)
    order = ("kernels", "views", "made", "host")
    lines = []
    for kind in sorted(kinds, key=lambda k: [k.startswith(o) for o in order].index(True)):
        lines.append(f"**{kind[0].upper()}{kind[1:]}** ({len(kinds[kind])}). ")
        lines[-1] += ", ".join(kinds[kind]) + ".\n"
    section(ROOT / "docs" / "operators.md", "operators", "\n".join(lines))


def test_host_operators_are_named() -> None:
    bullet = re.search(
        r"^- \*\*Host operators\*\*:(.*?)^- ", README.read_text("utf-8"), re.M | re.S
    )
    assert bullet
    hosts = {op.name for op in own_operators() if operator_kind(op).startswith("host")}
    assert set(re.findall(r"`(\w+)`", bullet[1])) == hosts


def test_links_lead_somewhere() -> None:
    for path in (README, *sorted((ROOT / "docs").glob("*.md"))):
        text = path.read_text("utf-8")
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name}: {link}"
        for name in re.findall(r"`((?:aicc|tests|examples|benchmarks|docs)/[\w./]+)`", text):
            assert (ROOT / name).exists(), f"{path.name}: {name}"
        for name in re.findall(r"`(aicc(?:\.\w+)+)`", text):
            assert _resolves(name), f"{path.name}: {name}"


def _resolves(dotted: str) -> bool:
    parts = dotted.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ImportError:
            continue
        for name in parts[n:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def test_help_of_the_command_line() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "aicc", "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert shown.returncode == 0, shown.stderr
    commands = re.findall(r"^aicc (\w+) [A-Z]", README.read_text("utf-8"), re.M)
    assert len(commands) > 4
    for command in commands:
        assert f"\n  {command} " in shown.stdout


# --- docs/schedule.md -----------------------------------------------------------------------------

SCHEDULES = ROOT / "docs" / "schedule.md"
BLOCK = r"```\n(kernel @.*?)```\n"


def test_schedule_examples(request: pytest.FixtureRequest) -> None:
    """Each kernel in docs/schedule.md that steps stand above is what these make of the last kernel
    that none stand above."""
    pieces = re.split(
        r"(^`[^`\n]+`\n```\n.*?^```\n)", SCHEDULES.read_text("utf-8"), flags=re.M | re.S
    )
    kernel, made, examples = None, [], 0
    for piece in pieces:
        match = re.match(r"`([^`\n]+)`\n```\n(.*?)```\n", piece, re.S)
        if match is None:
            found = re.findall(BLOCK, piece, re.S)
            kernel = parse_kernel(found[-1]) if found else kernel
            made.append(piece)
            continue
        assert kernel is not None
        scheduled = schedule(kernel, parse_steps(match[1]))
        verify(scheduled)
        text = str(scheduled).rstrip() + "\n"
        if not request.config.getoption("--update-golden"):
            assert match[2] == text, match[1]
        made.append(f"`{match[1]}`\n```\n{text}```\n")
        examples += 1
    if request.config.getoption("--update-golden"):
        SCHEDULES.write_text("".join(made), "utf-8")
    assert examples > 10


def test_every_step_is_listed(section: Callable[..., None]) -> None:
    lines = []
    for name, kind in sorted(step_types().items()):
        given = ", ".join(
            f.name if f.default is MISSING else f"{f.name}={f.default or repr(f.default)}"
            for f in fields(kind)  # type: ignore[arg-type]
        )
        rule = " ".join(rule_of(kind).replace("`", "").split())
        lines.append(f"- `{name}({given})`: `{rule}`\n")
    section(SCHEDULES, "steps", "".join(lines))


def test_every_recipe_is_listed(section: Callable[..., None]) -> None:
    parts = []
    for module in sorted(m.name for m in pkgutil.iter_modules(recipes.__path__)):
        found = importlib.import_module(f"{recipes.__name__}.{module}")
        if callable(getattr(found, module, None)):  # the others are what recipes are made with
            parts.append(f"**{module}**\n```\n{inspect.getdoc(found)}\n```\n")
    section(SCHEDULES, "recipes", "\n".join(parts))


def test_every_pass_is_listed(section: Callable[..., None]) -> None:
    lines = ["| | pass | |", "|---|---|---|"]
    for n, p in enumerate(passes(Target.from_name("x86-64-v3")), start=1):
        rule = rule_of(type(p)).replace("`", "").replace("\n", " ")
        lines.append(f"| {n:02} | `{p.name}` | {rule} |")
    section(ROOT / "docs" / "architecture.md", "passes", "\n".join(lines) + "\n")


def rule_of(kind: type) -> str:
    """The first paragraph of a class's documentation."""
    text = inspect.getdoc(kind)
    assert text
    return text.split("\n\n")[0]
