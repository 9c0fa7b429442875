"""Answers of two models to the same rows: which of them changed, and the clearest examples."""

import numpy as np
import numpy.typing as npt

from bentune.bundle.arrays import Logits
from bentune.bundle.targets.target import Target
from bentune.quality.labelled import Labelled
from bentune.quality.registry import quality_of
from rollout.compare.decision import Flip, Flips


def flips_of(rows: Labelled, candidate: Logits, served: Logits, target: Target, most: int) -> Flips:
    """Collect the rows whose answer changed, and examples of them.

    There are at most `most` examples of gains and `most` of losses. They are the rows in which the candidate is most
    confident, or for answers without a probability those with the largest change.
    """
    quality = quality_of(target)
    new, old = target.answers(candidate), target.answers(served)
    sure, was_sure = (target.sureness(target.scores(logits)) for logits in (candidate, served))
    weight = sure if sure is not None else np.abs(target.scores(candidate) - target.scores(served)).max(axis=-1)
    right, was_right = (quality.right(logits, rows.gold, target) for logits in (candidate, served))

    def examples(chosen: npt.NDArray[np.bool_]) -> list[Flip]:
        places = sorted(np.flatnonzero(chosen).tolist(), key=lambda place: (-weight[place], place))[:most]
        return [
            Flip(
                row=rows.numbers[place],
                label=target.spell(rows.gold[place]),
                candidate=target.spell(new[place]),
                candidate_confidence=None if sure is None else float(sure[place]),
                served=target.spell(old[place]),
                served_confidence=None if was_sure is None else float(was_sure[place]),
            )
            for place in places
        ]

    gained, lost = right & ~was_right, ~right & was_right
    return Flips(
        gained=int(gained.sum()),
        lost=int(lost.sum()),
        both_wrong=int((target.differ(new, old) & ~right & ~was_right).sum()),
        gained_examples=examples(gained),
        lost_examples=examples(lost),
    )
