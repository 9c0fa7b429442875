"""The tiny Bento over real HTTP: every shape, every refusal, and what it shows of itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bentune.bundle.errors import REQUEST_ERRORS
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.plan import scores_key
from service.engine.runtime import REASONS, choose

LONG = "cat " * 30  # the tiny model takes 24 tokens
TEXTS = ["a cat near the dog", "bread and cheese", "some hammer"]


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def labels_of(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return [[p["label"] for p in one] if isinstance(one, list) else one["label"] for one in answer.json()]


# Answers.


def test_golden_rows_get_the_scores_of_the_bundle(server: Any, bundle: Bundle) -> None:
    key = scores_key(bundle.plan.variant, bundle.plan.provider)
    for row in bundle.golden:
        answer = server.predict(row.text, truncate=True)
        assert answer.headers["content-type"] == "application/json"
        got = {p["label"]: p["score"] for p in answer.json()}
        assert got == pytest.approx(dict(zip(bundle.manifest.labels, row.scores[key], strict=True)), abs=1e-4)


def test_one_text_gets_a_list_and_a_list_gets_a_list_of_lists(server: Any) -> None:
    alone = [server.predict(text).json() for text in TEXTS]
    assert [answer[0]["label"] for answer in alone] == ["animal", "food", "tool"]
    assert all(set(p) == {"label", "score"} for p in alone[0])
    for inputs in (TEXTS, [[text] for text in TEXTS]):
        together = server.predict(inputs).json()
        for one, other in zip(together, alone, strict=True):
            assert {p["label"]: p["score"] for p in one} == pytest.approx(
                {p["label"]: p["score"] for p in other}, abs=1e-5
            )
    assert [len(one) for one in labels_of(server.predict(TEXTS[:1]))] == [3], "a list of one is a list"


def test_truncate(server: Any) -> None:
    assert server.predict(LONG).status_code == 413
    assert server.predict(LONG, truncate=True).json() == server.predict("cat " * 40, truncate=True).json()


def test_raw_scores_and_top_k(server: Any) -> None:
    scores = [p["score"] for p in server.predict(TEXTS[0]).json()]
    raw = [p["score"] for p in server.predict(TEXTS[0], raw_scores=True).json()]
    assert sum(scores) == pytest.approx(1, abs=1e-5)
    assert raw == sorted(raw, reverse=True)
    assert abs(sum(raw) - 1) > 1e-3
    assert (
        server.predict(TEXTS[0], raw_scores=True, top_k=2).json()
        == server.predict(TEXTS[0], raw_scores=True).json()[:2]
    )
    assert [len(one) for one in server.predict(TEXTS, top_k=1).json()] == [1, 1, 1]


def test_the_content_type_does_not_matter(server: Any) -> None:
    for content_type in ("application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", ""):
        sent = server.client.post("/predict", content=b'{"inputs": "a cat"}', headers={"content-type": content_type})
        assert labels_of(sent)[0] == "animal"


def test_unknown_keys_are_ignored_as_text_embeddings_inference_does(server: Any) -> None:
    assert labels_of(server.predict("a cat", truncation_direction="Right", prompt_name=None))[0] == "animal"


# Refusals.

REFUSED = {
    "no inputs": ({"truncate": True}, 422, "`inputs` is missing"),
    "an empty list": ({"inputs": []}, 422, "`inputs` must not be an empty list"),
    "an empty text": ({"inputs": ""}, 422, "`inputs` must not be empty"),
    "an empty text in a list": ({"inputs": ["a", ""]}, 422, "`inputs.1` must not be empty"),
    "a number in a list": ({"inputs": ["a", "b", "c", 3]}, 422, "`inputs.3`: `inputs` must be a text"),
    "a pair": ({"inputs": [["a"], ["b", "c"]]}, 422, "`inputs.1`: this model takes a single text"),
    "top_k 0": ({"inputs": "a", "top_k": 0}, 422, "`top_k`: "),
    "truncate as text": ({"inputs": "a", "truncate": "yes"}, 422, "`truncate`: "),
    "a list as body": (["a"], 422, "the body must be a JSON object with `inputs`"),
    "too many inputs": ({"inputs": ["a"] * 9}, 413, "`inputs` must have at most 8 entries, this one has 9"),
    "too many tokens": ({"inputs": ["a", LONG]}, 413, "`inputs.1` must have at most 24 tokens, this one has 32"),
    "too many bytes": ({"inputs": "a" * 20_000}, 413, "the body has more than 16384 bytes"),
}


def assert_refused(answer: httpx.Response, status: int, message: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert set(content) == {"error", "error_type"}
    assert content["error_type"] == "Validation"
    assert content["error"].startswith(message)


@pytest.mark.parametrize(("content", "status", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_request_is_refused_and_the_field_named(server: Any, content: Any, status: int, message: str) -> None:
    assert_refused(server.client.post("/predict", json=content), status, message)


@pytest.mark.parametrize("content", [b"", b"{", b'{"inputs": "\xff"}', b"[" * 10_000])
def test_what_is_not_json_is_refused(server: Any, content: bytes) -> None:
    assert_refused(server.client.post("/predict", content=content), 422, "the body is not JSON")


def test_a_body_without_a_declared_length_is_bounded_too(server: Any) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"inputs": "'
        for _ in range(20):
            yield b"a" * 1000
        yield b'"}'

    sent = server.client.build_request("POST", "/predict", content=pieces())
    assert sent.headers["transfer-encoding"] == "chunked"
    assert_refused(server.client.send(sent), 413, "the body has more than 16384 bytes")


def test_a_small_body_without_a_declared_length_is_answered(server: Any) -> None:
    answer = server.client.post("/predict", content=iter([b'{"inputs"', b': "a cat"}']))
    assert labels_of(answer)[0] == "animal"


def test_a_refused_connection_goes_on(server: Any) -> None:
    with httpx.Client(base_url=server.url, limits=httpx.Limits(max_connections=1), timeout=20) as client:
        for _ in range(3):
            assert client.post("/predict", json={"inputs": "a" * 20_000}).status_code == 413
            assert client.post("/predict", json={"inputs": "a cat"}).status_code == 200


def test_a_deadline_that_is_no_number_names_the_header(server: Any) -> None:
    assert_refused(server.predict("a", headers={"X-Request-Timeout-Ms": "soon"}), 422, "`x-request-timeout-ms`")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("POST", "/info", 405),
        ("POST", "/predict/extra", 404),
        ("GET", "/nowhere", 404),
        ("GET", "/../etc/passwd", 404),
    ],
)
def test_other_paths_and_methods(server: Any, method: str, path: str, status: int) -> None:
    assert server.client.request(method, path).status_code == status


# Probes, information, metrics, documentation and the log.


def test_probes(server: Any) -> None:
    assert [server.client.get(path).status_code for path in ("/livez", "/readyz", "/healthz")] == [200, 200, 200]


def test_info(server: Any, bundle: Bundle) -> None:
    info = server.client.get("/info").json()
    assert (info["name"], info["version"]) == ("handmade", bundle.manifest.version)
    assert (info["digest"], info["model_sha"]) == (bundle.digest, bundle.digest)
    assert (info["ready"], info["labels"], info["inputs"]) == (True, ["animal", "food", "tool"], "text")
    assert info["limits"] == {
        "max_tokens": 24,
        "max_inputs": 8,
        "max_body_bytes": 16384,
        "request_timeout_ms": 20000,
        "queue_inputs": 1024,
        "queue_tokens": 131072,
    }
    assert (info["golden"]["rows"], info["golden"]["failed"]) == (12, 0)
    assert info["evidence"]["accuracy"]["value"] == bundle.evidence()["evaluation"]["tuned"]["accuracy"]["value"]
    assert set(info["evidence"]["parity"]) == {hop["hop"] for hop in bundle.evidence()["parity"]["hops"]}
    runtime, _ = choose(bundle.plan, describe(), [bundle.plan.provider])
    assert info["plan"] == {
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
        "slots": runtime.slots,
        "threads": runtime.threads,
        "token_budget": runtime.token_budget,
        "padding_bound": bundle.plan.padding_bound,
        "measured_on": describe().model_dump(mode="json"),
        "fallbacks": {},
    }
    assert info["max_batch_tokens"] == runtime.token_budget


def test_metrics_move_with_what_they_count(server: Any, bundle: Bundle) -> None:
    def read() -> dict[str, float]:
        return {
            "animal": server.metric("bentune_predictions_total", label="animal"),
            "food": server.metric("bentune_predictions_total", label="food"),
            "confidence": server.metric("bentune_confidence_count"),
            "truncated": server.metric("bentune_truncated_total"),
            "tokenized": server.metric("bentune_encode_seconds_count"),
            "queued": server.metric("bentune_request_queue_seconds_count"),
            "batched": server.metric("bentune_batch_requests_sum"),
            "padded": server.metric("bentune_batch_tokens_sum"),
            "invalid": server.metric("bentune_rejected_total", reason="invalid"),
            "too_large": server.metric("bentune_rejected_total", reason="too_large"),
        }

    before = read()
    assert server.predict(["a cat", "the dog", LONG], truncate=True).status_code == 200
    assert server.predict(LONG).status_code == 413
    assert server.predict(3).status_code == 422
    moved = {name: value - before[name] for name, value in read().items()}
    padded = moved.pop("padded")
    assert moved == {
        "animal": 3,
        "food": 0,
        "confidence": 3,
        "truncated": 1,
        "tokenized": 1,
        "queued": 3,
        "batched": 3,
        "invalid": 1,
        "too_large": 1,
    }
    assert padded >= 4 + 4 + 24
    batches = server.metric("bentune_batch_requests_count")
    for name in ("inference_seconds", "batch_tokens", "batch_padding_ratio"):
        assert server.metric(f"bentune_{name}_count") == batches
    for gauge in ("queue_requests", "queue_tokens", "slots_busy"):
        assert server.metric(f"bentune_{gauge}") == 0
    named = {"name": "handmade", "version": bundle.manifest.version, "digest": bundle.digest}
    assert server.metric("bentune_model_info", **named) == 1


def test_every_reason_and_label_is_on_the_page_from_the_start(server: Any) -> None:
    page = server.client.get("/metrics").text
    reasons = set(re.findall(r'bentune_rejected_total\{reason="(\w+)"\}', page))
    assert reasons == {error.reason for error in REQUEST_ERRORS}
    assert set(re.findall(r'bentune_predictions_total\{label="(\w+)"\}', page)) == {"animal", "food", "tool"}
    fallbacks = dict(re.findall(r'bentune_plan_fallback\{reason="(\w+)"\} (\S+)', page))
    assert fallbacks == dict.fromkeys(REASONS, "0.0"), "it runs as planned"


def test_the_documentation_shows_every_shape_and_every_error(server: Any) -> None:
    page = server.client.get("/docs.json")
    assert len(page.content) < 10_000
    spec = page.json()
    assert spec["info"]["description"] == "handmade: text-classification, labels animal, food, tool."
    schemas = spec["components"]["schemas"]
    predict = spec["paths"]["/predict"]["post"]
    request = resolve(spec, predict["requestBody"]["content"]["application/json"]["schema"])
    assert set(request["properties"]) == {"inputs", "truncate", "raw_scores", "top_k"}
    assert all(field["description"] for field in request["properties"].values())
    assert request["required"] == ["inputs"]
    shapes = request["properties"]["inputs"]["anyOf"]
    assert shapes[:2] == [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
    assert (shapes[2]["items"]["minItems"], shapes[2]["items"]["maxItems"]) == (1, 2)
    answer = resolve(spec, predict["responses"]["200"]["content"]["application/json"]["schema"])
    assert len(answer["anyOf"]) == 2
    assert set(resolve(spec, answer["anyOf"][0]["items"])["properties"]) == {"score", "label"}
    statuses = {str(error.status) for error in REQUEST_ERRORS} - {"499"}
    assert set(predict["responses"]) == statuses | {"200"}
    for status in statuses:
        error = resolve(spec, predict["responses"][status]["content"]["application/json"]["schema"])
        assert error["required"] == ["error", "error_type"]
    assert "Retry-After" in predict["responses"]["429"]["headers"]
    assert {"/info", "/predict", "/livez", "/readyz", "/metrics"} <= set(spec["paths"])
    references = set(re.findall(r'"\$ref": ?"#/components/schemas/(\w+)"', json.dumps(spec)))
    assert references == set(schemas)


def resolve(spec: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def test_users_text_is_never_in_the_log(server: Any) -> None:
    secret = "Xq7SECRETq7X"
    bodies: list[bytes] = [
        json.dumps(content).encode()
        for content in (
            {"inputs": f"a cat {secret}"},
            {"inputs": [f"a cat {secret}"] * 8},
            {"inputs": [[secret, secret]]},
            {"inputs": {secret: secret}},
            {"inputs": [secret, 3]},
            {"inputs": secret, "truncate": secret},
            {"inputs": secret, "top_k": secret, secret: secret},
            {"inputs": secret * 2000},
            {"inputs": f"{secret} " * 40},
            [secret],
            secret,
        )
    ]
    bodies += [f'{{"inputs": "{secret}'.encode(), secret.encode(), f'{{"inputs": "{secret}\\ud800"}}'.encode()]
    before = server.printed().count("path=/predict")
    types = ("application/json", "multipart/form-data; boundary=x", "application/vnd.bentoml+pickle")
    for content in bodies:
        for content_type in types:
            answer = server.client.post("/predict", content=content, headers={"content-type": content_type})
            assert answer.status_code in (200, 413, 415, 422)
            assert secret not in answer.text
    server.until(
        lambda: server.printed().count("path=/predict") >= before + len(bodies) * len(types), "all lines are printed"
    )
    assert secret not in server.printed()
