"""Search over runtime configurations: variants x providers x slots x threads x token budgets; the best ones again."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bentune.bundle.plan import Check, Entry
from service.engine.runtime import Runtime

TOKEN_BUDGETS = (256, 512)
MORE_TOKEN_BUDGETS = (128, 1024)
FINALISTS = 4
FINAL_ROUNDS = 3
TIE = 0.05
"""Finalists within this share of the fastest are tied: the one with the fewest label flips wins."""

Measure = Callable[[Runtime], Entry]


def shapes(cores: int) -> list[tuple[int, int]]:
    """List slots x threads that use all `cores`, most slots first; threads double."""
    doubling = [2**power for power in range(cores.bit_length())]
    return [(cores // threads, threads) for threads in sorted({*doubling, cores}) if cores % threads == 0]


def first_round(checks: Sequence[Check], cores: int) -> list[Runtime]:
    """List the configurations to measure, for variants that passed their checks.

    A configuration on one core is included for small pods.
    """
    runtimes = []
    for found in checks:
        if found.problem:
            continue
        budgets = (1,) if found.alone else TOKEN_BUDGETS
        runtimes += [
            Runtime(found.variant, found.provider, slots, threads, budget)
            for slots, threads in shapes(cores)
            for budget in budgets
        ]
        if cores > 1:
            runtimes.append(Runtime(found.variant, found.provider, 1, 1, budgets[-1]))
    return runtimes


def search(checks: Sequence[Check], cores: int, measure: Measure) -> list[Entry]:
    """Measure all configurations, then the finalists again in turns.

    In between, more token budgets are measured for the fastest configuration. The speed of a finalist is the median of
    its rounds, because contention may distort a single round. Returns the winner, then the other configurations on all
    cores by speed, then those on fewer cores by speed.
    """
    measured = {runtime: measure(runtime) for runtime in first_round(checks, cores)}
    by_name = {(found.variant, found.provider): found for found in checks}
    best = [one for one in _best_of_each(measured, cores) if not by_name[one.variant, one.provider].alone]
    for budget in MORE_TOKEN_BUDGETS if best else ():
        runtime = replace(best[0], token_budget=budget)
        measured[runtime] = measure(runtime)
    finalists = _best_of_each(measured, cores)[:FINALISTS]
    rounds = [[measure(runtime) for runtime in finalists] for _ in range(FINAL_ROUNDS)]
    for number, runtime in enumerate(finalists):
        measured[runtime] = _median([one[number] for one in rounds])
    fastest = max(measured[runtime].inputs_per_second for runtime in finalists)
    level = [runtime for runtime in finalists if measured[runtime].inputs_per_second >= (1 - TIE) * fastest]
    winner = min(level, key=lambda one: (by_name[one.variant, one.provider].label_flips or 0, level.index(one)))
    order = sorted(measured.values(), key=lambda entry: (entry.cores < cores, -entry.inputs_per_second))
    return [measured[winner], *(entry for entry in order if entry is not measured[winner])]


def steps(checks: Sequence[Check], cores: int) -> int:
    """Return the largest number of measurements that `search` makes."""
    return len(first_round(checks, cores)) + len(MORE_TOKEN_BUDGETS) + FINALISTS * FINAL_ROUNDS


def _best_of_each(measured: Mapping[Runtime, Entry], cores: int) -> list[Runtime]:
    """Choose the fastest configuration per variant and provider, fastest first.

    Only configurations on all cores are considered.
    """
    whole = [runtime for runtime, entry in measured.items() if entry.cores == cores]
    best: dict[tuple[str, str], Runtime] = {}
    for runtime in sorted(whole, key=lambda runtime: -measured[runtime].inputs_per_second):
        best.setdefault((runtime.variant, runtime.provider), runtime)
    return list(best.values())


def _median(entries: Sequence[Entry]) -> Entry:
    speed = statistics.median(entry.inputs_per_second for entry in entries)
    lone = statistics.median(entry.lone_ms for entry in entries)
    return entries[0].model_copy(update={"inputs_per_second": speed, "lone_ms": lone, "rounds": len(entries)})
