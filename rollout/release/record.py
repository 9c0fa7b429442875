"""Record of releases: a JSON line for each release, undo and rollback, in the BentoML home."""

import json
import os
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from bentune.bundle.files import Frozen
from bentune.bundle.lock import locked
from bentune.bundle.store import home

FILE = "bentune/releases.jsonl"
MOST_LINE_BYTES = 100_000


class Action(StrEnum):
    """Action of a line."""

    RELEASED = "released"
    UNDONE = "undone"
    ROLLED_BACK = "rolled-back"
    # Ended before the pods were judged, by the user or by a cluster that did not answer.
    INTERRUPTED = "interrupted"
    # Applied; Argo Rollouts continues, and the version may or may not serve in the end.
    HANDED_OVER = "handed-over"


class Release(Frozen):
    """Line of the record.

    `where` is context/namespace/deployment; with --commit the overlay replaces the context. `tag` and `content` are of
    the bundle that was released, undone, or returned to by a rollback. `reason` is that of a forced release or an undo.
    """

    # A later version of Bentune may write more keys.
    model_config = ConfigDict(extra="ignore")

    at: datetime
    tag: str
    content: str
    where: str
    action: Action
    image: str
    reason: str = ""


def record_file() -> Path:
    """Return the path of the record: in the home of the stores."""
    return home() / FILE


def append(release: Release, file: Path | None = None) -> None:
    """Append a line under a lock, and flush it to disk.

    With the lock, concurrent writers write whole lines. An incomplete last line, left by a crash, is ended first.
    """
    path = file or record_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path), path.open("ab+") as lines:
        if size := lines.seek(0, os.SEEK_END):
            lines.seek(size - 1)
            if lines.read(1) != b"\n":
                lines.write(b"\n")
        # In ASCII: a reason may contain a Unicode line separator.
        lines.write(json.dumps(release.model_dump(mode="json")).encode() + b"\n")
        lines.flush()
        os.fsync(lines.fileno())


def read(file: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> list[Release]:
    """Read every line, oldest first.

    Damaged lines are skipped, and `tell` is called with a message about them.
    """
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
    """Return the releases that served there and may be returned to, oldest first.

    The last one serves now. Versions that were undone or rolled back from are left out.
    """
    return _replay(releases, where)[0]


def left(releases: list[Release], where: str) -> set[str]:
    """Return the contents undone or rolled back from `where`, and not released since."""
    return _replay(releases, where)[1]


def _replay(releases: list[Release], where: str) -> tuple[list[Release], set[str]]:
    kept: list[Release] = []
    gone: set[str] = set()
    for one in releases:
        if one.where != where or one.action in {Action.INTERRUPTED, Action.HANDED_OVER}:
            continue
        if one.action is Action.UNDONE:
            # A second release of the served version only restarted its pods.
            gone |= {one.content} - {kept[-1].content if kept else ""}
            continue
        if one.action is Action.ROLLED_BACK:
            while kept and (kept[-1].content, kept[-1].image) != (one.content, one.image):
                gone.add(kept.pop().content)
        gone.discard(one.content)
        if not kept or (kept[-1].content, kept[-1].image) != (one.content, one.image):
            kept.append(one)
    return kept, gone
