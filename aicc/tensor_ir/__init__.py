"""Loop nests over buffers: grammar, text, verifier, interpreter, schedule steps and recipes."""
