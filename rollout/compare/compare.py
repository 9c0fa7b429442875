"""Comparison of a candidate with the served model on the same test rows.

The verdict goes into the candidate.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from bentune.bundle.errors import BentuneError, BundleError, InputError
from bentune.bundle.files import write_json, write_text
from bentune.bundle.manifest import Bundle, Columns
from bentune.bundle.record_verdict import add_verdict
from bentune.bundle.seen_rows import SeenRows
from bentune.bundle.verdict import MAX_MARGIN, CompareSettings, Verdict
from bentune.quality.labelled import (
    LABEL,
    Labelled,
    odds,
    read_labelled,
    refuse_trained,
    trained_on,
    without_copies,
)
from bentune.quality.registry import quality_of
from bentune.quality.slices import compare_slices
from rollout.compare.answers import flips_of
from rollout.compare.decision import Comparison, LeftOut, SideReport, decide
from rollout.compare.latency import Runs, run_both
from rollout.compare.models import Side, open_side, size_of
from rollout.load.bench import now
from rollout.load.chart import require_directory


class TaskReporter(Protocol):
    """Display of progress."""

    def task(self, description: str, total: int | None) -> AbstractContextManager[Callable[[int], None]]:
        """Show a progress bar; the yielded function advances it by a number of steps."""
        ...


def require_extra() -> None:
    """Raise InputError if the packages of the statistics or the page are missing."""
    try:
        import jinja2  # noqa: F401
        import scipy.stats  # noqa: F401
        import statsmodels.stats.multitest  # noqa: F401
    except ImportError as error:
        raise InputError(f"comparing needs {error.name}: pip install 'bentune[compare]'") from None


def compare(
    candidate: str,
    served: str,
    data: Path,
    *,
    report: TaskReporter,
    settings: CompareSettings | None = None,
    slices: Sequence[str] = (),
    frozen: Mapping[str, str] | None = None,
    margin: float | None = None,
    out: Path | None = None,
    label_column: str = LABEL,
    leave_out_trained: bool = False,
    trust_rows: bool = False,
) -> Comparison:
    """Compare two models on the rows of `data`.

    Each is a tag, a bundle's directory, or a service's address. `settings` default to those of the candidate's recipe.
    `slices` and `frozen`, {column: value} of slices with a stricter veto, are added to them; `margin`, in points,
    replaces theirs. The verdict is written into the candidate's bundle unless the candidate is a service; with `out`,
    comparison.json and comparison.html are written there. Raises InputError for rows that a side was trained on (unless
    `leave_out_trained`), for rows that cannot be checked because a service's bundle is not in the store (unless
    `trust_rows`), for different labels, for bad rows, and for a frozen slice without rows; BundleError for a bad
    bundle; and BentuneError for a service that does not answer.
    """
    require_extra()
    if margin is not None and not 0 < margin <= MAX_MARGIN:
        raise InputError(f"--margin {margin:g}: give points of accuracy above 0, at most {MAX_MARGIN:g}")
    if out is not None:
        require_directory(out)
    with ExitStack() as stack:
        sides = (stack.enter_context(open_side(candidate)), stack.enter_context(open_side(served)))
        _require_comparable(*sides)
        settings = settings or _settings_of(sides[0].bundle)
        still = settings.frozen | dict(frozen or {})
        columns = list(dict.fromkeys([*settings.slices, *slices, *still]))
        settings = settings.model_copy(update={"slices": columns, "frozen": still, "margin": margin or settings.margin})
        rows, left_out = _rows(sides, data, settings, label_column, drop=leave_out_trained, trust=trust_rows)
        alone = min(settings.latency_rows, len(rows))
        with report.task("comparing", len(rows) + alone) as advance:
            runs = run_both(
                *sides,
                rows.texts,
                latency_rows=settings.latency_rows,
                confidence=1 - 2 * settings.alpha,
                seed=settings.seed,
                advance=advance,
            )
        with report.task("computing intervals", None):
            found = _judged(sides, rows, runs, settings, left_out)
    if out is not None:
        _write(out, found, rows)
    if not sides[0].live and sides[0].bundle is not None:
        add_verdict(sides[0].bundle.root, found.verdict)
    return found


def _write(out: Path, found: Comparison, rows: Labelled) -> None:
    from rollout.compare.page import page_of

    page = page_of(found, dict(zip(rows.numbers, rows.texts, strict=True)))
    try:
        write_json(out / "comparison.json", found)
        write_text(out / "comparison.html", page)
    except OSError as error:
        raise BentuneError(f"{out}: cannot be written ({error.strerror})") from None


def _require_comparable(candidate: Side, served: Side) -> None:
    new, old = set(candidate.target.labels), set(served.target.labels)
    if new != old:
        only = [
            f"only {side.judged.tag} has {', '.join(map(repr, sorted(labels)[:10]))}"
            for side, labels in ((candidate, new - old), (served, old - new))
            if labels
        ]
        raise InputError(f"the sides do not have the same labels: {'; '.join(only)}; retrain on one set of labels")
    if candidate.target.kind != served.target.kind:
        raise InputError(
            f"{candidate.judged.tag} gives a text {candidate.target.gives}, {served.judged.tag} {served.target.gives}; "
            "only models of one kind can be compared"
        )
    if candidate.pairs != served.pairs:
        raise InputError(
            f"one of {candidate.judged.tag} and {served.judged.tag} takes single texts and the other pairs; "
            "only models of one task can be compared"
        )


def _recipe_of(bundle: Bundle | None) -> dict[str, Any]:
    return bundle.recipe() if bundle else {}


def _settings_of(bundle: Bundle | None) -> CompareSettings:
    try:
        return CompareSettings.model_validate(_recipe_of(bundle).get("compare", {}))
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        tag = bundle.tag if bundle else ""
        raise BundleError(f"{tag}: evidence.json, recipe.compare.{where}: {problem['msg']}; package it again") from None


def _renamed(bundle: Bundle | None) -> dict[str, str]:
    """Return the recipe's renamed labels, `{given: served}`."""
    data = _recipe_of(bundle).get("data")
    labels = data.get("labels") if isinstance(data, dict) else None
    return {str(old): str(new) for old, new in labels.items()} if isinstance(labels, dict) else {}


def _separator(bundle: Bundle | None) -> str | None:
    """Return the recipe's separator between the labels of a row."""
    data = _recipe_of(bundle).get("data")
    separator = data.get("label_separator") if isinstance(data, dict) else None
    return separator if isinstance(separator, str) and separator else None


def _columns_of(sides: Sequence[Side]) -> Columns:
    for side in sides:
        if side.bundle is not None:
            return side.bundle.manifest.columns
    return Columns(text="text", text_pair="text_pair" if sides[0].pairs else None)


def _rows(
    sides: tuple[Side, Side], data: Path, settings: CompareSettings, label_column: str, *, drop: bool, trust: bool
) -> tuple[Labelled, LeftOut]:
    filters: dict[str, SeenRows] = {}
    trusted = []
    for name, side in zip(("the candidate", "the served model"), sides, strict=True):
        if side.bundle is not None:
            filters[f"{name} {side.judged.tag}"] = side.bundle.rows()
        elif trust:
            trusted.append(f"{name} {side.judged.address}")
        else:
            raise InputError(
                f"{side.judged.address} serves {side.judged.tag} with the content {side.judged.content[:12]}, which is "
                "not in the BentoML model store here, so it cannot be checked whether it was trained on these rows; "
                "import it (`bentoml models import`), or skip the check with --trust-rows"
            )
    every = read_labelled(
        data,
        _columns_of(sides),
        sides[0].target,
        slices=settings.slices,
        renamed=_renamed(sides[0].bundle),
        label_column=label_column,
        separator=_separator(sides[0].bundle),
        most=settings.max_rows,
    )
    distinct = without_copies(every)
    if not drop:
        refuse_trained(distinct, filters)
    seen = trained_on(distinct, filters)
    left = distinct.where(~seen)
    for column, value in settings.frozen.items():
        if value not in left.values[column]:
            raise InputError(
                f"{data}: no row is left where {column} is {value}, which is frozen: give such "
                "rows, or change compare.frozen"
            )
    return left, LeftOut(
        copies=len(every) - len(distinct),
        trained=int(seen.sum()),
        filters=[f"{name} takes {odds(one)} new rows for a trained one" for name, one in filters.items()],
        trusted=trusted,
    )


def _judged(
    sides: tuple[Side, Side], rows: Labelled, runs: Runs, settings: CompareSettings, left_out: LeftOut
) -> Comparison:
    candidate, served = sides
    target, quality = candidate.target, quality_of(candidate.target)
    logits = target.logits(runs.candidate), target.logits(runs.served)
    contest = quality.contest(*logits, rows.gold, target)
    slices = compare_slices(rows, *logits, target, settings)
    judged_speed = candidate.live == served.live
    decision, reasons, needed = decide(contest, quality.words, slices, runs.latency if judged_speed else None, settings)
    if left_out.trusted:
        reasons.append(f"not checked (--trust-rows): that the rows are new to {' and '.join(left_out.trusted)}")
    sizes = size_of(candidate), size_of(served)
    tables = [quality.reliability(one, rows.gold, target, settings.calibration_bins) for one in logits]
    reports = [
        SideReport(
            judged=side.judged,
            variant=side.variant,
            provider=side.provider,
            size_bytes=size,
            reliability=table,
            speed=speed,
        )
        for side, size, table, speed in zip(sides, sizes, tables, runs.speeds, strict=True)
    ]
    return Comparison(
        verdict=Verdict(
            decision=decision,
            reasons=reasons,
            created_at=now(),
            candidate=candidate.judged,
            served=served.judged,
            rows=len(rows),
            data_fingerprint=rows.fingerprint(),
            metric=quality.words.metric,
            margin=settings.margin / 100,
            confidence=1 - 2 * settings.alpha,
            difference=contest.difference(settings.alpha),
            rows_needed=needed,
            earlier=len(candidate.bundle.verdicts()) if candidate.bundle else 0,
        ),
        settings=settings,
        metrics=quality.compared(*logits, rows.gold, target, settings),
        test=contest.test(),
        words=quality.words,
        slices=slices,
        candidate=reports[0],
        served=reports[1],
        latency=runs.latency,
        throughput=runs.throughput,
        judged_speed=judged_speed,
        size=sizes[0] / sizes[1] if sizes[0] and sizes[1] else None,
        flips=flips_of(rows, *logits, target, settings.examples),
        left_out=left_out,
    )
