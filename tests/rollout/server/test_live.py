"""/info as typed values: what is needed is checked, what is more is let be."""

import json
from typing import Any

import pytest

from bentune.bundle.errors import InputError
from rollout.server.live import Identity, Info, parse_info

SAID: dict[str, Any] = {
    "name": "pets",
    "version": "20260101-000000-abcdef",
    "content": "0" * 64,
    "inputs": "text",
    "labels": ["cat", "dog"],
    "plan": {"variant": "int8-dynamic", "provider": "CPUExecutionProvider", "slots": 2},
    "limits": {"max_inputs": 64, "more": 1},
    "more": [],
}


def test_bytes_and_what_was_read_are_the_same() -> None:
    info = parse_info(Info, "http://pets", json.dumps(SAID).encode())
    assert info == parse_info(Info, "http://pets", SAID)
    assert (info.tag, info.plan.variant, info.limits.max_inputs) == ("pets:20260101-000000-abcdef", "int8-dynamic", 64)
    few = {key: SAID[key] for key in ("name", "version", "content")}
    assert parse_info(Identity, "http://pets", few).tag == info.tag


@pytest.mark.parametrize(
    ("kind", "wrong", "where"),
    [
        (Identity, {"name": "a/../b"}, "name"),
        (Identity, {"version": "../x"}, "version"),
        (Identity, {"content": "Z" * 64}, "content"),
        (Info, {"limits": {"max_inputs": 0}}, "limits.max_inputs"),
        (Info, {"labels": []}, "labels"),
        (Info, {"plan": 5}, "plan"),
    ],
)
def test_what_is_wrong_is_named_with_the_address(kind: type[Identity], wrong: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_info(kind, "http://pets", SAID | wrong)
    start = f"http://pets: /info is not that of a Bentune service of this version ({where}: "
    assert str(caught.value).startswith(start)


def test_what_is_no_json() -> None:
    with pytest.raises(InputError, match="content: Invalid JSON"):
        parse_info(Info, "http://pets", b"<html>")
