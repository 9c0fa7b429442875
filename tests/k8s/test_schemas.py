"""Every rendered object is valid on the oldest and on the newest Kubernetes that we name; an unknown field is not."""

import copy
import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest

SCHEMAS = Path(__file__).parent / "schemas"
VERSIONS = ("1.29", "1.36")
# Groups that Kubernetes itself does not have; the schemas of their kinds are beside this file.
FOREIGN = {"monitoring.coreos.com", "keda.sh", "gateway.networking.k8s.io", "trainer.kubeflow.org", "argoproj.io"}


@cache
def schema(kind: str) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads((SCHEMAS / f"{kind}.json").read_text()))


@cache
def problems(text: str) -> tuple[str, ...]:
    """Return the problems of an object in JSON.

    They are cached, because the same object is in many renderings.
    """
    one = json.loads(text)
    if one["apiVersion"].partition("/")[0] in FOREIGN:
        return tuple(error.message for error in schema(one["kind"]).iter_errors(one))
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(one, version, strict=True)
        except (kubernetes_validate.ValidationError, kubernetes_validate.SchemaNotFoundError) as error:
            found.append(f"{version}: {error}")
    return tuple(found)


def test_every_object_is_valid(rendered: Any) -> None:
    assert rendered.objects
    for one in rendered.objects:
        assert not problems(json.dumps(one)), one["metadata"]["name"]


def test_the_pods_inside_of_foreign_objects_are_valid(training: Any) -> None:
    for name, pod in training.pods.items():
        template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": pod}
        assert not problems(json.dumps(template)), name
        pod["spec"]["containers"][0]["imagePulPolicy"] = "Never"
        assert problems(json.dumps(template))


def test_no_object_is_there_twice(rendered: Any) -> None:
    names = [(one["apiVersion"], one["kind"], one["metadata"]["name"]) for one in rendered.objects]
    assert len(names) == len(set(names))


def test_a_misspelt_field_of_any_object_is_found(rendered: Any) -> None:
    for one in rendered.objects:
        wrong = copy.deepcopy(one)
        (wrong.get("spec") or wrong)["replcas"] = 1
        assert problems(json.dumps(wrong)), one["kind"]


@pytest.mark.parametrize("path", sorted(SCHEMAS.glob("*.json")), ids=lambda path: path.stem)
def test_every_vendored_schema_is_a_schema_and_allows_nothing_unknown(path: Path) -> None:
    content = json.loads(path.read_text())
    jsonschema.Draft7Validator.check_schema(content)
    assert content["additionalProperties"] is False
    assert content["properties"]["spec"]["additionalProperties"] is False


def test_the_schemas_name_where_they_are_from() -> None:
    readme, script = (SCHEMAS / "README.md").read_text(), (SCHEMAS / "extract.py").read_text()
    packages = re.findall(r'"(@kubernetes-models/[^"]+@[^"]+|kubeflow[^"]+==[^"]+)"', script)
    assert len(packages) == 5
    assert all(f"`{name}`" in readme for name in packages)
    assert all(f"`{path.name}`" in readme for path in SCHEMAS.glob("*.json"))


def test_a_program_that_is_missing_skips_here_and_fails_where_everything_must_run(
    missing: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="kubectl is not installed"):
        missing("kubectl")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="kubectl is not installed"):
        missing("kubectl")
