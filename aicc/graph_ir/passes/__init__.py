"""The passes over the graph: frozen dataclasses that take a Graph and return a new one."""
