"""Checks that a kernel keeps the invariants that `aicc.tensor_ir.ir` lists."""

from __future__ import annotations
