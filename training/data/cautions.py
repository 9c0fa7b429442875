"""Cautions about the rows of a run: what training on them cannot give, in numbers, and what to do."""

from collections.abc import Iterator, Mapping, Sequence

from bentune.quality.registry import QUALITIES
from service.tasks.registry import TASKS
from training.pipeline.results import DataResult, TokenCoverage
from training.recipe.recipe import Recipe
from training.tasks.registry import target_of
from training.tasks.targets.alike import groups_alike, missing_values

UNKNOWN = 0.05
"""Share of unknown tokens from which on a caution is given."""
TRUNCATED = 0.1
"""Share of truncated rows from which on a caution is given."""
CHANGED = 0.05
"""Share of rows in which only one of two versions is right, for an estimate before there is a second version."""
NAMED, NAME_CHARACTERS = 5, 40


def cautions_of(data: DataResult, recipe: Recipe) -> list[str]:
    """Return all cautions about the rows of a run."""
    return [*row_cautions(data, recipe), *(token_cautions(data.tokens, recipe) if data.tokens is not None else ())]


def row_cautions(data: DataResult, recipe: Recipe) -> Iterator[str]:
    """Yield a caution for labels without test rows, and for a test set too small for the recipe's margin."""
    labelled, tested = data.rows_by_label["train"], data.rows_by_label["test"]
    without = sorted(label for label in labelled if not tested.get(label))
    if without:
        named = _counted(without[:NAMED], labelled)
        more = f" and {len(without) - NAMED} more" if len(without) > NAMED else ""
        yield (
            f"{len(without)} of {len(labelled)} labels have no test row, so nothing is known of their answers; labels "
            f"and training rows: {named}{more}. Add rows of them, or merge them into other labels with data.labels."
        )
    counts = {label: sum(part.get(label, 0) for part in data.rows_by_label.values()) for label in data.labels}
    if groups := groups_alike(data.labels):
        named = "; ".join(_counted(group, counts) for group in groups[:NAMED])
        more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
        yield (
            f"Labels look alike, with their rows: {named}{more}. If they are one label, set data.labels.merge to true, "
            "or give new names in data.labels."
        )
    if missing := missing_values(data.labels):
        yield (
            f"Labels read like a missing value, with their rows: {_counted(missing[:NAMED], counts)}. If there is no "
            "label, leave these rows out of the file."
        )
    rows, settings = data.rows["test"], recipe.compare
    fewest = rows_to_compare(recipe, 0.0)
    if fewest is not None and rows < fewest:
        usual, margin = rows_to_compare(recipe, CHANGED), f"{settings.margin:g} point{'s' * (settings.margin != 1)}"
        yield (
            f"{rows:,} test rows are too few for compare.margin ({margin}): a retrained version that is as good needs "
            f"at least {fewest:,}, and {usual:,} where {CHANGED:.0%} of the answers change. Give more rows, raise "
            "data.split.test, or widen the margin."
        )


def token_cautions(tokens: TokenCoverage, recipe: Recipe) -> Iterator[str]:
    """Yield a caution for texts that the tokenizer does not know, and for texts that are cut."""
    if tokens.unknown_share >= UNKNOWN:
        yield (
            f"{tokens.unknown_share:.0%} of the tokens are unknown to the base model's tokenizer, and the model learns "
            "nothing from them: choose a base model for this language and script."
        )
    if tokens.truncated_share >= TRUNCATED:
        yield (
            f"{tokens.truncated_share:.0%} of the training rows are longer than max_tokens ({recipe.max_tokens}), the "
            f"longest of {tokens.rows:,} has {tokens.longest:,} tokens, and the rest of a text is cut off: raise "
            "max_tokens as far as the model goes, or split the texts."
        )


def _counted(labels: Sequence[str], counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label[:NAME_CHARACTERS]!r} ({counts[label]:,})" for label in labels)


def rows_to_compare(recipe: Recipe, changed: float) -> int | None:
    """Return the test rows that promote an equally good version, or None where no comparison asks for them.

    In a share of `changed` of them only one of the two versions is right.
    """
    if not TASKS[recipe.task].comparable:
        return None
    return QUALITIES[target_of(recipe).kind].rows_to_compare(changed, recipe.compare)
