"""Renders k8s/ as users would, each combination of an overlay and components once, for all tests of it."""

import copy
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import programs
import pytest
import yaml

K8S = Path(__file__).parents[2] / "k8s"

Object = dict[str, Any]

HPA, KEDA = "autoscale-hpa", "autoscale-keda"
COMPONENTS = sorted(directory.name for directory in (K8S / "components").iterdir())
# Images that components bring, with the tags that an overlay gives them.
IMAGES = [
    {"name": "bentune/canary", "newName": "bentune/model", "newTag": "next"},
    {"name": "bentune/bundle", "newTag": "1"},
]


@dataclass(frozen=True)
class Case:
    """A directory of k8s/ with further components, as a user's own overlay would list them."""

    directory: str
    components: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "+".join([self.directory, *self.components])


def _has(overlay: str) -> set[str]:
    listed = yaml.safe_load((K8S / overlay / "kustomization.yaml").read_text()).get("components", [])
    return {Path(component).name for component in listed}


def _serving() -> Iterator[Case]:
    for overlay in ("overlays/dev", "overlays/production"):
        has = _has(overlay)
        autoscaled = has & {HPA, KEDA}
        further = [one for one in COMPONENTS if one not in has and not (one in {HPA, KEDA} and autoscaled)]
        yield Case(overlay)
        yield from (Case(overlay, (one,)) for one in further)
        for autoscaler in autoscaled or (HPA, KEDA):
            yield Case(overlay, tuple(one for one in further if one not in {HPA, KEDA} - {autoscaler}))


SERVING = list(_serving())
TRAINING = [
    *(Case(f"training/{directory}") for directory in ("job", "distributed", "trainjob", "retrain")),
    *(Case(f"training/{directory}", ("gpu",)) for directory in ("job", "distributed")),
]


class Rendered:
    """Objects that a case renders to."""

    def __init__(self, case: Case, objects: list[Object]) -> None:
        self.case = case
        self.objects = objects

    def of(self, kind: str) -> list[Object]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str, name: str | None = None) -> Object:
        (found,) = (one for one in self.of(kind) if name in {None, one["metadata"]["name"]})
        return found

    @property
    def pods(self) -> dict[str, Object]:
        """The pod template of each workload, by kind/name."""
        return {f"{one['kind']}/{one['metadata']['name']}": pod for one in self.objects for pod in _pods(one)}

    @property
    def containers(self) -> list[Object]:
        specs = [pod["spec"] for pod in self.pods.values()]
        return list(itertools.chain(*([*spec.get("initContainers", []), *spec["containers"]] for spec in specs)))


def _pods(workload: Object) -> list[Object]:
    match workload["kind"]:
        case "Deployment" | "Job":
            return [workload["spec"]["template"]]
        case "CronJob":
            return [workload["spec"]["jobTemplate"]["spec"]["template"]]
        case "TrainingRuntime":
            jobs = workload["spec"]["template"]["spec"]["replicatedJobs"]
            return [job["template"]["spec"]["template"] for job in jobs]
    return []


@pytest.fixture(scope="session")
def missing() -> Callable[[str], NoReturn]:
    """Skips for want of a program, but fails where every test has to run."""
    return programs.missing


@pytest.fixture(scope="session")
def render(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Rendered]:
    """Render a directory of k8s/ with further components.

    `more` holds the further fields of the user's overlay.
    """
    kubectl = programs.require("kubectl")

    def run(case: Case, more: Object) -> Rendered:
        directory = _overlay(case, more, tmp_path_factory) if case.components or more else K8S / case.directory
        command = [kubectl, "kustomize", str(directory)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{case}: {done.stderr[:500]}"
        # A field that kustomize calls deprecated is an error some versions later.
        assert not done.stderr, f"{case}: {done.stderr}"
        return Rendered(case, [one for one in yaml.safe_load_all(done.stdout) if one])

    @cache
    def once(case: Case) -> Rendered:
        return run(case, {})

    def rendered(directory: str, *components: str, more: Object | None = None) -> Rendered:
        case = Case(directory, components)
        # A copy, for tests take objects apart.
        return run(case, more) if more else copy.deepcopy(once(case))

    return rendered


def _overlay(case: Case, more: Object, directories: pytest.TempPathFactory) -> Path:
    """Write the directory's own kustomization with more components.

    It is written as a user would write it elsewhere.
    """
    directory, source = directories.mktemp("overlay"), K8S / case.directory
    user: Object = yaml.safe_load((source / "kustomization.yaml").read_text())
    components = [
        *(source / one for one in user.get("components", [])),
        *(K8S / "components" / one for one in case.components),
    ]
    if case.directory.startswith("training"):
        user = {"apiVersion": user["apiVersion"], "kind": user["kind"], "resources": ["."]}
    user["resources"] = [os.path.relpath(source / one, directory) for one in user["resources"]]
    user["components"] = [os.path.relpath(one, directory) for one in components]
    user["images"] = [*user.get("images", []), *IMAGES]
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(user | more))
    return directory


@pytest.fixture(params=SERVING, ids=str)
def serving(request: pytest.FixtureRequest, render: Callable[..., Rendered]) -> Rendered:
    """Each combination of an overlay and components."""
    return render(request.param.directory, *request.param.components)


@pytest.fixture(params=TRAINING, ids=str)
def training(request: pytest.FixtureRequest, render: Callable[..., Rendered]) -> Rendered:
    """Each way of training."""
    return render(request.param.directory, *request.param.components)


@pytest.fixture(params=[*SERVING, *TRAINING], ids=str)
def rendered(request: pytest.FixtureRequest, render: Callable[..., Rendered]) -> Rendered:
    """Everything."""
    return render(request.param.directory, *request.param.components)
