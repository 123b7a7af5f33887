"""aicc: a deep-learning compiler for CPUs. An ONNX model goes in, native code comes out.

import aicc
model = aicc.compile("resnet50.onnx")
(y,) = model.run(None, {"x": x})
print(model.report())
model.save("resnet50.aicc")  # aicc.load("resnet50.aicc") runs it without the compiler
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from aicc.errors import (
    AiccError,
    AiccWarning,
    CodegenError,
    ExecutionError,
    InputError,
    IRError,
    MemoryBudgetError,
    MissingPackageError,
    ModelError,
    OperatorError,
    SavedModelError,
    ScheduleError,
    TargetError,
    UnsupportedError,
)
from aicc.model import CompiledModel, Report
from aicc.runtime.profile_report import Profile

if TYPE_CHECKING:
    from aicc.driver import Options, compile, resume
    from aicc.loading import load
    from aicc.target import Target

__version__ = "0.1.0"

__all__ = [
    "AiccError",
    "AiccWarning",
    "CodegenError",
    "CompiledModel",
    "ExecutionError",
    "IRError",
    "InputError",
    "MemoryBudgetError",
    "MissingPackageError",
    "ModelError",
    "OperatorError",
    "Options",
    "Profile",
    "Report",
    "SavedModelError",
    "ScheduleError",
    "Target",
    "TargetError",
    "UnsupportedError",
    "__version__",
    "compile",
    "load",
    "resume",
]

# What brings the compiler with it: a program that only asks for an error type starts quickly.
_LATE = {
    "Options": "aicc.driver",
    "compile": "aicc.driver",
    "resume": "aicc.driver",
    "load": "aicc.loading",
    "Target": "aicc.target",
}


def __getattr__(name: str) -> Any:
    """`aicc.compile` and the like are imported when they are first asked for."""
    if name not in _LATE:
        raise AttributeError(f"module 'aicc' has no attribute {name!r}")
    found = getattr(importlib.import_module(_LATE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
