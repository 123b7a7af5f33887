"""aicc: a deep-learning compiler for CPUs. An ONNX model goes in, native code comes out.

import aicc
model = aicc.compile("resnet50.onnx")
(y,) = model.run(None, {"x": x})
print(model.report())
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aicc.errors import (
    AiccError,
    AiccWarning,
    CodegenError,
    ExecutionError,
    InputError,
    IRError,
    ModelError,
    OperatorError,
    ScheduleError,
    TargetError,
    UnsupportedError,
)
from aicc.model import CompiledModel, Report

if TYPE_CHECKING:
    from aicc.pipeline import compile

__version__ = "0.1.0"

__all__ = [
    "AiccError",
    "AiccWarning",
    "CodegenError",
    "CompiledModel",
    "ExecutionError",
    "IRError",
    "InputError",
    "ModelError",
    "OperatorError",
    "Report",
    "ScheduleError",
    "TargetError",
    "UnsupportedError",
    "__version__",
    "compile",
]


def __getattr__(name: str) -> Any:
    """`aicc.compile` brings the compiler with it when it is first asked for."""
    if name == "compile":
        from aicc.pipeline import compile

        return compile
    raise AttributeError(f"module 'aicc' has no attribute {name!r}")
