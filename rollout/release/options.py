"""Options of a release that all of its steps share, and the listener that they report to."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rollout.release.progress import RolloutProgress


class Listener(Protocol):
    """Receiver of a release's events."""

    def say(self, renderable: Any) -> None:
        """Print a line for people."""

    def diff(self, text: str) -> None:
        """Print a unified diff of what is to be applied."""

    def pods(self, progress: RolloutProgress) -> None:
        """Show the status of the new pods."""


@dataclass(frozen=True)
class ReleaseOptions:
    """Options of a release or rollback.

    `timeout_s` is the longest wait for the next pod to turn ready. `url` is the address of the Service; without it each
    new pod is reached through `kubectl port-forward`. `record` is the file of the releases, by default the one in the
    BentoML home.
    """

    listener: Listener
    timeout_s: float
    url: str | None = None
    record: Path | None = None
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep
