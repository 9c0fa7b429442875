"""The recipe's `search`: searched values, metric and number of trials; and a check of each value."""

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bentune.bundle.errors import InputError
from training.recipe.section import Section

SEARCHABLE = ("model", "max_tokens", "seed", "method", "train")
"""Keys that the train stage reads. Other keys would change the rows of a trial, or nothing of its training."""

Number = int | float
_Check = Callable[[dict[str, Any]], list[str]]
_Place = Callable[[dict[str, Any], str, Any], None]


class Span(Section):
    """A range of numbers, or a list of choices, for one value of the recipe."""

    low: Number | None = Field(default=None, description="smallest value")
    high: Number | None = Field(default=None, description="largest value")
    log: bool = Field(default=False, description="draw on a logarithmic scale")
    step: Number | None = Field(default=None, gt=0, description="only low, low + step, and so on")
    choices: list[Any] | None = Field(default=None, min_length=1, max_length=100, description="values to choose from")

    @model_validator(mode="after")
    def _either(self) -> "Span":
        if self.choices is not None:
            if self.model_fields_set != {"choices"}:
                raise ValueError("give a list, or `low` and `high`, and not both")
        elif self.low is None or self.high is None:
            raise ValueError("give `low` and `high`, or a list of values")
        elif self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with `log`, low must be above 0, and there is no step")
        return self

    @model_serializer(mode="wrap")
    def _as_given(self, dump: SerializerFunctionWrapHandler) -> Any:
        given = {name: value for name, value in dump(self).items() if name in self.model_fields_set}
        return given.get("choices", given)


def _listed(value: Any) -> Any:
    return {"choices": value} if isinstance(value, list) else value


class SearchSettings(Section):
    """Settings of `bentune search`."""

    trials: int = Field(default=20, ge=1, le=10_000, description="number of trainings, including pruned ones")
    metric: str = Field(default="accuracy", min_length=1, description="metric of the validation set, or loss")
    direction: Literal["maximize", "minimize"] | None = Field(
        default=None, description="by default minimize for a metric that ends with loss, else maximize"
    )
    pruning: Literal["median", "hyperband", "none"] = Field(
        default="median", description="rule that ends trials early, by their metric at each tenth of the training"
    )
    validation: float = Field(
        default=0.2, gt=0, lt=1, description="share of the training rows to measure on, without a validation set"
    )
    values: dict[str, Annotated[Span, BeforeValidator(_listed)]] = Field(
        default={}, description="key of the recipe: {low, high, log, step}, or a list"
    )

    @property
    def towards(self) -> Literal["maximize", "minimize"]:
        """Return the direction; by default that of the metric."""
        return self.direction or ("minimize" if self.metric.endswith("loss") else "maximize")


def search_problems(given: Mapping[str, Any], check: _Check, place: _Place) -> list[str]:
    """List the problems of a recipe's searched values, without its other problems.

    Each end of a range and each choice is tried in the recipe. `check` lists the problems of a recipe. `place` puts a
    value into it, or raises InputError for a wrong key.
    """
    search = given.get("search")
    values = search.get("values") if isinstance(search, Mapping) else None
    if not isinstance(values, Mapping):
        return []
    recipe = {key: value for key, value in given.items() if key != "search"}
    known = set(check(deepcopy(recipe)))
    found = [problem for key, span in values.items() for problem in _tried(str(key), span, recipe, known, check, place)]
    keys = [str(key) for key in values]
    found += [
        f"{inner}: cannot be searched together with {outer}, which it is a part of"
        for outer in keys
        for inner in keys
        if inner.startswith(f"{outer}.")
    ]
    return [f"search.values: {problem}" for problem in dict.fromkeys(found)]


def _tried(key: str, span: Any, recipe: dict[str, Any], known: set[str], check: _Check, place: _Place) -> Iterator[str]:
    ends = [span[end] for end in ("low", "high") if end in span] if isinstance(span, Mapping) else []
    values = span if isinstance(span, list) else ends
    unknown = False
    for value in values:
        changed = deepcopy(recipe)
        try:
            place(changed, key, value)
        except InputError as error:
            yield str(error)
            return
        wrong = [problem for problem in check(changed) if problem not in known]
        yield from wrong
        unknown = unknown or any("no such key" in problem for problem in wrong)
    if not unknown and key.partition(".")[0] not in SEARCHABLE:
        yield f"{key}: cannot be searched, for trials share their rows and end with the training; valid: " + ", ".join(
            SEARCHABLE
        )
