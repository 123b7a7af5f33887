"""Placing buffers in memory: used by the compiler, and by the runtime for sizes it learns."""
