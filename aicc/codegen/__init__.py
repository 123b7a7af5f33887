"""Code generation: from kernels to LLVM text, object code and loaded functions."""
