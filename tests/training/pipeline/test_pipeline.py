"""Which stages are done again: exactly those that a change touches, and never on top of what is out of date."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from results import RESULTS
from tiny import Quiet, make_model, write_csv

from bentune.bundle.errors import InputError
from bentune.bundle.files import sha256_file
from bentune.bundle.hardware import Cpu
from training.pipeline import pipeline
from training.pipeline.pipeline import NAMES, STAGES, Outcome, Stage, run_all, run_stage, stages_of, standing
from training.pipeline.results import Result
from training.pipeline.run_dir import DiskFull, RunDir
from training.pipeline.stage import Context
from training.recipe.file import load_recipe
from training.recipe.recipe import Recipe

AFTER_DATA = NAMES[1:]


class Fake:
    """A stage that writes what it was given: of the recipe, what `says` picks, which is everything at first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.says: Callable[[Recipe], object] = lambda recipe: recipe.model_dump(mode="json")
        self.fails: BaseException | None = None
        self.stored = True
        self.found: list[str] = []

    def run(self, context: Context) -> Result:
        self.found = sorted(path.name for path in context.work.iterdir())
        inputs = {name: sha256_file(path / "output") for name, path in context.inputs.items()}
        (context.work / "output").write_text(json.dumps([self.says(context.recipe), inputs]))
        (context.work / "scratch").touch()
        if self.fails is not None:
            raise self.fails
        return RESULTS[self.name]

    def still_there(self, directory: Path) -> bool:
        return self.stored

    def worth_keeping(self, work: Path) -> set[str]:
        return {"scratch"} if self.name == "train" else set()


class Watched:
    """A recipe that remembers which of its parts were looked at."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.seen: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.seen.add(name)
        return getattr(self.recipe, name)


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> dict[str, Fake]:
    made = {name: Fake(name) for name in NAMES}
    monkeypatch.setattr("training.data.before_training.require_measurable", lambda *_: None)
    monkeypatch.setattr("training.preflight.preflight", lambda *_: None)
    monkeypatch.setattr(Stage, "load", lambda self, _: made[self.name])
    return made


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDir]:
    with RunDir.open(tmp_path / "runs", "tiny") as opened:
        yield opened


@pytest.fixture
def recipe(tiny_recipe: Path, tmp_path: Path, tiny_model: Path, tiny_csv: Path) -> Callable[..., Recipe]:
    """The tiny recipe on files of its own, with overrides."""
    model, rows = tmp_path / "model", tmp_path / "rows.csv"
    shutil.copytree(tiny_model, model)
    shutil.copyfile(tiny_csv, rows)

    def load(*overrides: str) -> Recipe:
        every_stage = ["calibrate.temperature=true", "data.split.validation=0.2"]
        own = [f"model={model}", f"data.source={rows}", "method=lora", *every_stage]
        return load_recipe(tiny_recipe, [*own, *overrides]).recipe

    return load


def redone(recipe: Recipe, run: RunDir) -> tuple[str, ...]:
    return tuple(outcome.stage for outcome in run_all(recipe, run, Quiet()) if outcome.redone)


def stage(name: str, recipe: Recipe, run: RunDir, **options: Any) -> Outcome:
    return run_stage(name, recipe, run, Quiet(), **options)


MATRIX = {
    "name=other": ("package",),
    "seed=1": NAMES,
    "data.columns={text: text, text_pair: null}": (),
    "data.labels={animal: beast}": NAMES,
    "data.split.test=0.3": NAMES,
    "data.split.validation=0.1": NAMES,
    "data.rows.train=100": NAMES,
    "data.invalid_rows=drop": NAMES,
    "data.doubtful_labels=remove": NAMES,
    "data.query=null": (),
    "train.warm_start=true": AFTER_DATA,
    "max_tokens=16": NAMES,
    "method=full": AFTER_DATA,
    "method.rank=4": AFTER_DATA,
    "method.dropout=0.2": AFTER_DATA,
    "method.target_modules=[query]": AFTER_DATA,
    "train.epochs=2": AFTER_DATA,
    "train.learning_rate=0.1": AFTER_DATA,
    "train.checkpoint_steps=7": AFTER_DATA,
    "train.label_smoothing=0.1": AFTER_DATA,
    "train.balance=weights": AFTER_DATA,
    "train.balance.cap=5": AFTER_DATA,
    "train.augment.copies=1": AFTER_DATA,
    "calibrate.temperature=false": ("evaluate", "export", "verify", "plan", "package"),
    "distill.teacher=somebody/classifier": AFTER_DATA,
    "prune.amount=0.5": AFTER_DATA,
    "evaluate.resamples=300": ("evaluate", "package"),
    "evaluate.confidence=0.9": ("evaluate", "package"),
    "evaluate.examples=1": ("evaluate", "package"),
    "evaluate.ordinal=true": ("evaluate", "package"),
    "evaluate.slices=[label]": NAMES,
    "verify.rows=30": ("verify", "plan", "package"),
    "verify.merge_tolerance=1": ("verify", "plan", "package"),
    "verify.calibrate_tolerance=1": ("verify", "plan", "package"),
    "verify.golden_rows=3": ("verify", "plan", "package"),
    "plan.rows=30": ("plan", "package"),
    "plan.accuracy_budget=1": ("plan", "package"),
    "plan.variants=[int8-dynamic]": ("plan", "package"),
    "compare.margin=2": ("package",),
    "search.trials=3": (),
}


@pytest.mark.parametrize(("override", "expected"), MATRIX.items())
def test_a_changed_value_redoes_exactly_the_stages_it_touches(
    override: str, expected: tuple[str, ...], fakes: Any, run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    assert redone(recipe(), run) == NAMES
    assert redone(recipe(), run) == ()
    assert redone(recipe(override), run) == expected
    assert redone(recipe(override), run) == ()
    if expected:
        assert redone(recipe(), run) == expected  # there is no memory of the run before the last


def test_every_part_of_a_recipe_is_in_the_matrix() -> None:
    covered = {override.partition("=")[0].partition(".")[0] for override in MATRIX}
    assert covered | {"task", "model", "parent"} == set(Recipe.model_fields)


def test_another_parent_redoes_everything_and_is_another_run(
    fakes: Any, run: RunDir, recipe: Callable[..., Recipe], tiny_tag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redone(recipe(), run)
    continued = recipe(f"parent={tiny_tag}")
    assert redone(continued, run) == NAMES
    assert redone(continued, run) == ()
    before = {pipeline.identity(recipe()), pipeline.identity(continued)}
    # The same tag, deleted and stored again.
    monkeypatch.setattr(
        "training.pipeline.previous_version.open_parent", lambda tag: SimpleNamespace(content=f"another {tag}")
    )
    assert redone(continued, run) == ("data",)  # the fake one writes the same again; the real one names the content
    assert pipeline.identity(continued) not in before
    assert len(before) == 2


def test_other_rows_or_another_base_redo_what_reads_them(
    fakes: Any, run: RunDir, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    fakes["data"].says = lambda recipe: Path(recipe.data.source).read_text()
    fakes["train"].says = lambda recipe: sha256_file(Path(recipe.model) / "model.safetensors")
    redone(recipe(), run)
    write_csv(tmp_path / "rows.csv", [("other", "rows")])
    assert redone(recipe(), run) == NAMES
    make_model(tmp_path / "model", seed=1)
    assert redone(recipe(), run) == AFTER_DATA


def test_a_stage_that_gives_the_same_again_ends_the_chain(
    fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    for fake in fakes.values():
        fake.says = lambda _: "the same"
    redone(recipe(), run)
    assert redone(recipe("data.invalid_rows=drop"), run) == ("data", "package")
    assert redone(recipe("data.invalid_rows=drop", "train.epochs=1"), run) == ("train", "package")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", ["change", "delete", "manifest"])
def test_output_that_was_tampered_with_is_made_again(
    damage: str, name: str, fakes: Any, run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    redone(recipe(), run)
    output = run.stage(name) / ("stage.json" if damage == "manifest" else "output")
    before = output.read_bytes()
    output.unlink()
    if damage != "delete":
        output.write_text("tampered")
    # It comes out as it was, so that what follows still holds.
    assert redone(recipe(), run) == (name,)
    assert damage == "manifest" or output.read_bytes() == before


def test_what_was_stored_elsewhere_and_deleted_is_stored_again(
    fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    redone(recipe(), run)
    for fake in fakes.values():
        fake.stored = False
    assert redone(recipe(), run) == ("package",)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_whose_layout_is_of_an_older_version_is_done_again(
    name: str, fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    redone(recipe(), run)
    newer = [replace(one, layout=one.layout + 1) if one.name == name else one for one in STAGES]
    monkeypatch.setattr(pipeline, "STAGES", tuple(newer))
    fakes[name].says = lambda recipe: ["newer", recipe.model_dump(mode="json")]
    again = redone(recipe(), run)
    assert again[0] == name
    assert set(again[1:]) == {one.name for one in STAGES if name in pipeline._upstream(one)}
    assert redone(recipe(), run) == ()


@pytest.mark.parametrize("changed", ["cores", "isa", "model", "providers"])
def test_on_other_hardware_only_the_plan_is_made_again_and_packaged(
    changed: str, fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Cpu(model="here", isa=("avx2",), cores=4)
    monkeypatch.setattr(pipeline, "describe", lambda: here)
    monkeypatch.setattr(pipeline, "available", lambda: ("CPUExecutionProvider",))
    redone(recipe(), run)
    assert redone(recipe(), run) == ()
    if changed == "providers":
        monkeypatch.setattr(pipeline, "available", lambda: ("CPUExecutionProvider", "OpenVINOExecutionProvider"))
    else:
        there = here.model_copy(update={changed: {"cores": 2, "isa": ("avx2", "fma"), "model": "there"}[changed]})
        monkeypatch.setattr(pipeline, "describe", lambda: there)
    fakes["plan"].says = lambda recipe: "another plan"
    # `bentune package` alone does not pack a plan of another machine.
    with pytest.raises(InputError, match="run `bentune plan` first"):
        stage("package", recipe(), run)
    assert redone(recipe(), run) == ("plan", "package")
    assert redone(recipe(), run) == ()


def test_a_stage_can_be_forced(fakes: Any, run: RunDir, recipe: Callable[..., Recipe]) -> None:
    redone(recipe(), run)
    assert not stage("merge", recipe(), run).redone
    assert stage("merge", recipe(), run, force=True).redone


def test_an_outcome_says_where_how_long_and_what(fakes: Any, run: RunDir, recipe: Callable[..., Recipe]) -> None:
    first, again = stage("data", recipe(), run), stage("data", recipe(), run)
    assert (first.stage, first.directory, first.redone, first.result) == (
        *("data", run.root / "data", True),
        RESULTS["data"],
    )
    assert (again.redone, again.seconds, again.result) == (False, first.seconds, first.result)


def test_a_record_that_other_code_wrote_does_the_stage_again(
    fakes: Any, run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    redone(recipe(), run)
    file = run.root / "merge/stage.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"summary": {"sha256": "as it was spelled before"}}))
    assert "merge" not in standing(recipe(), run)
    with pytest.raises(InputError, match="merge is not there yet: run `bentune merge` first"):
        stage("export", recipe(), run)
    assert redone(recipe(), run) == ("merge",)


@pytest.mark.parametrize(("name", "missing"), [("train", "data"), ("merge", "data"), ("package", "data")])
def test_a_stage_whose_input_is_not_there(
    name: str, missing: str, fakes: Any, run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    with pytest.raises(InputError) as caught:
        stage(name, recipe(), run)
    assert str(caught.value) == (
        f"{name}: {run.root / missing} is not there yet: run `bentune {missing}` first, or `bentune run`"
    )
    assert not (run.root / f"{name}.partial").exists()


def test_a_stage_is_not_done_on_top_of_what_is_out_of_date(
    fakes: Any, run: RunDir, recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    redone(recipe(), run)
    for name, override, stale in [
        ("train", "data.split.test=0.3", "data"),
        ("verify", "data.split.test=0.3", "data"),
        ("merge", "method.rank=4", "train"),
        ("package", "verify.rows=30", "verify"),
        ("package", "evaluate.examples=1", "evaluate"),
        ("package", "plan.rows=30", "plan"),
        ("plan", "verify.rows=30", "verify"),
    ]:
        with pytest.raises(InputError) as caught:
            stage(name, recipe(override), run)
        assert str(caught.value) == (
            f"{name}: the recipe, the data, the base model or the hardware is not what it was for `{stale}`: run "
            f"`bentune {stale}` first, or `bentune run`"
        )
    assert not stage("export", recipe("evaluate.examples=1", "verify.rows=30"), run).redone
    make_model(tmp_path / "model", seed=1)
    with pytest.raises(InputError, match="merge: .* is not what it was for `train`"):
        stage("merge", recipe(), run)
    write_csv(tmp_path / "rows.csv", [("other", "rows")])
    with pytest.raises(InputError, match="merge: .* is not what it was for `data`"):
        stage("merge", recipe(), run)


def test_only_verify_takes_an_input_that_was_changed(fakes: Any, run: RunDir, recipe: Callable[..., Recipe]) -> None:
    redone(recipe(), run)
    merged = (run.root / "merge/output").read_bytes()
    (run.root / "merge/output").write_text("tampered")
    with pytest.raises(InputError) as caught:
        stage("export", recipe(), run)
    assert str(caught.value) == (
        f"export: {run.root}/merge was changed after it was written: run `bentune merge` again, or `bentune run`"
    )
    assert stage("verify", recipe(), run).redone
    assert not stage("evaluate", recipe(), run).redone
    assert stage("plan", recipe(), run).redone, "verify wrote something else"
    (run.root / "merge/output").write_bytes(merged)
    (run.root / "verify/output").write_text("tampered")
    with pytest.raises(InputError, match="package: .*/verify was changed after it was written"):
        stage("package", recipe(), run, force=True)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("broke"), InputError("wrong")])
@pytest.mark.parametrize("name", NAMES)
def test_a_stage_that_ends_early_is_not_there(
    name: str, error: BaseException, fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    fakes[name].fails = error
    with pytest.raises(type(error)):
        redone(recipe(), run)
    there = sorted(path.name for path in run.root.iterdir())
    kept = ["train.partial"] if name == "train" else []
    assert there == sorted([".lock", *NAMES[: NAMES.index(name)], *kept])
    fakes[name].fails = None
    assert redone(recipe(), run) == NAMES[NAMES.index(name) :]
    # Only what train was at is found again.
    assert fakes[name].found == (["key", "scratch"] if name == "train" else ["key"])


def test_a_failure_leaves_what_was_there_before(
    fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    redone(recipe(), run)
    before = (run.root / "verify/output").read_bytes()
    fakes["verify"].fails = RuntimeError("broke")
    with pytest.raises(RuntimeError):
        redone(recipe("verify.rows=30"), run)
    assert (run.root / "verify/output").read_bytes() == before
    # And what is out of date is not packaged.
    with pytest.raises(InputError):
        stage("package", recipe("verify.rows=30"), run)


def test_unfinished_training_is_not_found_again_by_another_recipe_or_by_force(
    fakes: dict[str, Fake], run: RunDir, recipe: Callable[..., Recipe]
) -> None:
    fakes["train"].fails = KeyboardInterrupt()
    for override, options in (("seed=42", {}), ("train.epochs=1", {}), ("train.epochs=1", {"force": True})):
        stage("data", recipe(override), run)
        with pytest.raises(KeyboardInterrupt):
            stage("train", recipe(override), run, **options)
        assert fakes["train"].found == ["key"]


def test_a_disk_that_is_full_while_the_data_is_looked_at(
    fakes: Any, run: RunDir, recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> list[str]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("training.sources.files.source_digests", full)
    for attempt in (lambda: redone(recipe(), run), lambda: stage("data", recipe(), run)):
        with pytest.raises(DiskFull):
            attempt()


def test_every_stage_reads_only_what_it_says_it_reads(
    lora_run: Path, lora_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real stages read only the parts of the recipe that they declare.

    A part that a stage read without declaring it would not redo the stage.
    """
    allowed: dict[str, set[str]] = {}
    here = stages_of(load_recipe(lora_recipe).recipe)[:-1]
    for declared in here:
        watched = Watched(load_recipe(lora_recipe, ["train.epochs=0.1"]).recipe)
        inputs = {one.name: lora_run / one.name for one in here if one.name in declared.reads}
        work = tmp_path / declared.name
        work.mkdir()
        declared.load(Quiet()).run(Context(watched, work, inputs, Quiet()))  # type: ignore[arg-type]
        allowed[declared.name] = set(declared.keys).union(*(allowed[earlier] for earlier in inputs))
        seen = watched.seen - {"learning_rate", "warm", "carried", "saved_method"}  # properties
        assert seen <= allowed[declared.name], declared.name
        assert seen, declared.name


def test_a_run_with_nothing_to_do_does_not_wait_for_torch(tiny_run: Path, tiny_recipe: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tiny import Quiet\n"
        "from training.pipeline.pipeline import run_all; from training.recipe.file import load_recipe\n"
        "from training.pipeline.run_dir import RunDir\n"
        "recipe = load_recipe(Path(sys.argv[1])).recipe\n"
        "with RunDir.open(Path(sys.argv[2]), recipe.name) as run:\n"
        "    assert not any(outcome.redone for outcome in run_all(recipe, run, Quiet()))\n"
        "print(sorted({'torch', 'transformers', 'sklearn', 'optimum', 'datasets'} & sys.modules.keys()))"
    )
    support = Path(__file__).parents[2] / "support/models"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tiny_recipe), str(tiny_run.parent.parent)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": f"{support}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_library_that_warns_of_a_hubs_kernel_is_quiet_before_a_stage_imports_it() -> None:
    logger = logging.getLogger("bitsandbytes")
    logger.setLevel(logging.NOTSET)
    STAGES[NAMES.index("merge")].load(Quiet())
    assert not logger.isEnabledFor(logging.WARNING)
