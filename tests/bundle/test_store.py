"""BentoML's stores: versions are given one at a time and rise, and models are found by name, tag and directory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import bentoml
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from hypothesis import given
from hypothesis import strategies as st

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.manifest import MODULE
from bentune.bundle.store import (
    bundle_tag,
    find_bento,
    find_bundle,
    newest,
    next_version,
    require_store,
    reserved,
    stored_at,
)

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_a_version_says_when_and_what() -> None:
    assert next_version([], NOON.replace(microsecond=5), "abcdef0123") == ("20261123-120000-abcdef", NOON)
    assert stored_at("20261123-120000-abcdef") == NOON


def test_what_bentune_did_not_name_is_no_version_of_it() -> None:
    for foreign in ("latest", "v2", "20261123-120000", "20261399-120000-abcdef", "20261123-120000-ABCDEF", "x" * 22):
        assert stored_at(foreign) is None
    assert next_version(["zzz", "latest", "99999999-999999-ffffff"], NOON, "abcdef")[0] == "20261123-120000-abcdef"
    assert newest(["zzz"]) is None
    assert newest(["zzz", "20261123-120000-abcdef", "20261122-120000-ffffff"]) == "20261123-120000-abcdef"


@given(
    st.lists(
        st.tuples(st.integers(-100_000, 100_000), st.text("0123456789abcdef", min_size=6, max_size=64)), max_size=20
    )
)
def test_each_is_greater_than_all_before_it(moments: list[tuple[int, str]]) -> None:
    """Within a second, after the clock went back, and with smaller digests."""
    stored: list[str] = []
    for seconds, sha256 in moments:
        now = NOON + timedelta(milliseconds=seconds)
        version, at = next_version(stored, now, sha256)
        assert all(version > earlier for earlier in stored)
        assert at == stored_at(version) >= now.replace(microsecond=0)
        assert newest([*stored, version]) == version
        stored.append(version)


STORE = """
import sys
from pathlib import Path
from bentune.bundle.store import reserved
from bentoml._internal.configuration.containers import BentoMLContainer
for _ in range(10):
    with reserved("counted", "0" * 64) as (version, at):
        (Path(BentoMLContainer.model_store_dir.get()) / "counted" / version).mkdir()
        print(version, flush=True)
        if sys.argv[1:] == ["die"]:
            import os, signal
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    import shutil

    folder = Path(BentoMLContainer.model_store_dir.get()) / "counted"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder)


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", STORE, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def test_processes_at_once_get_versions_one_after_the_other(place: Path) -> None:
    processes = [start() for _ in range(2)]
    given = [process.communicate(timeout=120)[0].split() for process in processes]
    assert all(process.returncode == 0 for process in processes)
    assert all(versions == sorted(versions) for versions in given)
    assert len({version for versions in given for version in versions}) == 20
    seconds = sorted(at for path in place.iterdir() if (at := stored_at(path.name)) is not None)
    assert len(set(seconds)) == 20


def test_a_process_that_dies_holds_nothing_and_what_it_left_counts(place: Path) -> None:
    with start("die") as process:
        (left,) = process.communicate(timeout=120)[0].split()
    assert process.returncode == -9
    with reserved("counted", "0" * 64) as (version, _):
        assert version > left


def test_a_clock_that_was_set_back(place: Path) -> None:
    ahead = datetime.now().astimezone() + timedelta(days=1)
    (place / f"{ahead:%Y%m%d-%H%M%S}-ffffff").mkdir()
    with reserved("counted", "0" * 64) as (version, at):
        assert version > f"{ahead:%Y%m%d-%H%M%S}-ffffff"
        assert at == stored_at(version)


def test_a_home_that_cannot_be_written_is_said_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    asked = "from bentune.bundle.store import require_store; require_store()"
    environment = os.environ | {"BENTOML_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, env=environment, check=False)
    assert f"InputError: BENTOML_HOME: BentoML's stores cannot be written ([Errno 20] {tmp_path}/home" in done.stderr


def test_a_store_that_is_gone(place: Path, tmp_path: Path) -> None:
    require_store()
    BentoMLContainer.bento_store_dir.set(str(tmp_path / "gone"))
    try:
        with pytest.raises(InputError, match="set it to another directory"):
            require_store()
    finally:
        BentoMLContainer.bento_store_dir.reset()


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
        assert bundle_tag(name) == bundle_tag(f"{name}:latest") == f"{name}:20261123-120001-abcdef"
        assert bundle_tag(f"{name}:zzz") == f"{name}:zzz"
    finally:
        for model in bentoml.models.list(name):
            bentoml.models.delete(model.tag)


@pytest.mark.parametrize(
    ("tags", "newest"),
    [
        # In the order of the clock, which was set back again and again.
        (["b:20261123-120002-aaaaaa", "a:20261123-120001-ffffff"], "b:20261123-120002-aaaaaa"),
        (["b:20261123-120001-aaaaaa", "b:v2", "a:zzz"], "b:20261123-120001-aaaaaa"),
        (["a:20261123-120001-aaaaaa", "b:20261123-120001-aaaaaa"], "b:20261123-120001-aaaaaa"),
        (["b:v2", "a:v1"], "a:v1"),
    ],
)
def test_of_several_names_the_newest_is_the_greatest_version(
    monkeypatch: pytest.MonkeyPatch, tags: list[str], newest: str
) -> None:
    models = [
        SimpleNamespace(tag=bentoml.Tag.from_str(tag), creation_time=number, info=SimpleNamespace(module=MODULE))
        for number, tag in enumerate(tags)
    ]
    other = SimpleNamespace(tag=bentoml.Tag("z", "9"), creation_time=9, info=SimpleNamespace(module="sklearn"))
    monkeypatch.setattr(bentoml.models, "list", lambda: [*models, other])
    assert bundle_tag() == newest


def test_a_store_without_a_bundle_has_no_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bentoml.models, "list", list)
    with pytest.raises(InputError, match="has no bundle"):
        bundle_tag()
