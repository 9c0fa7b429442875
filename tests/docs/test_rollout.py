"""Facts of docs/rollout: commands run or are known, overlays render, tables and numbers are those of the code."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import http_server
import pytest
import yaml
from api_server import ApiServer
from doc_pages import DOCS, ROOT, commands_of, defaults_of, files_of, run, shell, values_of
from judged import write_rows
from measured import capacity as measured_capacity

from bentune.bundle.verdict import CompareSettings
from training.recipe.file import load_recipe

PAGES = DOCS / "rollout"
KUBECTL = "kubectl apply -n bentune -k "

needs_kubectl = pytest.mark.skipif(
    shutil.which("kubectl") is None and not os.environ.get("CI"), reason="kubectl is not installed"
)


def test_retrain_page(tmp_path: Path, tiny_tag: str) -> None:
    """Its recipe is valid, and the lineage is drawn as it shows one."""
    page = PAGES / "retrain.md"
    ((name, content),) = files_of(page).items()
    (tmp_path / name).write_text(content)
    recipe = load_recipe(tmp_path / name).recipe
    assert recipe.data.source == recipe.name == "news"
    drawn = run(f"bentune lineage {tiny_tag.partition(':')[0]}", tmp_path)
    assert tiny_tag in drawn
    for word in ("data", "recipe", "model", "verdict"):
        assert re.search(rf"^. +{word} ", drawn, re.MULTILINE), drawn
        assert re.search(rf"^.+ {word} ", page.read_text(), re.MULTILINE), word


def test_compare_page(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle, tmp_path / "candidate")
    write_rows(tmp_path / "held-out.jsonl", 400)  # so many that two which agree are promoted
    for command in commands_of(PAGES / "compare.md"):
        told = re.sub(r"bbc-news:(NEW|OLD)|http://localhost:3000", str(tmp_path / "candidate"), command)
        assert "PROMOTE" in run(told, tmp_path)
    assert (tmp_path / "comparison/comparison.html").is_file()


def test_compare_settings_table_is_the_code() -> None:
    assert values_of(PAGES / "compare.md").items() >= defaults_of(CompareSettings).items()


@needs_kubectl
def test_kubernetes_page(tmp_path: Path) -> None:
    """The overlays render with what `bentune capacity` writes.

    The other commands of the page name what the overlays make.
    """
    page = PAGES / "kubernetes.md"
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    for name, content in files_of(page).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    commands = commands_of(page)
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/capacity.json").write_text(measured_capacity(slo="p99=200ms").model_dump_json())
    (size,) = (command for command in commands if command.startswith("bentune capacity"))
    run(size, tmp_path)
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
    """Check that kubectl has every command, with these options.

    Commands that may be tried without a cluster are run dry.
    """
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


@needs_kubectl
def test_release_page(tiny_tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that need no cluster run, on the overlay of the Kubernetes page."""
    name = tiny_tag.partition(":")[0]
    page = (PAGES / "release.md").read_text()
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    (tmp_path / "my-overlay").mkdir()
    kustomization = files_of(PAGES / "kubernetes.md")["my-overlay/kustomization.yaml"]
    (tmp_path / "my-overlay/kustomization.yaml").write_text(kustomization)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    commands = commands_of(PAGES / "release.md")
    dry, released, back = (command.replace("bbc-news", name) for command in commands[:3])
    image_ = released.split()[-1]
    assert f"+        image: {image_}" in run(dry, tmp_path)
    assert (tmp_path / "my-overlay/kustomization.yaml").read_text() == kustomization
    for reference in (image_, f"{image_}-next"):
        run(f"{released.replace(image_, reference)} --commit", tmp_path)
    assert f"image: {image_}-next" in shell("kubectl kustomize my-overlay", tmp_path)
    run(f"{back} --commit", tmp_path)
    assert f"image: {image_}\n" in shell("kubectl kustomize my-overlay", tmp_path)
    # The numbers of the analysis are those of the page.
    analysis = (ROOT / "k8s/components/canary-argo/analysis.yaml").read_text()
    assert (analysis.count(">= 200"), analysis.count(">= 500")) == (4, 4)
    needed = re.findall(r"\| (\d+) (?:requests|batches|answers) each \|", page)
    assert needed == ["200", "200", "500", "500"]
    rollout = (ROOT / "k8s/components/canary-argo/rollout.yaml").read_text()
    shares = re.findall(r"setWeight: (\d+)", rollout)
    assert f"{', '.join(shares[:-1])} and {shares[-1]} %" in page
