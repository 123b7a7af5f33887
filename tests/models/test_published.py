"""The nine convolutional networks that the onnx package brings: whole graphs as exported long ago,
with weights that are filled in by ConstantOfShape. Against the recorded results, and, with random
weights instead, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from judging import Array, Feed, assert_agree, runtime
from onnx import numpy_helper

import aicc

FOLDER = Path(onnx.__file__).parent / "backend/test/data/light"
NAMES = [
    *("squeezenet", "shufflenet", "densenet121", "inception_v1", "inception_v2", "resnet50"),
    *("bvlc_alexnet", "zfnet512", "vgg19"),
]
QUICK = ("shufflenet",)
pytestmark = pytest.mark.skipif(
    not FOLDER.exists(), reason="this version of onnx brings no such models"
)


def feed(model: onnx.ModelProto) -> Feed:
    """Numbers from 0 to 1 in order, which the results were recorded for."""
    weights = {t.name for t in model.graph.initializer}
    made: Feed = {}
    for info in model.graph.input:
        if info.name not in weights:
            shape = [d.dim_value for d in info.type.tensor_type.shape.dim]
            count = int(np.prod(shape))
            made[info.name] = (np.arange(count).reshape(shape) / count).astype(np.float32)
    return made


def with_random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each ConstantOfShape becomes a weight that keeps activations near 1 (He et al. 2015)."""
    rng = np.random.default_rng(0)
    shapes = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    kept = []
    for node in model.graph.node:
        if node.op_type != "ConstantOfShape":
            kept.append(node)
            continue
        shape = [int(d) for d in shapes[node.input[0]]]
        if len(shape) > 1:
            spread = (2 / max(1, np.prod(shape[1:]))) ** 0.5
            data = rng.standard_normal(shape, np.float32) * np.float32(spread)
        else:
            data = rng.uniform(0.5, 1.5, shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(data, node.output[0]))
    del model.graph.node[:]
    model.graph.node.extend(kept)
    return model


def run(model: onnx.ModelProto, given: Feed) -> list[Array]:
    made = aicc.compile(model, threads=1)
    assert isinstance(made, aicc.CompiledModel)
    assert made.report().host_ops == ()
    try:
        return made.run(None, given)
    finally:
        made.close()


@pytest.mark.filterwarnings("ignore::aicc.errors.AiccWarning")  # shapes declared wrongly
@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_published(name: str) -> None:
    path = FOLDER / f"light_{name}.onnx"
    model = onnx.load(path)
    given = feed(model)
    recorded = onnx.load_tensor(path.with_name(f"light_{name}_output_0.pb"))
    assert_agree([numpy_helper.to_array(recorded)], run(model, given), f"{name} as recorded")
    model = with_random_weights(model)
    assert_agree(runtime(model).run(None, given), run(model, given), name)
