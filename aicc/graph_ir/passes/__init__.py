"""The passes over the graph: each is a frozen dataclass that takes a Graph and returns a new one."""
