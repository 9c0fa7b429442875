"""Places that a recipe names: in a package, on this machine, or on a hub."""

import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import reset_sessions

from bentune.bundle.errors import InputError
from training.sources import locate as locating
from training.sources.locate import locate, locate_all, offline, why_not


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package on the path that ships data; importing it would fail."""
    root = tmp_path / "packages/shipped_rows"
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise SystemExit('imported')")
    (root / "data/rows.csv").write_text("text,label\n")
    (root.parent / "secret.csv").write_text("text,label\n")
    monkeypatch.syspath_prepend(root.parent)
    return root


def test_a_place_in_a_package_is_found_without_importing_it(package: Path) -> None:
    assert locate("package:shipped_rows/data/rows.csv", "model").path == (package / "data/rows.csv").resolve()
    assert locate("package:shipped_rows/data", "model").path == (package / "data").resolve()
    assert locate("package:shipped_rows", "model").path == package.resolve()
    assert "shipped_rows" not in sys.modules


def test_a_path_that_leaves_the_package_is_refused(package: Path) -> None:
    (package / "link.csv").symlink_to(package.parent / "secret.csv")
    for inner in ("../secret.csv", "data/../../secret.csv", "link.csv", "/etc/passwd"):
        with pytest.raises(InputError, match="data.source: .* leads outside the package"):
            locate(f"package:shipped_rows/{inner}", "data.source")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("package:not_installed_here/x", "is not installed; try `pip install not-installed-here`"),
        ("package:shipped_rows/nope.csv", "the package shipped_rows has no nope.csv"),
        ("package:shipped-rows/data", "write package:NAME/path, with the name as it is imported"),
        ("package:", "write package:NAME/path"),
        ("package:__main__/x", "is not installed"),
        ("package:os/x", "is not installed"),
    ],
)
def test_a_package_that_cannot_be_used(package: Path, given: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        locate(given, "data.source")
    assert str(caught.value).startswith(f"data.source: {given}: ")
    assert words in str(caught.value)


def test_a_local_path_goes_before_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("org/name", "model").path is None
    (tmp_path / "org/name").mkdir(parents=True)
    assert locate("org/name", "model").path == (tmp_path / "org/name").resolve()


def test_the_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.csv").touch()
    assert locate("~/rows.csv", "data.source").path == (tmp_path / "rows.csv").resolve()


@pytest.mark.parametrize("given", ["google-bert/bert-base-cased", "gpt2", "Yelp/yelp_review_full", "a.b/c-d_e.f"])
def test_hub_names(given: str) -> None:
    location = locate(given, "model")
    assert (location.name, location.path) == (given, None)


@pytest.mark.parametrize(
    "given", ["reviews.csv", "data/reviews.JSONL", "./model", "/no/such/model", "a/b/c", "-x/y", "a b", "../up", "a/"]
)
def test_what_is_neither_there_nor_a_hub_name(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        locate(given, "data.source")
    assert str(caught.value) == f"data.source: {given} is not there (looked in {tmp_path}), and it is no hub name"


@pytest.mark.parametrize("given", ["/" + "x" * 5000, "~nobody-of-this-name/x"])
def test_a_path_that_the_system_refuses(given: str) -> None:
    with pytest.raises(InputError) as caught:
        locate(given, "model")
    assert str(caught.value).startswith(f"model: {given[:100]}")
    assert len(str(caught.value)) < 500


def test_a_glob_is_every_path_that_it_matches_but_hidden_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.csv", "a.csv", ".c.csv", "_d.csv", "more/e.csv", "[f].csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = {given: [place.path.name for place in locate_all(given, "data.source")] for given in ("?.csv", "**/e.csv")}
    assert named == {"?.csv": ["a.csv", "b.csv"], "**/e.csv": ["e.csv"]}
    # A file of that very name is meant itself.
    assert [place.path.name for place in locate_all("[f].csv", "data.source")] == ["[f].csv"]
    with pytest.raises(InputError, match="data.source: no path matches"):
        locate_all("*.parquet", "data.source")
    with pytest.raises(InputError, match="a path inside a package is named in full"):
        locate_all("package:nothing/*.csv", "data.source")


# Reachability of the hub. Without a network a hub name fails at once, and cached names still work.


@pytest.fixture
def unasked() -> Iterator[None]:
    """No hub was asked yet.

    Afterwards neither an answer nor an open session is left to the next test.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        reset_sessions()
        offline.cache_clear()
        yield
    reset_sessions()
    offline.cache_clear()


@pytest.fixture
def silent_hub(unasked: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes the connection and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(locating, "HUB_TIMEOUT_S", 0.2)
        yield


def test_a_hub_that_does_not_answer_is_given_up_soon_and_asked_once(silent_hub: None) -> None:
    start = time.monotonic()
    assert offline()
    assert 0.2 <= time.monotonic() - start < 2
    start = time.monotonic()
    assert offline()
    assert time.monotonic() - start < 0.1
    assert "cannot be reached" in why_not()


def test_the_setting_of_the_hubs_own_library_is_honoured(silent_hub: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    start = time.monotonic()
    assert offline()
    assert time.monotonic() - start < 0.1


def test_a_hub_that_answers_is_not_offline(unasked: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import http.server
    import threading

    handler = http.server.BaseHTTPRequestHandler  # answers 501 to everything, which is an answer
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        assert not offline()
        assert "did not give it. Check the name" in why_not()
        server.shutdown()
