"""The operators: one class each, found through `aicc.ops.registry`."""

from __future__ import annotations

import importlib
import pkgutil

_loaded = False


def load() -> None:
    """Imports every module of this package once, which registers its operators."""
    global _loaded
    if not _loaded:
        _loaded = True
        for module in pkgutil.iter_modules(__path__):
            importlib.import_module(f"{__name__}.{module.name}")
