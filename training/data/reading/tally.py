"""Counts what became of rows, and keeps a few of each for people to look at."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from training.data.report import SAMPLES, CleaningRule, Effect, RowChange, difference, shown


@dataclass(slots=True)
class Tally:
    """What cleaning did, by rule and effect, in the order in which it first happened."""

    rules: dict[tuple[str, Effect], int] = field(default_factory=dict)
    samples: dict[tuple[str, Effect], list[RowChange]] = field(default_factory=dict)

    def changed(self, rule: str, origin: str, before: str, after: str, *, fixed: bool) -> None:
        """A rule found something in a text, and changed it if it was `fixed`."""
        effect: Effect = "fixed" if fixed else "found"
        if self._count(rule, effect):
            piece, mended = difference(before, after)
            self.samples[rule, effect].append(RowChange(origin=origin, before=piece, after=mended))

    def left_out(self, reason: str, origin: str, text: object) -> None:
        """A row was left out."""
        if self._count(reason, "left out"):
            piece = shown(text) if isinstance(text, str) else ""
            self.samples[reason, "left out"].append(RowChange(origin=origin, before=piece))

    def report(self) -> Iterator[CleaningRule]:
        """A rule each, those that leave rows out last."""
        for rule, effect in sorted(self.rules, key=lambda place: place[1] == "left out"):
            samples = self.samples[rule, effect]
            yield CleaningRule(rule=rule, effect=effect, rows=self.rules[rule, effect], samples=samples)

    def _count(self, rule: str, effect: Effect) -> bool:
        """Count it; whether a sample of it is still wanted."""
        self.rules[rule, effect] = self.rules.get((rule, effect), 0) + 1
        return len(self.samples.setdefault((rule, effect), [])) < SAMPLES
