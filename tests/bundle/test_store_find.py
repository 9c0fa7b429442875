"""Bundles and Bentos are found by name, by tag and by directory; what is not there is answered with what is."""

from pathlib import Path

import bentoml
import pytest

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.manifest import MODULE
from bentune.bundle.store import find_bento, find_bundle


def test_bundle_by_name_tag_and_directory(tiny_tag: str, tiny_bundle: Path) -> None:
    name = tiny_tag.partition(":")[0]
    digests = {find_bundle(given).digest for given in (tiny_tag, str(tiny_bundle))}
    assert len(digests) == 1
    assert find_bundle(name).manifest.name == name


@pytest.mark.parametrize("find", [find_bundle, find_bento])
def test_an_unknown_name_lists_what_is_there(find: object, tiny_tag: str) -> None:
    assert callable(find)
    with pytest.raises(
        InputError, match=rf"nowhere:1 is not in the BentoML .*store; it has .*{tiny_tag.split(':', maxsplit=1)[0]}"
    ):
        find("nowhere:1")


def test_a_name_that_is_no_tag_is_an_input_error() -> None:
    with pytest.raises(InputError, match="is not in the BentoML model store"):
        find_bundle("No Such Model!")


def test_bento_has_the_tag_of_its_bundle(tiny_tag: str) -> None:
    bento = find_bento(tiny_tag)
    assert str(bento.tag) == str(bento.info.all_models[0].tag) == tiny_tag


def test_the_newest_is_the_greatest_version_and_not_the_last_by_the_clock(tmp_path: Path) -> None:
    name = "set-back"
    for version in ("20261123-120001-abcdef", "20261123-120000-ffffff", "zzz"):
        with bentoml.models.create(f"{name}:{version}", module=MODULE) as stored:
            Path(stored.path_of("version")).write_text(version)
    try:
        assert str(bentoml.models.get(name).tag) == f"{name}:zzz"
        with pytest.raises(BundleError, match="set-back/20261123-120001-abcdef is not a bundle"):
            find_bundle(name)
        with pytest.raises(BundleError, match="set-back/zzz is not a bundle"):
            find_bundle(f"{name}:zzz")
    finally:
        for model in bentoml.models.list(name):
            bentoml.models.delete(model.tag)
