"""Asks a server over HTTP whether it is a certain bundle: its content, and the scores of its golden rows."""

import time
from collections.abc import Callable
from typing import Any

import httpx

from service.contract import Bundle, GoldenRow
from service.plan import scores_key

LOOKS = 3
"""So many connections in a row must meet the version: behind a Service each may reach another pod."""
TRIES = 30
TIMEOUT_S = 30.0


def unproven(url: str, content: str, bundle: Bundle | None, *, pause: Callable[[float], None] = time.sleep) -> str:
    """Why the server at `url` is not to be trusted as the version with this content, or nothing when it is.

    Waits half a minute for what has just been started, or replaced, to show up. Without the bundle, which has the
    golden rows, only /info is asked. Each request is a connection of its own.
    """
    said, met = "", 0
    info: dict[str, Any] = {}
    for _ in range(TRIES):
        found = _info(url)
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
        return f"{url} does not serve the version: {said}"
    return "" if bundle is None else _wrong_rows(url, bundle, info)


def _info(url: str) -> dict[str, Any] | str:
    """/info, or what is wrong with it."""
    try:
        answer = httpx.get(f"{url}/info", timeout=TIMEOUT_S)
        found = answer.json() if answer.status_code == httpx.codes.OK else None
    except (httpx.HTTPError, ValueError) as error:
        return f"/info: {type(error).__name__}"
    return found if isinstance(found, dict) else f"/info answered {answer.status_code}"


def _wrong_rows(url: str, bundle: Bundle, info: dict[str, Any]) -> str:
    key = scores_key(info["plan"]["variant"], info["plan"]["provider"])
    wrong = []
    for number, row in enumerate(bundle.golden):
        try:
            difference = _difference(url, row, bundle.manifest.labels, key)
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            wrong.append(f"row {number}: {type(error).__name__}")
            continue
        # Written so that a NaN is wrong too.
        if not difference <= row.tolerance:
            wrong.append(f"row {number} is off by {difference:.2g}")
    return f"{len(wrong)} of {len(bundle.golden)} golden rows are answered wrongly: {wrong[0]}" if wrong else ""


def _difference(url: str, row: GoldenRow, labels: list[str], key: str) -> float:
    """The largest difference of a score from what the bundle expects, in probability."""
    inputs: Any = row.text if row.text_pair is None else [row.text, row.text_pair]
    answer = httpx.post(f"{url}/predict", json={"inputs": inputs, "truncate": True}, timeout=TIMEOUT_S)
    scores = {one["label"]: float(one["score"]) for one in answer.raise_for_status().json()}
    expected = dict(zip(labels, row.scores[key], strict=True))
    return max(abs(scores[label] - expected[label]) for label in expected)
