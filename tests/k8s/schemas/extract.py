"""Writes the JSON schemas beside this file from packages of npm and PyPI: `python tests/k8s/schemas/extract.py`.

Needs node and the network; tests need neither. The types that the packages generate from the CRDs are turned into
schemas, without words, status and what no field reaches, and every object is closed: an unknown field is an error.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NPM = (
    "@kubernetes-models/argo-rollouts@2.0.0",
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
)
GENERATOR = "ts-json-schema-generator@2.4.0"
KUBEFLOW = "kubeflow-trainer-api==2.3.0"
# The kind, and the file of its interface in those packages.
TYPES = {
    "AnalysisTemplate": "argo-rollouts/argoproj.io/v1alpha1",
    "Rollout": "argo-rollouts/argoproj.io/v1alpha1",
    "HTTPRoute": "gateway-api/gateway.networking.k8s.io/v1",
    "ScaledObject": "keda/keda.sh/v1alpha1",
    "PrometheusRule": "prometheus-operator/monitoring.coreos.com/v1",
    "ServiceMonitor": "prometheus-operator/monitoring.coreos.com/v1",
}
# Kubernetes' own types inside of Kubeflow's are left open: kubernetes-validate knows them.
OPEN = "IoK8sApi"
STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {"name": {"type": "string"}, "namespace": {"type": "string"}, "labels": STRINGS, "annotations": STRINGS}

Schema = dict[str, Any]


def from_npm(work: Path) -> dict[str, Schema]:
    """A schema of each kind in TYPES."""
    subprocess.run(["npm", "install", "--silent", "--ignore-scripts", "--prefix", work, *NPM, GENERATOR], check=True)
    imports = [
        f'import {{ I{kind} }} from "@kubernetes-models/{path}/{kind}"; export type {kind} = I{kind};'
        for kind, path in TYPES.items()
    ]
    (work / "kinds.ts").write_text("\n".join(imports))
    options = {"module": "nodenext", "moduleResolution": "nodenext", "skipLibCheck": True, "strict": True}
    (work / "tsconfig.json").write_text(json.dumps({"compilerOptions": options, "files": ["kinds.ts"]}))
    program = [work / "node_modules/.bin/ts-json-schema-generator", "--no-type-check"]
    found = {}
    for kind in TYPES:
        command = [*program, "--tsconfig", "tsconfig.json", "--path", "kinds.ts", "--type", kind]
        text = subprocess.run(command, cwd=work, check=True, capture_output=True, text=True).stdout
        whole = json.loads(text)
        top = whole["definitions"][kind]
        while "$ref" in top:
            top = resolve(whole["definitions"], top["$ref"])
        found[kind] = wrapped(top["properties"], whole["definitions"])
    return found


def from_kubeflow(work: Path) -> dict[str, Schema]:
    """Schemas of TrainJob and of the TrainingRuntime that it names."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", work / "pip", KUBEFLOW]
    subprocess.run(pip, check=True)
    sys.path.insert(0, str(work / "pip"))
    from kubeflow_trainer_api import models

    found = {}
    for kind in ("TrainJob", "TrainingRuntime"):
        whole = getattr(models, f"TrainerV1alpha1{kind}").model_json_schema(by_alias=True)
        definitions = {name: {} if name.startswith(OPEN) else one for name, one in whole["$defs"].items()}
        properties = whole["properties"] | {
            "apiVersion": {"const": "trainer.kubeflow.org/v1alpha1"},
            "kind": {"const": kind},
        }
        found[kind] = wrapped(properties, definitions)
    return found


def wrapped(properties: Schema, definitions: Schema) -> Schema:
    """The schema of an object with these fields, as Kubernetes reads it."""
    metadata = {"type": "object", "properties": METADATA, "required": ["name"], "additionalProperties": False}
    fields = {name: tidy(properties[name]) for name in ("apiVersion", "kind", "spec")}
    # Inline, so that a reader finds it at the top.
    while "$ref" in fields["spec"]:
        fields["spec"] = tidy(resolve(definitions, fields["spec"]["$ref"]))
    reached: Schema = {}
    reach(fields["spec"], definitions, reached)
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": fields | {"metadata": metadata},
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "additionalProperties": False,
        "definitions": dict(sorted(reached.items())),
    }


def reach(part: Any, definitions: Schema, reached: Schema) -> None:
    """Collect the definitions that `part` refers to, directly or through others."""
    if isinstance(part, list):
        for one in part:
            reach(one, definitions, reached)
    elif isinstance(part, dict):
        if "$ref" in part:
            name = part["$ref"].rpartition("/")[2]
            if name not in reached:
                reached[name] = tidy(resolve(definitions, part["$ref"]))
                reach(reached[name], definitions, reached)
        for one in part.values():
            reach(one, definitions, reached)


def resolve(definitions: Schema, reference: str) -> Schema:
    found: Schema = definitions[reference.rpartition("/")[2]]
    return found


def tidy(part: Any) -> Any:
    """Without words and nulls, in one dialect, and closed."""
    if isinstance(part, list):
        return [tidy(one) for one in part]
    if not isinstance(part, dict):
        return part
    if "anyOf" in part:
        options = [one for one in part["anyOf"] if one != {"type": "null"}]
        if len(options) == 1:
            return tidy(options[0])
        part = part | {"anyOf": options}
    kept = {key: value for key, value in part.items() if key not in {"description", "title", "default"}}
    if "properties" in kept:
        kept["properties"] = {name: tidy(one) for name, one in kept["properties"].items()}
        kept["additionalProperties"] = False
    for key in kept.keys() - {"properties", "required", "enum", "const"}:
        kept[key] = tidy(kept[key])
    if "$ref" in kept:
        return {"$ref": f"#/definitions/{kept['$ref'].rpartition('/')[2]}"}
    return kept


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        for kind, schema in (from_npm(Path(directory)) | from_kubeflow(Path(directory))).items():
            (HERE / f"{kind}.json").write_text(json.dumps(schema, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
