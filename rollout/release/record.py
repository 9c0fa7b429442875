"""The record of what was released where: one line of JSON for each release, undo and rollback, in the BentoML home."""

import fcntl
import json
import os
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from bentune.bundle.files import Frozen
from bentune.bundle.store import home

FILE = "bentune/releases.jsonl"
MOST_LINE_BYTES = 100_000


class Action(StrEnum):
    """What was done."""

    RELEASED = "released"
    UNDONE = "undone"
    ROLLED_BACK = "rolled-back"
    # Given up before anything was known of it, by somebody or because the cluster did not answer.
    INTERRUPTED = "interrupted"
    # Applied, and Argo Rollouts goes on: whether it ever serves is not known yet.
    HANDED_OVER = "handed-over"


class Release(Frozen):
    """One line.

    `where` is context/namespace/deployment, and for --commit has the overlay in the place of the context. `tag` and
    `content` are the bundle's: the one that was released, the one that was taken back by an undo, the one that a
    rollback returned to. `reason` says why it was forced, or taken back.
    """

    # A later Bentune may say more.
    model_config = ConfigDict(extra="ignore")

    at: datetime
    tag: str
    content: str
    where: str
    action: Action
    image: str
    reason: str = ""


def record_file() -> Path:
    """Where the record is: in the home that the stores are in."""
    return home() / FILE


def append(release: Release, file: Path | None = None) -> None:
    """Write one more line and have it on the disk. Two that write at once each write a whole line.

    A last line that a crash left unended stays alone.
    """
    path = file or record_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as lines:
        fcntl.flock(lines, fcntl.LOCK_EX)
        if size := lines.seek(0, os.SEEK_END):
            lines.seek(size - 1)
            if lines.read(1) != b"\n":
                lines.write(b"\n")
        # In ASCII: a reason may hold what others take for the end of a line.
        lines.write(json.dumps(release.model_dump(mode="json")).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def read(file: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> list[Release]:
    """Every line, oldest first. One that is no record is left out, and `tell` hears how many there are."""
    path = file or record_file()
    if not path.is_file():
        return []
    found, bad, number = [], [], 0
    with path.open("rb") as lines:
        while line := lines.readline(MOST_LINE_BYTES):
            number += 1
            try:
                found.append(Release.model_validate_json(line))
            except ValidationError:
                bad += [number] if line.strip() else []
    if bad:
        tell(f"{path}: {len(bad)} lines are no record of a release, the first is line {bad[0]}")
    return found


def served(releases: list[Release], where: str) -> list[Release]:
    """What was served there and may be returned to, oldest first; the last is what serves now.

    What was undone never served all requests, and what a rollback left behind is not good to return to.
    """
    return _told(releases, where)[0]


def left(releases: list[Release], where: str) -> set[str]:
    """The contents that were taken back there, or left by a rollback, and not released again since."""
    return _told(releases, where)[1]


def _told(releases: list[Release], where: str) -> tuple[list[Release], set[str]]:
    kept: list[Release] = []
    gone: set[str] = set()
    for one in releases:
        if one.where != where or one.action in {Action.INTERRUPTED, Action.HANDED_OVER}:
            continue
        if one.action is Action.UNDONE:
            # The same that served before it was only given pods once more.
            gone |= {one.content} - {kept[-1].content if kept else ""}
            continue
        if one.action is Action.ROLLED_BACK:
            while kept and (kept[-1].content, kept[-1].image) != (one.content, one.image):
                gone.add(kept.pop().content)
        gone.discard(one.content)
        if not kept or (kept[-1].content, kept[-1].image) != (one.content, one.image):
            kept.append(one)
    return kept, gone
