"""Image of a model alone, as a reproducible OCI layout, without a container engine."""

import hashlib
import io
import json
import platform
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle

MANIFEST, CONFIG, LAYER = (
    f"application/vnd.oci.image.{kind}" for kind in ("manifest.v1+json", "config.v1+json", "layer.v1.tar")
)
# OCI names architectures as Go does.
MACHINES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
USER = "1034:1034"
BUSYBOX = "busybox"
PROGRAM_HEADER, INTERPRETER = 0x38, 3
"""Size of an entry in an ELF program header table, and type of the entry that names a dynamic loader."""

_Json = dict[str, Any]


def write_model_image(bundle: Bundle, layout: Path, reference: str, *, busybox: Path | None = None) -> str:
    """Write the OCI layout of the model's image, and return its digest, sha256:...

    The image has the bundle in /models, and `cp` to copy it. It has two layers: busybox, which is the same for all
    versions, and the model store, as in `model.Dockerfile`. `layout` must be empty or missing; `reference` becomes its
    tag. Raises InputError without a static busybox.
    """
    program = busybox or find_busybox()
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=False)
    layers = [_layer(blobs, _copier(program)), _layer(blobs, _store(bundle))]
    config = {
        "architecture": MACHINES.get(platform.machine().lower(), platform.machine().lower()),
        "os": "linux",
        "created": bundle.manifest.created_at.isoformat().replace("+00:00", "Z"),
        "config": {
            "User": USER,
            "Env": ["PATH=/bin"],
            "Labels": {
                "org.opencontainers.image.title": bundle.manifest.name,
                "org.opencontainers.image.version": bundle.manifest.version,
                "bentune.digest": bundle.digest,
                "bentune.content": bundle.content,
            },
        },
        # Uncompressed, so that a layer's digest is also that of its tar.
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": _json(blobs, config, CONFIG),
        "layers": layers,
    }
    found = _json(blobs, manifest, MANIFEST)
    found["annotations"] = {"org.opencontainers.image.ref.name": reference}
    (layout / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}), encoding="utf-8")
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [found]}), encoding="utf-8")
    return str(found["digest"])


def find_busybox() -> Path:
    """Find a statically linked busybox. Raises InputError."""
    found = shutil.which(BUSYBOX)
    if found is None or not is_static(Path(found)):
        raise InputError(
            f"a model's image needs a static {BUSYBOX}, for `cp`; found {found or 'none'}: "
            "install Debian's busybox-static, or build with docker, podman or buildah"
        )
    return Path(found)


def is_static(program: Path) -> bool:
    """Return true for a 64-bit little-endian ELF program without a dynamic loader."""
    with program.open("rb") as file:
        head = file.read(64)
        if head[:6] != b"\x7fELF\x02\x01" or len(head) < 64:
            return False
        (table,) = struct.unpack_from("<Q", head, 32)
        (count,) = struct.unpack_from("<H", head, 56)
        file.seek(table)
        entries = file.read(count * PROGRAM_HEADER)
    kinds = {struct.unpack_from("<I", entries, at)[0] for at in range(0, len(entries), PROGRAM_HEADER)}
    return INTERPRETER not in kinds


def _copier(program: Path) -> Iterator[tuple[tarfile.TarInfo, Path | None]]:
    yield _directory("bin"), None
    yield _file("bin/busybox", program, 0o755), program
    link = tarfile.TarInfo("bin/cp")
    link.type, link.linkname, link.mode = tarfile.SYMTYPE, BUSYBOX, 0o777
    yield link, None


def _store(bundle: Bundle) -> Iterator[tuple[tarfile.TarInfo, Path | bytes | None]]:
    """Yield the files of a BentoML model store with this one version."""
    name, version = bundle.manifest.name, bundle.manifest.version
    root = f"models/{name}/{version}"
    for directory in ("models", f"models/{name}", root):
        yield _directory(directory), None
    for path in sorted(bundle.root.rglob("*")):
        inside = f"{root}/{path.relative_to(bundle.root).as_posix()}"
        yield (_directory(inside), None) if path.is_dir() else (_file(inside, path, 0o644), path)
    latest = tarfile.TarInfo(f"models/{name}/latest")
    latest.size, latest.mode = len(version.encode()), 0o644
    yield latest, version.encode()


def _directory(name: str) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.mode = tarfile.DIRTYPE, 0o755
    return found


def _file(name: str, path: Path, mode: int) -> tarfile.TarInfo:
    """Build a tar entry with the owner root and the time 0.

    The builder and the time thus do not change the digest.
    """
    found = tarfile.TarInfo(name)
    found.size, found.mode = path.stat().st_size, mode
    return found


def _layer(blobs: Path, members: Iterator[tuple[tarfile.TarInfo, Path | bytes | None]]) -> _Json:
    """Write a layer to the blobs and return its descriptor for the manifest."""
    part = blobs / "part"
    with part.open("wb") as file:
        digest = _Digest(file)
        # A stream, so that no file must fit into memory.
        with tarfile.open(fileobj=digest, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for info, source in members:
                if isinstance(source, Path):
                    with source.open("rb") as content:
                        tar.addfile(info, content)
                else:
                    tar.addfile(info, None if source is None else io.BytesIO(source))
    return _stored(blobs, part, digest.sha256.hexdigest(), LAYER)


def _json(blobs: Path, value: _Json, media_type: str) -> _Json:
    content = json.dumps(value, sort_keys=True).encode()
    part = blobs / "part"
    part.write_bytes(content)
    return _stored(blobs, part, hashlib.sha256(content).hexdigest(), media_type)


def _stored(blobs: Path, part: Path, sha256: str, media_type: str) -> _Json:
    size = part.stat().st_size
    part.replace(blobs / sha256)
    return {"mediaType": media_type, "digest": f"sha256:{sha256}", "size": size}


class _Digest(io.RawIOBase):
    """Writer that computes the sha256 of what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.sha256.update(data)
        return self._file.write(data)
