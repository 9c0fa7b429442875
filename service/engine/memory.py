"""Memory limit of a pod: a check that the model fits, and the bounds of the queue.

A process that exceeds its limit is killed in the middle of its requests, so both are decided before it serves.
"""

import logging
from pathlib import Path

from bentune.bundle.errors import InputError
from bentune.bundle.hardware import describe, memory_limit_bytes
from bentune.bundle.manifest import Bundle
from bentune.bundle.plan import model_file
from service.engine.providers import available
from service.engine.runtime import Runtime, choose
from service.scheduling.queue import QueueLimits
from service.settings import Settings
from service.tasks.registry import task_class

logger = logging.getLogger("bentoml.bentune")

# Measured: MiniLM in int8 on one core and on two, resident memory of all processes (docs/log.md). Where they are wrong
# for a model, BENTUNE_MEMORY_CHECK=false turns the check off.
PROCESSES = 190_000_000
"""Bytes of BentoML's two processes without a model."""
WEIGHTS = 1.7
"""Bytes of a session per byte of its file: the weights as they are read, and repacked for the kernels."""
WORK, WORK_SLOTS = 1.15, 2
"""Factor by which batches raise the memory, and the number of slots that it was measured with."""
SLOT_TOKEN = 60_000
"""Bytes per token that a batch on one more slot adds: 30 MB measured for 512 tokens."""
WAITING_INPUT = 65_536
"""Bytes of a waiting connection with its request."""


def needed_bytes(bundle: Bundle, runtime: Runtime) -> int:
    """Estimate the bytes of memory to serve `bundle` with an empty queue."""
    weights = (bundle.root / model_file(runtime.variant)).stat().st_size
    # A text that is longer than the budget runs alone.
    tokens = max(runtime.token_budget, bundle.manifest.limits.max_tokens)
    more = max(runtime.slots - WORK_SLOTS, 0) * tokens * SLOT_TOKEN
    more += task_class(bundle.manifest.task).encoding_bytes(bundle)
    return round(WORK * (PROCESSES + WEIGHTS * weights * runtime.copies)) + more


def allowed_bytes(settings: Settings, root: Path = Path("/")) -> int | None:
    """Return the memory limit of this process, in bytes.

    It is None without a limit, or when `memory_check` is off.
    """
    return memory_limit_bytes(root) if settings.memory_check else None


def shortage(bundle: Bundle, runtime: Runtime, limit: int | None) -> str:
    """Explain why `limit` bytes are too few to serve `bundle`, and what to do.

    The explanation is empty when they are enough.
    """
    needed = needed_bytes(bundle, runtime)
    if limit is None or limit >= needed:
        return ""
    return (
        f"the memory limit is {limit / 1e6:.0f} MB, and serving {bundle.tag} on {runtime.slots * runtime.threads} "
        f"cores takes about {needed / 1e6:.0f} MB: raise the limit"
    )


def require_memory(bundle: Bundle, settings: Settings, root: Path = Path("/")) -> None:
    """Raise InputError if this process's memory limit is too small to serve `bundle`."""
    runtime, _ = choose(bundle.plan, describe(root), available())
    if why := shortage(bundle, runtime, allowed_bytes(settings, root)):
        raise InputError(why)


def queue_limits(bundle: Bundle, runtime: Runtime, settings: Settings, root: Path = Path("/")) -> QueueLimits:
    """Return the bounds of the queue.

    They are the settings' bounds, reduced in proportion where the memory limit leaves less room. A request of
    `max_inputs` inputs, and a text of `max_tokens` tokens, may always wait. A reduction is logged.
    """
    limit = allowed_bytes(settings, root)
    most = settings.queue_inputs * WAITING_INPUT + settings.queue_tokens * task_class(
        bundle.manifest.task
    ).waiting_token_bytes(bundle)
    room = most if limit is None else limit - needed_bytes(bundle, runtime)
    share = min(max(room / most, 0.0), 1.0)
    tokens = max(int(share * settings.queue_tokens), min(bundle.manifest.limits.max_tokens, settings.queue_tokens))
    inputs = max(int(share * settings.queue_inputs), min(settings.max_inputs, settings.queue_inputs))
    if limit is not None and share < 1:
        logger.warning(
            "%s: the memory limit of %.0f MB leaves room for %d waiting inputs and %d tokens, not for %d and %d",
            bundle.tag,
            limit / 1e6,
            inputs,
            tokens,
            settings.queue_inputs,
            settings.queue_tokens,
        )
    return QueueLimits(inputs, tokens)
