"""Verdicts written into the bundle that they judge: the one change that a finished bundle ever sees.

evidence.json is replaced first and manifest.json, which names its sha256, right after it. A crash between the two
leaves a bundle that does not open; `mend` finds that state, which nothing else can look like, and takes the verdict
back out.
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

    The bundle's `content` stays. Returns the bundle as it now is. Raises BundleError when it is damaged, so that damage
    is never sealed in, or is not the bundle that was judged, and BentuneError when it cannot be written.
    """
    try:
        # The directory itself, for a file of a lock would be one that no manifest names.
        with locked(root):
            _take_back(root)
            bundle = open_bundle(root)
            if bundle.content != verdict.candidate.content:
                raise BundleError(f"{root} is not the bundle that was compared: its content changed; compare again")
            evidence = bundle.evidence()
            bundle.verdicts()  # what is there must be verdicts
            evidence[VERDICTS] = [*evidence.get(VERDICTS, []), verdict.model_dump(mode="json")]
            write_json(root / EVIDENCE, evidence)
            seal_evidence(bundle)
            return open_bundle(root)
    except OSError as error:
        raise BentuneError(
            f"{root}: the verdict cannot be written ({error.strerror}); give the bundle's owner and mode a look"
        ) from None


def mend(root: Path) -> None:
    """Take back a verdict whose writing was cut short.

    Other damage stays, for open_bundle to refuse.
    """
    # A store that may only be read has nobody who writes, and nothing to mend.
    with suppress(OSError), locked(root):
        _take_back(root)


def _take_back(root: Path) -> None:
    path = root / EVIDENCE
    for written in (path, root / MANIFEST):
        part_of(written).unlink(missing_ok=True)
    # Whatever is wrong with the files, it is not for this function to say.
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
