"""Arrays of any dtype by name, in a `.npz` archive that numpy reads, without pickle.

    index       JSON, a list of [name, dtype]
    c0, c1...   the arrays, in that order

numpy's format has no bf16, so that is kept as its bits (u16); strings are two arrays, `cN` with all
their bytes in UTF-8 and `cN.lengths`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aicc.dtypes import from_numpy, to_numpy
from aicc.errors import IRError

Array = np.ndarray[Any, Any]


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Writes named arrays of any dtype that aicc has."""
    index: list[tuple[str, str]] = []
    stored: dict[str, Array] = {}
    for i, (name, data) in enumerate(arrays.items()):
        dtype = from_numpy(data.dtype)
        index.append((name, dtype))
        if dtype == "str":
            encoded = [str(x).encode("utf-8", "surrogatepass") for x in data.reshape(-1)]
            stored[f"c{i}"] = np.frombuffer(b"".join(encoded), np.uint8)
            lengths = np.array([len(x) for x in encoded], np.int64)
            stored[f"c{i}.lengths"] = lengths.reshape(data.shape)
        else:
            stored[f"c{i}"] = data.view(np.uint16) if dtype == "bf16" else data
    stored["index"] = np.frombuffer(json.dumps(index).encode(), np.uint8)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **stored)


def read_arrays(path: Path) -> dict[str, Array]:
    """What `write_arrays` wrote. Raises IRError: no such file, or another one."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            index = json.loads(archive["index"].tobytes())
            return {name: _read(archive, f"c{i}", dtype) for i, (name, dtype) in enumerate(index)}
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise IRError(f"the constants in {str(path)!r} cannot be read: {error}") from error


def _read(archive: Any, key: str, dtype: str) -> Array:
    data: Array = archive[key]
    if dtype == "bf16":
        return data.view(to_numpy("bf16"))
    if dtype != "str":
        if data.dtype != to_numpy(dtype):
            raise ValueError(f"{key} is {data.dtype}, not {dtype}")
        return data
    lengths: Array = archive[f"{key}.lengths"]
    ends = np.cumsum(lengths.reshape(-1))
    payload = data.tobytes()
    out = np.empty(lengths.size, np.object_)
    for i, (end, length) in enumerate(zip(ends, lengths.reshape(-1))):
        out[i] = payload[end - length : end].decode("utf-8", "surrogatepass")
    return out.reshape(lengths.shape)
