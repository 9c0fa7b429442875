"""OpenAPI page. BentoML's own shows one branch of each union, and errors that never occur."""

from collections.abc import Mapping
from typing import Any

from bentune.bundle.errors import REQUEST_ERRORS, ClientGone, Overloaded
from bentune.bundle.manifest import Manifest
from service.http.requests import PredictRequest, PredictResponse

JSON = "application/json"
SCHEMAS = "#/components/schemas/"
DESCRIBED_LABELS = 20


def description(manifest: Manifest) -> str:
    """Describe a model in one line: its name, task and first labels."""
    labels = ", ".join(manifest.labels[:DESCRIBED_LABELS])
    more = len(manifest.labels) - DESCRIBED_LABELS
    return f"{manifest.name}: {manifest.task}, labels {labels}{f' and {more} more' if more > 0 else ''}."


def corrected(spec: dict[str, Any], body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Complete the page `spec` in place, and return it.

    It gets all shapes of /predict, the errors of `bentune/bundle/errors.py`, and /info. `body` is the OpenAPI content
    of the bodies that /predict accepts besides JSON.
    """
    spec["openapi"] = "3.1.0"  # pydantic writes schemas of this version
    schemas: dict[str, Any] = {}
    for model in (PredictRequest, PredictResponse):
        schema = model.model_json_schema(ref_template=SCHEMAS + "{model}")
        schema.pop("root_input", None)  # a key of BentoML's own
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    schemas["Error"] = {
        "type": "object",
        "properties": {"error": {"type": "string"}, "error_type": {"type": "string"}},
        "required": ["error", "error_type"],
    }
    spec["components"] = {"schemas": schemas}
    predict = spec["paths"]["/predict"]["post"]
    content = _content("PredictRequest") | dict(body or {})
    predict["requestBody"] = {"required": True, "content": content}
    predict["responses"] = {
        "200": {"description": "Best label first", "content": _content("PredictResponse")}
    } | _errors()
    spec["paths"]["/info"] = {
        "get": {
            "description": "The model, its limits, its plan, and the headline of its evidence.",
            "responses": {"200": {"description": "A JSON object", "content": {JSON: {"schema": {"type": "object"}}}}},
        }
    }
    return spec


def _errors() -> dict[str, Any]:
    """Return one response for each status code of the errors.

    Errors of the same status are described together.
    """
    answers: dict[str, Any] = {}
    for error in REQUEST_ERRORS:
        if error is ClientGone:  # nobody is there to read it
            continue
        says = (error.__doc__ or "").split("\n")[0]
        answer = answers.setdefault(str(error.status), {"description": "", "content": _content("Error")})
        answer["description"] = f"{answer['description']} {says}".strip()
    answers[str(Overloaded.status)]["headers"] = {
        "Retry-After": {"description": "seconds until there should be room", "schema": {"type": "integer"}}
    }
    return dict(sorted(answers.items()))


def _content(schema: str) -> dict[str, Any]:
    return {JSON: {"schema": {"$ref": SCHEMAS + schema}}}
