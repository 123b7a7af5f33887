"""The graph as networkx sees it."""

import networkx as nx
import numpy as np

from aicc.graph_ir.graph import Graph, make_node
from aicc.graph_ir.infer import constant_type
from aicc.graph_ir.types import TensorType


def diamond() -> Graph:
    """y = (exp(x) + w) * exp(x), and a region that reads what is around it."""
    t = TensorType("f32", (2,))
    w = np.ones(2, np.float32)
    branch = Graph("branch", outputs=["z"], nodes=[make_node("Neg", ["s"], ["z"])], types={"z": t})
    flag = TensorType("bool", ())
    return Graph(
        "diamond",
        inputs=["x", "c"],
        outputs=["y", "r"],
        nodes=[
            make_node("Exp", ["x"], ["e"]),
            make_node("Add", ["e", "w"], ["s"]),
            make_node("Mul", ["s", "e"], ["y"]),
            make_node("If", ["c"], ["r"], regions=[branch, branch]),
        ],
        constants={"w": w},
        types={"x": t, "c": flag, "e": t, "s": t, "y": t, "r": t, "w": constant_type(w)},
    )


def test_vertices_are_nodes_and_edges_values():
    graph = diamond()
    g = graph.to_networkx()
    assert g.graph["name"] == "diamond"
    assert [g.nodes[i]["op"] for i in g] == ["Exp", "Add", "Mul", "If"]
    assert all(g.nodes[i]["node"] is n for i, n in enumerate(graph.nodes))
    edges = {(a, b, value) for a, b, value in g.edges(data="value")}
    # Inputs and constants have no vertex; what a region captures is read.
    assert edges == {(0, 1, "e"), (0, 2, "e"), (1, 2, "s"), (1, 3, "s")}


def test_one_edge_for_each_use():
    t = TensorType("f32", (2,))
    nodes = [make_node("Exp", ["x"], ["e"]), make_node("Mul", ["e", "e"], ["y"])]
    graph = Graph("square", ["x"], ["y"], nodes, types={"x": t, "e": t, "y": t})
    assert graph.to_networkx().number_of_edges(0, 1) == 2


def test_algorithms_apply():
    g = diamond().to_networkx()
    assert nx.is_directed_acyclic_graph(g)
    assert nx.dag_longest_path(nx.DiGraph(g))[0] == 0
    assert nx.ancestors(g, 2) == {0, 1}
    assert list(nx.topological_generations(g)) == [[0], [1], [2, 3]]


def test_an_empty_graph():
    assert len(Graph("nothing").to_networkx()) == 0
