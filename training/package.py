"""Stage `package`: writes model, processor, plan, evidence and golden rows into a bundle, and builds the Bento."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import bentoml

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import sha256_file, write_json
from bentune.bundle.manifest import EVIDENCE, MODULE, ROWS, BaseModelInfo, Manifest, Parent, open_bundle, seal
from bentune.bundle.seen_rows import SeenRows
from bentune.bundle.store import home, reserved
from training.pipeline.layout import DataFiles, EvaluateFiles, ExportFiles, PackageFiles, PlanFiles, VerifyFiles
from training.pipeline.previous_version import open_parent
from training.pipeline.provenance import ROOT, code_revision, tool_versions
from training.pipeline.results import DataResult, MergeResult, PackageResult, TrainResult
from training.pipeline.run_dir import explain_full_disk
from training.pipeline.stage import Context
from training.recipe.file import digest
from training.report.facts import facts_of
from training.report.model_card import CARD, model_card
from training.tasks.registry import task_of

BUILD_TIMEOUT_S = 600


def run(context: Context) -> PackageResult:
    """Store the bundle in the BentoML model store and build a Bento of its tag.

    Both have the tag `name:version`. Raises BentuneError when BentoML cannot build it.
    """
    with explain_full_disk(home()):
        return _store(context)


def _store(context: Context) -> PackageResult:
    name = context.recipe.name
    onnx = sha256_file(context.files(ExportFiles).fp32)
    with context.report.task("storing the bundle", None), reserved(name, onnx) as (version, created_at):
        tag = f"{name}:{version}"
        with bentoml.models.create(tag, module=MODULE, labels={"task": context.recipe.task}) as stored:
            root = Path(stored.path)
            _fill(root, context)
            seal(root, _manifest(context, version, created_at))
    try:
        bundle = open_bundle(Path(bentoml.models.get(tag).path))
        with context.report.task("building the Bento", None):
            bento = _build(tag, version)
    except BaseException:
        bentoml.models.delete(tag)
        raise
    made = PackageResult(
        model=tag,
        bundle=str(bundle.root),
        digest=bundle.digest,
        content=bundle.content,
        weights_sha256=context.result(MergeResult).weights_sha256,
        bento=str(bento.tag),
        bento_path=str(bento.path),
        code_revision=bundle.manifest.code_revision,
        tools=bundle.manifest.tools,
    )
    write_json(PackageFiles(context.work).artifacts, made)
    return made


def still_there(directory: Path) -> bool:
    """Return True when the bundle and the Bento of this stage still exist."""
    made = PackageResult.model_validate_json(PackageFiles(directory).artifacts.read_bytes())
    try:
        stored = (bentoml.models.get(made.model).path, bentoml.bentos.get(made.bento).path)
    except bentoml.exceptions.NotFound:
        return False
    return stored == (made.bundle, made.bento_path)


def _fill(root: Path, context: Context) -> None:
    exported, plan = context.files(ExportFiles), context.files(PlanFiles)
    shutil.copytree(exported.model, root / ExportFiles.model.name)
    shutil.copytree(plan.model, root / PlanFiles.model.name, dirs_exist_ok=True)
    shutil.copytree(exported.processor, root / ExportFiles.processor.name)
    write_json(root / ROWS, _seen(context))
    for file in (plan.plan, plan.golden, plan.baseline, plan.report, plan.pareto):
        shutil.copyfile(file, root / file.name)
    evidence = {
        "evaluation": json.loads(context.files(EvaluateFiles).evaluation.read_bytes()),
        "parity": json.loads(context.files(VerifyFiles).parity.read_bytes()),
        "data": context.result(DataResult).written(),
        "training": context.result(TrainResult).written(),
        "recipe": context.recipe.model_dump(mode="json"),
    }
    write_json(root / EVIDENCE, evidence)
    (root / CARD).write_text(model_card(facts_of(context.recipe, context.inputs)), encoding="utf-8")


def _seen(context: Context) -> SeenRows:
    """Return the data stage's filters of seen rows.

    After a warm start it adds filters of earlier training rows that the data no longer has.
    """
    seen = SeenRows.model_validate_json(context.files(DataFiles).seen.read_bytes())
    continued = context.result(DataResult).parent
    if not context.recipe.warm or context.recipe.parent is None or continued is None:
        return seen
    parent = open_parent(context.recipe.parent).rows()
    gone = [parent.trained] if continued.trained_gone else []
    return seen.model_copy(update={"before": [*parent.before, *gone]})


def _manifest(context: Context, version: str, created_at: datetime) -> Manifest:
    from training.tasks.saved import target_in  # imported here, so that still_there() does not import torch

    recipe, task = context.recipe, task_of(context.recipe)
    trained, data = context.result(TrainResult), context.result(DataResult)
    return Manifest(
        name=recipe.name,
        version=version,
        created_at=created_at,
        task=recipe.task,
        columns=task.columns(recipe.data.columns),
        target=target_in(context.files(DataFiles).directory),
        limits=task.limits(context.files(ExportFiles).directory, recipe.max_tokens),
        base_model=BaseModelInfo(source=trained.base, sha256=trained.base_sha256),
        method=recipe.method.model_dump(mode="json"),
        recipe_digest=digest(recipe),
        data_fingerprint=data.fingerprint,
        parent=Parent(tag=data.parent.tag, content=data.parent.content) if data.parent else None,
        code_revision=code_revision(),
        tools=tool_versions(),
        files={},
    )


def _build(tag: str, version: str) -> bentoml.Bento:
    if not (ROOT / "bentofile.yaml").is_file():
        raise BentuneError(f"{ROOT} has no bentofile.yaml: run from a checkout (`make install`), a wheel cannot build")
    command = [sys.executable, "-m", "bentoml", "build", ".", "--version", version, "--arg", f"model={tag}"]
    outcome = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_TIMEOUT_S,
        cwd=ROOT,  # BentoML reads no bentofile outside the working directory
        env={**os.environ, "BENTOML_DO_NOT_TRACK": "true"},
    )
    if outcome.returncode != 0:
        raise BentuneError(f"`{' '.join(command)}` failed:\n{(outcome.stderr or outcome.stdout).strip()[-2000:]}")
    return bentoml.bentos.get(tag)
