"""What a load is aimed at: the address of a running server, or a Bento that is started for the time of the bench."""

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
from rollout.load.generator import Target
from rollout.server.scrape import read_info
from rollout.server.server import Started, starting

DEADLINE_HEADER = "X-Request-Timeout-Ms"
GRACE_S = 1.0
"""How much longer than the deadline to wait, so that the server's own answer to a late request is seen."""


@dataclass(frozen=True)
class Served:
    """A server that runs: `label` is how reports call it, `info` is its /info, or None of another product.

    `started` is None when it ran before.
    """

    label: str
    target: Target
    info: dict[str, Any] | None
    started: Started | None = None

    @property
    def local(self) -> bool:
        """Whether the server runs on this machine."""
        return urlsplit(self.target.url).hostname in {"localhost", "127.0.0.1", "::1"}


def is_address(target: str) -> bool:
    """Whether a server was named, not a Bento."""
    return "://" in target


def bundle_of(tag: str) -> Bundle:
    """The bundle inside the Bento `tag`. Raises InputError."""
    return find_bundle(str(find_bento(tag).info.all_models[0].tag))


@contextmanager
def serving(name: str, timeout_ms: int) -> Iterator[Served]:
    """Reach the server at an address, or start the Bento of a tag and stop it at the end.

    Requests go to /predict unless the address has a path. Raises InputError for an address or a tag that is none,
    BentuneError when a Bento does not start.
    """
    timeout_s, headers = timeout_ms / 1000 + GRACE_S, {DEADLINE_HEADER: str(timeout_ms)}
    if is_address(name):
        url, path = address_of(name)
        yield Served(name, Target(url, path, timeout_s, headers), read_info(url))
        return
    tag = str(find_bento(name).tag)
    with _home_of_its_own() as home, starting(tag, env={"BENTOML_HOME": str(home)}) as started:
        url = started.url
        yield Served(tag, Target(url, timeout_s=timeout_s, headers=headers), read_info(url), started)


@contextmanager
def _home_of_its_own() -> Iterator[Path]:
    """A BentoML home with the same stores.

    Servers of one home share a directory of metrics, and each that starts empties it under the others.
    """
    with tempfile.TemporaryDirectory(prefix="bentune-bench-") as name:
        home = Path(name)
        (home / "bentos").symlink_to(bento_store())
        (home / "models").symlink_to(model_store())
        yield home


def address_of(address: str) -> tuple[str, str]:
    """Scheme, host and port of a server's address, and its path, /predict where it has none. Raises InputError."""
    try:
        parts = urlsplit(address)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or parts.query or parts.fragment or parts.username:
        raise InputError(f"{address!r} is no address of a server: write http://HOST:PORT, or http://HOST:PORT/PATH")
    return f"{parts.scheme}://{parts.netloc}", parts.path if parts.path.strip("/") else "/predict"
