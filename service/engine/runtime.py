"""Runtime of a pod: as planned or, where the hardware differs, the next best that was measured."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from bentune.bundle.hardware import Cpu
from bentune.bundle.plan import CPU, FP32, Entry, Plan

REASONS = ("cores", "isa", "provider", "golden")
"""Reasons why a pod does not run as planned, as metrics name them."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """Runtime of a pod: `slots` batches at a time with `threads` cores each."""

    variant: str
    provider: str
    slots: int
    threads: int
    token_budget: int

    @property
    def apart(self) -> bool:
        """True if each slot needs its own session.

        In a shared session the slots share the threads too.
        """
        return self.provider == CPU and self.threads > 1

    @property
    def copies(self) -> int:
        """Number of sessions, each with its own copy of the weights.

        They are the slots' sessions, and the one for a lone request.
        """
        return (self.slots if self.apart else 1) + (self.slots > 1)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Departure from the plan: `reason` is one of REASONS, `message` explains it."""

    reason: str
    message: str


def choose(plan: Plan, cpu: Cpu, providers: Collection[str]) -> tuple[Runtime, list[Fallback]]:
    """Choose the runtime on `cpu` with the installed `providers`.

    The fallbacks explain each departure from the plan. With more cores than were measured, slots are added; each keeps
    its measured number of threads.
    """
    if not plan.measured:
        threads = min(plan.threads or 1, cpu.cores)
        slots = min(plan.slots or cpu.cores, cpu.cores // threads)
        return Runtime(plan.variant, plan.provider, slots, threads, plan.token_budget), []
    fallbacks: dict[str, Fallback] = {}
    for entry in plan.measured:
        obstacles = list(_obstacles(entry, plan, cpu, providers))
        if not obstacles:
            slots = cpu.cores // entry.threads
            runtime = Runtime(entry.variant, entry.provider, slots, entry.threads, entry.token_budget)
            return runtime, list(fallbacks.values())
        for obstacle in obstacles:
            fallbacks.setdefault(obstacle.reason, obstacle)
    return in_fp32(plan, cpu), list(fallbacks.values())


def in_fp32(plan: Plan, cpu: Cpu) -> Runtime:
    """Return the runtime that works anywhere.

    It runs the exported weights on ONNX Runtime's own provider, with one slot per core. Its token budget is the best
    one measured for them: the winner's may be 1, for a variant that must run rows one by one.
    """
    budgets = [entry.token_budget for entry in plan.measured if (entry.variant, entry.provider) == (FP32, CPU)]
    return Runtime(FP32, CPU, cpu.cores, 1, budgets[0] if budgets else plan.token_budget)


def _obstacles(entry: Entry, plan: Plan, cpu: Cpu, providers: Collection[str]) -> Iterator[Fallback]:
    what = f"{entry.variant} on {entry.provider} with {entry.slots} x {entry.threads} cores"
    if entry.cores > cpu.cores:
        yield Fallback("cores", f"{what} needs {entry.cores} cores, this process has {cpu.cores}")
    if entry.provider not in providers:
        yield Fallback("provider", f"{what}: the provider is not installed")
    missing = set(plan.cpu.isa if plan.cpu else ()) - set(cpu.isa)
    # Without the instructions of the plan's CPU, int8 can give other answers: products saturate (onnxruntime 5849).
    if entry.variant != FP32 and missing:
        yield Fallback("isa", f"{what} was proven with {', '.join(sorted(missing))}, which this CPU does not have")
