"""Every error that a user meets, and what each tells.

All derive from `AiccError`. Messages name the ONNX node, the operator and the shapes where there
are any; nothing is lost: several faults of one kind are reported at once.
"""

from __future__ import annotations


class AiccError(Exception):
    """Base of all errors raised by aicc."""


class AiccWarning(UserWarning):
    """Something in a model that aicc can do without: a declared shape that is wrong, a newer IR."""


class ModelError(AiccError, ValueError):
    """The model file cannot be read: not a protobuf, truncated, no graph, a cycle, bad weights."""


class UnsupportedError(ModelError):
    """The model asks for operators, opsets or types that aicc does not have; lists all of them."""


class SavedModelError(ModelError):
    """The file of a saved model cannot be used or written: not one, of another format, truncated,
    damaged."""


class OperatorError(ModelError):
    """Operands or attributes do not fit the operator. `node`: ONNX name; `op`: operator."""

    def __init__(self, message: str, node: str = "", op: str = "") -> None:
        super().__init__(f"node {node!r}: {message}" if node else message)
        self.node = node
        self.op = op


class MemoryBudgetError(AiccError, ValueError):
    """A run needs more memory than `memory_budget` allows. `budget`: bytes asked for; `least`: the
    fewest bytes that were found to do, None where sizes are not known before a run."""

    def __init__(self, message: str, budget: int, least: int | None) -> None:
        super().__init__(message)
        self.budget = budget
        self.least = least


class InputError(AiccError, ValueError):
    """The feed of a run does not fit the model (names, dtype, rank, sizes), or an option what it is
    for."""


class ExecutionError(AiccError, RuntimeError):
    """A run was ended by its data, such as an index out of range; names the ONNX node."""


class IRError(AiccError, ValueError):
    """A text form cannot be parsed, or an IR breaks an invariant: a pass or a text is wrong."""


class ScheduleError(AiccError, ValueError):
    """A schedule step's precondition does not hold. `kernel`: what it was to rewrite, whose text is
    below the reason. Recipes try many steps and read few of the reasons: the text is made when
    somebody asks for it."""

    def __init__(self, why: str, kernel: object = None) -> None:
        super().__init__(why)
        self.kernel = kernel

    def __str__(self) -> str:
        why = super().__str__()
        return why if self.kernel is None else f"{why}\n{self.kernel}"


class TargetError(AiccError, ValueError):
    """An unknown target, or native code that this machine cannot run."""


class CodegenError(AiccError):
    """Generated code that LLVM refuses to parse, verify, emit or link: a fault of the compiler."""


class MissingPackageError(AiccError, ImportError):
    """Something needs a package that is not installed; names the extra that brings it."""
