"""Placing buffers in memory: used by the compiler and, for sizes known at run time, by the runtime."""
