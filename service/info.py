"""Content of GET /info: the model, its limits, its plan, and the headline of its evidence."""

from collections.abc import Mapping
from typing import Any

from bentune.bundle.manifest import Bundle
from bentune.bundle.verdict import Verdict
from service.engine.proven import Proven
from service.scheduling.queue import QueueLimits
from service.settings import Settings
from service.tasks.task import Task


def info(
    bundle: Bundle,
    task: Task,
    settings: Settings,
    queue: QueueLimits,
    proven: Proven | None,
    evidence: Mapping[str, Any],
    verdict: Verdict | None,
) -> dict[str, Any]:
    """Return the content of `/info`; `proven` is None before the golden replay."""
    manifest, plan = bundle.manifest, bundle.plan
    runtime = proven.runtime if proven else None
    replayed = proven.replayed if proven else None
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": bundle.digest,
        "content": bundle.content,
        "parent": manifest.parent,
        "verdict": verdict,
        "task": manifest.task,
        "inputs": task.inputs,
        "multi_label": False,
        **manifest.target.wire(),
        "created_at": manifest.created_at,
        "ready": proven is not None and proven.engine is not None,
        "limits": {
            "max_tokens": manifest.limits.max_tokens,
            **task.limits,
            "max_inputs": settings.max_inputs,
            "max_body_bytes": settings.max_body_bytes,
            "request_timeout_ms": settings.request_timeout_ms,
            "queue_inputs": queue.max_items,
            "queue_tokens": queue.max_tokens,
        },
        "plan": {
            "variant": runtime.variant if runtime else plan.variant,
            "provider": runtime.provider if runtime else plan.provider,
            "slots": runtime.slots if runtime else plan.slots,
            "threads": runtime.threads if runtime else plan.threads,
            "token_budget": runtime.token_budget if runtime else plan.token_budget,
            "padding_bound": plan.padding_bound,
            "measured_on": plan.cpu,
            "fallbacks": {one.reason: one.message for one in proven.fallbacks} if proven else {},
        },
        "evidence": _headline(evidence)
        | {
            "parity": {
                hop["hop"]: {"largest_difference": hop["largest_difference"], "label_flips": hop["label_flips"]}
                for hop in evidence["parity"]["hops"]
            },
            "data_fingerprint": manifest.data_fingerprint,
            "recipe_digest": manifest.recipe_digest,
        },
        "golden": {
            "rows": replayed.rows if replayed else 0,
            "failed": len(replayed.failed) if replayed else 0,
            "largest_difference": replayed.largest_difference if replayed else None,
        },
        # The names of text-embeddings-inference, for its clients.
        "model_id": manifest.name,
        "model_sha": bundle.digest,
        "max_input_length": manifest.limits.max_tokens,
        "max_batch_tokens": runtime.token_budget if runtime else plan.token_budget,
        "max_client_batch_size": settings.max_inputs,
    }


def _headline(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headline metric before and after tuning.

    A bundle that names none is a classifier's: its headline is accuracy.
    """
    evaluation = evidence["evaluation"]
    name, tuned = evaluation.get("headline", "accuracy"), evaluation["tuned"]
    return {name: tuned[name], f"{name}_before_tuning": evaluation["base"][name], "rows": tuned["rows"]}
