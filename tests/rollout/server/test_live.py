"""/info as typed values: what is needed is checked, what is more is let be."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import serving

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import open_bundle
from rollout.server.live import Identity, Info, find_served, parse_info, read_identity

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


def says(**info: Any) -> Any:
    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/info"
        return web.json_response({"plan": {}, "digest": "d"} | info)

    return answer


def test_by_tag_directory_and_address(tiny_tag: str, tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    name, version = tiny_tag.split(":")
    with serving(says(name=name, version=version, content=bundle.content)) as address:
        identity = read_identity(address)
        assert (identity.tag, identity.content) == (tiny_tag, bundle.content)
        for given in (tiny_tag, str(tiny_bundle), address, f"{address}/", f"{address}/predict"):
            assert find_served(given).content == bundle.content


def test_what_is_not_in_the_store_is_asked_for(tiny_tag: str, tiny_bundle: Path, tmp_path: Path) -> None:
    name, version = tiny_tag.split(":")
    with serving(says(name=name, version="20200101-000000-abcdef", content="0" * 64)) as address:
        with pytest.raises(InputError) as caught:
            find_served(address)
        assert str(caught.value) == (
            f"{address} serves {name}:20200101-000000-abcdef, which is not in the BentoML model store here: bring it "
            "there with `bentoml models import` or `bentoml models pull`"
        )
    with (
        serving(says(name=name, version=version, content="0" * 64)) as address,
        pytest.raises(InputError, match=f"{tiny_tag}, which in the BentoML model store is another: bring it there"),
    ):
        find_served(address)
    # A directory whose bundle was never stored.
    from bentune.bundle.manifest import seal

    copy = Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))
    manifest = open_bundle(copy).manifest
    (copy / "manifest.json").unlink()
    seal(copy, manifest.model_copy(update={"version": "never"}))
    with pytest.raises(InputError, match=f"{copy} is {name}:never, which is not in the BentoML model store here"):
        find_served(str(copy))


@pytest.mark.parametrize(
    "wrong",
    [
        *({"content": content} for content in (None, 5, "", "x" * 1000, "a\nb")),
        {"name": "../../up"},
        {"version": "a/b"},
    ],
)
def test_an_info_that_names_no_bundle(wrong: dict[str, object]) -> None:
    said = {"name": "n", "version": "v", "content": "0" * 64} | wrong
    with (
        serving(says(**said)) as address,
        pytest.raises(InputError, match=f"/info is not that of a Bentune service of this version .{next(iter(wrong))}"),
    ):
        read_identity(address)


def test_an_address_that_is_none() -> None:
    with pytest.raises(InputError, match="'http://' is no address of a server"):
        read_identity("http://")


def test_an_address_without_bentune() -> None:
    async def other(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps({"model_id": "x"}))

    with serving(other) as address, pytest.raises(InputError, match="no Bentune service answers /info there"):
        find_served(address)
