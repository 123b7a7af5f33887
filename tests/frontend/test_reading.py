"""Files and bytes -> parsed models: what is read, and what is refused."""

import contextlib
import os

import numpy as np
import onnx
import pytest
from model_builder import graph, model, node, relu, tensor, value, with_weights
from onnx import TensorProto, helper

from aicc.dtypes import to_numpy
from aicc.errors import AiccWarning, ModelError, UnsupportedError
from aicc.frontend import load_model
from aicc.frontend.external import ExternalData
from aicc.frontend.tensors import DTYPES, TensorReader
from aicc.frontend.wire import WireError, detach_weights


def test_sources_are_equal(tmp_path):
    proto = with_weights()
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    graphs = [load_model(s) for s in (proto, proto.SerializeToString(), path, str(path))]
    assert all(g == graphs[0] for g in graphs)
    assert graphs[0].constants["w"].tolist() == list(range(2048))
    assert graphs[0].inputs == ["x"] and graphs[0].outputs == ["y"]


def test_large_weights_are_views_of_the_file(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(with_weights(100_000).SerializeToString())
    w = load_model(path).constants["w"]
    assert not w.flags.owndata and not w.flags.writeable
    assert w[99_999] == 99_999


def test_detached_weights_leave_the_rest_of_the_model():
    proto = with_weights(5000)
    proto.graph.initializer.append(tensor("small", np.ones(3, np.float32)))
    proto.graph.initializer.append(tensor("big", np.ones((50, 60))))
    data = memoryview(proto.SerializeToString())
    kept, weights = detach_weights(data)
    assert sorted(weights) == [0, 2]
    assert bytes(weights[0]) == proto.graph.initializer[0].raw_data
    assert bytes(weights[2]) == proto.graph.initializer[2].raw_data
    expected = onnx.ModelProto()
    expected.CopyFrom(proto)
    for i in weights:
        expected.graph.initializer[i].ClearField("raw_data")
    assert onnx.ModelProto.FromString(kept) == expected


def test_every_truncation_is_refused_or_read_whole():
    data = with_weights(1200).SerializeToString()
    for end in [*range(200), *range(200, len(data), 97), len(data) - 1]:
        with pytest.raises(ModelError):
            load_model(data[:end])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"hello world, this is no protobuf at all", "not an ONNX model"),
        (bytes(range(256)) * 4, "not an ONNX model"),
        (b"\xff" * 64, "not an ONNX model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git-lfs pointer"),
        (b"PK\x03\x04" + b"\0" * 40, "not an ONNX model"),
    ],
)
def test_what_is_no_model(data, said, tmp_path):
    with pytest.raises(ModelError, match=said):
        load_model(data)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=said):
        load_model(path)


def test_truncated_says_so():
    with pytest.raises(ModelError, match="truncated"):
        load_model(with_weights().SerializeToString()[:-9])


def test_no_graph():
    with pytest.raises(ModelError, match="no graph"):
        load_model(onnx.ModelProto())
    t = tensor("t", np.ones(4, np.float32)).SerializeToString()
    with pytest.raises(ModelError):
        load_model(t)
    with pytest.raises(ModelError, match="no outputs"):
        load_model(helper.make_model(helper.make_graph([], "g", [], [])))


def test_other_sources(tmp_path):
    with pytest.raises(ModelError, match="does not exist"):
        load_model(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="not a file"):
        load_model(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a file"):
        load_model(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not int"):
        load_model(7)
    with pytest.raises(ModelError, match="null"):
        load_model("a\0b")


@pytest.mark.filterwarnings("ignore::aicc.errors.AiccWarning")
def test_random_damage_is_never_anything_but_a_typed_error():
    data = bytearray(with_weights(40).SerializeToString())
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), 3):
            damaged[at] = rng.integers(0, 256)
        with contextlib.suppress(ModelError):
            load_model(bytes(damaged))


def test_wire_errors():
    with pytest.raises(WireError) as found:
        detach_weights(memoryview(b"\x3a\x7f\x00"))
    assert found.value.truncated
    with pytest.raises(WireError, match="starts no field"):
        detach_weights(memoryview(b"\x03\x00"))
    with pytest.raises(WireError, match="64 bits"):
        detach_weights(memoryview(b"\x08" + b"\xff" * 12))


def test_newer_ir_version_warns():
    proto = relu()
    proto.ir_version = 99
    with pytest.warns(AiccWarning, match="IR version 99"):
        load_model(proto)


# --- tensors ------------------------------------------------------------------------------------


def decode(t):
    return TensorReader(ExternalData(None)).decode(t)


@pytest.mark.parametrize(
    "dtype",
    [t for t in DTYPES.values() if t not in ("bf16", "str")],
)
def test_tensor_encodings(dtype):
    array = np.array([[0, 1, 1], [0, 1, 100 if dtype != "bool" else 1]]).astype(to_numpy(dtype))
    raw = tensor("t", array)
    assert raw.HasField("raw_data")
    typed = helper.make_tensor("t", raw.data_type, array.shape, array.reshape(-1).tolist())
    assert not typed.HasField("raw_data")
    for t in (raw, typed):
        found = decode(t)
        assert found.dtype == array.dtype and np.array_equal(found, array)


def test_bfloat16_and_negative_and_strings():
    t = helper.make_tensor("t", TensorProto.BFLOAT16, [2], [1.5, -2.0])
    assert decode(t).astype(np.float32).tolist() == [1.5, -2.0]
    t = helper.make_tensor("t", TensorProto.INT8, [2], [-128, 127])
    assert decode(t).tolist() == [-128, 127]
    t = helper.make_tensor("t", TensorProto.STRING, [2], [b"a", "ä".encode()])
    assert decode(t).tolist() == ["a", "ä"]
    t = helper.make_tensor("t", TensorProto.UINT32, [1], [2**32 - 1])
    assert decode(t).tolist() == [2**32 - 1]


def test_bools_are_normalised():
    t = TensorProto(name="t", data_type=TensorProto.BOOL, dims=[3], raw_data=b"\x00\x02\xff")
    assert decode(t).view(np.uint8).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dims": [3], "raw_data": b"\0" * 8}, "has 12 bytes, but its data have 8"),
        ({"dims": [3], "float_data": [1.0]}, "has 3 elements, but float_data has 1"),
        ({"dims": [-1], "raw_data": b""}, "negative size"),
        ({"dims": [2**40, 2**40]}, "overflow"),
        ({"dims": [2**62], "raw_data": b""}, "overflow"),
        ({"dims": [2**59], "raw_data": b""}, "but its data have 0"),
        ({"dims": [1], "data_type": 0, "float_data": [1.0]}, "no element type"),
        ({"dims": [1], "data_type": TensorProto.INT8, "int32_data": [300]}, "does not fit"),
        ({"dims": [1], "data_type": TensorProto.UINT32, "uint64_data": [2**40]}, "does not fit"),
        ({"dims": [1], "data_type": TensorProto.STRING, "raw_data": b"a"}, "cannot be raw"),
    ],
)
def test_bad_tensors(fields, said):
    t = TensorProto(name="w", **{"data_type": TensorProto.FLOAT, **fields})
    with pytest.raises(ModelError, match=said) as found:
        decode(t)
    assert "'w'" in str(found.value)


@pytest.mark.parametrize("kind", ["COMPLEX64", "FLOAT8E4M3FN", "INT4"])
def test_unsupported_element_types(kind):
    t = TensorProto(name="w", data_type=getattr(TensorProto, kind), dims=[2], raw_data=b"\0")
    with pytest.raises(UnsupportedError, match=f"'w'.*{kind}"):
        decode(t)


def test_segments_are_refused():
    t = TensorProto(name="w", data_type=1, dims=[1], float_data=[1.0])
    t.segment.begin = 0
    with pytest.raises(UnsupportedError, match="segments"):
        decode(t)


# --- external data ------------------------------------------------------------------------------


def external(path, location, **entries):
    """A model beside whose file `location` holds its weights."""
    proto = with_weights(16)
    w = proto.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, content in {"location": location, **entries}.items():
        w.external_data.add(key=key, value=str(content))
    path.write_bytes(proto.SerializeToString())
    return path


@pytest.fixture
def folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    weights = np.arange(16, dtype=np.float32).tobytes()
    (inside / "w.bin").write_bytes(b"\0" * 64 + weights)
    (tmp_path / "w.bin").write_bytes(b"\0" * 64 + weights)
    return inside


def test_external_data(folder):
    g = load_model(external(folder / "m.onnx", "w.bin", offset=64, length=64))
    assert g.constants["w"].tolist() == list(range(16))
    assert not g.constants["w"].flags.owndata
    g = load_model(external(folder / "m.onnx", "w.bin", offset=64))
    assert g.constants["w"].tolist() == list(range(16))
    (folder / "sub").mkdir()
    (folder / "sub" / "v.bin").write_bytes((folder / "w.bin").read_bytes())
    g = load_model(external(folder / "m.onnx", "sub/v.bin", offset=64))
    assert g.constants["w"].tolist() == list(range(16))


@pytest.mark.parametrize(
    ("location", "entries", "said"),
    [
        ("../w.bin", {"offset": 64}, r"'\.\.' in the path"),
        ("sub/../../w.bin", {"offset": 64}, r"'\.\.' in the path"),
        ("..\\w.bin", {"offset": 64}, r"'\.\.' in the path"),
        ("/etc/hostname", {}, "absolute path"),
        ("C:\\w.bin", {}, "absolute path"),
        ("\\\\host\\share\\w.bin", {}, "absolute path"),
        ("missing.bin", {}, "does not exist"),
        ("", {}, "no usable location"),
        ("w\0.bin", {}, "no usable location"),
        (".", {}, "not a file"),
        ("*/_ORT_MEM_ADDR_/*", {"offset": 64}, "does not exist"),
        ("w.bin", {"offset": 65}, "too short: bytes 65..129 of a file of 128"),
        ("w.bin", {"offset": 2**63}, "too short"),
        ("w.bin", {"offset": 10**30}, "not a number of bytes"),
        ("w.bin", {"offset": -4}, "not a number of bytes"),
        ("w.bin", {"offset": "x"}, "not a number of bytes"),
        ("w.bin", {"offset": 64, "length": 60}, "length 60, but the tensor has 64"),
        ("w.bin", {"offset": 64, "length": 2**62}, "but the tensor has 64"),
    ],
)
def test_external_data_refusals(folder, location, entries, said):
    with pytest.raises(ModelError, match=said) as found:
        load_model(external(folder / "m.onnx", location, **entries))
    assert "'w'" in str(found.value)


def test_links_out_of_the_folder(folder):
    (folder / "link.bin").symlink_to(folder.parent / "w.bin")
    with pytest.raises(ModelError, match="symbolic link that leads out"):
        load_model(external(folder / "m.onnx", "link.bin", offset=64))
    (folder / "dir").symlink_to(folder.parent)
    with pytest.raises(ModelError, match="symbolic link that leads out"):
        load_model(external(folder / "m.onnx", "dir/w.bin", offset=64))
    (folder / "loop.bin").symlink_to(folder / "loop.bin")
    with pytest.raises(ModelError):
        load_model(external(folder / "m.onnx", "loop.bin"))
    (folder / "fine.bin").symlink_to(folder / "w.bin")
    g = load_model(external(folder / "m.onnx", "fine.bin", offset=64))
    assert g.constants["w"][15] == 15
    # A folder that is itself reached by a link is the model's folder all the same.
    (folder.parent / "alias").symlink_to(folder)
    external(folder / "m.onnx", "w.bin", offset=64)
    assert load_model(folder.parent / "alias" / "m.onnx").constants["w"][15] == 15


def test_external_data_needs_a_file(folder):
    path = external(folder / "m.onnx", "w.bin", offset=64)
    with pytest.raises(ModelError, match="given by its path"):
        load_model(path.read_bytes())


def test_external_data_of_an_attribute(folder):
    proto = model([node("Constant", "", "c", value=tensor("c", np.ones(16, np.float32)))])
    proto.graph.node.append(node("Add", "x c", "y"))
    proto.graph.input[0].CopyFrom(value("x", [16]))
    proto.graph.output[0].CopyFrom(value("y", [16]))
    t = proto.graph.node[0].attribute[0].t
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    t.external_data.add(key="location", value="../w.bin")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="in the path"):
        load_model(folder / "m.onnx")
    t.external_data[0].value = "w.bin"
    t.external_data.add(key="offset", value="64")
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    assert load_model(folder / "m.onnx").constants["c"].tolist() == list(range(16))


def test_sparse_initializers():
    proto = relu()
    sparse = proto.graph.sparse_initializer.add()
    sparse.values.CopyFrom(tensor("s", np.ones(1, np.float32)))
    with pytest.raises(UnsupportedError, match="sparse initializers: 's'"):
        load_model(proto)


def test_graph_names_are_kept():
    proto = helper.make_model(graph([node("Relu", "x", "y")], name="my graph"))
    proto.opset_import[0].version = 17
    assert load_model(proto).name == "my graph"
