"""Pods of a simulation: their start, service and drain, and the requests that wait at each.

Requests are a flow that is split evenly over the ready pods. Pods that became ready together are alike and form one
cohort, so that a thousand pods cost as much as one.

Only the scraped metrics are random, drawn for each pod: a scrape counts the slots that compute at that moment.
The autoscaler averages a few scrapes, so that with few pods this noise adds pods.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from bentune.bundle.arrays import Floats
from rollout.capacity.pod_model import PodModel

BUSY, QUEUE = "bentune_slots_busy_avg", "bentune_queue_requests_avg"
"""Metrics of each pod for the autoscaler: means over a window of its busy slots, and of its waiting inputs."""


@dataclass(slots=True)
class Cohort:
    """Cohort of equal pods: `waiting` requests and `busy` slots at each, on average.

    `shown` are the latest scrapes: BUSY and QUEUE of each pod. `busy` is None before the first step.
    """

    pods: int
    waiting: float
    shown: deque[Floats]
    busy: float | None = None


@dataclass(slots=True)
class Draining:
    """Pods that drain: `waiting` requests at each are served until `ends`, in seconds."""

    pods: int
    waiting: float
    leaves: float
    ends: float


@dataclass(slots=True)
class Flow:
    """Flow at each step and cohort: accepted requests, rate at a pod, and wait for its backlog."""

    step: list[int] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Habits:
    """Lifecycle of pods, in seconds.

    `room` requests may wait at one pod, and more are refused. A pod takes `startup_s` from the decision until it is
    ready. A removed one lives for `linger_s` and until its waiting requests are answered, but at most `grace_s`. Its
    metrics are scraped every `scrape_s`, as by Prometheus, and the autoscaler reads their means over `window_s`.
    """

    startup_s: float
    window_s: float
    room: float
    linger_s: float
    grace_s: float
    scrape_s: float = 15.0


class Fleet:
    """All pods of a simulation.

    Call `advance` once a step, and `scale_to` after each decision of the autoscaler.
    """

    def __init__(self, pod: PodModel, habits: Habits, replicas: int, step_s: float, seed: int = 0) -> None:
        self.flow = Flow()
        self.served = self.refused = self.replica_s = 0.0
        self._pod, self._habits, self._step_s = pod, habits, step_s
        self._random = np.random.default_rng(seed)
        self._starting: list[tuple[float, int]] = []
        self._ready = [self._cohort(replicas)]
        self._draining: list[Draining] = []

    @property
    def ready(self) -> int:
        """Count the pods that take requests."""
        return sum(cohort.pods for cohort in self._ready)

    @property
    def starting(self) -> int:
        """Count the pods that are not yet ready."""
        return sum(pods for _, pods in self._starting)

    @property
    def waiting(self) -> float:
        """Count the accepted requests that are not answered yet."""
        return sum(cohort.pods * cohort.waiting for cohort in self._ready) + sum(
            group.pods * group.waiting for group in self._draining
        )

    def scrape(self) -> None:
        """Scrape the metrics of every pod that serves."""
        for cohort in self._ready:
            if cohort.busy is not None:
                share = min(cohort.busy / self._pod.slots, 1.0)
                busy = self._random.binomial(self._pod.slots, share, cohort.pods)
                cohort.shown.append(np.stack([busy, np.full(cohort.pods, cohort.waiting * self._pod.inputs)]))

    def metrics(self) -> tuple[dict[str, list[float]], int]:
        """Return each ready pod's window means, and the number of pods without a scrape.

        A starting pod has no successful scrape: for the autoscaler its metric is missing.
        """
        values: dict[str, list[float]] = {BUSY: [], QUEUE: []}
        silent = self.starting
        for cohort in self._ready:
            if cohort.shown:
                for metric, means in zip((BUSY, QUEUE), np.mean(cohort.shown, axis=0), strict=True):
                    values[metric].extend(means.tolist())
            else:
                silent += cohort.pods
        return values, silent

    def scale_to(self, replicas: int, now: float) -> None:
        """Start or remove pods until there are `replicas`.

        As in a ReplicaSet, unready pods are removed first, then the youngest.
        """
        difference = replicas - self.ready - self.starting
        if difference > 0:
            self._starting.append((now + self._habits.startup_s, difference))
            return
        surplus = -difference
        while surplus and self._starting:
            at, pods = self._starting.pop()
            gone = min(pods, surplus)
            surplus -= gone
            if pods > gone:
                self._starting.append((at, pods - gone))
        while surplus and self._ready:
            cohort = self._ready[-1]
            gone = min(cohort.pods, surplus)
            surplus -= gone
            cohort.pods -= gone
            cohort.shown = deque((seen[:, : cohort.pods] for seen in cohort.shown), cohort.shown.maxlen)
            habits = self._habits
            self._draining.append(Draining(gone, cohort.waiting, now + habits.linger_s, now + habits.grace_s))
            if cohort.pods == 0:
                self._ready.pop()

    def advance(self, step: int, now: float, requests: float) -> None:
        """Simulate one step from `now` with `requests` arrivals."""
        self._welcome(now)
        ready, most = self.ready, self._pod.ceiling * self._step_s
        self.replica_s += (ready + self.starting + sum(group.pods for group in self._draining)) * self._step_s
        self._drain(now, most)
        if ready == 0:
            self.refused += requests
            return
        share = requests / ready
        for cohort in self._ready:
            offered = cohort.waiting + share
            left = max(offered - most, 0.0)
            refused = max(left - self._habits.room, 0.0)
            left -= refused
            mean_wait_s = (cohort.waiting + left) / 2 / self._pod.ceiling
            self.served += cohort.pods * (offered - refused - left)
            self.refused += cohort.pods * refused
            self.flow.step.append(step)
            self.flow.accepted.append(cohort.pods * (share - refused))
            self.flow.rate.append(share / self._step_s)
            self.flow.wait_s.append(mean_wait_s)
            cohort.waiting = left
            cohort.busy = self._pod.busy_slots(offered / self._step_s)

    def _cohort(self, pods: int) -> Cohort:
        return Cohort(pods, 0.0, deque(maxlen=max(round(self._habits.window_s / self._habits.scrape_s), 1)))

    def _welcome(self, now: float) -> None:
        while self._starting and self._starting[0][0] <= now:
            _, pods = self._starting.pop(0)
            if len(self._ready) > 1 and _alike(*self._ready[-2:]):
                younger, older = self._ready.pop(), self._ready[-1]
                older.pods += younger.pods
                joined = zip(older.shown, younger.shown, strict=True)
                older.shown = deque((np.concatenate(both, axis=1) for both in joined), older.shown.maxlen)
            self._ready.append(self._cohort(pods))

    def _drain(self, now: float, most: float) -> None:
        for group in self._draining:
            answered = min(group.waiting, most)
            group.waiting -= answered
            self.served += group.pods * answered
        for group in self._draining:
            if group.ends <= now + self._step_s:
                # The kubelet kills it, and its waiting requests get no answer.
                self.refused += group.pods * group.waiting
                group.waiting = 0.0
        self._draining = [
            group
            for group in self._draining
            if group.ends > now + self._step_s and (group.waiting > 0 or group.leaves > now + self._step_s)
        ]


def _alike(older: Cohort, younger: Cohort) -> bool:
    """Return true if two cohorts differ only in age.

    Then both have a full window, and nothing waits.
    """
    full = older.shown.maxlen == len(older.shown) == len(younger.shown)
    return full and older.waiting == younger.waiting == 0.0
