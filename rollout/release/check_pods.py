"""Check over HTTP that a server serves a certain bundle: its content and its golden rows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle, GoldenRow
from bentune.bundle.targets.target import Target

LOOKS = 3
"""Connections in a row that must reach the version: behind a Service each may reach another pod."""
TRIES = 30
TIMEOUT_S = 30.0
BUSY = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}
"""Statuses of an overloaded server: the request is sent again."""
MOST_WAIT_S = 5.0


@dataclass(frozen=True)
class PodCheck:
    """Result of a check: `problem` is empty when the server serves the version.

    `digest` is the server's own.
    """

    problem: str = ""
    digest: str | None = None


def require_url(url: str) -> None:
    """Raise InputError unless `url` is the address of a server.

    Called before anything is applied.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"--url {url!r}: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or (parsed.port or 0) > 65_535:
        raise InputError(f"--url {url!r} is no address of a server, such as http://127.0.0.1:3000")


def check_server(
    url: str, content: str, bundle: Bundle | None, *, pause: Callable[[float], None] = time.sleep
) -> PodCheck:
    """Check that the server at `url` serves the version with this content.

    A server that has just been started or replaced has half a minute to answer. Without the bundle and its golden rows,
    only /info is read. Each request opens its own connection.
    """
    # One client, so that the certificates are loaded once; it keeps no connection.
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, limits=httpx.Limits(max_keepalive_connections=0)) as client:
        return _check(client, url, content, bundle, pause)


def _check(
    client: httpx.Client, url: str, content: str, bundle: Bundle | None, pause: Callable[[float], None]
) -> PodCheck:
    said, met = "", 0
    info: dict[str, Any] = {}
    for _ in range(TRIES):
        found = _info(client)
        if isinstance(found, str):
            said, met = found, 0
        elif found.get("content") != content:
            said, met = f"/info shows {found.get('name')}:{found.get('version')}, content {found.get('content')}", 0
        else:
            info, met = found, met + 1
        if met == LOOKS:
            break
        if not met:
            pause(1.0)
    else:
        return PodCheck(f"{url} does not serve the version: {said}")
    digest = info.get("digest")
    problem = "" if bundle is None else _wrong_rows(client, bundle, pause)
    return PodCheck(problem, digest if isinstance(digest, str) else None)


def _info(client: httpx.Client) -> dict[str, Any] | str:
    """Return /info, or a description of its error."""
    try:
        answer = client.get("/info")
        found = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError) as error:
        return f"/info: {type(error).__name__}"
    return found if isinstance(found, dict) else f"/info answered {answer.status_code}"


def _wrong_rows(client: httpx.Client, bundle: Bundle, pause: Callable[[float], None]) -> str:
    wrong = []
    for number, row in enumerate(bundle.golden):
        try:
            differences = _differences(client, row, bundle.manifest.target, pause)
        except httpx.HTTPError as error:
            wrong.append(f"row {number}: {type(error).__name__}")
            continue
        except ValueError as error:
            wrong.append(f"row {number}: {error}")
            continue
        # Any variant counts: the node decides which one answers, and each request may reach another. A NaN fails too.
        if not any(difference <= row.tolerance for difference in differences):
            wrong.append(f"row {number} is off by {min(differences):.2g}")
    return f"{len(wrong)} of {len(bundle.golden)} golden rows are answered wrongly: {wrong[0]}" if wrong else ""


def _differences(client: httpx.Client, row: GoldenRow, target: Target, pause: Callable[[float], None]) -> list[float]:
    """Return the answer's distance from the expected scores of each bundle variant."""
    inputs: Any = row.text if row.text_pair is None else [row.text, row.text_pair]
    for _ in range(TRIES):
        answer = client.post("/predict", json={"inputs": inputs, "truncate": True})
        if answer.status_code not in BUSY:
            break
        pause(_wait_s(answer))
    scores = target.read([answer.raise_for_status().json()])[0]
    return [target.distance(scores, np.asarray(variant)) for variant in row.scores.values()]


def _wait_s(answer: httpx.Response) -> float:
    try:
        asked_for = float(answer.headers.get("Retry-After", "1"))
    except ValueError:
        asked_for = 1.0
    # Written so that a NaN becomes the longest wait too.
    return max(0.1, asked_for) if asked_for <= MOST_WAIT_S else MOST_WAIT_S
