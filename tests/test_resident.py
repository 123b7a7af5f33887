"""How much memory weights take while a model is compiled, loaded and run, each in its own process.

The bounds are those of docs/saving.md with room for the system's page cache and allocator.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import aicc

ROOT = Path(aicc.__file__).parents[1]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
MB = 1 << 20

MEASURE = """
import json, sys
import numpy as np
import aicc
if sys.argv[1] == "compile":
    import aicc.driver
    from aicc.target import Target
    Target.host()

def held(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith(name))

before = held("VmRSS")
if sys.argv[1] == "compile":
    model = aicc.compile(sys.argv[2], threads=1)
    model.save(sys.argv[3])
else:
    model = aicc.load(sys.argv[3], threads=1, verify=sys.argv[1] == "verify")
ready, peak = held("VmRSS") - before, held("VmHWM") - before
feed = {p.name: np.ones(p.shape, p.dtype) for p in model.inputs}
(y,) = model.run(None, feed)
told = {"ready": ready, "peak": peak, "ran": held("VmRSS") - before, "sum": float(y.sum())}
print(json.dumps(told | {"weights": model.program.constant_bytes}))
"""


def told(what, model, saved, cache):
    made = subprocess.run(
        [sys.executable, "-c", MEASURE, what, str(model), str(saved)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={"PATH": "", "AICC_CACHE_DIR": str(cache), "AICC_CACHE": "0"},
    )
    assert made.returncode == 0, made.stderr
    return json.loads(made.stdout)


def gemms(scaled):
    """Two layers, 48 MB of weights that lie transposed in the file; scaled: by constants."""
    rng = np.random.default_rng(0)
    n, k = 2048, 3072
    a = (rng.standard_normal((n, k), np.float32) / 50).astype(np.float32)
    b = (rng.standard_normal((k, n), np.float32) / 50).astype(np.float32)
    s = rng.standard_normal(n).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["x", "a"], ["h"], transB=1),
        helper.make_node("Mul", ["h", "s"], ["g"]),
        helper.make_node("Gemm", ["g" if scaled else "h", "b"], ["y"], transB=1),
    ]
    if not scaled:
        del nodes[1]
    arrays = {"a": a, "b": b, "s": s} if scaled else {"a": a, "b": b}
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "gemms",
        [info("x", TensorProto.FLOAT, [2, k])],
        [info("y", TensorProto.FLOAT, [2, k])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize("scaled", [False, True])
def test_weights_are_in_memory_once(tmp_path, scaled):
    model, saved, cache = tmp_path / "m.onnx", tmp_path / "m.aicc", tmp_path / "cache"
    onnx.save(gemms(scaled), model)
    told("compile", model, saved, cache)  # LLVM is asked about the machine
    made = told("compile", model, saved, cache)
    weights = made["weights"]
    assert 48 * MB <= weights < 49 * MB
    # A scaled layer is a new constant, until it is packed.
    assert made["peak"] < weights + (24 * MB if scaled else 0) + 24 * MB
    assert made["ready"] < weights + 16 * MB
    loaded = told("load", model, saved, cache)
    assert loaded["peak"] < 10 * MB  # nothing is read yet
    assert weights * 0.99 < loaded["ran"] < weights + 12 * MB
    assert told("verify", model, saved, cache)["peak"] < 24 * MB
    assert loaded["sum"] == made["sum"]
