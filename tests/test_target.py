import dataclasses
import os

import pytest

from aicc import target as target_module
from aicc.codegen.jit import assembly
from aicc.errors import AiccError, TargetError
from aicc.target import Target, usable_cores

NAMES = ["native", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "aarch64"]


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_target_whose_text_reads_back(name):
    target = Target.from_name(name)
    assert target.name == name
    assert Target.parse(target.text()) == target
    assert Target.from_name(target) is target
    assert 0 < target.l1d <= target.l2 <= target.l3
    assert target.cores >= 1


@pytest.mark.parametrize(
    ("name", "bits", "registers", "fma", "f16c"),
    [
        ("x86-64", 128, 16, False, False),
        ("x86-64-v2", 128, 16, False, False),
        ("x86-64-v3", 256, 16, True, True),
        ("x86-64-v4", 512, 32, True, True),
        ("aarch64", 128, 32, True, True),
    ],
)
def test_levels(name, bits, registers, fma, f16c):
    target = Target.from_name(name)
    assert (target.vector_bits, target.vector_registers) == (bits, registers)
    assert (target.has_fma, target.has_f16c) == (fma, f16c)
    assert not target.has_bf16


@pytest.mark.parametrize(
    ("cpu", "rate"), [("znver5", 28), ("znver3", 28), ("icelake-server", 10), ("generic", 16)]
)
def test_the_last_cache_is_as_fast_as_the_name_of_the_cpu_tells(cpu, rate):
    target = dataclasses.replace(Target.from_name("x86-64-v3"), cpu=cpu)
    assert target.l3_rate == rate
    assert Target.parse(target.text()).l3_rate == rate


def test_lanes():
    target = Target.from_name("x86-64-v4")
    assert {d: target.lanes(d) for d in ("f64", "f32", "f16", "bf16", "i8", "u64", "bool")} == {
        "f64": 8, "f32": 16, "f16": 32, "bf16": 32, "i8": 64, "u64": 8, "bool": 64,
    }  # fmt: skip
    assert Target.from_name("aarch64").lanes("f32") == 4
    with pytest.raises(TargetError, match="f8"):
        target.lanes("f8")


@pytest.mark.parametrize("name", ["", "x86-64-v5", "NATIVE", "sse2", None, 3])
def test_unknown_names_are_refused_with_the_known_ones(name):
    with pytest.raises(TargetError, match="x86-64-v3") as caught:
        Target.from_name(name)
    assert isinstance(caught.value, AiccError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "text", ["", "target {}", "target {name=3}", Target.from_name("aarch64").text() + "x"]
)
def test_a_broken_text_is_refused(text):
    with pytest.raises(TargetError):
        Target.parse(text)


def test_wrong_kind_in_text_is_refused():
    text = Target.from_name("aarch64").text()
    for old, new in (
        ("has_fma=true", "has_fma=1"),
        ("l1d=32768", "l1d=x"),
        ('"generic"', "generic"),
    ):
        assert old in text
        with pytest.raises(TargetError):
            Target.parse(text.replace(old, new))


def test_the_host_runs_its_own_code_and_lower_levels():
    host = Target.host()
    host.require_host()
    if host.arch == "x86_64":
        Target.from_name("x86-64").require_host()
        if host.vector_bits >= 256 and host.has_fma:
            Target.from_name("x86-64-v3").require_host()


def test_foreign_code_is_refused_with_what_is_missing():
    host = Target.host()
    other = Target.from_name("aarch64" if host.arch == "x86_64" else "x86-64")
    with pytest.raises(TargetError, match=other.arch):
        other.require_host()
    more = dataclasses.replace(host, features=host.features + ",+amx-unheard-of")
    with pytest.raises(TargetError, match="amx-unheard-of"):
        more.require_host()
    triple = "x86_64-apple-macosx" if "linux" in host.triple else "x86_64-unknown-linux-gnu"
    elsewhere = dataclasses.replace(host, triple=triple.replace("x86_64", host.arch))
    with pytest.raises(TargetError, match="system"):
        elsewhere.require_host()


@pytest.mark.parametrize("cpu", ["x86-64-v4", "skylake-avx512", "icelake-server", "znver4"])
def test_512_bit_vectors_are_used_as_written(cpu):
    # The attribute allows LLVM to split vectors; CPUs tuned for 256 bits would.
    text = """
    define void @f(ptr %a) "min-legal-vector-width"="0" {
      %x = load <16 x float>, ptr %a, align 4
      %y = fadd <16 x float> %x, %x
      store <16 x float> %y, ptr %a, align 4
      ret void
    }"""
    assert "zmm" in assembly(text, dataclasses.replace(Target.from_name("x86-64-v4"), cpu=cpu))


def test_cores_follow_the_affinity_mask():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system has no affinity")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
        assert Target.host().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert usable_cores() <= len(allowed)


def test_cgroup_quota_version_2_takes_the_tightest_of_all_levels(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    inner = root / "a" / "b"
    inner.mkdir(parents=True)
    membership.write_text("0::/a/b\n")
    assert target_module._cgroup_quota(membership, root) is None
    (inner / "cpu.max").write_text("max 100000\n")
    assert target_module._cgroup_quota(membership, root) is None
    (root / "a" / "cpu.max").write_text("250000 100000\n")
    assert target_module._cgroup_quota(membership, root) == 2.5
    (inner / "cpu.max").write_text("50000 100000\n")
    assert target_module._cgroup_quota(membership, root) == 0.5


def test_cgroup_quota_version_1(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    folder = root / "cpu,cpuacct" / "docker"
    folder.mkdir(parents=True)
    membership.write_text("5:memory:/docker\n4:cpu,cpuacct:/docker\n")
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert target_module._cgroup_quota(membership, root) is None
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    assert target_module._cgroup_quota(membership, root) == 3.0


def test_a_container_sees_its_cgroup_as_the_root(tmp_path):
    membership, root = tmp_path / "cgroup", tmp_path / "fs"
    root.mkdir()
    membership.write_text("0::/not/visible/here\n")
    (root / "cpu.max").write_text("200000 100000\n")
    assert target_module._cgroup_quota(membership, root) == 2.0
    assert target_module._cgroup_quota(tmp_path / "absent", root) is None


def test_caches_from_sysfs(tmp_path):
    cpus = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
    entries = [
        ("Data", 1, "48K"),
        ("Instruction", 1, "32K"),
        ("Unified", 2, "2M"),
        ("Unified", 3, "?"),
    ]
    for i, (kind, level, size) in enumerate(entries):
        index = tmp_path / f"cpu{cpus[0]}" / "cache" / f"index{i}"
        index.mkdir(parents=True)
        (index / "type").write_text(kind + "\n")
        (index / "level").write_text(f"{level}\n")
        (index / "size").write_text(size + "\n")
    assert target_module._sysfs_caches(tmp_path) == {1: 48 << 10, 2: 2 << 20}
    assert target_module._sysfs_caches(tmp_path / "absent") == {}


def test_unknown_caches_fall_back(monkeypatch):
    monkeypatch.setattr(target_module, "_sysfs_caches", lambda _: {})
    monkeypatch.setattr(target_module, "_darwin_caches", dict)
    assert target_module._host_caches.__wrapped__() == target_module._FALLBACK_CACHES
    monkeypatch.setattr(target_module, "_sysfs_caches", lambda _: {1: 64 << 10, 2: 512 << 10})
    monkeypatch.setattr(target_module, "_darwin_caches", lambda: {1: 64 << 10, 2: 512 << 10})
    assert target_module._host_caches.__wrapped__() == (64 << 10, 512 << 10, 512 << 10)
