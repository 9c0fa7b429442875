"""What the held-out rows looked like to the model, for drift: histograms, and how far traffic may be from them."""

from itertools import pairwise
from typing import Annotated, Self

from pydantic import Field, model_validator

from bentune.bundle.files import Frozen

Count = Annotated[int, Field(ge=0, le=10**9)]
MOST_BINS = 10_000


class Histogram(Frozen):
    """Held-out rows by bin. `threshold` is the population stability index above which traffic is called drifted."""

    counts: list[Count] = Field(min_length=2, max_length=MOST_BINS)
    threshold: float = Field(gt=0)


class Binned(Histogram):
    """Bins of a number: the first holds what is below `edges[0]`, bin n what is at or above edges[n - 1], and so on."""

    edges: list[float] = Field(min_length=1, max_length=MOST_BINS - 1)

    @model_validator(mode="after")
    def _bins(self) -> Self:
        if len(self.edges) != len(self.counts) - 1:
            raise ValueError(f"{len(self.edges)} edges are not those of {len(self.counts)} bins")
        if any(low >= high for low, high in pairwise(self.edges)):
            raise ValueError("the edges do not rise")
        return self


class Baseline(Frozen):
    """What baseline.json holds.

    `rows` were counted, as the variant that the plan chose sees them. `token_length` is in tokens with special ones and
    after truncation, `label` has the predicted labels in the manifest's order, `confidence` is the probability of that
    label. Where an input has any number of labels, the likeliest stands for all, and the last bin of `label` has the
    inputs without one. A pod compares its newest `window` inputs with this. Where nothing changed, one of the three is
    expected to be beyond its threshold in one of `looks_a_month` looks.
    """

    rows: int = Field(ge=1)
    window: int = Field(ge=50, le=100_000)
    looks_a_month: int = Field(ge=1)
    token_length: Binned
    label: Histogram
    confidence: Binned

    @property
    def features(self) -> dict[str, Histogram]:
        """Each histogram under the name that the metrics have for it."""
        return {"token_length": self.token_length, "label": self.label, "confidence": self.confidence}

    @model_validator(mode="after")
    def _every_row_once(self) -> Self:
        for name, histogram in self.features.items():
            if sum(histogram.counts) != self.rows:
                raise ValueError(f"{name} counts {sum(histogram.counts)} rows, not {self.rows}")
        return self
