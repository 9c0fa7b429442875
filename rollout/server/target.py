"""Server under load: one that runs at an address, or a Bento that is started for the benchmark."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle
from bentune.bundle.store import bento_store, find_bento, find_bundle, model_store
from rollout.load.generator import LoadTarget
from rollout.server.scrape import read_info
from rollout.server.server import Started, starting

DEADLINE_HEADER = "X-Request-Timeout-Ms"
GRACE_S = 1.0
"""Wait beyond the deadline, in seconds, so that the server's own answer to a late request arrives."""


@dataclass(frozen=True)
class Served:
    """Running server: `label` is its name in reports, and `info` its /info, None for another product.

    `started` is None for a server that was not started here.
    """

    label: str
    target: LoadTarget
    info: dict[str, Any] | None
    started: Started | None = None

    @property
    def local(self) -> bool:
        """Return true if the server runs on this machine."""
        return urlsplit(self.target.url).hostname in {"localhost", "127.0.0.1", "::1"}


def is_address(target: str) -> bool:
    """Return true for the address of a server, false for a Bento's tag."""
    return "://" in target


def bundle_of(tag: str) -> Bundle:
    """Find the bundle inside the Bento `tag`. Raises InputError."""
    return find_bundle(str(find_bento(tag).info.all_models[0].tag))


@contextmanager
def serving(name: str, timeout_ms: int) -> Iterator[Served]:
    """Yield the server at an address, or start a tag's Bento and stop it at the end.

    Requests go to /predict unless the address has a path. Raises InputError for an invalid address or an unknown tag,
    and BentuneError when a Bento does not start.
    """
    timeout_s, headers = timeout_ms / 1000 + GRACE_S, {DEADLINE_HEADER: str(timeout_ms)}
    if is_address(name):
        url, path = address_of(name)
        yield Served(name, LoadTarget(url, path, timeout_s, headers), read_info(url))
        return
    tag = str(find_bento(name).tag)
    with _home_of_its_own() as home, starting(tag, env={"BENTOML_HOME": str(home)}) as started:
        url = started.url
        yield Served(tag, LoadTarget(url, timeout_s=timeout_s, headers=headers), read_info(url), started)


@contextmanager
def _home_of_its_own() -> Iterator[Path]:
    """Create a temporary BentoML home with the same stores.

    Servers of one home share a directory of metrics, and each one empties it at its start.
    """
    with tempfile.TemporaryDirectory(prefix="bentune-bench-") as name:
        home = Path(name)
        (home / "bentos").symlink_to(bento_store())
        (home / "models").symlink_to(model_store())
        yield home


def address_of(address: str) -> tuple[str, str]:
    """Split an address into scheme, host and port, and the path, by default /predict.

    Raises InputError.
    """
    try:
        parts = urlsplit(address)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment or parts.username:
        raise InputError(f"{address!r} is no address of a server: write http://HOST:PORT, or http://HOST:PORT/PATH")
    return f"{parts.scheme}://{parts.netloc}", parts.path if parts.path.strip("/") else "/predict"
