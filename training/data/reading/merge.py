"""Labels that look alike, joined under the spelling that most rows have."""

from collections import Counter
from collections.abc import Collection, Sequence

from training.recipe.data import DataSettings
from training.sources.raw import Source
from training.tasks.targets.alike import groups_alike
from training.tasks.targets.target import TrainingTarget


def joined_labels(
    sources: Sequence[Source], data: DataSettings, target: TrainingTarget, known: Collection[str] = ()
) -> dict[str, str]:
    """Return the new name of each label that looks like another one, where the recipe merges labels.

    The name is that of the previous version, whose labels are `known`, or else the commonest. Reads the sources once.
    """
    if not data.merge_labels:
        return {}
    rows: Counter[str] = Counter()
    for source in sources:
        for raw in source.read():
            try:
                rows.update(target.read(raw.label)[1])
            except ValueError:  # an invalid row, which is reported when the rows are read
                continue
    renamed = Counter[str]()
    for name, count in rows.items():
        renamed[data.labels.get(name, name)] += count
    chosen: dict[str, str] = {}
    for group in groups_alike(sorted(renamed)):
        best = next((name for name in group if name in known), max(group, key=lambda name: renamed[name]))
        chosen |= {name: best for name in group if name != best}
    return {name: chosen[new] for name in rows if (new := data.labels.get(name, name)) in chosen}
