"""Stage `package`: puts model, processor, plan, evidence and golden rows into a bundle, stores it, builds the Bento."""

import json
import os
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import bentoml

from bentune.bundle.errors import BentuneError
from bentune.bundle.files import sha256_file, write_json
from bentune.bundle.manifest import EVIDENCE, MODULE, ROWS, BaseModelInfo, Manifest, Parent, open_bundle, seal
from bentune.bundle.seen_rows import SeenRows
from bentune.bundle.store import home, reserved
from training.pipeline.previous_version import open_parent
from training.pipeline.provenance import ROOT, code_revision, tool_versions
from training.pipeline.run_dir import explain_full_disk
from training.pipeline.stage import Context, Summary
from training.recipe.file import digest
from training.report.facts import facts_of
from training.report.model_card import CARD, model_card
from training.tasks.registry import task_of

BUILD_TIMEOUT_S = 600


def run(context: Context) -> Summary:
    """Store the bundle as `name:version` in the BentoML model store and build a Bento of the same tag.

    Raises BentuneError when BentoML cannot build it.
    """
    with explain_full_disk(home()):
        return _store(context)


def _store(context: Context) -> Summary:
    name = context.recipe.name
    onnx = context.inputs["export"] / "model/fp32.onnx"
    with context.report.task("storing the bundle", None), reserved(name, sha256_file(onnx)) as (version, created_at):
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
    artifacts = {
        "model": tag,
        "bundle": str(bundle.root),
        "digest": bundle.digest,
        "content": bundle.content,
        "weights_sha256": _summary(context.inputs["merge"])["weights_sha256"],
        "bento": str(bento.tag),
        "bento_path": str(bento.path),
        "code_revision": bundle.manifest.code_revision,
        "tools": bundle.manifest.tools,
    }
    write_json(context.work / "artifacts.json", artifacts)
    return artifacts


def still_there(directory: Path) -> bool:
    """Whether the stored bundle and the Bento that this stage made were not deleted since."""
    artifacts = _read(directory / "artifacts.json")
    try:
        stored = (bentoml.models.get(artifacts["model"]).path, bentoml.bentos.get(artifacts["bento"]).path)
    except bentoml.exceptions.NotFound:
        return False
    return stored == (artifacts["bundle"], artifacts["bento_path"])


def _fill(root: Path, context: Context) -> None:
    inputs = context.inputs
    shutil.copytree(inputs["export"] / "model", root / "model")
    shutil.copytree(inputs["plan"] / "model", root / "model", dirs_exist_ok=True)
    shutil.copytree(inputs["export"] / "processor", root / "processor")
    write_json(root / ROWS, _seen(context))
    for name in ("plan.json", "golden.jsonl", "baseline.json", "report.md", "pareto.png"):
        shutil.copyfile(inputs["plan"] / name, root / name)
    evidence = {
        "evaluation": _read(inputs["evaluate"] / "evaluation.json"),
        "parity": _read(inputs["verify"] / "parity.json"),
        "data": _summary(inputs["data"]),
        "training": _summary(inputs["train"]),
        "recipe": context.recipe.model_dump(mode="json"),
    }
    write_json(root / EVIDENCE, evidence)
    (root / CARD).write_text(model_card(facts_of(context.recipe, inputs)), encoding="utf-8")


def _seen(context: Context) -> SeenRows:
    """The filters of the data stage, and after a warm start those of rows that only the weights still remember."""
    seen = SeenRows.model_validate_json((context.inputs["data"] / ROWS).read_bytes())
    if not context.recipe.warm or context.recipe.parent is None:
        return seen
    parent = open_parent(context.recipe.parent).rows()
    gone = [parent.trained] if _summary(context.inputs["data"])["parent"]["trained_gone"] else []
    return seen.model_copy(update={"before": [*parent.before, *gone]})


def _manifest(context: Context, version: str, created_at: datetime) -> Manifest:
    from training.tasks.saved import target_in  # here, so that still_there() does not wait for torch

    recipe, inputs, task = context.recipe, context.inputs, task_of(context.recipe)
    trained, continued = _summary(inputs["train"]), _summary(inputs["data"]).get("parent")
    return Manifest(
        name=recipe.name,
        version=version,
        created_at=created_at,
        task=recipe.task,
        columns=task.columns(recipe.data.columns),
        target=target_in(inputs["data"]),
        limits=task.limits(inputs["export"], recipe.max_tokens),
        base_model=BaseModelInfo(source=trained["base"], sha256=trained["base_sha256"]),
        method=recipe.method.model_dump(mode="json"),
        recipe_digest=digest(recipe),
        data_fingerprint=_summary(inputs["data"])["fingerprint"],
        parent=Parent(tag=continued["tag"], content=continued["content"]) if continued else None,
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


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _summary(stage: Path) -> dict[str, Any]:
    summary: dict[str, Any] = _read(stage / "stage.json")["summary"]
    return summary
