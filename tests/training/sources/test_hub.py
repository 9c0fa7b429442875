"""Files of a hub data set: named by datasets, fetched at the resolved revision, and read by our own reader."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import huggingface_hub
import pytest

from bentune.bundle.errors import InputError
from training.recipe.data import DataSettings
from training.sources import hub
from training.sources.files import open_source, open_sources


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """A hub with one data set of two CSV files; the calls that fetch them."""
    calls: list[Any] = []
    (tmp_path / "train.csv").write_text("text,label\na,NA\nb,01\n")
    (tmp_path / "test.csv").write_text("text,label\nc,true\n")
    files = {name: [f"hf://datasets/owner/news@5f2a/{name}.csv"] for name in ("train", "test")}
    builder = SimpleNamespace(config=SimpleNamespace(data_files=files), info=SimpleNamespace(features=None))

    def resolved(self: Any, url: str) -> Any:
        del self
        repo, _, path = url.removeprefix("hf://datasets/").partition("@5f2a/")
        return SimpleNamespace(repo_id=repo, path_in_repo=path, repo_type="dataset", revision="5f2a")

    def download(repo: str, path: str, **options: Any) -> str:
        calls.append((repo, path, options))
        return str(tmp_path / path)

    monkeypatch.setattr(hub, "offline", lambda: False)
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *_: builder)
    monkeypatch.setattr(huggingface_hub.HfFileSystem, "resolve_path", resolved)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return calls


def settings(**more: Any) -> DataSettings:
    return DataSettings.model_validate({"source": "owner/news"} | more)


def test_files_of_the_hub_are_read_without_guesses(fetched: list[Any]) -> None:
    train, test = open_sources(settings(split={"test": "test"}))
    assert [(row.text, row.label) for row in train.read()] == [("a", "NA"), ("b", "01")]
    assert [(row.text, row.label) for row in test.read()] == [("c", "true")]
    assert next(iter(train.read())).origin == "owner/news train, train.csv line 2"
    assert fetched == [
        ("owner/news", f"{name}.csv", {"repo_type": "dataset", "revision": "5f2a"}) for name in ("train", "test")
    ]


@pytest.mark.usefixtures("fetched")
def test_a_split_that_the_files_do_not_have() -> None:
    with pytest.raises(InputError, match=r"split 'dev': Bad split: dev\. Available splits: \['test', 'train'\]"):
        open_source(settings(), "dev")


def test_a_file_that_cannot_be_fetched(fetched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    del fetched

    def gone(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", gone)
    with pytest.raises(InputError, match="data.source: owner/news could not be loaded: there is no such path here"):
        open_source(settings(), "train")
