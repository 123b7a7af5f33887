"""Rules that hold for the whole source: which part may import which, sizes of files, what the parts
may know."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import aicc
from aicc.ops.registry import all_operators
from aicc.tensor_ir import ir, scalar

ROOT = Path(aicc.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = {path: str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in FILES}

COMMON = {
    "errors",
    "dtypes",
    "symbolic",
    "text",
    "config",
    "decisions",
    "pages",
    "uniform",
    "digest",
    "garbage",
    "target",
}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "config": {"errors"},
    "decisions": set(),
    "dtypes": {"errors"},
    "symbolic": {"errors"},
    "text": {"errors", "symbolic"},
    "memory": {"errors"},
    "tensor_ir": COMMON,
    "graph_ir.types": COMMON,
    "ops": {*COMMON, "graph_ir.types", "tensor_ir"},
    "graph_ir": {*COMMON, "tensor_ir", "ops.registry", "memory"},
    "frontend": {*COMMON, "graph_ir", "ops.registry"},
    "codegen": {*COMMON, "child", "host", "tensor_ir", "runtime.program", "runtime.context"},
    "pages": set(),
    "uniform": set(),
    "digest": set(),
    "garbage": set(),
    "child": set(),
    "host": {"child", "config", "digest"},
    "target": {"errors", "host"},
    "runtime": {*COMMON, "memory"},
    "model": {*COMMON, "runtime"},
    "loading": {
        *COMMON,
        "runtime",
        "model",
        "host",
        "codegen.jit",
        "machine_limits",
    },
    "dump": {*COMMON, "graph_ir"},
    "passes": {*COMMON, "dump"},
}
"""Part -> what it may import beside itself. What is not listed here puts the parts together: the
pipeline, the bridge from graph to loops, planning, building, the command line."""


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def imports(path: Path) -> set[str]:
    """What a file of aicc imports of aicc, as dotted names without the leading one. What is there
    for type checkers alone does not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            module = node.module or ""
            if module == "aicc":
                found.update(a.name for a in node.names)
            elif module.startswith("aicc."):
                inside = module.removeprefix("aicc.")
                found.update(
                    f"{inside}.{a.name}" if f"{inside}.{a.name}" in NAMES.values() else inside
                    for a in node.names
                )
        elif isinstance(node, ast.Import):
            found.update(a.name.removeprefix("aicc.") for a in node.names if "aicc." in a.name)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree(path))
    return found


def belongs(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def part_of(name: str) -> str | None:
    """The most precise part of `MAY_IMPORT` that a module belongs to."""
    fits = [part for part in MAY_IMPORT if belongs(name, part)]
    return max(fits, key=len) if fits else None


def test_imports_run_one_way() -> None:
    wrong = []
    for path, name in NAMES.items():
        part = part_of(name)
        if part is None:
            continue
        allowed = {*MAY_IMPORT[part], part}
        wrong += [
            f"{name} imports {other}"
            for other in sorted(imports(path))
            if not any(belongs(other, a) for a in allowed)
        ]
    assert not wrong, "\n".join(wrong)


def test_no_part_imports_what_puts_them_together() -> None:
    """The rule above holds only as long as every package is listed in it."""
    packages = {p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()}
    assert packages - {"cli"} <= {part.split(".")[0] for part in MAY_IMPORT}


def test_the_runtime_runs_without_the_compiler() -> None:
    """Everything that runtime reaches, over any number of imports."""
    by_name = {name: path for path, name in NAMES.items()}
    reached: set[str] = set()
    todo = [name for name in by_name if belongs(name, "runtime")]
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        for other in imports(by_name[name]):
            todo += [n for n in (other, f"{other}.__init__") if n in by_name]
    compiler = ("ops", "graph_ir", "tensor_ir", "codegen", "frontend", "lower", "pipeline", "plan")
    assert not [name for name in reached if any(belongs(name, part) for part in compiler)]


@pytest.mark.parametrize("path", FILES, ids=NAMES.values())
def test_files_are_short(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= 500


def test_files_beside_the_package_are_short() -> None:
    folders = [ROOT.parent / name for name in ("tests", "benchmarks", "examples")]
    for path in (p for folder in folders for p in folder.rglob("*.py")):
        assert len(path.read_text("utf-8").splitlines()) <= 500, path


def test_generated_code_knows_no_operator() -> None:
    """No string in codegen and runtime is the name of an operator. Scalar operations of the tensor
    IR are not operators: `exp` of one number is one, `Exp` of a tensor the other."""
    operators = {op.name for op in all_operators()}
    assert len(operators) > 100
    scalars = {*scalar.OPS, *ir.REDUCTIONS, *ir.KINDS}
    wrong = []
    for path, name in NAMES.items():
        if not (belongs(name, "codegen") or belongs(name, "runtime")):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                known = operators.intersection(re.findall(r"\w+", node.value)) - scalars
                if node.value in known:
                    wrong.append(f"{name}:{node.lineno}: {node.value!r}")
    assert not wrong, "\n".join(wrong)


def test_the_library_prints_nothing() -> None:
    wrong = []
    for path, name in NAMES.items():
        if belongs(name, "cli"):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "print":
                    wrong.append(f"{name}:{node.lineno}")
    assert not wrong, wrong


def test_nothing_unpickles() -> None:
    """A saved model holds data, never code."""
    modules = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Import):
                assert not modules.intersection(a.name for a in node.names), path
            elif isinstance(node, ast.ImportFrom):
                assert node.module not in modules, path
            elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path
