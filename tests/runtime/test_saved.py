"""Saved models: what comes back, what is refused, what loading brings with it."""

import hashlib
import json
import mmap
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import small_models
from modules import Sketch, gather, matmul_relu, random, unary

import aicc
from aicc.build import build
from aicc.errors import (
    AiccWarning,
    ExecutionError,
    InputError,
    SavedModelError,
    TargetError,
    UnsupportedError,
)
from aicc.graph_ir.types import TensorType
from aicc.plan import plan
from aicc.runtime.context import slots
from aicc.runtime.linking import usable
from aicc.runtime.program_text import parse_program
from aicc.runtime.saved import FORMAT, HEADER, MAGIC, PAGE
from aicc.symbolic import sym
from aicc.target import Target
from aicc.tensor_ir.schedule import Parallel

HOST = Target.host()
N = sym("n", 1)
ROOT = Path(aicc.__file__).parents[1]


def mlp(n=4, threads=1):
    s = Sketch()
    s.input("x", "f32", n, 8)
    s.constant("w", random("f32", 8, 16, seed=1))
    s.constant("c", random("f32", 16, seed=2))
    kernel = matmul_relu("k0", n, 8, 16)
    s.call(Parallel("i0_1").apply(kernel) if threads > 1 else kernel, ["x", "w", "c"], "h")
    s.call(unary("k1", "neg", "f32", (n, 16)), ["h"], "y", origin="minus")
    return build(plan(s.finish("y")), HOST, threads)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "mlp.aicc"
    model = mlp()
    model.save(path)
    return path


def rewrite_manifest(path, change):
    """Changes the manifest, with checksums that fit."""
    data = path.read_bytes()
    magic, number, zero, length, _, _ = HEADER.unpack_from(data)
    manifest = json.loads(data[HEADER.size : HEADER.size + length])
    start = -(-(HEADER.size + length) // 64) * 64
    change(manifest)
    weights = manifest["sections"][-1]["bytes"]
    text = json.dumps(manifest).encode()
    body = data[start : len(data) - weights].rstrip(b"\0")
    begin = -(-(HEADER.size + len(text)) // 64) * 64
    used = begin + manifest["sections"][-2]["at"] + manifest["sections"][-2]["bytes"]
    block = -(-used // PAGE) * PAGE
    header = HEADER.pack(
        magic, number, zero, len(text), block + weights, hashlib.sha256(text).digest()
    )
    whole = (header + text).ljust(begin, b"\0") + body
    path.write_bytes(whole.ljust(block, b"\0") + data[len(data) - weights :])


class TestRoundTrip:
    @pytest.mark.parametrize("n", [4, N])
    @pytest.mark.parametrize("threads", [1, 2])
    def test_the_same_bits(self, tmp_path, n, threads):
        model = mlp(n, threads)
        path = tmp_path / "m.aicc"
        model.save(path)
        loaded = aicc.load(path)
        assert loaded.executable.threads == min(threads, HOST.cores)
        assert loaded.program == model.program
        assert (loaded.inputs, loaded.outputs) == (model.inputs, model.outputs)
        for seed, rows in enumerate((4, 4) if n == 4 else (4, 1, 63)):
            x = random("f32", rows, 8, seed=seed)
            np.testing.assert_array_equal(loaded(x), model(x))

    def test_all_that_is_reported_but_the_times(self, saved):
        model, loaded = mlp(), aicc.load(saved)
        a, b = model.report().as_dict(), loaded.report().as_dict()
        assert list(b["seconds"]) == ["load"] and a.pop("seconds") and b.pop("seconds")
        assert a == b

    def test_profiles(self, saved):
        profile = aicc.load(saved).profile({"x": random("f32", 4, 8)}, runs=2)
        assert [s.what for s in profile.steps] == [s.what for s in mlp().profile(
            {"x": random("f32", 4, 8)}, runs=1
        ).steps]  # fmt: skip

    def test_weights_are_mapped(self, saved):
        loaded = aicc.load(saved)
        owner = loaded.parts.constants
        assert owner.ctypes.data % 64 == 0 and not owner.flags.writeable
        while isinstance(owner, np.ndarray):
            owner = owner.base
        assert isinstance(owner.obj, mmap.mmap)

    def test_one_model_one_file(self, saved, tmp_path):
        again = tmp_path / "again.aicc"
        aicc.load(saved).save(again)
        assert again.read_bytes() == saved.read_bytes()

    def test_a_compiler_is_told_what_it_is(self, tmp_path):
        mlp(64, threads=1).save(tmp_path / "m.aicc")
        with pytest.raises(aicc.ModelError, match=r"a saved model, which `aicc\.load` reads"):
            aicc.compile(tmp_path / "m.aicc")

    def test_threads_can_be_chosen(self, tmp_path, monkeypatch):
        path = tmp_path / "m.aicc"
        model = mlp(64, threads=2)
        model.save(path)
        x = random("f32", 64, 8)
        for threads in (1, 2, 3):
            loaded = aicc.load(path, threads=threads)
            assert loaded.executable.threads == threads
            np.testing.assert_array_equal(loaded(x), model(x))
        monkeypatch.setenv("AICC_THREADS", "3")
        assert aicc.load(path).executable.threads == 3
        with pytest.raises(ValueError, match="threads is a whole number from 1"):
            aicc.load(path, threads=0)

    def test_runs_at_once(self, tmp_path):
        path = tmp_path / "m.aicc"
        mlp(N, threads=2).save(path)
        loaded = aicc.load(path, threads=2)
        inputs = [random("f32", 3 + n, 8, seed=n) for n in range(6)]
        expected = [loaded(x) for x in inputs]
        wrong = []

        def work(n):
            for _ in range(50):
                if not np.array_equal(loaded(inputs[n]), expected[n]):
                    wrong.append(n)

        threads = [threading.Thread(target=work, args=(n,)) for n in range(len(inputs))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert not wrong

    def test_errors_of_a_run(self, tmp_path):
        s = Sketch()
        s.input("x", "f32", 5, 3)
        s.input("index", "i64", N)
        s.call(gather("k0", 5, 3, N), ["x", "index"], "y", origin="look up")
        build(plan(s.finish("y")), HOST, 1).save(tmp_path / "m.aicc")
        loaded = aicc.load(tmp_path / "m.aicc")
        x = random("f32", 5, 3)
        np.testing.assert_array_equal(loaded(x, np.array([4, 0])), x[[4, 0]])
        with pytest.raises(ExecutionError, match="'look up': index out of range"):
            loaded(x, np.array([5]))
        with pytest.raises(InputError, match="unknown inputs: z"):
            loaded.run(None, {"x": x, "index": np.array([0]), "z": x})
        loaded.close()
        with pytest.raises(ExecutionError, match="closed"):
            loaded(x, np.array([0]))

    def test_constants_of_strings(self, tmp_path):
        s = Sketch()
        s.input("x", "f32", 3)
        names = np.array([["a", 'b"\n', "\u00e9\udc80"]], object)
        s.constant("names", names)
        s.call(unary("k0", "neg", "f32", (3,)), ["x"], "y")
        build(plan(s.finish("y", "names")), HOST, 1).save(tmp_path / "m.aicc")
        y, got = aicc.load(tmp_path / "m.aicc")(np.ones(3, np.float32))
        np.testing.assert_array_equal(y, [-1, -1, -1])
        assert got.tolist() == names.tolist() and got.shape == (1, 3)

    def test_no_weights(self, tmp_path):
        s = Sketch()
        s.input("x", "f32", 3)
        s.call(unary("k0", "neg", "f32", (3,)), ["x"], "y")
        build(plan(s.finish("y")), HOST, 1).save(tmp_path / "m.aicc")
        np.testing.assert_array_equal(
            aicc.load(tmp_path / "m.aicc", verify=True)(np.ones(3, np.float32)), [-1, -1, -1]
        )


class TestRefusals:
    def test_no_file(self, tmp_path):
        with pytest.raises(SavedModelError, match="does not exist"):
            aicc.load(tmp_path / "none.aicc")
        with pytest.raises(SavedModelError, match="is not a file"):
            aicc.load(tmp_path)

    @pytest.mark.parametrize("data", [b"x" * 200, b"\x08\x07\x12\x04onnx", b"ai"])
    def test_another_file(self, tmp_path, data):
        path = tmp_path / "m.aicc"
        path.write_bytes(data)
        with pytest.raises(SavedModelError, match="not a saved model"):
            aicc.load(path)

    def test_an_empty_file(self, tmp_path):
        path = tmp_path / "m.aicc"
        path.write_bytes(b"")
        with pytest.raises(SavedModelError, match="empty"):
            aicc.load(path)

    @pytest.mark.parametrize("number", [0, FORMAT - 1, FORMAT + 1, 1 << 31])
    def test_another_format(self, saved, number):
        data = bytearray(saved.read_bytes())
        data[len(MAGIC) : len(MAGIC) + 4] = struct.pack("<I", number)
        saved.write_bytes(data)
        with pytest.raises(SavedModelError, match=f"format {number}, .* reads format {FORMAT}"):
            aicc.load(saved)

    def test_truncated(self, saved):
        data = saved.read_bytes()
        for size in (8, 9, 63, 64, 100, 1000, PAGE, len(data) - 1):
            saved.write_bytes(data[:size])
            with pytest.raises(SavedModelError, match="truncated"):
                aicc.load(saved)

    def test_something_behind_it(self, saved):
        saved.write_bytes(saved.read_bytes() + b"\0")
        with pytest.raises(SavedModelError, match="damaged"):
            aicc.load(saved)

    def test_damaged(self, saved):
        """Any bit of header, manifest, program and code."""
        data = saved.read_bytes()
        (length,) = struct.unpack_from("<Q", data, 16)
        manifest = json.loads(data[HEADER.size : HEADER.size + length])
        start = -(-(HEADER.size + length) // 64) * 64
        # What stands in bytes 12 to 16 has no meaning.
        places = [*range(12), *range(16, HEADER.size + length, 37)]
        for section in manifest["sections"][:-1]:
            at = start + section["at"]
            places += [at, at + section["bytes"] // 2, at + section["bytes"] - 1]
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 4
            saved.write_bytes(damaged)
            with pytest.raises(SavedModelError):
                aicc.load(saved)

    def test_damaged_weights(self, saved):
        """They are compared where that is asked for, because it takes reading them."""
        data = bytearray(saved.read_bytes())
        aicc.load(saved, verify=True)
        data[-1] ^= 1
        saved.write_bytes(data)
        aicc.load(saved)
        with pytest.raises(SavedModelError, match="weights does not fit its checksum"):
            aicc.load(saved, verify=True)

    def test_code_for_another_cpu(self, saved):
        def change(manifest):
            manifest["target"] = manifest["target"].replace('features="', 'features="+amx-fp99,')
            manifest["processor"] = "flags: amx-fp99"

        rewrite_manifest(saved, change)
        with pytest.raises(TargetError, match=r"lacks amx-fp99; compile the model on this machine"):
            aicc.load(saved)

    def test_code_for_another_architecture(self, saved):
        other = Target.from_name("aarch64" if HOST.arch == "x86_64" else "x86-64")
        rewrite_manifest(saved, lambda m: m.update(target=other.text(), processor="flags: sve"))
        with pytest.raises(TargetError, match=f"architecture {other.arch}"):
            aicc.load(saved)

    def test_parts_that_do_not_fit(self, saved):
        data = saved.read_bytes()
        rewrite_manifest(saved, lambda m: None)
        aicc.load(saved)  # the rewriting itself does no harm

        def expect(change, message):
            saved.write_bytes(data)
            rewrite_manifest(saved, change)
            with pytest.raises(SavedModelError, match=message):
                aicc.load(saved)

        expect(lambda m: m.update(target="a fast one"), "not the text of a target")
        expect(lambda m: m.pop("threads"), "do not fit together")
        expect(lambda m: m["scopes"].pop("k1"), "nothing is said about kernels: k1")
        expect(lambda m: m["sections"][1].update(kind="data"), "sections")
        expect(lambda m: m["sections"][1].update(at=-8), "outside the file")
        expect(lambda m: m["sections"][1].update(bytes=1 << 40), "damaged|outside")

    def test_host_operators(self, tmp_path):
        s = Sketch()
        s.input("x", "f32", N)
        t = TensorType("i64", (1, sym("found", 0)))
        s.op("NonZero", ["x"], {"where": t})
        with pytest.warns(AiccWarning):
            model = build(plan(s.finish("where")), HOST, 1)
        with pytest.raises(UnsupportedError, match=r"cannot be saved: .*NonZero \(node_where\)"):
            model.save(tmp_path / "m.aicc")
        assert not list(tmp_path.iterdir())


class TestWriting:
    def test_a_place_that_cannot_be_written_to(self, tmp_path):
        with pytest.raises(SavedModelError, match="cannot be saved to"):
            mlp().save(tmp_path / "no folder" / "m.aicc")
        (tmp_path / "folder").mkdir()
        with pytest.raises(SavedModelError, match="cannot be saved to"):
            mlp().save(tmp_path / "folder")
        assert [p.name for p in tmp_path.iterdir()] == ["folder"]

    def test_what_fails_leaves_what_was_there(self, saved, monkeypatch):
        before = saved.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(SavedModelError, match="No space left"):
            mlp(N).save(saved)
        assert saved.read_bytes() == before
        assert [p.name for p in saved.parent.iterdir()] == [saved.name]

    def test_a_loaded_model_may_be_replaced(self, saved):
        loaded = aicc.load(saved)
        x = random("f32", 4, 8)
        expected = mlp()(x)
        s = Sketch()
        s.input("x", "f32", 3)
        s.call(unary("k0", "neg", "f32", (3,)), ["x"], "y")
        build(plan(s.finish("y")), HOST, 1).save(saved)
        np.testing.assert_array_equal(loaded(x), expected)
        assert aicc.load(saved).inputs[0].shape == (3,)

    def test_others_may_read_it(self, saved):
        (saved.parent / "plain").write_bytes(b"")
        assert saved.stat().st_mode == (saved.parent / "plain").stat().st_mode


def test_loading_brings_no_compiler(saved, tmp_path):
    """Neither onnx nor networkx nor any part of the compiler but what places code."""
    np.save(tmp_path / "x.npy", random("f32", 4, 8))
    code = f"""
import sys
import numpy as np
import aicc
model = aicc.load({str(saved)!r})
y = model(np.load({str(tmp_path / "x.npy")!r}))
assert str(model.report())
np.save({str(tmp_path / "y.npy")!r}, y)
print(*sorted(sys.modules))
"""
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    modules = made.stdout.split()
    foreign = {m.split(".")[0] for m in modules}
    assert not foreign & {"onnx", "google", "networkx", "typer", "rich"}
    assert not usable() or "llvmlite" not in foreign
    own = {m for m in modules if m.startswith("aicc.")}
    packages = {m.split(".")[1] for m in own}
    wanted = {"config", "dtypes", "errors", "loading", "memory", "model", "pages", "runtime"}
    wanted |= {"symbolic", "text", "digest", "host", "target"}
    assert packages == wanted | (set() if usable() else {"codegen"})
    own_codegen = {m for m in own if m.startswith("aicc.codegen.")}
    assert own_codegen <= {"aicc.codegen.jit"}
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), mlp()(np.load(tmp_path / "x.npy")))


def test_the_format_changes_with_the_context():
    """A saved program's code reads these words: where they move, FORMAT has to change."""
    program = parse_program(
        "program @p\n  size n: 1.. = x[0]\n  input x: f32[n]\n  arena h: f32[n] live 0..1\n"
        "  output y: f32[n]\n  call @k (x) -> (h) sizes (n)\n  copy h -> y\n  return (y = y)\n"
        "  constants 0\n"
    )
    made = slots(program)
    assert FORMAT == 3
    assert made.addresses == {"x": 8, "y": 9, "h": 10}
    assert (made.sizes, made.copies, made.length) == ({"n": 11}, {1: 12}, 13)


def test_weights_may_be_copied_out_of_the_file(tmp_path):
    """Then the file may even be written to while the model lives."""
    model = aicc.compile(small_models.convnet(), threads=1)
    path = tmp_path / "m.aicc"
    model.save(path)
    loaded = aicc.load(path, resident=True, verify=True)
    (feed,) = small_models.feeds("convnet")[:1]
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))
    for a, b in zip(model.run(None, feed), loaded.run(None, feed), strict=True):
        assert a.tobytes() == b.tobytes()
