"""Kustomize patches of a sizing for k8s/base and its autoscaler, one file an object."""

import math
from pathlib import Path
from typing import Any

import yaml

from bentune.bundle.files import write_text
from rollout.capacity.autoscaler import Rules, Scaling
from rollout.capacity.sizing import Sizing

NAME = "bentune"
CONTAINER = "model"
DEPLOYMENT_FILE = "capacity-deployment.yaml"
HPA, KEDA = "hpa", "keda"
PROMETHEUS = "http://prometheus-operated.monitoring:9090"
"""Same as in the component: a patch replaces the whole list of triggers."""
FAILURES = 3


def write_patches(directory: Path, sizing: Sizing, because: str, scaler: str = HPA) -> list[Path]:
    """Write both patches into `directory`, each atomically.

    `because` becomes the comment at the top of each file, and `scaler` is HPA or KEDA.
    """
    written = []
    scaled = {HPA: autoscaler, KEDA: scaled_object}[scaler](sizing)
    for name, patch in ((DEPLOYMENT_FILE, deployment(sizing)), (f"capacity-{scaler}.yaml", scaled)):
        comment = f"# Written by `bentune capacity`: {' '.join(because.split())}\n"
        write_text(directory / name, comment + yaml.safe_dump(patch, sort_keys=False))
        written.append(directory / name)
    return written


def deployment(sizing: Sizing) -> dict[str, Any]:
    """Build the Deployment's patch: resources and grace period.

    It has no `replicas`: each apply would reset the autoscaler's number.
    """
    amounts = {"cpu": quantity(sizing.resources.cpu)}
    if sizing.resources.memory is not None:
        amounts["memory"] = sizing.resources.memory
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "template": {
                "spec": {
                    "terminationGracePeriodSeconds": sizing.shutdown.grace_period_s,
                    "containers": [
                        {"name": CONTAINER, "resources": {"requests": dict(amounts), "limits": dict(amounts)}}
                    ],
                }
            }
        },
    }


def autoscaler(sizing: Sizing) -> dict[str, Any]:
    """Build the HorizontalPodAutoscaler's patch, defaults included, as simulated."""
    scaling = sizing.scaling
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": NAME},
        "spec": {
            "minReplicas": scaling.min_replicas,
            "maxReplicas": scaling.max_replicas,
            "metrics": [
                {
                    "type": "Pods",
                    "pods": {
                        "metric": {"name": target.metric},
                        "target": {"type": "AverageValue", "averageValue": quantity(target.mean)},
                    },
                }
                for target in scaling.targets
            ],
            "behavior": {"scaleUp": _rules(scaling.up), "scaleDown": _rules(scaling.down)},
        },
    }


def scaled_object(sizing: Sizing) -> dict[str, Any]:
    """Build the ScaledObject's patch for KEDA.

    KEDA divides Prometheus's sum over all pods by the threshold. Without Prometheus it keeps the pods of the peak. An
    empty result is an error, not a zero, as the component explains.
    """
    scaling = sizing.scaling
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": NAME},
        "spec": {
            "minReplicaCount": scaling.min_replicas,
            "maxReplicaCount": scaling.max_replicas,
            "fallback": {"failureThreshold": FAILURES, "replicas": _within(sizing.replicas_at_peak, scaling)},
            "advanced": {
                "horizontalPodAutoscalerConfig": {
                    "behavior": {"scaleUp": _rules(scaling.up), "scaleDown": _rules(scaling.down)}
                }
            },
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": PROMETHEUS,
                        "query": trigger.query,
                        "threshold": f"{trigger.threshold:g}",
                        "ignoreNullValues": "false",
                    },
                }
                for trigger in sizing.keda
            ],
        },
    }


def _within(pods: int, scaling: Scaling) -> int:
    return min(max(pods, scaling.min_replicas), scaling.max_replicas)


def quantity(value: float) -> str:
    """Format a number as Kubernetes does: whole or in thousandths, rounded up."""
    milli = math.ceil(round(value * 1000, 6))
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def _rules(rules: Rules) -> dict[str, Any]:
    return {
        "stabilizationWindowSeconds": rules.stabilization_s,
        "selectPolicy": rules.select,
        "policies": [
            {"type": policy.kind, "value": policy.value, "periodSeconds": policy.period_s} for policy in rules.policies
        ],
    }
