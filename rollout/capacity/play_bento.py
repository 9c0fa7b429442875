"""Run of a capacity plan's traffic against real servers of a Bento on this machine."""

import asyncio
import os

from bentune.bundle.errors import InputError
from rollout.capacity.play import Compared, play
from rollout.capacity.pod_model import PodModel
from rollout.capacity.servers import bento, pinned
from rollout.capacity.sizing import Sizing, habits
from rollout.capacity.traffic import Traffic
from rollout.load.bodies import bodies_of, inputs_of_golden
from rollout.load.knee import Capacity
from rollout.server.target import bundle_of
from service.settings import Settings

MOST_S = 3600.0


def play_bento(
    tag: str,
    measured: Capacity,
    sizing: Sizing,
    traffic: Traffic,
    settings: Settings,
) -> Compared:
    """Run `traffic` in real time on servers of the Bento `tag`, scaled as in `sizing`.

    Each server has its own cores, the number of a pod in `sizing`. The requests are the bundle's golden rows. Raises
    InputError for an unknown Bento, for a curve of more than an hour, and for a plan with more servers than this
    machine has cores; BentuneError for a server that does not start.
    """
    bundle = bundle_of(tag)
    if traffic.duration_s > MOST_S:
        raise InputError(
            f"--play takes as long as the traffic: {traffic.name} is {traffic.duration_s / 3600:.1f} h; give --traffic "
            "a CSV of at most an hour"
        )
    cores = _cores(sizing)
    return asyncio.run(
        play(
            pinned(bento(tag, settings.request_timeout_ms), cores),
            bodies_of(inputs_of_golden(bundle.golden), batch=measured.inputs_per_request, seed=0),
            PodModel.of(measured),
            sizing.scaling,
            traffic,
            sizing.objective,
            habits(sizing),
            timeout_s=settings.request_timeout_ms / 1000,
        )
    )


def _cores(sizing: Sizing) -> list[set[int]]:
    """Assign cores to each possible server.

    Raises InputError where this machine has too few.
    """
    each, most = max(round(sizing.resources.cpu), 1), sizing.scaling.max_replicas
    mine = sorted(os.sched_getaffinity(0))
    if each * most > len(mine):
        raise InputError(
            f"--play: the plan has up to {most} servers of {each} cores, and this machine has {len(mine)} cores; give "
            "a lower --peak, or measure the capacity of fewer cores: taskset -c 0 bentune bench"
        )
    return [set(mine[number * each : (number + 1) * each]) for number in range(most)]
