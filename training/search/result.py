"""search.json: what a search over values of the recipe has found."""

from typing import Any, Literal

from bentune.bundle.files import Frozen

DIRECTORY = "search"
RESULT = "search.json"


class Tried(Frozen):
    """One finished trial: `value` is the metric that it reached, `reason` why it failed.

    `repeats` is the number of the trial that had the same values, and so was not trained again.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    values: dict[str, Any]
    seconds: float
    reason: str | None = None
    repeats: int | None = None


class SearchResult(Frozen):
    """search.json. `own` is the number of the trial with the recipe's own values, where they are among those searched.

    `fingerprint` is that of the run's rows. `rows` counts those that trials were trained and measured on, of which none
    is held out.
    """

    fingerprint: str
    metric: str
    direction: Literal["maximize", "minimize"]
    rows: dict[str, int]
    trials: list[Tried]
    best: Tried
    own: int | None
