"""What a Deployment remembers of its releases: annotations of its own, which none of its pods has."""

from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from bentune.bundle.files import Frozen

Object = dict[str, Any]

LEFT, INTERRUPTED, UNDER_WAY = "bentune/left", "bentune/interrupted", "bentune/under-way"
MOST = 50
"""So many contents are remembered, the newest: of more revisions no cluster keeps the pods."""


class UnderWay(Frozen):
    """A release that has begun and not ended: what was to serve, and what served before it.

    `replica_set` is the name of the former pods' ReplicaSet, and None of a first release; `former` their content, where
    it is known, and `tag` its name.
    """

    content: str
    image: str
    replica_set: str | None = None
    former: str | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Marks:
    """`left` are the contents that were taken back, or fled from; `interrupted` those that were never judged."""

    left: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    under_way: UnderWay | None = None

    def without(self, content: str) -> "Marks":
        """As after a release of this content that went well."""
        kept, judged = ((one for one in some if one != content) for some in (self.interrupted, self.left))
        return Marks(tuple(judged), tuple(kept))

    def leaving(self, content: str) -> "Marks":
        """As after this content was taken back, or fled from."""
        after = self.without(content)
        return replace(after, left=(*after.left, content)[-MOST:])

    def interrupting(self, content: str) -> "Marks":
        """As after a release of this content that was given up before anything was known of it."""
        if content in self.left:
            return replace(self, under_way=None)
        after = self.without(content)
        return replace(after, interrupted=(*after.interrupted, content)[-MOST:])

    def patch(self) -> Object:
        """A merge patch of the Deployment.

        What is over is empty and not taken away: the ReplicaSet has a copy, which would stay, and which
        `kubectl rollout undo` brings back.
        """
        under_way = self.under_way.model_dump_json() if self.under_way else ""
        said = {LEFT: " ".join(self.left), INTERRUPTED: " ".join(self.interrupted), UNDER_WAY: under_way}
        return {"metadata": {"annotations": said}}


def marks_of(deployment: Object) -> Marks:
    """What was written there; what nobody of us wrote counts for nothing."""
    said = deployment["metadata"].get("annotations") or {}
    try:
        under_way = UnderWay.model_validate_json(said.get(UNDER_WAY, ""))
    except ValidationError:
        under_way = None
    left, interrupted = (tuple(said.get(key, "").split()) for key in (LEFT, INTERRUPTED))
    return Marks(left, interrupted, under_way)
