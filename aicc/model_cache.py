"""Whole compiled models kept on disk between processes.

    folder/GRAPH-WEIGHTS    a saved model (`aicc.runtime.saved`)

GRAPH is a hash of the imported graph's text, the Target, the options that change code and the
source of the compiler; WEIGHTS is one of the constants: what is found is what compiling would make.
Files are written, bounded and trusted as those of `aicc.codegen.object_cache`. What is damaged
counts as absent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aicc import __version__, config
from aicc.codegen.object_cache import CacheFolder, compiler_identity
from aicc.digest import sha256
from aicc.errors import AiccError, UnsupportedError
from aicc.graph_ir.graph import Graph
from aicc.graph_ir.text import all_constants, print_graph
from aicc.loading import load
from aicc.model import CompiledModel
from aicc.pages import forget
from aicc.runtime.saved import write_parts
from aicc.target import Target

log = logging.getLogger("aicc")

SHARE = 4
"""A model takes at most one of so many parts of the bound."""
SOURCES = ("**/*.py",)
SLAB = 1 << 22
"""Bytes that are hashed before a file's pages are let go."""


@dataclass(frozen=True)
class Entry:
    """Where a model belongs that is not there yet: known once its weights are hashed."""

    graph: str
    weights: Future[str]

    @property
    def name(self) -> str:
        """The name of the file; waits for the hash."""
        return f"{self.graph}-{self.weights.result()}"


class ModelCache(CacheFolder):
    """Saved models. salt: whatever else their code depends on."""

    def __init__(self, folder: str | os.PathLike[str], limit: int, salt: str = "") -> None:
        super().__init__(folder, limit)
        self._salt = salt

    def find(
        self, graph: Graph, target: Target, threads: int, options: str = ""
    ) -> CompiledModel | Entry | None:
        """The model that a graph, as it was imported, was compiled to with some options of
        `compile`; its entry where there is none that is whole; None where it is too large to be
        kept."""
        constants = all_constants(graph)
        if not self.writable(sum(data.nbytes for data in constants.values()), SHARE):
            return None
        identity = f"{__version__}\0{compiler_identity(SOURCES)}\0{self._salt}\0{target.text()}"
        text = f"{identity}\0{options}\0{print_graph(graph, with_sha=False)}"
        name = sha256(text.encode("utf-8", "surrogatepass")).hex()
        thread = ThreadPoolExecutor(1)
        entry = Entry(name, thread.submit(_hash, constants))
        thread.shutdown(wait=False)  # compiling goes on meanwhile
        if not any(self.folder.glob(f"{name}-*")):
            return entry
        return self._get(self.folder / entry.name, threads) or entry

    def _get(self, path: Path, threads: int) -> CompiledModel | None:
        if not path.is_file():
            return None
        try:
            model = load(path, threads=threads, verify=True, resident=True)
        except AiccError as error:
            log.debug("model cache: %s", error)
            self.drop(path)
            return None
        self.used(path)
        return model

    def put(self, entry: Entry, model: CompiledModel) -> None:
        """Keeps a model, unless Python computes a part of it or it is too large."""
        size = len(model.parts.constants) + sum(map(len, model.parts.code))
        if not self.writable(size, SHARE):
            return
        try:
            # Not flushed to the disk: what a crash leaves does not fit its checksum.
            write_parts(model.parts, self.folder / entry.name, durable=False)
            self.wrote(size)
        except UnsupportedError as error:
            log.debug("model cache: %s", error)
        except (AiccError, OSError) as error:
            self.give_up(error)


def _hash(constants: Mapping[str, np.ndarray[Any, Any]]) -> str:
    import hashlib

    state = hashlib.sha256()
    for name, data in constants.items():
        state.update(f"{name}\0".encode("utf-8", "surrogatepass"))
        if data.dtype == object:
            state.update(repr([str(x) for x in data.reshape(-1)]).encode())
            continue
        flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        for at in range(0, flat.size, SLAB):
            state.update(flat[at : at + SLAB].data)
            forget(flat[at : at + SLAB])
    return state.hexdigest()


def model_cache() -> ModelCache | None:
    """The cache that the environment asks for, if any."""
    limit = config.cache_bytes("models")
    if not limit:
        return None
    options = f"winograd={config.get('AICC_WINOGRAD')}"
    try:
        return ModelCache(config.cache_folder() / "models", limit, options)
    except (OSError, RuntimeError) as error:  # nobody's home; source files that cannot be read
        log.debug("model cache: not used: %s", error)
        return None
