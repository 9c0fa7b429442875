"""Starts a built Bento, sends held-out rows over HTTP, and reads /info and /metrics: proof that it serves."""

from typing import Any, Protocol

import httpx
from rich.table import Table

from rollout.server import running
from rollout.store import find_bento, find_bundle
from service.contract import Bundle, GoldenRow
from service.errors import BentuneError

SHOWN_METRICS = (
    "bentune_model_info",
    "bentune_predictions_total",
    "bentune_request_queue_seconds_count",
    "bentune_batch_tokens_sum",
    "bentune_inference_seconds_sum",
)
SHOWN_CHARACTERS = 60


class Report(Protocol):
    """Where the lines for people go."""

    def say(self, renderable: Any) -> None:
        """Print a line or a table."""


def smoke(tag: str, rows: int, report: Report) -> dict[str, Any]:
    """Classify the first golden rows of the Bento's bundle over HTTP.

    Returns the answers, /info, and the metrics that were shown. Raises BentuneError when an answer is not the
    expected label.
    """
    bento = find_bento(tag)
    bundle = find_bundle(str(bento.info.all_models[0].tag))
    golden = bundle.golden[:rows]
    with running(str(bento.tag)) as url, httpx.Client(base_url=url, timeout=30) as client:
        report.say(f"[green]✓[/] {bento.tag} is ready at {url}")
        answers = [_classify(client, row) for row in golden]
        info = _get(client, "/info").json()
        metrics = [line for line in _get(client, "/metrics").text.splitlines() if line.startswith(SHOWN_METRICS)]
    report.say(_answers_table(golden, answers))
    report.say(_headline(bundle, info))
    for line in metrics:
        report.say(line)
    wrong = [row.label for row, answer in zip(golden, answers, strict=True) if answer["label"] != row.label]
    if wrong:
        raise BentuneError(f"{bento.tag}: {len(wrong)} of {len(golden)} rows got another label than {wrong[0]!r}")
    report.say(f"[green]✓[/] stopped. Serve it again: bentune serve {bento.tag}")
    return {"bento": str(bento.tag), "answers": answers, "info": info, "metrics": metrics}


def _classify(client: httpx.Client, row: GoldenRow) -> dict[str, Any]:
    inputs: Any = row.text if row.text_pair is None else [row.text, row.text_pair]
    response = client.post("/predict", json={"inputs": inputs, "truncate": True, "top_k": 1})
    if response.status_code != httpx.codes.OK:
        raise BentuneError(f"/predict answered {response.status_code}: {response.text[:500]}")
    answer: dict[str, Any] = response.json()[0]
    return answer


def _get(client: httpx.Client, path: str) -> httpx.Response:
    response = client.get(path)
    if response.status_code != httpx.codes.OK:
        raise BentuneError(f"{path} answered {response.status_code}: {response.text[:500]}")
    return response


def _answers_table(golden: list[GoldenRow], answers: list[dict[str, Any]]) -> Table:
    table = Table("held-out text", "predicted", "score", "expected", title="POST /predict")
    for row, answer in zip(golden, answers, strict=True):
        text = " ".join(row.text.split())[:SHOWN_CHARACTERS]
        table.add_row(text, answer["label"], f"{answer['score']:.3f}", row.label)
    return table


def _headline(bundle: Bundle, info: dict[str, Any]) -> Table:
    table = Table(show_header=False, title="GET /info")
    table.add_row("model", f"{info['name']} {info['version']}  sha256 {info['digest'][:12]}")
    table.add_row("labels", ", ".join(info["labels"]))
    for key, value in info["evidence"].items():
        table.add_row(key, str(value))
    table.add_row(
        "golden rows", f"{info['golden']['rows']}, largest difference {info['golden']['largest_difference']:.1e}"
    )
    table.add_row("base model", bundle.manifest.base_model.source)
    return table
