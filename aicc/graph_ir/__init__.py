"""The whole model as a DAG: values, nodes, regions, text, verifier, and the passes over it."""
