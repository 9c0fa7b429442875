"""Cores, memory and instruction sets, read from file trees as cgroup v1, v2, hybrid hosts and containers show them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import examples
from pydantic import ValidationError

from bentune.bundle import hardware

GIB = 1 << 30
V1_UNLIMITED = str(0x7FFFFFFFFFFFF000)

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu sse2 fma avx2 f16c avx512f avx512_vnni amx_tile amx_int8 hypervisor
vmx flags\t: vnmi amx_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu sse2 avx512_bf16
"""

ARM = """processor\t: 0
BogoMIPS\t: 243.75
Features\t: fp asimd evtstrm aes asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def tree(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return root


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)


def test_without_any_file_the_affinity_counts(tmp_path: Path) -> None:
    assert hardware.visible_cores(tmp_path) == 16
    assert hardware.memory_limit_bytes(tmp_path) is None
    assert hardware.describe(tmp_path) == hardware.Cpu(model="unknown", isa=(), cores=16)


def test_a_platform_without_affinity_counts_its_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert hardware.visible_cores(tmp_path) == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert hardware.visible_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("cpu_max", "cores"),
    [
        ("max 100000\n", 16),
        ("400000 100000\n", 4),
        ("150000 100000\n", 1),
        ("399999 100000\n", 3),
        ("50000 100000\n", 1),
        ("100000 50000\n", 2),
        ("6400000 100000\n", 16),
    ],
)
def test_v2_quota(tmp_path: Path, cpu_max: str, cores: int) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": cpu_max})
    assert hardware.visible_cores(root) == cores


@pytest.mark.parametrize(
    ("quota", "period", "cores"),
    [
        ("-1\n", "100000\n", 16),
        ("350000\n", "100000\n", 3),
        ("20000\n", "100000\n", 1),
        ("", "100000\n", 16),
        ("x", "1", 16),
        ("5", "0", 16),
    ],
)
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct", "cpuacct,cpu"])
def test_v1_quota(tmp_path: Path, mount: str, quota: str, period: str, cores: int) -> None:
    group = f"sys/fs/cgroup/{mount}/kubepods/pod7"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": f"9:name=systemd:/\n4:{mount}:/kubepods/pod7\n",
            f"{group}/cpu.cfs_quota_us": quota,
            f"{group}/cpu.cfs_period_us": period,
        },
    )
    assert hardware.visible_cores(root) == cores


def test_v1_other_hierarchies_do_not_count(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "2:cpuset:/\n1:cpu:/\n",
            "sys/fs/cgroup/cpuset/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpuset/cpu.cfs_period_us": "100000",
        },
    )
    assert hardware.visible_cores(root) == 16


def test_v2_nested_the_smallest_on_the_path_counts(tmp_path: Path) -> None:
    pod = "sys/fs/cgroup/kubepods.slice/pod7.slice"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/kubepods.slice/pod7.slice/cri-containerd:1f2e\n",
            "sys/fs/cgroup/kubepods.slice/cpu.max": "800000 100000\n",
            f"{pod}/cpu.max": "300000 100000\n",
            f"{pod}/cri-containerd:1f2e/cpu.max": "max 100000\n",
            f"{pod}/neighbour/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/kubepods.slice/memory.max": f"{8 * GIB}\n",
            f"{pod}/memory.max": "max\n",
            f"{pod}/cri-containerd:1f2e/memory.max": f"{2 * GIB}\n",
            f"{pod}/neighbour/memory.max": "4096\n",
        },
    )
    assert hardware.visible_cores(root) == 3
    assert hardware.memory_limit_bytes(root) == 2 * GIB


def test_v1_nested_the_smallest_on_the_path_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": V1_UNLIMITED,
            "sys/fs/cgroup/memory/docker/memory.limit_in_bytes": str(GIB),
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": V1_UNLIMITED,
        },
    )
    assert hardware.visible_cores(root) == 2
    assert hardware.memory_limit_bytes(root) == GIB


def test_v1_container_sees_the_hosts_path_and_its_own_group_as_root(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
        },
    )
    assert hardware.visible_cores(root) == 2
    assert hardware.memory_limit_bytes(root) == GIB


@pytest.mark.parametrize("membership", [None, "0::/../../other.slice\n", "0::/was/removed (deleted)\n"])
def test_v2_mount_root_counts_when_the_own_path_is_not_visible(tmp_path: Path, membership: str | None) -> None:
    root = tree(
        tmp_path,
        {
            "sys/fs/cgroup/cpu.max": "200000 100000\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
            # The file that ".." would reach if it were followed blindly.
            "sys/other.slice/cpu.max": "100000 100000\n",
        },
    )
    if membership is not None:
        tree(root, {"proc/self/cgroup": membership})
    assert hardware.visible_cores(root) == 2
    assert hardware.memory_limit_bytes(root) == GIB


@pytest.mark.parametrize(("limited", "cores", "memory"), [("v1", 3, 3 * GIB), ("v2", 5, 5 * GIB), ("both", 3, 3 * GIB)])
def test_hybrid(tmp_path: Path, limited: str, cores: int, memory: int) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": "4:memory:/a\n1:cpu:/a\n0::/b\n"})
    if limited in ("v1", "both"):
        tree(
            root,
            {
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "300000",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(3 * GIB),
            },
        )
    if limited in ("v2", "both"):
        tree(
            root,
            {
                "sys/fs/cgroup/unified/b/cpu.max": "500000 100000",
                "sys/fs/cgroup/unified/b/memory.max": str(5 * GIB),
            },
        )
    assert hardware.visible_cores(root) == cores
    assert hardware.memory_limit_bytes(root) == memory


@pytest.mark.parametrize(
    "text", ["max\n", V1_UNLIMITED, "9223372036854710272", "18446744073709551615", "-1", "0", "2G"]
)
def test_no_memory_limit(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, {"sys/fs/cgroup/memory.max": text, "sys/fs/cgroup/memory/memory.limit_in_bytes": text})
    assert hardware.memory_limit_bytes(root) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "max",
        "100000",
        "100000 0",
        "100000 0 0",
        "-5 100000",
        "a b",
        "1.5 1",
        "²  1",
        "9" * 5000 + " 1",
        "0 1",
    ],
)
def test_malformed_quota_is_no_limit(tmp_path: Path, text: str) -> None:
    root = tree(tmp_path, {"sys/fs/cgroup/cpu.max": text})
    assert hardware.visible_cores(root) == 16


def test_directories_where_files_should_be_are_no_limit(tmp_path: Path) -> None:
    for name in ("proc/self/cgroup", "proc/cpuinfo", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max"):
        (tmp_path / name).mkdir(parents=True)
    assert hardware.describe(tmp_path) == hardware.Cpu(model="unknown", isa=(), cores=16)
    assert hardware.memory_limit_bytes(tmp_path) is None


@pytest.mark.parametrize(
    "membership", [b"0::/a\0b\n", b"0::/\xff\n", b"0::", b"0::a/b", b"::::", b"/" * 9000, b"0::/a"]
)
def test_with_a_malformed_membership_the_mount_root_counts(tmp_path: Path, membership: bytes) -> None:
    root = tree(tmp_path, {"proc/self/cgroup": membership, "sys/fs/cgroup/cpu.max": "200000 100000"})
    assert hardware.visible_cores(root) == 2


def test_a_bad_byte_does_not_hide_the_rest(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": b"model name : Some\xffCPU\nflags : avx2\n"})
    assert hardware.cpu_model(root) == "Some\ufffdCPU"
    assert hardware.isa_flags(root) == ("avx2",)


@examples(60, fixtures=True)
@given(
    membership=st.binary(max_size=60) | st.text(alphabet="01:/.,cpu\0\n", max_size=40).map(str.encode),
    limit=st.binary(max_size=30) | st.text(alphabet="0123456789 max-\n", max_size=30).map(str.encode),
    cpuinfo=st.binary(max_size=60) | st.text(alphabet="flags: \t\nFeatures", max_size=60).map(str.encode),
)
def test_no_bytes_raise(tmp_path: Path, membership: bytes, limit: bytes, cpuinfo: bytes) -> None:
    tree(
        tmp_path,
        {
            "proc/self/cgroup": membership,
            "proc/cpuinfo": cpuinfo,
            "sys/fs/cgroup/cpu.max": limit,
            "sys/fs/cgroup/memory.max": limit,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": limit,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": limit,
        },
    )
    assert 1 <= hardware.describe(tmp_path).cores <= 16
    memory = hardware.memory_limit_bytes(tmp_path)
    assert memory is None or memory > 0


def test_x86(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": X86, "sys/fs/cgroup/cpu.max": "200000 100000"})
    assert hardware.describe(root) == hardware.Cpu(
        model="Intel(R) Xeon(R) Platinum 8488C",
        isa=("amx_int8", "amx_tile", "avx2", "avx512_vnni", "avx512f", "f16c", "fma"),
        cores=2,
    )


def test_arm(tmp_path: Path) -> None:
    root = tree(tmp_path, {"proc/cpuinfo": ARM})
    assert hardware.isa_flags(root) == ("asimd", "asimddp", "bf16", "i8mm", "sve")
    assert hardware.cpu_model(root) == "ARM implementer 0x41 part 0xd40"


@pytest.mark.parametrize(
    ("isa", "expected"),
    [
        ((), False),
        (("avx2", "avx512bw", "avx512f", "avx512vl", "fma"), False),
        (("avx2", "avx512_vnni", "avx512f"), True),
        (("avx2", "avx_vnni"), True),
        (("amx_int8", "avx2"), True),
        (("asimd",), False),
        (("asimd", "asimddp"), True),
    ],
)
def test_int8_dot_product(isa: tuple[str, ...], expected: bool) -> None:
    assert hardware.Cpu(model="m", isa=isa, cores=1).has_int8_dot_product is expected


def test_cpu_is_frozen_strict_and_survives_json() -> None:
    cpu = hardware.Cpu(model="m", isa=("avx2",), cores=2)
    assert hardware.Cpu.model_validate_json(cpu.model_dump_json()) == cpu
    with pytest.raises(ValidationError):
        cpu.cores = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        hardware.Cpu.model_validate({"model": "m", "isa": [], "cores": 0})


def test_this_machine() -> None:
    assert hardware.describe().cores >= 1
