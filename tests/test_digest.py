import hashlib
import subprocess
import sys

import numpy as np
import pytest

from aicc import digest


@pytest.mark.parametrize("large", [0, 1 << 24])
@pytest.mark.parametrize("own", [digest.OWN, (), ("aicc",)], ids=["own", "openssl", "neither"])
def test_digests_are_those_of_sha256(monkeypatch, large, own):
    monkeypatch.setattr(digest, "LARGE", large)
    monkeypatch.setattr(digest, "OWN", own)
    data = bytes(range(256)) * 50
    expected = hashlib.sha256(data).digest()
    assert digest.sha256(data) == expected
    assert digest.sha256_of([data[:7], memoryview(data)[7:]], len(data)) == expected


def test_loading_takes_neither_openssl_nor_types_that_it_does_not_need(tmp_path):
    from onnx import TensorProto, helper

    import aicc

    info = helper.make_tensor_value_info
    node = helper.make_node("Relu", ["x"], ["y"])
    ports = [info("x", TensorProto.FLOAT, [3])], [info("y", TensorProto.FLOAT, [3])]
    model = helper.make_model(helper.make_graph([node], "g", *ports), ir_version=9)
    aicc.compile(model, threads=1).save(tmp_path / "m.aicc")
    code = f"""
import sys, numpy as np, aicc
model = aicc.load({str(tmp_path / "m.aicc")!r}, threads=1)
assert model.run(None, {{"x": np.ones(3, np.float32)}})[0].sum() == 3
print([name for name in ("_hashlib", "ml_dtypes", "onnx", "networkx") if name in sys.modules])
"""
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == "[]"


def test_bf16_is_known_where_it_is_needed():
    from aicc.dtypes import from_numpy, to_numpy

    assert to_numpy("bf16").itemsize == 2
    assert from_numpy(to_numpy("bf16")) == "bf16"
    with pytest.raises(KeyError):
        from_numpy(np.complex64)
