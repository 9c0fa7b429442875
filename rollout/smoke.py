"""Smoke test of a built Bento: test rows over HTTP, /info and /metrics."""

from typing import Any, Protocol

import httpx
import numpy as np
from rich.table import Table

from bentune.bundle.errors import BentuneError
from bentune.bundle.manifest import Bundle, GoldenRow
from bentune.bundle.plan import scores_key
from bentune.bundle.store import find_bento, find_bundle
from bentune.bundle.targets.target import Prediction, Target
from rollout.server.server import running

SHOWN_METRICS = (
    "bentune_model_info",
    "bentune_predictions_total",
    "bentune_request_queue_seconds_count",
    "bentune_batch_tokens_sum",
    "bentune_inference_seconds_sum",
)
SHOWN_CHARACTERS = 60


class LineReporter(Protocol):
    """Output of lines for people."""

    def say(self, renderable: Any) -> None:
        """Print a line or a table."""


def smoke(tag: str, rows: int, report: LineReporter) -> dict[str, Any]:
    """Start the Bento and send it the first golden rows of its bundle.

    Returns the answers, /info and the metrics shown. Raises BentuneError when a score is not the expected one.
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
    key = scores_key(info["plan"]["variant"], info["plan"]["provider"])
    target = bundle.manifest.target
    wrong = [n for n, row in enumerate(golden) if not _as_expected(row, answers[n], target, key)]
    if wrong:
        raise BentuneError(f"{bento.tag}: the golden rows {wrong} got other scores over HTTP than the bundle holds")
    report.say(f"[green]✓[/] stopped. Serve it again: bentune serve {bento.tag}")
    return {"bento": str(bento.tag), "answers": answers, "info": info, "metrics": metrics}


def _classify(client: httpx.Client, row: GoldenRow) -> list[Prediction]:
    inputs: Any = row.text if row.text_pair is None else [row.text, row.text_pair]
    response = client.post("/predict", json={"inputs": inputs, "truncate": True})
    if response.status_code != httpx.codes.OK:
        raise BentuneError(f"/predict answered {response.status_code}: {response.text[:500]}")
    answer: list[Prediction] = response.json()
    return answer


def _as_expected(row: GoldenRow, answer: list[Prediction], target: Target, key: str) -> bool:
    try:
        scores = target.read([answer])[0]
    except ValueError:
        return False
    return target.distance(scores, np.asarray(row.scores[key])) <= row.tolerance


def _get(client: httpx.Client, path: str) -> httpx.Response:
    response = client.get(path)
    if response.status_code != httpx.codes.OK:
        raise BentuneError(f"{path} answered {response.status_code}: {response.text[:500]}")
    return response


def _answers_table(golden: list[GoldenRow], answers: list[list[Prediction]]) -> Table:
    table = Table("test text", "predicted", "score", "expected", title="POST /predict")
    for row, answer in zip(golden, answers, strict=True):
        text = "an image" if row.text.startswith("data:image/") else " ".join(row.text.split())[:SHOWN_CHARACTERS]
        table.add_row(text, answer[0]["label"], f"{answer[0]['score']:.3f}", row.label)
    return table


def _headline(bundle: Bundle, info: dict[str, Any]) -> Table:
    table = Table(show_header=False, title="GET /info")
    table.add_row("model", f"{info['name']} {info['version']}  sha256 {info['digest'][:12]}")
    table.add_row("labels", ", ".join(info["labels"]))
    evidence = info["evidence"]
    for key, value in evidence.items():
        if not isinstance(value, dict) or "value" not in value:
            continue
        table.add_row(key.replace("_", " "), f"{value['value']:.3f}  [{value['low']:.3f}, {value['high']:.3f}]")
    for hop, found in evidence["parity"].items():
        flips = f"{found['label_flips']} label flips"
        table.add_row(f"hop {hop}", f"largest logit difference {found['largest_difference']:.1e}, {flips}")
    plan = info["plan"]
    table.add_row(
        "runs as", f"{plan['variant']} on {plan['provider']}, {plan['slots']} slots of {plan['threads']} cores"
    )
    for reason, message in plan["fallbacks"].items():
        table.add_row(f"not as planned: {reason}", message)
    table.add_row("test rows", str(evidence["rows"]))
    table.add_row(
        "golden rows", f"{info['golden']['rows']}, largest difference {info['golden']['largest_difference']:.1e}"
    )
    table.add_row("base model", bundle.manifest.base_model.source)
    return table
