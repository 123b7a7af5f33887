"""Object code kept on disk: what is found again, what is not, and what others do to the folder."""

import dataclasses
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

import aicc
from aicc import build, config, driver
from aicc.codegen import jit, object_cache
from aicc.codegen.object_cache import MAGIC, ObjectCache
from aicc.target import Target

HOST = Target.host()
ROOT = Path(aicc.__file__).parents[1]
MIB = 1 << 20


@pytest.fixture
def cache(tmp_path):
    return ObjectCache(tmp_path / "objects", 64 * MIB, "1")


def files(folder):
    return sorted(p.name for p in Path(folder).iterdir() if p.name != "written")


def run(code, *args, **more):
    """A Python process that runs `code` with these arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, stdout=subprocess.PIPE, **more
    )


def test_what_is_put_is_found_by_others(cache):
    key = cache.key("kernel", "text", HOST)
    assert cache.get(key) is None
    for data in (b"code", b"", os.urandom(100_000)):  # the last replaces the others
        cache.put(key, data)
        assert ObjectCache(cache.folder, MIB, "1").get(key) == data
    assert files(cache.folder) == [key]


def test_a_key_for_everything_that_code_depends_on(cache, monkeypatch, tmp_path):
    key = cache.key("kernel", "text", HOST)
    again = ObjectCache(tmp_path / "elsewhere", MIB, "1")
    assert again.key("kernel", "text", HOST) == key
    smaller = dataclasses.replace(HOST, l2=HOST.l2 // 2)
    keys = {
        key,
        cache.key("program", "text", HOST),
        cache.key("kernel", "text2", HOST),
        cache.key("kernel", "text", smaller),
        ObjectCache(tmp_path, MIB, "2").key("kernel", "text", HOST),
    }
    monkeypatch.setattr(object_cache, "compiler_identity", lambda: "other")
    keys.add(ObjectCache(tmp_path, MIB, "1").key("kernel", "text", HOST))
    assert len(keys) == 6


def test_the_identity_covers_the_source_and_llvm(monkeypatch, tmp_path):
    def identity():
        object_cache.compiler_identity.cache_clear()
        return object_cache.compiler_identity()

    try:
        known = identity()
        assert identity() == known
        with monkeypatch.context() as patch:
            patch.setattr(object_cache, "llvm_identity", lambda: "0.1")
            assert identity() != known
        # The same source elsewhere is the same compiler; one more character is another.
        here = Path(object_cache.__file__)
        package = here.parents[1]
        for pattern in object_cache._SOURCES:
            for path in package.glob(pattern):
                copy = tmp_path / path.relative_to(package)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
        monkeypatch.setattr(object_cache, "__file__", str(tmp_path / here.relative_to(package)))
        assert identity() == known
        (tmp_path / "codegen" / "kernel.py").open("a").write(" ")
        assert identity() != known
    finally:
        object_cache.compiler_identity.cache_clear()


def test_the_identity_covers_all_that_the_code_generator_imports():
    code = "import sys, aicc.codegen.worker, aicc.codegen.program, aicc.codegen.threadpool; " + (
        "print(*(m.__file__ for n, m in sys.modules.items() if n.startswith('aicc')), sep='\\n')"
    )
    with run(code) as process:
        loaded = {Path(line) for line in process.stdout.read().decode().splitlines()}
    package = ROOT / "aicc"
    covered = {p for pattern in object_cache._SOURCES for p in package.glob(pattern)}
    assert package / "codegen" / "kernel.py" in loaded
    assert loaded <= covered


# --- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:5],
        lambda whole: whole[: len(MAGIC) + 32],
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]),
        lambda whole: bytes([whole[0] ^ 1]) + whole[1:],
        lambda whole: b"\0" * len(whole),
    ],
)
def test_a_damaged_file_counts_as_absent(cache, damage):
    key = cache.key("kernel", "text", HOST)
    cache.put(key, b"machine code")
    path = cache.folder / key
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(key) is None
    cache.put(key, b"machine code")
    assert cache.get(key) == b"machine code"


def test_a_file_under_another_name_is_not_taken(cache):
    one, two = (cache.key("kernel", text, HOST) for text in "ab")
    cache.put(one, b"code of a")
    (cache.folder / one).rename(cache.folder / two)
    assert cache.get(two) is None


def test_a_folder_in_a_files_place(cache):
    key = cache.key("kernel", "text", HOST)
    cache.put("other", b"1")
    (cache.folder / key).mkdir()
    assert cache.get(key) is None
    cache.put(key, b"data")
    assert cache.get(key) is None and cache.get("other") == b"1"


# --- several processes ----------------------------------------------------------------------------

WRITE = """
import sys, hashlib
from aicc.codegen.object_cache import ObjectCache
cache = ObjectCache(sys.argv[1], int(sys.argv[2]), "1")
wrong = found = 0
for round in range(int(sys.argv[3])):
    for i in range(20):
        key = hashlib.sha256(b"%d" % i).hexdigest()
        data = bytes([i]) * (2000 * i + 1)
        got = cache.get(key)
        found += got is not None
        wrong += got is not None and got != data
        cache.put(key, data)
print(wrong, found)
"""


@pytest.mark.parametrize("limit", [64 * MIB, 650_000])
def test_processes_that_write_the_same_files(tmp_path, limit):
    """With the smaller bound they also clean up all the time."""
    writers = [run(WRITE, tmp_path / "objects", limit, 12) for _ in range(4)]
    answers = [w.communicate()[0].split() for w in writers]
    assert all(w.returncode == 0 for w in writers)
    assert all(int(wrong) == 0 for wrong, _ in answers)
    assert sum(int(found) for _, found in answers) > 100
    assert not [n for n in files(tmp_path / "objects") if n.endswith(".tmp")]


FOREVER = """
import sys
from aicc.codegen.object_cache import ObjectCache
cache = ObjectCache(sys.argv[1], 1 << 26, "1")
data = bytes(2_000_000)
print("begins", flush=True)
while True:
    cache.put("key", data)
"""


def test_a_killed_writer(tmp_path):
    folder = tmp_path / "objects"
    for attempt in range(8):
        with run(FOREVER, folder) as writer:
            assert writer.stdout.readline()
            time.sleep(0.003 * attempt)
            writer.send_signal(signal.SIGKILL)
        assert ObjectCache(folder, 64 * MIB, "1").get("key") in (None, bytes(2_000_000))
        assert set(files(folder)) <= {"key"} | {n for n in files(folder) if n.endswith(".tmp")}


def test_what_killed_writers_leave_is_cleaned(cache):
    cache.put("key", b"data")
    for name in ("old.tmp", "new.tmp"):
        (cache.folder / name).write_bytes(b"half")
    an_age = time.time() - object_cache.STRAY_SECONDS - 10
    os.utime(cache.folder / "old.tmp", (an_age, an_age))
    cache.clean()
    assert files(cache.folder) == ["key", "new.tmp"]


# --- size -----------------------------------------------------------------------------------------


def test_the_folder_is_bounded(tmp_path):
    limit = MIB
    cache = ObjectCache(tmp_path / "objects", limit, "1")
    most = 0
    for i in range(500):
        cache.put(f"{i:064}", os.urandom(10_000))
        most = max(most, sum(p.stat().st_size for p in cache.folder.iterdir()))
    assert limit / 2 < most <= limit + 10_000  # and what counts writes
    assert cache.get(f"{499:064}") is not None and cache.get(f"{0:064}") is None


def test_several_writers_stay_within_the_bound(tmp_path):
    """What one process has written counts for the next."""
    for i in range(300):
        ObjectCache(tmp_path, MIB, "1").put(f"{i:064}", bytes(10_000))
    assert sum(p.stat().st_size for p in tmp_path.iterdir()) <= MIB + 10_000


def test_what_was_not_used_for_longest_goes_first(tmp_path):
    cache = ObjectCache(tmp_path / "objects", MIB, "1")
    for i in range(30):
        cache.put(str(i), bytes(30_000))
        used = time.time() - 1000 + i
        os.utime(cache.folder / str(i), (used, used))
    assert cache.get("3") is not None  # this is a use
    cache.limit = MIB // 2
    cache.clean()
    left = {int(n) for n in files(cache.folder)}
    assert left == {3, *range(30 - len(left) + 1, 30)}
    assert len(left) > 10 and len(left) * 30_000 <= MIB // 2


def test_a_file_that_would_push_out_all_others_is_not_kept(tmp_path):
    cache = ObjectCache(tmp_path / "objects", MIB, "1")
    cache.put("key", bytes(MIB // 8))
    assert cache.get("key") is None


# --- folders that cannot be used ------------------------------------------------------------------


def test_no_folder_can_be_made(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = ObjectCache(tmp_path / "file" / "objects", MIB, "1")
    with caplog.at_level(logging.DEBUG, "aicc"):
        for _ in range(3):
            cache.put("key", b"data")
            assert cache.get("key") is None
    assert len(caplog.records) == 1


def test_a_folder_that_is_only_read(cache, monkeypatch, caplog):
    cache.put("key", b"data")

    def refuse(*_, **__):
        raise PermissionError("no")

    monkeypatch.setattr(object_cache.tempfile, "mkstemp", refuse)
    monkeypatch.setattr(object_cache.os, "utime", refuse)
    with caplog.at_level(logging.DEBUG, "aicc"):
        for _ in range(3):
            cache.put("other", b"more")
            assert cache.get("key") == b"data"
    assert len(caplog.records) == 1
    assert cache.get("other") is None


def test_a_full_disk_leaves_nothing_behind(cache, monkeypatch):
    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(object_cache.os, "replace", refuse)
    cache.put("key", b"data")
    assert files(cache.folder) == []


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="folders have no POSIX owner")
def test_a_folder_that_others_may_write_to_is_not_used(cache, monkeypatch):
    cache.put("key", b"data")
    assert cache.folder.stat().st_mode & 0o777 == 0o700
    cache.folder.chmod(0o777)
    assert ObjectCache(cache.folder, MIB, "1").get("key") is None
    cache.folder.chmod(0o755)
    assert ObjectCache(cache.folder, MIB, "1").get("key") == b"data"
    os.chmod(cache.folder, 0o700)
    owner = cache.folder.stat().st_uid
    if owner:
        monkeypatch.setattr(object_cache.os, "getuid", lambda: owner + 1)
        assert ObjectCache(cache.folder, MIB, "1").get("key") is None


# --- models ---------------------------------------------------------------------------------------


def model():
    rng = np.random.default_rng(0)
    w = helper.make_tensor(
        "w", TensorProto.FLOAT, [24, 40], rng.standard_normal(960).astype(np.float32)
    )
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Softmax", ["a"], ["b"]),
        helper.make_node("ReduceSum", ["b", ""], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 40]),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, []),
        ],
        [w],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


X = np.arange(72, dtype=np.float32).reshape(3, 24) / 72


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AICC_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("AICC_CACHE")
    monkeypatch.setattr(driver, "model_cache", lambda: None)  # it would answer first
    return tmp_path / "objects"


@pytest.fixture
def compiled(monkeypatch):
    """The texts that LLVM was given."""
    texts: list[str] = []
    real = jit.compile_object

    def counted(text, *args, **more):
        texts.append(text)
        return real(text, *args, **more)

    build._pools.clear()
    monkeypatch.setattr(jit, "compile_object", counted)
    return texts


def results():
    return [a.tobytes() for a in aicc.compile(model(), threads=2).run(None, {"x": X})]


def test_the_second_time_nothing_is_compiled(folder, compiled):
    expected = results()
    count = len(compiled)
    assert count >= 3 and len(files(folder)) == count  # kernels, the program, the pool
    compiled.clear()
    assert results() == expected
    assert not compiled


def test_another_target_finds_nothing(folder, compiled):
    aicc.compile(model(), threads=2)
    count = len(compiled)
    compiled.clear()
    build._pools.clear()
    machine = dataclasses.replace(HOST, l1d=HOST.l1d * 2)
    aicc.compile(model(), threads=2, target=machine)
    assert len(compiled) == count


def test_damage_is_compiled_anew(folder, compiled):
    expected = results()
    count = len(compiled)
    for path in folder.iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    compiled.clear()
    build._pools.clear()
    assert results() == expected and len(compiled) == count
    compiled.clear()
    assert results() == expected and not compiled


def test_part_of_it_is_found(folder, compiled):
    expected = results()
    (folder / files(folder)[0]).unlink()
    compiled.clear()
    build._pools.clear()
    assert results() == expected
    assert len(compiled) == 1


def test_it_can_be_switched_off(folder, compiled, monkeypatch):
    monkeypatch.setenv("AICC_CACHE", "0")
    results()
    compiled.clear()
    results()
    assert compiled and not folder.exists()


def test_a_folder_that_cannot_be_made_is_no_error(folder, compiled, monkeypatch):
    folder.write_text("a file")
    first = results()
    assert compiled and results() == first


def test_nobodys_home_is_no_error(compiled, monkeypatch):
    def nowhere():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("AICC_CACHE")
    monkeypatch.setattr(config, "cache_folder", nowhere)
    assert build.object_cache() is None
    assert results() and compiled


COMPILE = """
import sys
import numpy as np
import aicc
x = np.arange(72, dtype=np.float32).reshape(3, 24) / 72
for _ in range(3):
    got = aicc.compile(sys.argv[1], threads=2).run(None, {"x": x})
print(*(a.tobytes().hex() for a in got))
"""


def test_processes_compile_the_same_model_at_once(folder, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model().SerializeToString())
    processes = [run(COMPILE, path) for _ in range(3)]
    answers = {p.communicate()[0] for p in processes}
    assert all(p.returncode == 0 for p in processes)
    assert answers == {(" ".join(r.hex() for r in results()) + "\n").encode()}
    assert not [n for n in files(folder) if n.endswith(".tmp")]
