"""Annotations of a Deployment that record its releases; its pods do not have them."""

from dataclasses import dataclass, replace

from pydantic import ValidationError

from bentune.bundle.files import Frozen
from rollout.release.kubectl import Object

LEFT, INTERRUPTED, UNDER_WAY = "bentune/left", "bentune/interrupted", "bentune/under-way"
MOST = 50
"""Most contents that are kept, the newest: no cluster keeps the pod templates of more revisions."""


class UnderWay(Frozen):
    """Release that has begun and not ended: its version, and the version that served before.

    `replica_set` names the ReplicaSet of the former pods, None for a first release. `former` is their content, where it
    is known, and `tag` its tag.
    """

    content: str
    image: str
    replica_set: str | None = None
    former: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Annotations:
    """Annotations of a Deployment.

    `left` are the contents that were undone or rolled back from, and `interrupted` those whose release was never
    judged.
    """

    left: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    under_way: UnderWay | None = None

    def without(self, content: str) -> "Annotations":
        """Return the annotations after a successful release of this content."""
        kept, judged = ((one for one in some if one != content) for some in (self.interrupted, self.left))
        return Annotations(tuple(judged), tuple(kept))

    def leaving(self, content: str) -> "Annotations":
        """Return the annotations after this content was undone or rolled back from."""
        after = self.without(content)
        return replace(after, left=(*after.left, content)[-MOST:])

    def interrupting(self, content: str) -> "Annotations":
        """Return the annotations after a release of this content that ended unjudged."""
        if content in self.left:
            return replace(self, under_way=None)
        after = self.without(content)
        return replace(after, interrupted=(*after.interrupted, content)[-MOST:])

    def patch(self) -> Object:
        """Return a merge patch of the Deployment.

        A value that no longer holds is emptied, not removed: the ReplicaSet has a copy of each annotation, which
        `kubectl rollout undo` would restore.
        """
        under_way = self.under_way.model_dump_json() if self.under_way else ""
        values = {LEFT: " ".join(self.left), INTERRUPTED: " ".join(self.interrupted), UNDER_WAY: under_way}
        return {"metadata": {"annotations": values}}


def read_annotations(deployment: Object) -> Annotations:
    """Read a Deployment's annotations; a value that Bentune did not write is ignored."""
    values = deployment["metadata"].get("annotations") or {}
    try:
        under_way = UnderWay.model_validate_json(values.get(UNDER_WAY, ""))
    except ValidationError:
        under_way = None
    left, interrupted = (tuple(values.get(key, "").split()) for key in (LEFT, INTERRUPTED))
    return Annotations(left, interrupted, under_way)
