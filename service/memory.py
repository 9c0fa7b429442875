"""What a memory limit allows: whether the model can be served within it, and how much may wait.

A process that outgrows its limit is killed in the middle of its requests, so both are decided before it serves.
"""

from pathlib import Path

from service.contract import Bundle
from service.engine import copies
from service.errors import InputError
from service.hardware import describe, memory_limit_bytes
from service.plan import model_file
from service.providers import available
from service.runtime import Runtime, choose
from service.settings import Settings
from service.waiting import QueueLimits

# Measured: MiniLM in int8 on one core and on two, resident memory of all processes (docs/log.md).
PROCESSES = 190_000_000
"""Bytes of BentoML's two processes without a model."""
WEIGHTS = 1.7
"""Bytes of a session for each byte of its file: the weights as they are read, and repacked for the kernels."""
WORK = 1.15
"""What batches add."""
WAITING_INPUT, WAITING_TOKEN = 65_536, 48
"""Bytes of what waits: a connection with its request, and a token's id."""


def needed_bytes(bundle: Bundle, runtime: Runtime) -> int:
    """About how much memory serving `bundle` so takes, before anything waits."""
    weights = (bundle.root / model_file(runtime.variant)).stat().st_size
    return round(WORK * (PROCESSES + WEIGHTS * weights * copies(runtime)))


def require_memory(bundle: Bundle, root: Path = Path("/")) -> None:
    """Raise InputError when the memory limit of this process is too small to serve `bundle`."""
    limit, cpu = memory_limit_bytes(root), describe(root)
    runtime, _ = choose(bundle.plan, cpu, available())
    needed = needed_bytes(bundle, runtime)
    if limit is not None and limit < needed:
        raise InputError(
            f"the memory limit is {limit / 1e6:.0f} MB, and serving {bundle.tag} on {cpu.cores} cores takes about "
            f"{needed / 1e6:.0f} MB: raise the limit"
        )


def queue_limits(bundle: Bundle, runtime: Runtime, settings: Settings, root: Path = Path("/")) -> QueueLimits:
    """How much may wait: what the settings say or, where the memory limit leaves room for less, so much less.

    A request of the most inputs, and a text of the most tokens, may always wait.
    """
    limit = memory_limit_bytes(root)
    most = settings.queue_inputs * WAITING_INPUT + settings.queue_tokens * WAITING_TOKEN
    room = most if limit is None else limit - needed_bytes(bundle, runtime)
    share = min(max(room / most, 0.0), 1.0)
    tokens = max(int(share * settings.queue_tokens), min(bundle.manifest.limits.max_tokens, settings.queue_tokens))
    inputs = max(int(share * settings.queue_inputs), min(settings.max_inputs, settings.queue_inputs))
    return QueueLimits(inputs, tokens)
