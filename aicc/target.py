"""What code is generated for: instruction set, vector registers, cache sizes and usable cores.

A Target is plain data. `Target.from_name` knows "native" and the psABI levels of x86-64 and
AArch64; everything that schedules and the code generator ask about a machine is a field here, so
that a kernel depends on nothing but its text and its Target. A target is described by features, not
by the machine that compiles: code may be compiled for a machine that differs from this one, but is
loaded only where every instruction set that it may use exists (`Target.require_host`).
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from aicc.errors import TargetError
from aicc.host import host as llvm_host

# Bits of one element in memory. A bool is a byte.
_DTYPE_BITS = {
    "f64": 64, "f32": 32, "f16": 16, "bf16": 16,
    "i64": 64, "i32": 32, "i16": 16, "i8": 8,
    "u64": 64, "u32": 32, "u16": 16, "u8": 8,
    "bool": 8,
}  # fmt: skip

# The microarchitecture levels of the x86-64 psABI, as LLVM features; each level includes those
# before.
_X86_V2 = ("cx16", "popcnt", "sahf", "sse3", "ssse3", "sse4.1", "sse4.2")
_X86_V3 = (*_X86_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_X86_V4 = (*_X86_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_AVX512 = frozenset(_X86_V4) - frozenset(_X86_V3)
_LEVELS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "x86-64": ("x86_64", "x86-64", ("sse2",)),
    "x86-64-v2": ("x86_64", "x86-64-v2", ("sse2", *_X86_V2)),
    "x86-64-v3": ("x86_64", "x86-64-v3", ("sse2", *_X86_V3)),
    "x86-64-v4": ("x86_64", "x86-64-v4", ("sse2", *_X86_V4)),
    "aarch64": ("aarch64", "generic", ("fp-armv8", "neon")),
}

# Used where neither the machine nor its operating system tells: small enough to hold on any CPU of
# the last ten years.
_FALLBACK_CACHES = (32 * 1024, 256 * 1024, 8 * 1024 * 1024)

# Bytes per cycle that one core reads from the last cache, about, by how LLVM's name of the CPU
# begins: the caches of Zen's core complexes run at the cores' clock, with 32 bytes per core (AMD,
# Software Optimization Guides for the families 17h to 1Ah); those of Intel's servers are reached
# through a mesh with a clock of its own.
_LAST_CACHE = (
    ("znver", 28),
    ("skylake-avx512", 10), ("cascadelake", 10), ("cooperlake", 10), ("icelake-server", 10),
    ("sapphirerapids", 10), ("emeraldrapids", 10), ("graniterapids", 10),
)  # fmt: skip
_ANY_LAST_CACHE = 16


@dataclass(frozen=True)
class Target:
    """A machine to compile for.

    `features` is LLVM's string of comma-separated `+name` and `-name`. `vector_bits` is the width
    of the widest vector register that generated code uses and `vector_registers` their number.
    Cache sizes are bytes as one core sees them (`l3` whole, though shared). `cores` counts the
    cores that this process may use: the affinity mask, cut by the cgroup's CPU quota. `has_f16c`
    says that half <-> float conversions are instructions, `has_bf16` that a bfloat16 dot product is
    one, `has_dot8` that an 8-bit integer dot product is one.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    vector_registers: int
    has_fma: bool
    has_f16c: bool
    has_bf16: bool
    has_dot8: bool
    l1d: int
    l2: int
    l3: int
    cores: int

    @property
    def arch(self) -> str:
        """The architecture, "x86_64" or "aarch64"."""
        return _arch(self.triple)

    @functools.cached_property
    def feature_set(self) -> frozenset[str]:
        """The names of the features that are switched on."""
        return frozenset(f[1:] for f in self.features.split(",") if f.startswith("+"))

    @property
    def l3_rate(self) -> int:
        """Bytes per cycle that one core reads from the last cache, about: by the name of the CPU,
        not by measurement, so that equal targets get equal code."""
        return next((r for name, r in _LAST_CACHE if self.cpu.startswith(name)), _ANY_LAST_CACHE)

    def lanes(self, dtype: str) -> int:
        """How many elements of `dtype` (f64 f32 f16 bf16 i8..i64 u8..u64 bool) one vector register
        holds."""
        bits = _DTYPE_BITS.get(dtype)
        if bits is None:
            raise TargetError(f"unknown element type {dtype!r}; known: {', '.join(_DTYPE_BITS)}")
        return self.vector_bits // bits

    def text(self) -> str:
        """One line that `Target.parse` reads back to an equal Target."""
        items = ", ".join(f"{f.name}={_literal(getattr(self, f.name))}" for f in fields(self))
        return f"target {{{items}}}"

    def missing_on_host(self) -> list[str]:
        """What this machine lacks to run code for the target; empty where the code can run."""
        host = Target.host()
        if self.arch != host.arch:
            return [f"architecture {self.arch} (this machine is {host.arch})"]
        if _system(self.triple) != _system(host.triple):
            return [f"system {_system(self.triple)} (this machine runs {_system(host.triple)})"]
        return sorted(self.feature_set - host.feature_set - {"prefer-256-bit"})

    def require_host(self) -> None:
        """Raises TargetError if this machine cannot run code that was compiled for the target."""
        missing = self.missing_on_host()
        if missing:
            raise TargetError(
                f"code for target {self.name!r} cannot run on this machine: it lacks "
                f"{', '.join(missing)}"
            )

    @staticmethod
    def from_name(name: str | Target) -> Target:
        """The Target called `name`: "native", a level of x86-64 ("x86-64", "x86-64-v2",
        "x86-64-v3", "x86-64-v4") or "aarch64". A Target is returned as it is.

        Cache sizes and cores of a named level are this machine's where the architecture is the
        same. Raises TargetError for any other name.
        """
        if isinstance(name, Target):
            return name
        if name == "native":
            return Target.host()
        if not isinstance(name, str) or name not in _LEVELS:
            known = ", ".join(("native", *_LEVELS))
            raise TargetError(f"unknown target {name!r}; known: {known}")
        arch, cpu, features = _LEVELS[name]
        host_triple = llvm_host().triple
        same = _arch(host_triple) == arch
        triple = host_triple if same else f"{arch}-unknown-linux-gnu"
        caches = _host_caches() if same else _FALLBACK_CACHES
        return _target(name, triple, cpu, [f"+{f}" for f in features], caches, usable_cores())

    @staticmethod
    def host() -> Target:
        """This machine: CPU and features from LLVM, caches and cores from the operating system."""
        cpu, flags = _host_cpu()
        return _target(
            "native", llvm_host().triple, cpu, list(flags), _host_caches(), usable_cores()
        )

    @staticmethod
    def parse(text: str) -> Target:
        """Reads what `text()` prints; raises TargetError for anything else."""
        match = re.fullmatch(r"\s*target \{(.*)\}\s*", text)
        items = dict(re.findall(r'(\w+)=("[^"]*"|\w+)', match.group(1))) if match else {}
        if set(items) != {f.name for f in fields(Target)}:
            raise TargetError(f"not the text of a target: {text[:200]!r}")
        values = {}
        for field in fields(Target):
            word = items[field.name]
            kind = field.type
            if kind == "str" and word.startswith('"'):
                values[field.name] = word[1:-1]
            elif kind == "bool" and word in ("true", "false"):
                values[field.name] = word == "true"
            elif kind == "int" and word.isdecimal():
                values[field.name] = int(word)
            else:
                raise TargetError(f"field {field.name} of a target must be {kind}, not {word}")
        return Target(**values)


def _literal(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _arch(triple: str) -> str:
    arch = triple.split("-", 1)[0]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)


def _system(triple: str) -> str:
    return "darwin" if "darwin" in triple or "macos" in triple else "linux"


def _target(
    name: str,
    triple: str,
    cpu: str,
    flags: list[str],
    caches: tuple[int, int, int],
    cores: int,
) -> Target:
    """Derives what depends on the features alone."""
    on = {f[1:] for f in flags if f.startswith("+")}
    if _arch(triple) == "x86_64":
        avx512 = on >= _AVX512
        if avx512:
            # Intel's server CPUs and x86-64-v4 are tuned for 256-bit vectors, which makes LLVM
            # split 512-bit ones in functions that do not insist; the generator's vectors are meant
            # as written.
            flags = [f for f in flags if f[1:] != "prefer-256-bit"] + ["-prefer-256-bit"]
        bits = 512 if avx512 else 256 if "avx2" in on else 128
        registers = 32 if avx512 else 16
        fma, f16c = "fma" in on, "f16c" in on
        bf16 = avx512 and "avx512bf16" in on
        dot8 = (avx512 and "avx512vnni" in on) or "avxvnni" in on
    elif _arch(triple) == "aarch64":
        # Scalable vectors are not used: every AArch64 CPU has 32 registers of 128 bits.
        bits, registers, fma, f16c = 128, 32, True, True
        bf16, dot8 = "bf16" in on, "dotprod" in on
    else:
        raise TargetError(f"no code generation for {triple}; x86-64 and AArch64 are supported")
    l1d, l2, l3 = caches
    return Target(
        name=name, triple=triple, cpu=cpu, features=",".join(flags),
        vector_bits=bits, vector_registers=registers,
        has_fma=fma, has_f16c=f16c, has_bf16=bf16, has_dot8=dot8,
        l1d=l1d, l2=l2, l3=l3, cores=cores,
    )  # fmt: skip


@functools.cache
def _host_cpu() -> tuple[str, tuple[str, ...]]:
    found = llvm_host()
    if (
        not found.features
    ):  # LLVM cannot tell on every system: then the baseline, which is always there
        level = "x86-64" if platform.machine().lower() in ("x86_64", "amd64") else "aarch64"
        return _LEVELS[level][1], tuple(f"+{f}" for f in _LEVELS[level][2])
    return found.cpu, found.features


# ---- cores ---------------------------------------------------------------------------------------


def usable_cores() -> int:
    """The cores that this process may use now: affinity mask, cut by the cgroup's CPU quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    quota = _cgroup_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    # A thread beyond the quota makes the kernel stop all of them, so a broken core is not counted.
    return max(1, min(count, int(quota))) if quota is not None else count


def _cgroup_quota(membership: Path, root: Path) -> float | None:
    """The tightest CPU quota, in cores, of the cgroup of this process and those around it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, inside = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # Version 2 has one unnamed hierarchy; version 1 mounts each controller in its own folder.
        for mount in (
            (root, root / "unified") if not controllers else (root / "cpu", root / controllers)
        ):
            # A container may see its own cgroup as the root of the mount: walk up to it.
            folder = mount / inside.strip("/")
            while True:
                quota = _quota_of(folder)
                if quota is not None:
                    quotas.append(quota)
                if folder == mount or mount not in folder.parents:
                    break
                folder = folder.parent
    return min(quotas, default=None)


def _quota_of(folder: Path) -> float | None:
    try:
        if (folder / "cpu.max").exists():
            limit, period = (folder / "cpu.max").read_text().split()[:2]
        else:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        if limit == "max" or int(limit) <= 0 or int(period) <= 0:
            return None
        return int(limit) / int(period)
    except (OSError, ValueError):
        return None


# ---- caches --------------------------------------------------------------------------------------


@functools.cache
def _host_caches() -> tuple[int, int, int]:
    """L1 data, L2 and L3 bytes of this machine; what is unknown is taken from a small machine."""
    if sys.platform == "darwin":
        found = _darwin_caches()
    else:
        found = _sysfs_caches(Path("/sys/devices/system/cpu"))
    l1d, l2, l3 = (found.get(level, size) for level, size in zip((1, 2, 3), _FALLBACK_CACHES))
    if 2 in found and 3 not in found:
        l3 = l2  # no L3 at all: what L2 does not hold comes from memory
    return l1d, max(l1d, l2), max(l1d, l2, l3)


def _sysfs_caches(cpus: Path) -> dict[int, int]:
    """Sizes by level of the first CPU that tells, of those that this process may run on."""
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        allowed = [0]
    for cpu in allowed:
        sizes = {}
        for index in sorted((cpus / f"cpu{cpu}" / "cache").glob("index*")):
            try:
                kind = (index / "type").read_text().strip()
                level = int((index / "level").read_text())
                text = (index / "size").read_text().strip()
            except (OSError, ValueError):
                continue
            match = re.fullmatch(r"(\d+)([KMG]?)", text)
            if kind in ("Data", "Unified") and match and int(match.group(1)) > 0:
                sizes[level] = int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
        if sizes:
            return sizes
    return {}


def _darwin_caches() -> dict[int, int]:
    """Sizes by level from sysctl; the performance cores' where there are two kinds."""
    libc = ctypes.CDLL(None)
    sizes = {}
    for level, what in ((1, "l1dcachesize"), (2, "l2cachesize"), (3, "l3cachesize")):
        for prefix in ("hw.perflevel0.", "hw."):
            value, length = ctypes.c_uint64(0), ctypes.c_size_t(8)
            name = (prefix + what).encode()
            status = libc.sysctlbyname(name, ctypes.byref(value), ctypes.byref(length), None, 0)
            if status == 0 and value.value > 0:
                sizes[level] = value.value
                break
    return sizes
