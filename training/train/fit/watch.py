"""Says after each optimizer step what is due: a validation, a checkpoint, a point of the curve, or the end."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState


class Watch(TrainerCallback):
    """Feeds the progress bar, logs and evaluates where it matters, and stops when the loss is no longer a number.

    With `evaluate_every` the validation rows are scored every so many steps and after the last, and a checkpoint is
    kept each time, so that the best can be restored.
    """

    def __init__(self, advance: Callable[[int], None], done: int, evaluate_every: int | None) -> None:
        self.advance = advance
        self.done = done
        self.evaluate_every = evaluate_every

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Trainer after its own callback, which knows of checkpoints alone."""
        self.advance(state.global_step - self.done)
        self.done = state.global_step
        last = state.global_step >= state.max_steps
        every = self.evaluate_every
        control.should_evaluate = every is not None and (last or state.global_step % every == 0)
        control.should_save = control.should_save or control.should_evaluate
        # A checkpoint ends a window of the loss, so that a run that goes on from it has the same curve.
        control.should_log = control.should_log or last or control.should_save

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Called by Trainer for each point of the curve."""
        control.should_training_stop = control.should_training_stop or not finite(state.log_history[-1:])


def finite(history: Sequence[dict[str, float]]) -> bool:
    """Whether every loss in Trainer's history is a number."""
    return all(math.isfinite(entry[key]) for entry in history for key in ("loss", "eval_loss") if key in entry)
