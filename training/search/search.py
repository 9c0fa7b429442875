"""Hyperparameter search: each trial runs the train stage and is measured on the validation set."""

import gc
import math
import shutil
import time
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState
from pydantic import ValidationError
from sqlalchemy import URL
from transformers import TrainerCallback, TrainerControl, TrainerState

from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.files import write_json, write_text
from training.pipeline.fingerprints import base_files_digest, teacher_digest
from training.pipeline.layout import DataFiles
from training.pipeline.results import CurvePoint, DataResult
from training.pipeline.run_dir import RunDir
from training.pipeline.stage import Context, Reporter
from training.pipeline.workers import place
from training.recipe.file import digest, spelled_out
from training.recipe.recipe import Recipe
from training.recipe.search import SEARCHABLE, SearchSettings
from training.search.result import DIRECTORY, RESULT, SearchResult, Tried
from training.search.rows import search_rows
from training.search.space import draw, own_values, with_values
from training.train import stage as train

STORAGE = "search.db"
BEST = "best.yaml"
TENTHS = 10
SEEDS = 2**32
FINISHED = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def search(recipe: Recipe, run: RunDir, report: Reporter) -> SearchResult:
    """Run `search.trials` trials on the run's data.

    Writes search.json and best.yaml into search/. An interrupted search resumes: search.db keeps finished trials, and
    the unfinished trial resumes from its checkpoint. Trial n draws by the seed and n alone, so the result equals that
    of an uninterrupted search. With other rows, another base or teacher, or other values of the recipe the search
    starts over; a higher number of trials continues it. Raises InputError when nothing is searched or the metric is
    unknown, BentuneError when every trial failed.
    """
    if not recipe.search.values:
        raise InputError(
            "search.values: name what to search for, for example "
            "`search: {values: {train.learning_rate: {low: 1e-5, high: 1e-3, log: true}}}`"
        )
    if recipe.warm:
        raise InputError("search: trials start from the base model; leave train.warm_start out")
    if place().world > 1:
        raise InputError(f"search: {place().world} processes were started, but search needs one: omit torchrun")
    directory = run.root / DIRECTORY
    directory.mkdir(exist_ok=True)
    rows, counts = search_rows(recipe, run.files(DataFiles).directory, directory / "rows")
    study = _study(recipe, run, directory / STORAGE)
    finished = _finished(study)
    if finished:
        report.say(f"resuming after {len(finished)} of {recipe.search.trials} trials")
    while len(finished) < recipe.search.trials:
        trial = _next(study, recipe.seed)
        report.say(f"trial {trial.number + 1} of {recipe.search.trials}")
        _try(trial, study, recipe, rows, directory, report)
        finished = _finished(study)
        report.say(_line(_tried(finished[-1]), recipe.search.metric))
    result = _result(study, finished, recipe, counts, run.result(DataResult).fingerprint)
    write_json(directory / RESULT, result)
    _write_best(recipe, result, directory / BEST)
    return result


class _PruningCallback(TrainerCallback):
    """Callback that reports the metric to Optuna at each tenth of the training, and ends a trial that lags behind."""

    def __init__(self, trial: optuna.Trial, metric: str) -> None:
        self.trial = trial
        self.metric = metric

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:  # noqa: ARG002
        """Report the metric of the validation set.

        Trainer calls this after each evaluation.
        """
        metrics = kwargs["metrics"]
        value = metrics.get(f"eval_{self.metric}")
        if value is None:
            known = [name for key in metrics if (name := key.removeprefix("eval_")) != key]
            raise InputError(f"search.metric: {self.metric!r} is not measured; choose from {', '.join(sorted(known))}")
        # In tenths, because the number of steps depends on the batch size.
        tenth = TENTHS * state.global_step // state.max_steps
        # The first tenth is too early to prune, and after the last tenth nothing is left to save.
        if not 0 < tenth < TENTHS or not math.isfinite(value):
            return
        self.trial.report(value, tenth)
        if self.trial.should_prune():
            raise optuna.TrialPruned


def _line(tried: Tried, metric: str) -> str:
    values = ", ".join(f"{key} {value}" for key, value in tried.values.items())
    found = f"{metric} {tried.value:.4f}" if tried.value is not None else tried.state
    again = f", as trial {tried.repeats + 1}" if tried.repeats is not None else ""
    return f"  {found}{again}: {values}" + (f" ({tried.reason})" if tried.reason else "")


def _study(recipe: Recipe, run: RunDir, storage: Path) -> optuna.Study:
    """Load or create the study of exactly this search.

    Other studies in the storage stay.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    record, dumped = run.record("data"), recipe.model_dump(mode="json")
    depends = {
        "recipe": {key: dumped[key] for key in ("task", "parent", "distill", "prune", *SEARCHABLE)},
        "search": {key: value for key, value in dumped["search"].items() if key != "trials"},
        "data": record.digest if record is not None else None,
        "base": base_files_digest(recipe.model),
        "teacher": teacher_digest(recipe.distill.teacher) if recipe.distill is not None else None,
    }
    url = URL.create("sqlite", database=str(storage)).render_as_string().replace("{", "{{").replace("}", "}}")
    pruners = {
        "median": optuna.pruners.MedianPruner(n_startup_trials=4),
        "hyperband": optuna.pruners.HyperbandPruner(min_resource=1, max_resource=TENTHS),
        "none": optuna.pruners.NopPruner(),
    }
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(url),
        study_name=digest(depends)[:16],
        direction=recipe.search.towards,
        pruner=pruners[recipe.search.pruning],
        load_if_exists=True,
    )
    if not study.trials and (own := own_values(recipe)) is not None:
        study.enqueue_trial(own, user_attrs={"own": True})
    return study


def _next(study: optuna.Study, seed: int) -> optuna.Trial:
    """Return the interrupted trial, or a new one.

    Each trial has its own sampler, seeded by its number.
    """
    unfinished = study.get_trials(states=[TrialState.RUNNING])
    waiting = study.get_trials(states=[TrialState.WAITING])
    number = next((trial.number for trial in (*unfinished, *waiting)), len(study.trials))
    study.sampler = optuna.samplers.TPESampler(seed=(seed + number) % SEEDS)
    return optuna.Trial(study, unfinished[0]._trial_id) if unfinished else study.ask()


def _try(
    trial: optuna.Trial, study: optuna.Study, recipe: Recipe, rows: Path, directory: Path, report: Reporter
) -> None:
    """Train with the values that the trial draws, and record the result in the study."""
    values = {key: draw(trial, key, span, recipe) for key, span in recipe.search.values.items()}
    trial.set_user_attr("values", values)
    before = _finished(study)
    same = next((other for other in before if other.user_attrs["values"] == values), None)
    if same is not None:
        # The same seed and values would give the same result.
        trial.set_user_attr("repeats", same.number)
        study.tell(trial, same.value if same.state == TrialState.COMPLETE else None, same.state)
        return
    work, start = directory / f"trial-{trial.number}", time.monotonic()
    work.mkdir(exist_ok=True)
    value = None
    try:
        # A trial is measured by the curve before pruning, so it does not prune.
        drawn = with_values(recipe, values).model_copy(update={"prune": None})
        context = Context(drawn, work, {"data": rows}, report)
        value = _reached(train.run(context, [_PruningCallback(trial, recipe.search.metric)]).curve, recipe)
        state = TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except (BentuneError, ValidationError, torch.OutOfMemoryError) as error:
        # Before any trial succeeded, an input error is one of the recipe, which would fail every trial.
        if isinstance(error, InputError) and not any(other.state == TrialState.COMPLETE for other in before):
            raise
        trial.set_user_attr("reason", str(error))
        state = TrialState.FAIL
    trial.set_user_attr("seconds", time.monotonic() - start)
    study.tell(trial, value, state)
    shutil.rmtree(work)
    gc.collect()  # frees the model and its optimizer before the next trial loads its own


def _reached(curve: list[CurvePoint], recipe: Recipe) -> float:
    """Return the metric of the weights that a run would keep.

    They are the weights of the best checkpoint, or those of the last one.
    """
    measured = [value for point in curve if (value := point.measured(recipe.search.metric)) is not None]
    if not recipe.data.split.validation:
        return measured[-1]
    return max(measured) if recipe.search.towards == "maximize" else min(measured)


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=tuple(FINISHED))


def _tried(trial: FrozenTrial) -> Tried:
    told = trial.user_attrs
    return Tried(
        number=trial.number,
        state=FINISHED[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        values=told["values"],
        seconds=round(told.get("seconds", 0.0), 3),
        reason=told.get("reason"),
        repeats=told.get("repeats"),
    )


def _result(
    study: optuna.Study, finished: list[FrozenTrial], recipe: Recipe, rows: dict[str, int], fingerprint: str
) -> SearchResult:
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    if not complete:
        reasons = [trial.user_attrs["reason"] for trial in finished if "reason" in trial.user_attrs]
        raise BentuneError(f"search: none of {len(finished)} trials succeeded; error of the last one: {reasons[-1]}")
    return SearchResult(
        fingerprint=fingerprint,
        metric=recipe.search.metric,
        direction=recipe.search.towards,
        rows=rows,
        trials=[_tried(trial) for trial in finished],
        best=_tried(study.best_trial),
        own=next((trial.number for trial in finished if trial.user_attrs.get("own")), None),
    )


def _write_best(recipe: Recipe, result: SearchResult, file: Path) -> None:
    """Write the recipe with the best values and without `search`, for `bentune run`."""
    best, where = result.best, f"{result.rows['validation']} validation rows"
    chosen = with_values(recipe, best.values).model_copy(update={"search": SearchSettings()})
    head = f"# Trial {best.number + 1} of {len(result.trials)}: {result.metric} {best.value:.4f} on {where}.\n"
    write_text(file, head + spelled_out(chosen))
