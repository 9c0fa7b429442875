"""Schema of search.json, the result of a hyperparameter search."""

from typing import Any, Literal

from bentune.bundle.files import Frozen

DIRECTORY = "search"
RESULT = "search.json"


class Tried(Frozen):
    """One finished trial: `value` is its metric, `reason` the error of a failed trial.

    `repeats` is the number of an earlier trial with the same values, whose result was copied.
    """

    number: int
    state: Literal["complete", "pruned", "failed"]
    value: float | None
    values: dict[str, Any]
    seconds: float
    reason: str | None = None
    repeats: int | None = None


class SearchResult(Frozen):
    """Content of search.json. `own` is the number of the trial with the recipe's own values, if they are in the space.

    `fingerprint` identifies the run's rows. `rows` counts the training and validation rows of the trials; the test set
    is not used.
    """

    fingerprint: str
    metric: str
    direction: Literal["maximize", "minimize"]
    rows: dict[str, int]
    trials: list[Tried]
    best: Tried
    own: int | None
