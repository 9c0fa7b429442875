"""The patches name the objects of k8s/, hold the sizing's numbers as Kubernetes writes them, and are written whole."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from measured import capacity

from rollout.capacity import patch as kustomize_patch
from rollout.capacity.patch import autoscaler, deployment, quantity, scaled_object, write_patches
from rollout.capacity.sizing import Sizing, size
from rollout.capacity.traffic import built_in
from rollout.load.slo import parse_objective
from service.settings import Settings

K8S = Path(__file__).parents[3] / "k8s"


def sizing(memory: str | None = None) -> Sizing:
    return size(
        capacity(slots=2),
        parse_objective("p99=200ms"),
        built_in("daily", 500),
        peak=500,
        settings=Settings(),
        memory=memory,
    )


def test_the_numbers_of_the_sizing() -> None:
    spec = deployment(sizing("2Gi"))["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 65
    amounts = {"cpu": "2", "memory": "2Gi"}
    assert spec["containers"] == [{"name": "model", "resources": {"requests": amounts, "limits": amounts}}]
    assert "replicas" not in deployment(sizing())["spec"]
    spec = autoscaler(sizing())["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)
    assert [metric["pods"] for metric in spec["metrics"]] == [
        {"metric": {"name": "bentune_slots_busy_avg"}, "target": {"type": "AverageValue", "averageValue": "1232m"}},
        {"metric": {"name": "bentune_queue_requests_avg"}, "target": {"type": "AverageValue", "averageValue": "12"}},
    ]
    # The defaults of autoscaling/v2.
    assert spec["behavior"]["scaleUp"] == {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    }
    assert spec["behavior"]["scaleDown"] == {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}],
    }


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        (deployment(sizing()), "base/deployment.yaml"),
        (autoscaler(sizing()), "components/autoscale-hpa/hpa.yaml"),
        (scaled_object(sizing()), "components/autoscale-keda/scaledobject.yaml"),
    ],
)
def test_the_objects_are_there(patch: dict[str, object], path: str) -> None:
    theirs = yaml.safe_load((K8S / path).read_text())
    assert (patch["apiVersion"], patch["kind"]) == (theirs["apiVersion"], theirs["kind"])
    assert patch["metadata"]["name"] == theirs["metadata"]["name"]  # type: ignore[index]


def test_the_container_is_there() -> None:
    theirs = yaml.safe_load((K8S / "base/deployment.yaml").read_text())["spec"]["template"]["spec"]["containers"]
    assert kustomize_patch.CONTAINER in [container["name"] for container in theirs]


def rendered(tmp_path: Path, scaler: str) -> dict[str, Any]:
    """The base with the real component and both patches, by kind."""
    shutil.copytree(K8S / "base", tmp_path / "base")
    shutil.copytree(K8S / f"components/autoscale-{scaler}", tmp_path / scaler)
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    patches = [{"path": path.name} for path in write_patches(overlay, sizing("2Gi"), "a test", scaler)]
    (overlay / "kustomization.yaml").write_text(
        yaml.safe_dump({"resources": ["../base"], "components": [f"../{scaler}"], "patches": patches})
    )
    done = subprocess.run(["kubectl", "kustomize", str(overlay)], capture_output=True, text=True, check=True)
    return {each["kind"]: each for each in yaml.safe_load_all(done.stdout)}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_takes_them_for_keda(tmp_path: Path) -> None:
    """A trigger of CPU would add pods that nobody sized.

    The two triggers that were simulated are all.
    """
    theirs = yaml.safe_load((K8S / "components/autoscale-keda/scaledobject.yaml").read_text())["spec"]
    found = rendered(tmp_path, "keda")
    assert "HorizontalPodAutoscaler" not in found
    scaler = found["ScaledObject"]["spec"]
    assert scaler["scaleTargetRef"] == theirs["scaleTargetRef"]
    assert (scaler["minReplicaCount"], scaler["maxReplicaCount"]) == (2, 9)
    assert scaler["fallback"] == {"failureThreshold": 3, "replicas": 9}
    assert scaler["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == autoscaler(sizing())["spec"]["behavior"]
    address = theirs["triggers"][1]["metadata"]["serverAddress"]
    assert [(one["type"], one["metadata"]) for one in scaler["triggers"]] == [
        ("prometheus", {"serverAddress": address, "query": query, "threshold": threshold, "ignoreNullValues": "false"})
        for query, threshold in [
            ("sum(avg_over_time(bentune_slots_busy[1m]))", "1.232"),
            ("sum(avg_over_time(bentune_queue_requests[1m]))", "12"),
        ]
    ]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_takes_them(tmp_path: Path) -> None:
    found = rendered(tmp_path, "hpa")
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert scaler["behavior"] == autoscaler(sizing())["spec"]["behavior"]
    assert scaler["metrics"] == autoscaler(sizing())["spec"]["metrics"]
    (container,) = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"cpu": "2", "memory": "2Gi"}
    assert container["image"]


def test_files_are_written_whole_and_again(tmp_path: Path) -> None:
    for because in ("a reason\nof two: lines", "another"):
        written = write_patches(tmp_path, sizing(), because)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["capacity-deployment.yaml", "capacity-hpa.yaml"]
    assert [yaml.safe_load(path.read_text()) for path in written] == [deployment(sizing()), autoscaler(sizing())]
    assert written[0].read_text().startswith("# Written by `bentune capacity`: another\n")


def test_a_comment_stays_in_its_line(tmp_path: Path) -> None:
    written = write_patches(tmp_path, sizing(), "a reason\nkind: Secret")
    assert yaml.safe_load(written[0].read_text())["kind"] == "Deployment"


@given(milli=st.integers(1, 10**9))
def test_quantities(milli: int) -> None:
    text = quantity(milli / 1000)
    assert (int(text[:-1]) if text.endswith("m") else int(text) * 1000) == milli
    assert text.endswith("m") is (milli % 1000 != 0)
