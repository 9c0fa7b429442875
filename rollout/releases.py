"""The record of what was released where: one line of JSON for each release, undo and rollback, in the BentoML home."""

import fcntl
import json
import os
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from bentoml._internal.configuration.containers import BentoMLContainer
from pydantic import ValidationError

from service.errors import InputError
from service.frozen import Frozen

FILE = "bentune/releases.jsonl"


class Action(StrEnum):
    """What was done."""

    RELEASED = "released"
    UNDONE = "undone"
    ROLLED_BACK = "rolled-back"


class Release(Frozen):
    """One line.

    `where` is context/namespace/deployment, `tag` and `content` the bundle's: the one that was released, the one that
    was taken back by an undo, the one that a rollback returned to. `reason` says why it was forced, or taken back.
    """

    at: datetime
    tag: str
    content: str
    where: str
    action: Action
    image: str
    reason: str = ""


def record_file() -> Path:
    """Where the record is: in the home that the stores are in."""
    return Path(BentoMLContainer.bentoml_home.get()) / FILE


def append(release: Release, file: Path | None = None) -> None:
    """Write one more line and have it on the disk. Two that write at once each write a whole line."""
    path = file or record_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)
        lines.write(json.dumps(release.model_dump(mode="json"), ensure_ascii=False) + "\n")
        lines.flush()
        os.fsync(lines.fileno())


def read(file: Path | None = None) -> list[Release]:
    """Every line, oldest first. Raises InputError with the number of a line that is none."""
    path = file or record_file()
    if not path.is_file():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            found.append(Release.model_validate_json(line))
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]["msg"]
            raise InputError(f"{path}: line {number} is no record of a release: {problem}; mend or remove it") from None
    return found


def served(releases: list[Release], where: str) -> list[Release]:
    """What was served there and may be returned to, oldest first; the last is what serves now.

    What was undone never served all requests, and what a rollback left behind is not good to return to.
    """
    kept: list[Release] = []
    for one in releases:
        if one.where != where or one.action is Action.UNDONE:
            continue
        if one.action is Action.ROLLED_BACK:
            while kept and (kept[-1].content, kept[-1].image) != (one.content, one.image):
                kept.pop()
        if not kept or (kept[-1].content, kept[-1].image) != (one.content, one.image):
            kept.append(one)
    return kept
