"""Hardware of this process: cores, memory and CPU instructions within the container's limits.

Every function takes the file system's root, so that tests can build one. A missing or malformed file never raises: it
counts as no limit.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, Field

# Flags by which inference kernels choose their code, in the Linux kernel's spelling: x86 first, then ARM.
# fmt: off
_KERNEL_FLAGS = frozenset({
    "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx_vnni", "avx512_bf16",
    "amx_int8", "amx_bf16", "amx_tile",
    "asimd", "asimddp", "i8mm", "bf16", "sve",
})
# fmt: on

# cgroup v1 writes "no limit" as the largest multiple of the page size below 2**63; no machine has an exbibyte.
_NO_MEMORY_LIMIT = 1 << 60


# Each sums products of 8-bit integers in 32 bits.
_INT8_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


class Cpu(BaseModel):
    """CPU of a measurement; `cores` is the number of logical CPUs that this process may keep busy."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    isa: tuple[str, ...]
    cores: int = Field(ge=1)

    @property
    def has_int8_dot_product(self) -> bool:
        """True if int8 products are exact for weights of all 8 bits.

        Without such an instruction x86 kernels sum pairs of products in 16 bits, with saturation: two products of an
        unsigned 8-bit activation fit only if both weights lie in [-64, 64] (onnxruntime 5849 and 14642).
        """
        return not _INT8_DOT_PRODUCTS.isdisjoint(self.isa)


def describe(root: Path = Path("/")) -> Cpu:
    """Return model, instruction sets and usable cores in one value."""
    return Cpu(model=cpu_model(root), isa=isa_flags(root), cores=visible_cores(root))


def visible_cores(root: Path = Path("/")) -> int:
    """Return the number of logical CPUs that this process can keep busy.

    It is the smaller of affinity and cgroup quota, and at least 1.
    """
    # The affinity already respects cpusets and taskset. Not every platform has one.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limits = [limit for group in _groups(root, "cpu") for limit in _quotas(group)]
    return max(min([cores, *limits]), 1)


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the smallest memory limit on this process's cgroup and its parents.

    It is in bytes; None means that there is no limit.
    """
    limits = [
        limit
        for group in _groups(root, "memory")
        for name in ("memory.max", "memory.limit_in_bytes")
        if (limit := _positive(_read(group / name))) is not None and limit < _NO_MEMORY_LIMIT
    ]
    return min(limits, default=None)


def isa_flags(root: Path = Path("/")) -> tuple[str, ...]:
    """Return the CPU flags that matter to kernels, sorted.

    They are spelled as in /proc/cpuinfo. The tuple is empty when they are unknown.
    """
    fields = _cpuinfo(root)
    present = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    return tuple(sorted(_KERNEL_FLAGS.intersection(present)))


def cpu_model(root: Path = Path("/")) -> str:
    """Return the CPU's name.

    On ARM it has the numbers of implementer and part. An unknown CPU is "unknown".
    """
    fields = _cpuinfo(root)
    if name := fields.get("model name"):
        return name
    implementer, part = fields.get("CPU implementer"), fields.get("CPU part")
    if implementer and part:
        return f"ARM implementer {implementer} part {part}"
    return "unknown"


def _cpuinfo(root: Path) -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo."""
    fields: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").split("\n"):
        key, separator, value = line.partition(":")
        if separator:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _quotas(group: Path) -> Iterator[int]:
    """Return the whole cores of this group's CPU quota; 0 when it is less than one."""
    version_2 = _read(group / "cpu.max").split()
    version_1 = [_read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")]
    for texts in (version_2, version_1):
        match [_positive(text) for text in texts]:
            case [int(quota_us), int(period_us)]:
                # Rounded down: one thread more than the quota allows would use it up before the period ends, and the
                # kernel would then stop all threads until the next period.
                yield quota_us // period_us


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield each directory that may hold a limit on this process.

    These are its group and all parents, up to the mount's root. Inside a container /proc/self/cgroup often names the
    host's path of the group, while the container's own group is mounted as the root. Missing directories count as no
    limit, and the walk up ends at the mount's root, so both layouts give the limit.
    """
    mount = root / "sys/fs/cgroup"
    joined = _joined_groups(root)
    # Version 2 is the mount itself, or "unified" beside version 1's hierarchies.
    hierarchies = [(mount, joined.get("")), (mount / "unified", joined.get(""))]
    # Version 1 has one hierarchy for each set of controllers, mounted under their names: "cpu", "cpu,cpuacct".
    hierarchies += [
        (child, joined.get(controller)) for child in _children(mount) if controller in child.name.split(",")
    ]
    for top, group in hierarchies:
        parts = PurePosixPath(group or "/").parts[1:]
        # The group lies outside this cgroup namespace, so its files are not visible.
        if ".." in parts:
            parts = ()
        for depth in range(len(parts), -1, -1):
            yield top.joinpath(*parts[:depth])


def _joined_groups(root: Path) -> dict[str, str]:
    """Return the path of this process's group for each controller of cgroup v1.

    The path of its group of cgroup v2 is under "".
    """
    groups: dict[str, str] = {}
    for line in _read(root / "proc/self/cgroup").split("\n"):
        # A group's name may hold colons: "0::/system.slice:cri-containerd:1f2e".
        fields = line.split(":", 2)
        if len(fields) == 3:
            groups.update(dict.fromkeys(fields[1].split(","), fields[2]))
    return groups


def _children(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _read(path: Path) -> str:
    """Return the file's text, or "" when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    # ValueError: a NUL in a path that came from a malformed file.
    except (OSError, ValueError):
        return ""


def _positive(text: str) -> int | None:
    """Return the positive number in the text, or None.

    It is None for "max", -1, 0, no number, or more digits than 2**63 has.
    """
    number = int(text) if re.fullmatch(r"\s*[0-9]{1,19}\s*", text) else 0
    return number or None
