"""Drift baseline: histograms of the test rows, and thresholds for traffic."""

from itertools import pairwise
from typing import Annotated, Any, Self

from pydantic import Discriminator, Field, Tag, model_serializer, model_validator

from bentune.bundle.files import Frozen

Count = Annotated[int, Field(ge=0, le=10**9)]
MOST_BINS = 10_000


class Histogram(Frozen):
    """Test rows by bin. `threshold` is the population stability index above which traffic is called drifted."""

    counts: list[Count] = Field(min_length=2, max_length=MOST_BINS)
    threshold: float = Field(gt=0)


class Binned(Histogram):
    """Bins of a number: bin 0 is below `edges[0]`, bin n is from edges[n - 1] up to but without edges[n]."""

    edges: list[float] = Field(min_length=1, max_length=MOST_BINS - 1)

    @model_validator(mode="after")
    def _bins(self) -> Self:
        if len(self.edges) != len(self.counts) - 1:
            raise ValueError(f"{len(self.edges)} edges are not those of {len(self.counts)} bins")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("the edges do not rise")
        return self


def _kind(given: Any) -> str:
    return "binned" if isinstance(given, Binned) or (isinstance(given, dict) and "edges" in given) else "counted"


# Tagged, so that an error names the place and concerns the intended class only.
AnyHistogram = Annotated[Annotated[Binned, Tag("binned")] | Annotated[Histogram, Tag("counted")], Discriminator(_kind)]


class Baseline(Frozen):
    """Content of baseline.json.

    `rows` is the number of counted rows, computed with the variant of the plan. `token_length` counts special tokens,
    after truncation; the target names the other features. A `label` is counted in the order of `Target.counted`,
    `confidence` is the probability of that label. A pod compares its newest `window` inputs with the baseline. Without
    drift, a feature is expected to exceed its threshold in one of `looks_a_month` looks.
    """

    rows: int = Field(ge=1)
    window: int = Field(ge=50, le=100_000)
    looks_a_month: int = Field(ge=1)
    features: dict[str, AnyHistogram]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, entries: Any) -> Any:
        if not isinstance(entries, dict) or "features" in entries:
            return entries
        own = {name: entries[name] for name in ("rows", "window", "looks_a_month") if name in entries}
        return own | {"features": {name: value for name, value in entries.items() if name not in own}}

    @model_serializer
    def _spread(self) -> dict[str, Any]:
        """Write each histogram beside the counts, under its name in the metrics."""
        own = {"rows": self.rows, "window": self.window, "looks_a_month": self.looks_a_month}
        return own | {name: histogram.model_dump() for name, histogram in self.features.items()}

    @model_validator(mode="after")
    def _every_row_once(self) -> Self:
        for name, histogram in self.features.items():
            if sum(histogram.counts) != self.rows:
                raise ValueError(f"{name} counts {sum(histogram.counts)} rows, not {self.rows}")
        return self
