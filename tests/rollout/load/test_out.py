"""The directory of results: made with its parents, or refused."""

from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from rollout.load.out import require_directory


def test_it_is_made_and_may_be_there(tmp_path: Path) -> None:
    for _ in range(2):
        require_directory(tmp_path / "a/b")
    assert (tmp_path / "a/b").is_dir()


def test_where_a_file_is_none_is_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"--out .*/file: cannot be made \(File exists\); give another directory"):
        require_directory(tmp_path / "file")
