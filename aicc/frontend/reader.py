"""From a path, bytes or a ModelProto to a parsed model, with typed refusals of everything else."""

from __future__ import annotations

import mmap
import os
import stat
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from aicc.errors import AiccWarning, ModelError
from aicc.frontend.wire import WireError, detach_weights
from aicc.pages import forget

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | onnx.ModelProto
_LFS_POINTER = b"version https://git-lfs"
_SAVED_MODEL = b"\x89aicc\r\n\x1a"


@dataclass
class ModelFile:
    """A parsed model and where its data lie.

    folder: where external data may be found, None for a model that is not a file. weights: raw data
    of the main graph's initializers that are not in `model`, by position.
    """

    model: onnx.ModelProto
    folder: Path | None = None
    weights: Mapping[int, memoryview] = field(default_factory=dict)


def read_model(source: Source) -> ModelFile:
    """Parses a model. Raises ModelError: no such file, not a protobuf, truncated, no graph."""
    if isinstance(source, onnx.ModelProto):
        file = ModelFile(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        file = _parse(memoryview(source).cast("B"), "the given bytes", None)
    elif isinstance(source, str | os.PathLike):
        path = Path(source)
        file = _parse(map_file(path, "model"), str(path), path.parent)
    else:
        raise ModelError(f"a model is a path, bytes or an onnx.ModelProto, not {_kind(source)}")
    if not file.model.HasField("graph"):
        raise ModelError("the model has no graph: is this another kind of ONNX file?")
    _check_names(file.model)
    newest = int(onnx.IR_VERSION)
    if file.model.ir_version > newest:
        text = f"the model has IR version {file.model.ir_version}; {newest} is the newest one known"
        warnings.warn(text, AiccWarning, stacklevel=3)
    return file


def _check_names(message: Message) -> None:
    """Raises ModelError for a string that is not UTF-8: protobuf gives bytes instead."""
    for f, value in message.ListFields():
        many = (value,) if isinstance(value, str | bytes | Message) else value
        if f.type == f.TYPE_STRING:
            for text in many:
                if not isinstance(text, str):
                    raise ModelError(f"{message.DESCRIPTOR.name}.{f.name} is not UTF-8: {text!r}")
        elif f.type == f.TYPE_MESSAGE:
            for part in many:
                if isinstance(part, onnx.TensorProto):
                    if not isinstance(part.name, str):
                        raise ModelError(f"the name of a tensor is not UTF-8: {part.name!r}")
                    for entry in part.external_data:
                        _check_names(entry)
                else:  # the fields of a tensor may be large, and listing them copies
                    _check_names(part)


def _kind(source: Any) -> str:
    return type(source).__name__


def map_file(path: Path, what: str) -> memoryview:
    """The contents of a regular file, mapped. Raises ModelError where there is none."""
    try:
        mode = path.stat()
        if not stat.S_ISREG(mode.st_mode):
            raise OSError("not a file")
        if mode.st_size == 0:
            return memoryview(b"")
        with path.open("rb") as f:
            return memoryview(mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise ModelError(f"the {what} {str(path)!r} does not exist") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"the {what} {str(path)!r} cannot be read: {error}") from error


def _parse(data: memoryview, what: str, folder: Path | None) -> ModelFile:
    if not data:
        raise ModelError(f"{what}: empty, so not an ONNX model")
    if data[: len(_LFS_POINTER)] == _LFS_POINTER:
        raise ModelError(f"{what}: a git-lfs pointer, not the model that it stands for")
    if data[: len(_SAVED_MODEL)] == _SAVED_MODEL:
        raise ModelError(f"{what}: a saved model, which `aicc.load` reads, not an ONNX model")
    try:
        kept, weights = detach_weights(data)
        forget(np.frombuffer(data, np.uint8))  # beside each field the system has put its neighbours
        return ModelFile(onnx.ModelProto.FromString(kept), folder, weights)
    except WireError as error:
        said = "truncated, or not an ONNX model" if error.truncated else "not an ONNX model"
        raise ModelError(f"{what}: {said}: {error}") from error
    except (DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{what}: not an ONNX model: {error}") from error
