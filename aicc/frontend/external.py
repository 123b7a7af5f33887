"""Weights in files beside the model, read only from inside the model's own folder.

A location comes with the model, from anywhere, so it is hostile until shown otherwise: absolute
paths, `..` and symbolic links that lead out of the folder are refused. Files are mapped, not read.
"""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

import onnx

from aicc.errors import ModelError
from aicc.frontend.reader import map_file


class ExternalData:
    """The files beside one model. folder: where they may be; None for a model without a file."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._files: dict[Path, memoryview] = {}

    def read(self, tensor: onnx.TensorProto, nbytes: int) -> memoryview:
        """The `nbytes` bytes of a tensor whose data_location is EXTERNAL.

        Raises ModelError: outside the folder, missing, too short, or a length that does not fit.
        """
        entries = {e.key: e.value for e in tensor.external_data}
        where = f"tensor {tensor.name!r}: external data {entries.get('location', '')!r}"
        offset = _number(entries, "offset", 0, where)
        length = _number(entries, "length", nbytes, where)
        if length != nbytes:
            raise ModelError(f"{where}: length {length}, but the tensor has {nbytes} bytes")
        path = self._inside(entries.get("location", ""), where)
        if path not in self._files:
            try:
                self._files[path] = map_file(path, "file")
            except ModelError as error:
                raise ModelError(f"{where}: {error}") from error
        data = self._files[path]
        if offset + length > len(data):
            raise ModelError(
                f"{where}: too short: bytes {offset}..{offset + length} of a file of {len(data)}"
            )
        return data[offset : offset + length]

    def _inside(self, location: str, where: str) -> Path:
        if self.folder is None:
            raise ModelError(f"{where}: only a model given by its path has a folder to look in")
        windows = PureWindowsPath(location)
        if not location or "\0" in location:
            raise ModelError(f"{where}: no usable location")
        if os.path.isabs(location) or windows.anchor:
            raise ModelError(f"{where}: an absolute path; data must lie in the model's folder")
        if ".." in windows.parts:
            raise ModelError(f"{where}: '..' in the path; data must lie in the model's folder")
        try:
            folder = self.folder.resolve()
            path = (folder / location).resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links
            raise ModelError(f"{where}: {error}") from error
        if not path.is_relative_to(folder):
            raise ModelError(f"{where}: a symbolic link that leads out of the model's folder")
        return path


def _number(entries: dict[str, str], key: str, default: int, where: str) -> int:
    text = entries.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"{where}: the {key} {text!r} is not a number of bytes")
    return int(text)
