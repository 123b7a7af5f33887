"""ONNX comes in: a file, bytes or a ModelProto becomes a typed Graph, or a typed error."""

from aicc.frontend.importer import load_model

__all__ = ["load_model"]
