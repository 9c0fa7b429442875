"""Verdicts written into the judged bundle: the only change of a finished bundle.

evidence.json is replaced first, then manifest.json with its new sha256. A crash between the two leaves a bundle that
does not open; `mend` recognizes exactly that state and removes the verdict again.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from bentune.bundle.errors import BentuneError, BundleError
from bentune.bundle.files import json_bytes, part_of, write_json
from bentune.bundle.lock import locked
from bentune.bundle.manifest import EVIDENCE, MANIFEST, Bundle, open_bundle, seal_evidence
from bentune.bundle.verdict import VERDICTS, Verdict

MAX_EVIDENCE_BYTES = 100_000_000


def add_verdict(root: Path, verdict: Verdict) -> Bundle:
    """Append a verdict to the bundle in `root` and seal it again.

    The bundle's `content` stays. Returns the updated bundle. Raises BundleError when it is damaged, so that damage is
    never sealed, or is not the judged bundle. Raises BentuneError when it cannot be written.
    """
    try:
        # The directory itself: the manifest would not name a lock file in it.
        with locked(root):
            _take_back(root)
            bundle = open_bundle(root)
            if bundle.content != verdict.candidate.content:
                raise BundleError(f"{root} is not the bundle that was compared: its content changed; compare again")
            evidence = bundle.evidence()
            bundle.verdicts()  # raises for invalid verdicts
            evidence[VERDICTS] = [*evidence.get(VERDICTS, []), verdict.model_dump(mode="json")]
            write_json(root / EVIDENCE, evidence)
            seal_evidence(bundle)
            return open_bundle(root)
    except OSError as error:
        raise BentuneError(
            f"{root}: the verdict cannot be written ({error.strerror}); check the bundle's owner and mode"
        ) from None


def mend(root: Path) -> None:
    """Remove a verdict whose writing was interrupted.

    Other damage stays; `open_bundle` refuses it.
    """
    # A read-only store has no interrupted writes.
    with suppress(OSError), locked(root):
        _take_back(root)


def _take_back(root: Path) -> None:
    path = root / EVIDENCE
    for written in (path, root / MANIFEST):
        part_of(written).unlink(missing_ok=True)
    # Other damage of the files is reported by `open_bundle`.
    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        sealed = json.loads((root / MANIFEST).read_bytes())["files"][EVIDENCE]["sha256"]
        if path.is_symlink() or path.stat().st_size > MAX_EVIDENCE_BYTES:
            return
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() == sealed:
            return
        before = _without_newest(json.loads(content))
        if hashlib.sha256(json_bytes(before)).hexdigest() == sealed:
            write_json(path, before)


def _without_newest(evidence: dict[str, Any]) -> dict[str, Any]:
    verdicts = evidence[VERDICTS][:-1]
    return {key: value for key, value in evidence.items() if key != VERDICTS} | (
        {VERDICTS: verdicts} if verdicts else {}
    )
