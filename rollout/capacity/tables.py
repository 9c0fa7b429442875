"""Tables of a capacity plan, and the reasons to doubt it."""

from collections.abc import Callable

from rich.markup import escape
from rich.table import Table

from rollout.capacity.patch import quantity
from rollout.capacity.play import Compared, Observed
from rollout.capacity.simulation import SimulationOutcome
from rollout.capacity.sizing import CapacityPlan, Sizing

HOUR_S, MINUTE_S = 3600, 60


def sizing_table(plan: CapacityPlan) -> Table:
    """Build the table of the sizing: each setting and its reason."""
    sizing = plan.sizing
    scaling, shutdown, resources = sizing.scaling, sizing.shutdown, sizing.resources
    table = Table("", "value", "because", title=escape(f"{sizing.peak:g} requests/s at {sizing.objective}"))
    usable = sizing.rate_per_pod * sizing.headroom
    table.add_row(
        "pods at the peak",
        str(sizing.replicas_at_peak),
        f"{sizing.rate_per_pod:.1f} requests/s a pod x headroom {sizing.headroom:g} = {usable:.1f}",
    )
    table.add_row(
        "least / most",
        f"{scaling.min_replicas} / {scaling.max_replicas}",
        f"a new pod serves {sizing.reaction_s:g} s after the traffic needs it, {sizing.startup_s:g} s are start-up",
    )
    whys = ("busy slots at the knee x headroom", f"inputs that a pod computes within {sizing.objective} x headroom")
    for target, why in zip(scaling.targets, whys, strict=True):
        table.add_row("autoscaler target", f"{quantity(target.mean)} {target.metric}", escape(why))
    cores = "request = limit: slots and threads follow the limit"
    table.add_row("CPU", f"{quantity(resources.cpu)} cores", cores)
    table.add_row("memory", resources.memory or "as it is", "" if resources.memory else "not measured; give --memory")
    table.add_row(
        "grace period",
        f"{shutdown.grace_period_s} s",
        f"preStop {shutdown.pre_stop_s:g} + open connections {shutdown.open_connections_s:g} "
        f"+ drain {shutdown.drain_s:g} + margin {shutdown.margin_s:g}",
    )
    table.add_row(
        "queue of a pod", f"{sizing.queue_requests:.0f} requests", "more are refused with 429 and Retry-After"
    )
    return table


def outcome_table(plan: CapacityPlan) -> Table:
    """Build the table of the simulation's outcome."""
    outcome, curve = plan.simulated, plan.traffic
    table = Table(
        show_header=False,
        title=escape(
            f"simulated: {curve.name}, {_duration(curve.seconds)}, {curve.lowest:g} to {curve.highest:g} requests/s"
        ),
    )
    table.add_row("objective over all requests", "held" if outcome.held else "[red]missed[/]")
    table.add_row(
        "time in which it was missed", f"{_duration(outcome.violated_s)} ({_part(outcome.violated_s, outcome.seconds)})"
    )
    table.add_row("too slow", f"{outcome.too_slow:.0f} requests ({_part(outcome.too_slow, outcome.arrivals)})")
    table.add_row("refused", f"{outcome.refused:.0f} requests ({_part(outcome.refused, outcome.arrivals)})")
    table.add_row(f"highest {plan.sizing.objective.percentile} of a second", f"{outcome.worst_ms:.0f} ms")
    table.add_row("pods", f"{outcome.fewest_replicas} to {outcome.most_replicas}, {outcome.changes} changes")
    table.add_row(
        "replica-hours",
        f"{outcome.replica_hours:.2f}; {outcome.steady_replica_hours:.2f} with always {outcome.most_replicas} pods",
    )
    return table


def compared_table(compared: Compared, sizing: Sizing) -> Table:
    """Build the table of the real run beside its simulation."""
    observed, simulated = compared.observed, compared.simulated
    table = Table("", "real", "simulated", title=f"{_duration(observed.seconds)} on real servers")

    def add(name: str, value: Callable[[Observed | SimulationOutcome], str]) -> None:
        table.add_row(name, value(observed), value(simulated))

    add("requests", lambda one: f"{one.arrivals:.0f}")
    add(f"{sizing.objective} over all", lambda one: "held" if one.held else "[red]missed[/]")
    add("time in which it was missed", lambda one: f"{one.violated_s:.0f} s")
    add("too slow", lambda one: f"{one.too_slow:.0f} ({_part(one.too_slow, one.arrivals)})")
    add("refused", lambda one: f"{one.refused:.0f} ({_part(one.refused, one.arrivals)})")
    table.add_row("failed", f"{observed.failed} ({_part(observed.failed, observed.arrivals)})", "")
    add("servers", lambda one: f"{one.fewest_replicas} to {one.most_replicas}")
    add("replica-hours", lambda one: f"{one.replica_hours:.4f}")
    table.add_row("start-up of a server", f"{observed.startup_s:.1f} s", "the same")
    return table


def warnings(plan: CapacityPlan, *, startup_known: bool) -> list[str]:
    """List the reasons to doubt the plan."""
    said = []
    if not startup_known:
        said.append(f"the start-up time was not measured: {plan.sizing.startup_s:g} s are assumed; give --startup")
    if plan.traffic.highest > plan.sizing.peak:
        said.append(
            f"the traffic goes up to {plan.traffic.highest:g} requests/s, above --peak {plan.sizing.peak:g}, "
            "for which the pods are sized"
        )
    return said


def _duration(seconds: float) -> str:
    if seconds >= 2 * HOUR_S:
        return f"{seconds / HOUR_S:.1f} h"
    return f"{seconds / MINUTE_S:.1f} min" if seconds >= 2 * MINUTE_S else f"{seconds:.0f} s"


def _part(value: float, whole: float) -> str:
    return f"{value / whole:.2%}" if whole else "0%"
