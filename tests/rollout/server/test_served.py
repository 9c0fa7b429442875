"""What is served is found in the store: by tag, directory and address; and is refused when it is not the same."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from http_server import serving

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import open_bundle
from rollout.server.served import asked, find_served


def says(**info: Any) -> Any:
    async def answer(request: web.Request) -> web.Response:
        assert request.path == "/info"
        return web.json_response({"plan": {}, "digest": "d"} | info)

    return answer


def test_by_tag_directory_and_address(tiny_tag: str, tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    name, version = tiny_tag.split(":")
    with serving(says(name=name, version=version, content=bundle.content)) as address:
        assert asked(address) == (tiny_tag, bundle.content)
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
        asked(address)


def test_an_address_that_is_none() -> None:
    with pytest.raises(InputError, match="'http://' is no address of a server"):
        asked("http://")


def test_an_address_without_bentune() -> None:
    async def other(request: web.Request) -> web.Response:
        return web.Response(text=json.dumps({"model_id": "x"}))

    with serving(other) as address, pytest.raises(InputError, match="no Bentune service answers /info there"):
        find_served(address)
