"""What the README and docs/ say is true: their commands run, their tables and the tree match the code."""

import csv
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bentoml
import http_server
import httpx
import numpy as np
import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from api_server import ApiServer
from command import ask
from judged import write_rows
from logged import log_of
from measured import capacity as measured_capacity
from tiny import sentences, write_csv
from torch.distributed.run import get_args_parser

from bentune.bundle.targets.target import NO_LABEL
from bentune.bundle.verdict import CompareSettings
from bentune.cli import cli
from bentune.quality.classification import Classification
from rollout.server.server import free_port
from service.monitoring.prediction_log import LoggedPrediction
from service.settings import Settings
from training.data.label_errors import FOLDS, LEAST_ACCURACY, MOST_ROWS
from training.data.stage import MOST_LABELS
from training.dry_run.estimate import CHECKPOINTS_AT_ONCE, QUANTILES
from training.dry_run.rehearsal import ENOUGH_SECONDS, WARM_UP
from training.plan.baseline import LOOKS_A_MONTH, RESAMPLES, WINDOW
from training.prove.evaluation import Evaluation
from training.recipe.clean_settings import CleanSettings, NearDuplicateSettings
from training.recipe.compression import DistillSettings, PruneSettings
from training.recipe.file import load_recipe
from training.recipe.method import LEARNING_RATES, METHODS
from training.recipe.rows_settings import AugmentSettings
from training.recipe.search import SearchSettings
from training.recipe.train import TrainSettings
from training.report.page import SHOWN_CHARACTERS, TITLES
from training.train.fit.arguments import rows_at_once

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page; the info string `yaml file=NAME` keeps its name as a first line."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def files_of(page: Path) -> dict[str, str]:
    found = re.findall(r"^```\w+ file=(\S+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def shell(command: str, cwd: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", command], cwd=cwd, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_your_data_page(tmp_path: Path) -> None:
    page = DOCS / "your-data.md"
    for name, content in files_of(page).items():
        (tmp_path / name).write_text(content)
    (commands,) = blocks(page, "sh")
    output = shell(commands, tmp_path)
    assert "reviews.csv" in output
    assert "✓ data" in output


def test_methods_page() -> None:
    """Its commands run, and its tables name every method, its values and its learning rate."""
    page = (DOCS / "methods.md").read_text()
    (commands,) = blocks(DOCS / "methods.md", "sh")
    output = shell(commands, ROOT)
    assert "double_quantization" in output
    for name, method in METHODS.items():
        (row,) = re.findall(rf"^\| `{name}` \| [^|]*\|([^|]*)\|$", page, re.MULTILINE)
        assert (ROOT / f"recipes/bbc-{name}.yaml").is_file()
        values = set(method.model_fields) - {"name"}
        assert values <= set(re.findall(r"`(\w+)`", row)) | (
            set(METHODS["lora"].model_fields) if name == "qlora" else set()
        )
        assert load_recipe(ROOT / f"recipes/bbc-{name}.yaml").recipe.method.name == name
    rates = re.findall(r"(\de-\d) for\s+((?:`\w+`[, and\s]*)+)", page)
    assert {name: float(rate) for rate, names in rates for name in re.findall(r"`(\w+)`", names)} == LEARNING_RATES


def test_training_page() -> None:
    (command,) = blocks(DOCS / "training.md", "sh")
    assert "train.schedule" in shell(command, ROOT)
    rows = re.findall(r"^\| (`.*?) \|", (DOCS / "training.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(named) > 8
    assert named <= TrainSettings.model_fields.keys()
    stopping = load_recipe(ROOT / "recipes/bbc-early-stopping.yaml").recipe
    assert stopping.train.early_stopping is not None
    assert stopping.data.split.validation > 0


def test_dry_run_page(tiny_recipe: Path, tmp_path: Path) -> None:
    """Its command, with the recipe of the tiny model, says what the page explains."""
    page = (DOCS / "dry-run.md").read_text()
    (command,) = blocks(DOCS / "dry-run.md", "sh")
    _, verb, recipe, *options = command.split()
    assert load_recipe(ROOT / recipe).recipe.name == "bbc-news"
    found = ask(verb, tiny_recipe, *options, "--runs", tmp_path)
    assert found.code == 0
    for part in ("steps", "checkpoints", "start", "end", "memory", "disk", "last time"):
        assert part in found.out
        assert part in page
    assert f"{round(100 * (1 - QUANTILES[1]))}" == f"{round(100 * QUANTILES[0])}" == "5"
    for words in ("fastest twentieth", f"for {ENOUGH_SECONDS:.0f} seconds", "three checkpoints"):
        assert words in page
    assert (CHECKPOINTS_AT_ONCE, WARM_UP) == (3, 2)


def test_several_processes_page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What it starts is what the tests of processes run; here, that launchers and commands know all that is given."""
    page = DOCS / "several-processes.md"
    started = [line for block in blocks(page, "sh") for line in block.splitlines() if "-m bentune" in line]
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
        assert rows_at_once(loaded, max(2, processes)) > 0
        assert (loaded.train.deepspeed is not None) == bool(overrides)
    directories = re.findall(r"`(k8s/training/\w+)`", page.read_text())
    assert len(directories) == 2
    assert all((ROOT / directory / "kustomization.yaml").is_file() for directory in directories)


def test_data_page(tmp_path: Path) -> None:
    page = DOCS / "data.md"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (commands,) = blocks(page, "sh")
    output = shell(commands, tmp_path)
    assert "split 25% by customer_id, no value of it on two sides (31 of them)" in output
    assert "split 20% by created_at, held out is the newest from 2026-05-07T08:00:00+00:00 on" in output
    for words in ("nearly the same as a held-out row", "same text as another row, other label", "wrongly decoded"):
        assert words in output
    text = page.read_text()
    for settings in (CleanSettings, NearDuplicateSettings):
        for name, field in settings.model_fields.items():
            assert f"| `{name}` | `{json.dumps(field.default)}` | {field.description} |" in text


def test_data_care_page(tmp_path: Path) -> None:
    """Its commands run, and what it says of the recipe's values is what they are."""
    page = DOCS / "data-care.md"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (commands,) = blocks(page, "sh")
    output = shell(commands, tmp_path)
    assert re.search(r"4 │ label probably wrong +│ left out", output)
    assert "train.balance" in output
    recipe = load_recipe(ROOT / "recipes/bbc-imbalanced.yaml").recipe
    (given,) = blocks(page, "yaml")
    assert yaml.safe_load(given)["train"]["augment"] == recipe.train.augment.model_dump(exclude_unset=True)
    rows = re.findall(r"^\| `([^`]+)` \|", page.read_text(), re.MULTILINE)
    of_labels, of_balance = ["show", "remove", "off"], ["none", "weights", "oversample", "{cap: N}"]
    assert rows == ["data.doubtful_labels", *of_labels, "train.balance", *of_balance]
    for words in (
        f"less than {LEAST_ACCURACY:.0%}",
        f"at most {MOST_ROWS:,} rows",
        f"fewer than {FOLDS} training rows",
    ):
        assert words.replace("%", " %") in page.read_text()


def test_search_page(tmp_path: Path) -> None:
    """Its command has these options, its values are valid, and its table is the code."""
    page = DOCS / "search.md"
    (command,) = blocks(page, "sh")
    program, name, *arguments = shlex.split(command, comments=True)
    assert program == "bentune"
    cli.commands[name].make_context(name, [*arguments])
    (given,) = blocks(page, "yaml")
    recipe = yaml.safe_load((ROOT / arguments[0]).read_text())
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe | yaml.safe_load(given)))
    assert (
        load_recipe(tmp_path / "r.yaml").recipe.search.trials == load_recipe(ROOT / arguments[0]).recipe.search.trials
    )
    rows = re.findall(r"^\| `(\w+)` \|", page.read_text(), re.MULTILINE)
    assert set(rows) == set(SearchSettings.model_fields)


def test_retrain_page(tmp_path: Path, tiny_tag: str) -> None:
    """Its commands have these options, its recipe is valid, and the lineage is drawn."""
    page = DOCS / "retrain.md"
    ((name, content),) = files_of(page).items()
    (tmp_path / name).write_text(content)
    recipe = load_recipe(tmp_path / name).recipe
    assert recipe.data.source == recipe.name == "news"
    (commands,) = blocks(page, "sh")
    for line in commands.strip().splitlines():
        program, command, *arguments = shlex.split(line, comments=True)
        assert program == "bentune"
        cli.commands[command].make_context(command, arguments)
    drawn = shell(f"bentune lineage {tiny_tag.partition(':')[0]}", tmp_path)
    assert tiny_tag in drawn
    for word in ("data", "recipe", "model", "verdict"):
        assert re.search(rf"^. +{word} ", drawn, re.MULTILINE), drawn
        assert re.search(rf"^.+ {word} ", page.read_text(), re.MULTILINE), word


def test_plan_page(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs/tiny"
    shutil.copytree(tiny_run, runs / tiny_run.name)
    (commands,) = blocks(DOCS / "plan.md", "sh")
    output = shell(commands.replace("recipes/bbc-news.yaml", str(tiny_recipe)), tmp_path)
    assert "plan  nothing changed" in output
    assert "wins with" in output


def test_metrics_page(tiny_model: Path, tmp_path: Path) -> None:
    """Its recipe says all that the page is about, and runs with a small model; so does the one for stars."""
    (commands,) = blocks(DOCS / "metrics.md", "sh")
    explain, run = (shlex.split(line) for line in commands.strip().splitlines())
    recipe = load_recipe(ROOT / explain[-1]).recipe
    assert (explain[-1], recipe.data.source) == (run[-1], "recipes/tickets.csv")
    assert (recipe.evaluate.slices, recipe.evaluate.ordinal, recipe.calibrate.temperature) == (["channel"], True, True)
    stars = load_recipe(ROOT / "recipes/yelp-ordinal.yaml").recipe
    assert (stars.evaluate.ordinal, stars.calibrate.temperature) == (True, True)
    small = [f"model={tiny_model}", f"data.source={ROOT / recipe.data.source}", "evaluate.resamples=100"]
    options = [word for value in small for word in ("--set", value)]
    for stage in ("data", "train", "merge", "calibrate", "evaluate"):
        answer = ask(stage, ROOT / run[-1], "--runs", tmp_path, *options)
        assert answer.code == 0, answer.err
    for words in ("mean_absolute_error", "before the temperature", "channel", "(few)"):
        assert words in answer.err
    fields = (*Classification.model_fields, *Evaluation.model_fields)
    assert set(re.findall(r"^\| `([a-z_1]+)`", (DOCS / "metrics.md").read_text(), re.MULTILINE)) <= set(fields)


def test_multi_label_page(tiny_model: Path, tmp_path: Path) -> None:
    """Its commands run up to the numbers, its tables name what there is, and what it says of the rows is so."""
    page = DOCS / "multi-label.md"
    (commands,) = blocks(page, "sh")
    recipe_file = {line.split()[-1] for line in commands.strip().splitlines()}.pop()
    recipe = load_recipe(ROOT / recipe_file).recipe
    assert (recipe.data.multi_label, recipe.data.label_separator, recipe.calibrate.temperature) == (True, ";", True)
    small = [f"model={tiny_model}", f"data.source={ROOT / recipe.data.source}", "evaluate.resamples=100"]
    options = [word for value in [*small, "train.epochs=1"] for word in ("--set", value)]
    for stage in ("data", "train", "merge", "calibrate", "evaluate"):
        answer = ask(stage, ROOT / recipe_file, "--runs", tmp_path, *options)
        assert answer.code == 0, answer.err
        if stage == "data":
            assert "420 rows read, 420 used" in answer.err
            assert "no label" in answer.err
    for words in ("hamming_loss", "average_precision", "micro_f1", "before the temperature"):
        assert words in answer.err
    text = " ".join(page.read_text().split())
    named = {
        name for row in re.findall(r"^\| (`[a-z].*?) \|", page.read_text(), re.MULTILINE) for name in row.split(", ")
    }
    assert {name.strip("`") for name in named} <= set(Classification.model_fields)
    with (ROOT / recipe.data.sources[0]).open(newline="") as file:
        topics = [row["topics"].split(";") if row["topics"] else [] for row in csv.DictReader(file)]
    assert f"{len(topics)} made-up tickets" in text
    assert f"{np.mean([not one for one in topics]):.0%}".replace("%", " % have none") in text
    assert (len({name for one in topics for name in one}), max(map(len, topics))) == (5, 3)
    assert f"At most {MOST_LABELS:,} labels; none may be called `{NO_LABEL}`" in text


def test_report_page(tiny_run: Path, tiny_recipe: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs/tiny" / tiny_run.name
    shutil.copytree(tiny_run, root)
    page = DOCS / "report.md"
    (commands,) = blocks(page, "sh")
    assert '"missing": []' in shell(commands.replace("recipes/bbc-news.yaml", str(tiny_recipe)), tmp_path)
    files = re.findall(r"^\| `([^`]*)` \|", page.read_text(), re.MULTILINE)
    assert all((root / name).is_file() for name in files)
    assert len(files) == 3
    assert all(title in page.read_text() for title in TITLES.values())
    assert f"cut after {SHOWN_CHARACTERS} characters" in " ".join(page.read_text().split())


def test_smaller_models_page() -> None:
    """Its commands have these options, its recipes are valid, and its tables are the code."""
    page = DOCS / "smaller-models.md"
    commands = [shlex.split(line) for block in blocks(page, "sh") for line in block.strip().splitlines()]
    loaded = []
    for program, command, *arguments in commands:
        assert program == "bentune"
        given = cli.commands[command].make_context(command, list(arguments)).params
        overrides = [value for option, value in zip(arguments[1::2], arguments[2::2], strict=True) if option == "--set"]
        assert arguments[0] in map(str, given.values())
        loaded.append(load_recipe(ROOT / arguments[0], overrides).recipe)
    assert [(recipe.distill is not None, recipe.prune is not None) for recipe in loaded] == [
        (False, False),
        (True, False),
        (False, True),
    ]
    for settings in (DistillSettings, PruneSettings):
        for name, field in settings.model_fields.items():
            default = "" if field.is_required() else json.dumps(field.default)
            assert f"| `{name}` | {default} | {field.description} |" in page.read_text()


def test_images_page(tmp_path: Path) -> None:
    """Its digits are written and read, its requests are those that a service answers, and its table is the code."""
    page = DOCS / "images.md"
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    written, asked = blocks(page, "sh")
    output = shell(written, tmp_path)
    assert "1,797 rows read, 1,797 used" in output
    assert "train.augment.rotation" in output
    for name in ("rotation", "crop", "flip"):
        field = AugmentSettings.model_fields[name]
        assert f"| `{name}` | `{json.dumps(field.default)}` | {field.description} |" in page.read_text()
    for line in asked.splitlines():
        for file in re.findall(r"digits/images/\S+?\.png", line):
            assert (tmp_path / file).is_file()
    assert not load_recipe(ROOT / "recipes/digits.yaml").recipe.train.augment.copies


def test_serving_page(tiny_tag: str, tmp_path: Path) -> None:
    name, port = tiny_tag.partition(":")[0], free_port()
    page = (DOCS / "serving.md").read_text().replace("bbc-news", name).replace("3000", str(port))
    (tmp_path / "serving.md").write_text(page)
    starts, asks = blocks(tmp_path / "serving.md", "sh")
    serve, serve_with_bentoml, build = (line.partition("#")[0].strip() for line in starts.strip().splitlines())
    assert f"{name}:" in shell(f"{build} --output tag --version from-the-docs", ROOT)
    assert serve_with_bentoml == f"bentoml serve {name}:latest"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        [*serve.split(), "--port", str(port)], cwd=tmp_path, env=os.environ | {"PATH": path}
    ) as server:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}/readyz")
            answers = [shell(line, tmp_path) for line in asks.strip().splitlines()]
        finally:
            server.terminate()
            server.wait(60)
            bentoml.bentos.delete(f"{name}:from-the-docs")  # the newest of its name, which other tests go by
    assert len(answers) == 2
    assert all('"score"' in answer for answer in answers)


def test_drift_page(tiny_tag: str, tmp_path: Path) -> None:
    page = DOCS / "drift.md"
    log_of(tmp_path / "predictions", sentences(60, seed=5))
    replay, copy = blocks(page, "sh")
    for command in replay.strip().splitlines():
        assert "60" in shell(command.replace("bbc-news", tiny_tag), tmp_path)
    component = (ROOT / "k8s/components/prediction-log/kustomization.yaml").read_text()
    (parent,) = re.findall(r"tar c -C (\S+) predictions", copy)
    assert f"BENTUNE_PREDICTION_LOG={parent}/predictions\n" in component
    # Its example is a line that the replay reads, but for the hashes, which it shortens.
    (line,) = blocks(page, "json")
    LoggedPrediction.model_validate(json.loads(line) | {"key": "0" * 32})
    text = page.read_text()
    assert all(f"{number:,}" in text for number in (LOOKS_A_MONTH, RESAMPLES, WINDOW))


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail(f"{url} did not answer 200")


KUBECTL = "kubectl apply -n bentune -k "


@pytest.mark.skipif(shutil.which("kubectl") is None and not os.environ.get("CI"), reason="kubectl is not installed")
def test_kubernetes_page(tmp_path: Path) -> None:
    """Its overlays render with what `bentune capacity` writes, and its other commands name what these make."""
    page = DOCS / "kubernetes.md"
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    for name, content in files_of(page).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    commands = [line for block in blocks(page, "sh") for line in block.strip().splitlines()]
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/capacity.json").write_text(measured_capacity(slo="p99=200ms").model_dump_json())
    (size,) = (command for command in commands if command.startswith("bentune capacity"))
    shell(size, tmp_path)
    rendered = {
        overlay: list(yaml.safe_load_all(shell(f"kubectl kustomize {overlay}", tmp_path)))
        for overlay in {command.removeprefix(KUBECTL) for command in commands if command.startswith(KUBECTL)}
    }
    assert set(rendered) == {"my-overlay", "sized-overlay", "k8s/training/job"}
    objects = [one for found in rendered.values() for one in found]
    names = {(one["kind"].lower(), one["metadata"]["name"]) for one in objects}
    run_dry([command for command in commands if command.startswith("kubectl")], objects, tmp_path)
    for kind, name in re.findall(r"(deployment|service|job)/([a-z-]+)", "\n".join(commands)):
        assert (kind, name) in names
    images = {
        container["image"]
        for one in objects
        if one["kind"] in {"Deployment", "Job"}
        for container in one["spec"]["template"]["spec"]["containers"]
    }
    (build,) = (command for command in commands if command.startswith("bentune image"))
    assert images == {build.split("--name ")[1], "bentune/training:0.1.0"}
    assert "bentune/training:0.1.0" in (ROOT / "Makefile").read_text()
    listed = {directory.name for directory in (ROOT / "k8s/components").iterdir()}
    assert listed == set(re.findall(r"^\| `([a-z-]+)` \|", page.read_text(), re.MULTILINE))


# These say what they would do, with a server that knows the kinds; the others can only ask a cluster.
DRY = ("create", "label", "apply")


def run_dry(commands: list[str], objects: list[dict[str, Any]], cwd: Path) -> None:
    """Every command is one that kubectl knows, with options it knows; what may be tried without a cluster is."""
    server = ApiServer(objects, existing=["bentune"])
    with http_server.serving(server) as url:
        for command in commands:
            verb = command.split()[1]
            if verb in DRY:
                validate = "" if verb == "label" else " --validate=false"
                output = shell(f"{command} --server={url} --dry-run=client{validate}", cwd)
                assert output
                assert all("(dry run)" in line for line in output.splitlines()), output
    assert server.refused == [], "a dry run writes nothing"
    for command in commands:
        if command.split()[1] not in DRY:
            asked = ["bash", "-euc", f"{command} --server=http://127.0.0.1:1"]
            done = subprocess.run(asked, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
            assert "127.0.0.1:1 was refused" in done.stderr, f"{command}\n{done.stderr}"


def test_compare_page(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "candidate")
    write_rows(tmp_path / "held-out.jsonl", 400)  # so many that two which agree are promoted
    (commands,) = blocks(DOCS / "compare.md", "sh")
    for name in ("bbc-news:NEW", "bbc-news:OLD", "http://localhost:3000"):
        commands = commands.replace(name, str(tmp_path / "candidate"))
    output = shell(commands, tmp_path)
    assert "PROMOTE" in output
    assert "none of 7 slices is significantly worse" in output
    assert (tmp_path / "comparison/comparison.html").is_file()


def test_compare_settings_table_is_the_code() -> None:
    page = (DOCS / "compare.md").read_text()
    for name, field in CompareSettings.model_fields.items():
        assert f"| `{name}` | {json.dumps(field.default)} | {field.description} |" in page


@pytest.mark.skipif(shutil.which("kubectl") is None and not os.environ.get("CI"), reason="kubectl is not installed")
def test_release_page(tiny_tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that need no cluster run, on the overlay of the Kubernetes page; the others exist."""
    from bentune.commands.image import image
    from bentune.commands.release import release, rollback

    name = tiny_tag.partition(":")[0]
    page = (DOCS / "release.md").read_text()
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    (tmp_path / "my-overlay").mkdir()
    kustomization = files_of(DOCS / "kubernetes.md")["my-overlay/kustomization.yaml"]
    (tmp_path / "my-overlay/kustomization.yaml").write_text(kustomization)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    known = {"image": image, "release": release, "rollback": rollback}
    commands = [line for block in blocks(DOCS / "release.md", "sh") for line in block.strip().splitlines()]
    assert len(commands) == 5
    for command in commands:
        _, verb, *words = command.split()
        assert known[verb].make_context(verb, words)
    dry, released, back = (command.replace("bbc-news", name) for command in commands[:3])
    image_ = released.split()[-1]
    assert f"+        image: {image_}" in shell(dry, tmp_path)
    assert (tmp_path / "my-overlay/kustomization.yaml").read_text() == kustomization
    for reference in (image_, f"{image_}-next"):
        shell(f"{released.replace(image_, reference)} --commit", tmp_path)
    assert f"image: {image_}-next" in shell("kubectl kustomize my-overlay", tmp_path)
    shell(f"{back} --commit", tmp_path)
    assert f"image: {image_}\n" in shell("kubectl kustomize my-overlay", tmp_path)
    # The numbers of the analysis are those of the page.
    analysis = (ROOT / "k8s/components/canary-argo/analysis.yaml").read_text()
    assert re.findall(r">= (\d+)", analysis).count("200") == analysis.count(">= 200") == 4
    assert analysis.count(">= 500") == 4
    for words in ("200 requests each", "200 batches each", "500 answers each", "10, 30 and 60 %"):
        assert words in page


def test_settings_table_is_the_code() -> None:
    page = (DOCS / "serving.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"| `BENTUNE_{name.upper()}` | {json.dumps(field.default)} | {field.description} |" in page


def test_readme_commands_for_your_own_csv(tiny_model: Path, tmp_path: Path) -> None:
    """The README's recipe and overrides are valid for a CSV with its columns, up to the training itself."""
    commands = next(block for block in blocks(ROOT / "README.md", "sh") if "yelp-stars" in block)
    run = commands.strip().splitlines()[0].replace(".venv/bin/", "").replace("bentune run", "bentune data")
    rows = [(f"a review about thing number {number}", str(number % 5 + 1)) for number in range(50)]
    write_csv(tmp_path / "reviews.csv", rows, ("text", "stars"))
    assert "✓ data" in shell(run.replace("recipes/", f"{ROOT}/recipes/"), tmp_path)


def test_readme_tree_has_a_line_for_every_file() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    (tree,) = blocks(ROOT / "README.md", "text")
    listed: list[str] = []
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0] if line.strip() else ""
        if name.endswith("/"):
            folder = name
        elif name.strip():
            listed.append(name if not line.startswith(" ") else folder + name)
    assert len(listed) == len(set(listed))
    # Each test file is named for what it tests.
    assert sorted(listed) == sorted(
        name for name in tracked if not name.startswith("tests/") and not name.endswith("__init__.py")
    )
