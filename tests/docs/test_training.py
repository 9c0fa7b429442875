"""Facts of docs/training: commands run, tables and numbers are those of the code."""

import itertools
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from command import ask
from doc_pages import DOCS, ROOT, blocks, commands_of, defaults_of, files_of, run, values_of
from torch.distributed.run import get_args_parser

from bentune.cli import cli
from bentune.quality.classification import Classification
from training.dry_run.estimate import CHECKPOINTS_AT_ONCE, QUANTILES
from training.dry_run.rehearsal import ENOUGH_SECONDS, WARM_UP
from training.prove.evaluation import Evaluation
from training.recipe.compression import DistillSettings, PruneSettings
from training.recipe.file import load_recipe
from training.recipe.method import METHODS
from training.recipe.search import SearchSettings
from training.recipe.train import TrainSettings
from training.report.page import SHOWN_CHARACTERS, TITLES
from training.train.fit.arguments import device_batch_size

PAGES = DOCS / "training"
RECIPES = ROOT / "recipes/methods"


def test_methods_page() -> None:
    """Its tables name every method, its values and its learning rate."""
    page = (PAGES / "methods.md").read_text()
    output = "".join(run(command, ROOT) for command in commands_of(PAGES / "methods.md"))
    assert "double_quantization" in output
    for name, method in METHODS.items():
        (row,) = re.findall(rf"^\| `{name}` \| [^|]*\|([^|]*)\|$", page, re.MULTILINE)
        values = set(method.model_fields) - {"name"}
        assert values <= set(re.findall(r"`(\w+)`", row)) | (
            set(METHODS["lora"].model_fields) if name == "qlora" else set()
        )
        assert load_recipe(RECIPES / f"bbc-{name}.yaml").recipe.method.name == name
    rates = re.findall(r"(\de-\d) for\s+((?:`\w+`[, and\s]*)+)", page)
    assert {name: float(rate) for rate, names in rates for name in re.findall(r"`(\w+)`", names)} == {
        name: method.default_learning_rate for name, method in METHODS.items()
    }


def test_settings_page() -> None:
    (command,) = commands_of(PAGES / "settings.md")
    assert "train.schedule" in run(command, ROOT)
    rows = re.findall(r"^\| (`.*?) \|", (PAGES / "settings.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 8
    assert named <= TrainSettings.model_fields.keys()
    stopping = load_recipe(RECIPES / "bbc-early-stopping.yaml").recipe
    assert stopping.train.early_stopping is not None
    assert stopping.data.split.validation > 0


def test_dry_run_page(tiny_recipe: Path, tmp_path: Path) -> None:
    """The command prints every figure of the page's table for the tiny recipe."""
    page = (PAGES / "dry-run.md").read_text()
    (command,) = commands_of(PAGES / "dry-run.md")
    _, verb, recipe, *options = command.split()
    assert load_recipe(ROOT / recipe).recipe.name == "bbc-news"
    found = ask(verb, tiny_recipe, *options, "--runs", tmp_path)
    assert found.code == 0
    for figure in ("steps", "checkpoints", "start", "end", "memory", "disk", "last time"):
        assert figure in found.out
        assert figure in page
    assert (QUANTILES, CHECKPOINTS_AT_ONCE, WARM_UP) == ((0.05, 0.95), 3, 2)
    assert f"{ENOUGH_SECONDS:.0f} seconds" in page


def test_several_processes_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Launchers and commands take every option that the page gives.

    The tests of processes run such commands.
    """
    page = PAGES / "several-processes.md"
    started = [line for line in commands_of(page) if "-m bentune" in line]
    assert len(started) == 4
    for name, content in files_of(page).items():
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    for line in started:
        words = [word for word in shlex.split(line) if not word.startswith("PET_")]
        before, (verb, recipe, *options) = words[: words.index("-m")], words[words.index("bentune") + 1 :]
        match before:
            case ["torchrun", *told]:
                processes = int(get_args_parser().parse_args([*told, "-m", "bentune"]).nproc_per_node)
            case ["accelerate", "launch", *told]:
                processes = launch_command_parser().parse_args([*told, "-m", "bentune"]).num_processes
        cli.commands[verb].make_context(verb, [recipe, *options])
        overrides = [value for name, value in itertools.pairwise(options) if name == "--set"]
        loaded = load_recipe(ROOT / recipe, overrides).recipe
        assert device_batch_size(loaded, max(2, processes)) > 0
        assert (loaded.train.deepspeed is not None) == bool(overrides)
    directories = re.findall(r"`(k8s/training/\w+)`", page.read_text())
    assert len(directories) == 2
    assert all((ROOT / directory / "kustomization.yaml").is_file() for directory in directories)


def test_search_page(tmp_path: Path) -> None:
    """The recipe with its values is valid, and its table is the code."""
    page = PAGES / "search.md"
    (command,) = commands_of(page)
    recipe_file = ROOT / command.split()[2]
    (given,) = blocks(page, "yaml")
    recipe = yaml.safe_load(recipe_file.read_text())
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | yaml.safe_load(given)))
    assert load_recipe(tmp_path / "r.yaml").recipe.search.trials == load_recipe(recipe_file).recipe.search.trials
    rows = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
    assert set(rows) == set(SearchSettings.model_fields)


def test_metrics_page(tiny_model: Path, tmp_path: Path) -> None:
    """The recipe has all that the page explains; its commands run with a small model."""
    explain, all_of_it = (shlex.split(command) for command in commands_of(PAGES / "metrics.md"))
    recipe = load_recipe(ROOT / explain[-1]).recipe
    assert (explain[-1], recipe.data.source) == (all_of_it[-1], "recipes/tickets.csv")
    assert (recipe.evaluate.slices, recipe.evaluate.ordinal, recipe.calibrate.temperature) == (["channel"], True, True)
    stars = load_recipe(ROOT / "recipes/yelp-ordinal.yaml").recipe
    assert (stars.evaluate.ordinal, stars.calibrate.temperature) == (True, True)
    small = [f"model={tiny_model}", f"data.source={ROOT / recipe.data.source}", "evaluate.resamples=100"]
    quick = ["train.epochs=1", "evaluate.minimum={accuracy: 0.0}"]
    options = [word for value in [*small, *quick] for word in ("--set", value)]
    for stage in ("data", "train", "merge", "calibrate", "evaluate"):
        answer = ask(stage, ROOT / all_of_it[-1], "--runs", tmp_path, *options)
        assert answer.code == 0, answer.err
    for figure in ("mean_absolute_error", "before the temperature", "channel", "(few)"):
        assert figure in answer.err
    fields = (*Classification.model_fields, *Evaluation.model_fields)
    assert set(re.findall(r"^\| `([a-z_1]+)`", (PAGES / "metrics.md").read_text(), re.MULTILINE)) <= set(fields)


def test_report_page(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs/tiny" / tiny_run.name
    shutil.copytree(tiny_run, root)
    page = PAGES / "report.md"
    for command in commands_of(page):
        output = run(command.replace("recipes/bbc-news.yaml", str(tiny_recipe)), tmp_path)
    assert json.loads(output[output.index("{") : output.rindex("}") + 1])["missing"] == []
    files = re.findall(r"^\| `([^`]*)` \|", page.read_text(), re.MULTILINE)
    assert all((root / name).is_file() for name in files)
    assert len(files) == 3
    assert all(title in page.read_text() for title in TITLES.values())
    assert f"{SHOWN_CHARACTERS} characters" in " ".join(page.read_text().split())


def test_smaller_models_page() -> None:
    """The recipes are valid with the page's overrides, and its tables match the code."""
    page = PAGES / "smaller-models.md"
    loaded = []
    for command in commands_of(page):
        recipe, *options = shlex.split(command)[2:]
        overrides = [value for name, value in itertools.pairwise(options) if name == "--set"]
        loaded.append(load_recipe(ROOT / recipe, overrides).recipe)
    assert [(recipe.distill is not None, recipe.prune is not None) for recipe in loaded] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    values = defaults_of(DistillSettings) | defaults_of(PruneSettings)
    assert values_of(page).items() >= values.items()
