"""Page of a comparison: one self-contained HTML file, for a phone, a screen, or paper.

It is the only output with texts of rows. All untrusted content is escaped, and texts are truncated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from bentune.bundle.verdict import Difference
from bentune.quality.slices import SliceDifference
from rollout.compare.decision import Comparison, Flip, points
from rollout.compare.tables import notes, numbers, slice_numbers

TEMPLATE = "comparison.html"
STYLE = "page.css"
SHOWN_CHARACTERS = 300
LEAST_SPAN = 0.02


@dataclass(frozen=True)
class Bar:
    """Bar of an interval, in percent of the axis's width."""

    value: float
    low: float
    width: float


@dataclass(frozen=True)
class Axis:
    """Axis from `-span` to `span`, as shares of accuracy."""

    span: float
    margin: float

    def at(self, share: float) -> float:
        """Return a difference's position in percent of the width, clamped to the ends."""
        return 50 + 50 * max(-1.0, min(1.0, share / self.span))

    def bar(self, difference: Difference) -> Bar:
        """Return the bar of an interval."""
        low, high = self.at(difference.low), self.at(difference.high)
        return Bar(value=self.at(difference.value), low=low, width=max(high - low, 0.5))


def page_of(found: Comparison, texts: Mapping[int, tuple[str, str | None]]) -> str:
    """Render the page as HTML; `texts` has the examples' texts by row number."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(files("rollout.compare").joinpath(TEMPLATE).read_text(encoding="utf-8"))
    axis = _axis(found.verdict.difference, found.verdict.margin, found.slices)
    return template.render(
        style=Markup(files("bentune.quality").joinpath(STYLE).read_text(encoding="utf-8")),  # noqa: S704 (our own file)
        found=found,
        verdict=found.verdict,
        notes=notes(found),
        numbers=numbers(found),
        slices=[(slice_numbers(one), axis.bar(one.difference), one.vetoes) for one in found.slices],
        axis=axis,
        whole=axis.bar(found.verdict.difference),
        points=points,
        flips=[
            ("Right before, wrong now", found.flips.lost, _shown(found.flips.lost_examples, texts)),
            ("Wrong before, right now", found.flips.gained, _shown(found.flips.gained_examples, texts)),
        ],
        reliability=list(zip(found.candidate.reliability, found.served.reliability, strict=True)),
    )


def _axis(difference: Difference, margin: float, slices: Sequence[SliceDifference]) -> Axis:
    """Choose an axis wide enough for all values.

    Intervals of small slices may be cut off.
    """
    values = [difference.low, difference.high, *(one.difference.value for one in slices)]
    return Axis(span=max(LEAST_SPAN, 2 * margin, 1.2 * max(abs(value) for value in values)), margin=margin)


def _shown(flips: Sequence[Flip], texts: Mapping[int, tuple[str, str | None]]) -> list[tuple[Flip, str]]:
    return [(flip, " / ".join(_cut(text) for text in texts[flip.row] if text is not None)) for flip in flips]


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + " …"
