"""The model card in the hub's format: metadata that a hub reads, then use, data, training and metrics of the model.

The bundle contains it, so it has no text of a row and no directory of this machine. Names and labels are escaped.
"""

import html
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bentune.bundle.errors import InputError
from bentune.quality.registry import QUALITIES
from bentune.quality.statistics.bootstrap import Interval
from training.data.cautions import cautions_of
from training.pipeline.results import DataResult, TrainResult
from training.prove.evaluation import Evaluation
from training.prove.evaluation_table import per_class
from training.recipe.recipe import Recipe
from training.recipe.section import PACKAGE
from training.report.facts import Facts, spelled
from training.report.head import request_of, served_of
from training.report.tables import metrics_of
from training.sources.locate import locate
from training.tasks.registry import target_of, task_of

CARD = "README.md"


def model_card(facts: Facts) -> str:
    """Render README.md: metadata as YAML between two lines of dashes, then Markdown.

    Equal facts give equal bytes.
    """
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

    recipe, tested = facts.recipe, facts.evaluation
    named = type(tested.tuned).hub if tested else {}
    measured = {key: tested.tuned.metrics[key].value for key in named} if tested else {}
    rows_from = _line(", ".join(map(public_name, recipe.data.sources)))
    results = [
        EvalResult(
            task_type=recipe.task,
            dataset_type=rows_from,
            dataset_name=rows_from,
            dataset_split="test",
            metric_type=named[key],
            metric_name=spelled(key),
            metric_value=round(value, 6),
        )
        for key, value in measured.items()
    ]
    data = ModelCardData(
        model_name=recipe.name,
        base_model=recipe.model if _on_hub(recipe.model) else None,
        datasets=[source for source in recipe.data.sources if _on_hub(source)] or None,
        library_name="onnx",
        pipeline_tag=recipe.task,
        tags=["bentune", "onnx", recipe.method.name],
        metrics=list(named.values()) or None,
        eval_results=results or None,
    )
    body = "\n\n".join(_body(facts))
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def public_name(given: str) -> str:
    """Return a name of the recipe without the directories of this machine.

    A path is shortened to its last part.
    """
    try:
        place = locate(given, "source")
    except InputError:  # removed since, or not a location, such as a query
        return Path(given).name
    return given if place.path is None or given.startswith(PACKAGE) else Path(given).name


def _on_hub(given: str) -> bool:
    try:
        return locate(given, "source").path is None
    except InputError:
        return False


def escaped(text: str) -> str:
    """Escape a text for Markdown and HTML, as one line.

    The result has no markup and no links. It must not begin a paragraph, where a dash or a number makes a list.
    """
    plain = re.sub(r"([\\`*_\[\]#|~$!])", r"\\\1", html.escape(_line(text), quote=False))
    return re.sub(r":(?=//)|(?<=www)\.|@", lambda found: f"&#{ord(found[0])};", plain, flags=re.IGNORECASE)


def _line(text: str) -> str:
    """Return one line without control characters, some of which end a line in YAML."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())


def _body(facts: Facts) -> Iterator[str]:
    recipe, data = facts.recipe, facts.data
    labels = f" into {len(data.labels)} labels: {', '.join(map(escaped, data.labels))}" if data else ""
    yield f"# {escaped(recipe.name)}"
    yield (
        f"A model for {recipe.task.replace('-', ' ')}{labels}. It was tuned with {recipe.method.name} from "
        f"{escaped(public_name(recipe.model))}{_smaller(recipe)}."
    )
    yield "## Intended use"
    task = task_of(recipe)
    bound = task.bound(recipe.max_tokens)
    longest = f" The longest {task.noun} has {bound}." if bound else ""
    yield f"{target_of(recipe).use(task.noun, task.nouns)}{longest}"
    yield "## How to use it"
    yield f"```sh\nbentune serve {recipe.name}\n{request_of(recipe)}\n```"
    if data:
        yield from _data(data, recipe)
    if facts.training:
        yield from _training(facts.training, facts)
    if facts.evaluation:
        yield from _evaluation(facts.evaluation)
    yield from _served(facts)
    yield from _limits(facts.evaluation)


def _smaller(recipe: Recipe) -> str:
    parts = []
    if recipe.distill:
        parts.append(f"learned from {escaped(public_name(recipe.distill.teacher))}")
    if recipe.prune:
        parts.append(f"was pruned ({recipe.prune.kind})")
    return f", and {' and '.join(parts)}" if parts else ""


def _data(data: DataResult, recipe: Recipe) -> Iterator[str]:
    counts = ", ".join(f"{count:,} {name}" for name, count in data.rows.items())
    yield "## Data"
    sources = ", ".join(map(public_name, recipe.data.sources))
    yield f"Rows of {escaped(sources)}: {counts}; sha256 over the rows `{data.fingerprint}`."
    if data.dropped:
        yield "\n".join(f"- left out: {dropped.rows:,} {escaped(reason)}" for reason, dropped in data.dropped.items())
    yield _table(
        ("label", *data.rows),
        [
            (escaped(label), *(f"{data.rows_by_label[part].get(label, 0):,}" for part in data.rows))
            for label in data.labels
        ],
    )
    if (tokens := data.tokens) is not None:
        yield (
            f"In a sample of {tokens.rows:,} training rows {tokens.unknown_share:.1%} of the tokens are unknown to the "
            f"tokenizer, and {tokens.truncated_share:.1%} of the texts are longer than the model reads."
        )
    for caution in cautions_of(data, recipe):
        yield f"> {escaped(caution)}"


def _training(training: TrainResult, facts: Facts) -> Iterator[str]:
    recipe, count = facts.recipe, training.parameters
    yield "## Training"
    yield (
        f"{recipe.method.name}: {count.trainable:,} of {count.total:,} weights were trained, {training.steps:,} steps "
        f"of {recipe.train.batch_size} rows, at a peak learning rate of {training.learning_rate:g}, with the seed "
        f"{recipe.seed}. The sha256 of the base model's weights is `{training.base_sha256}`, that of the recipe "
        f"`{facts.recipe_digest}`."
    )
    for warning in training.warnings:
        yield f"> {escaped(warning)}"


def _evaluation(tested: Evaluation) -> Iterator[str]:
    yield "## Evaluation"
    yield (
        f"On {tested.tuned.rows:,} test rows, before and after the tuning, with {tested.tuned.confidence:.0%} "
        "bootstrap intervals."
    )
    metrics = metrics_of(tested)
    yield _table(("metric", *metrics.models), [(metric.name, *map(_bounds, metric.cells)) for metric in metrics.rows])
    if tested.minimum:
        yield f"Minimum: {escaped(tested.minimum.against_constant(QUALITIES[tested.target].words))}."
    if tested.temperature:
        scaled = tested.temperature
        yield (
            f"Its probabilities were calibrated: a temperature of {scaled.temperature:.3f}, fitted on {scaled.rows:,} "
            f"validation rows, brought the calibration error from {_bounds(scaled.before.error)} to "
            f"{_bounds(tested.tuned.metrics['calibration_error'])}."
        )
    if labels := per_class(tested.tuned):
        yield _table(
            ("label", "rows", "precision", "recall", "F1"),
            [
                (escaped(label), f"{one.support:,}", *map(_bounds, (one.precision, one.recall, one.f1)))
                for label, one in labels.items()
            ],
        )


def _served(facts: Facts) -> Iterator[str]:
    if facts.parity:
        yield (
            f"Every hop from the trained model to its ONNX in fp32 was compared on {facts.parity.rows:,} test "
            f"rows: the largest difference of a logit is {facts.parity.largest_difference:.2g}."
        )
    if facts.plan and facts.plan.measured and facts.plan.cpu:
        best, cpu = facts.plan.measured[0], facts.plan.cpu
        yield (
            f"The metrics are those of fp32. {served_of(facts.plan)} It answers {best.inputs_per_second:,.0f} inputs a "
            f"second on {escaped(cpu.model)}, {cpu.cores} cores."
        )


def _limits(tested: Evaluation | None) -> Iterator[str]:
    limits = [
        "Its metrics were measured on rows from the same source as its training rows. They may be worse on rows from "
        "elsewhere, or of another time.",
        "It has learned everything that is unfair in the labels of those rows.",
    ]
    seen = [(label, one) for label, one in per_class(tested.tuned).items() if one.support] if tested else []
    if seen:
        label, worst = min(seen, key=lambda item: item[1].recall.value)
        limits.append(
            f"The label that it finds least is {escaped(label)}: {worst.recall.value:.1%} of its {worst.support:,} "
            "test rows."
        )
    yield "## Limits"
    yield "\n".join(f"- {limit}" for limit in limits)


def _bounds(value: Interval) -> str:
    return f"{value.value:.3f} ({value.low:.3f} to {value.high:.3f})"


def _table(headings: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [headings, ("---", *["---:"] * (len(headings) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
