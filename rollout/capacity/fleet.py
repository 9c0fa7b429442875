"""The pods of a simulation: which start, serve and drain, what waits at each, and what they were asked and answered.

Requests are a flow that is split evenly over the pods that are ready. Pods that became ready together are alike, so
they are one cohort: a thousand pods cost as much as one.

Only what is scraped is drawn at random, for each pod: one look at its slots sees those that compute at that moment, and
the autoscaler then scales by a mean of few looks, which costs pods when there are few to average over.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from rollout.capacity.pod_model import PodModel

Floats: TypeAlias = NDArray[np.float64]

BUSY, QUEUE = "bentune_slots_busy_avg", "bentune_queue_requests_avg"
"""What the autoscaler reads of each pod: means over a window of its busy slots, and of its waiting texts."""


@dataclass(slots=True)
class Cohort:
    """`pods` that are alike: `waiting` requests at each, and how many of the slots of each are `busy` on average.

    `shown` has what the latest scrapes saw: BUSY and QUEUE of each pod. `busy` is None before the first step.
    """

    pods: int
    waiting: float
    shown: deque[Floats]
    busy: float | None = None


@dataclass(slots=True)
class Draining:
    """`pods` that take nothing new: `waiting` requests at each, which are served until `ends`, in seconds."""

    pods: int
    waiting: float
    leaves: float
    ends: float


@dataclass(slots=True)
class Flow:
    """Of each step and cohort: which step, requests that were let in, the rate at a pod, the wait for its backlog."""

    step: list[int] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Habits:
    """How pods come and go, in seconds. `room` is how many requests may wait at one pod, the others are refused.

    A pod takes `startup_s` from the decision until it is ready. One that goes lives on for `linger_s`, and until what
    waits at it is answered, but at most `grace_s`. Every `scrape_s` its metrics are read, as Prometheus does, and the
    autoscaler is given their means over `window_s`.
    """

    startup_s: float
    window_s: float
    room: float
    linger_s: float
    grace_s: float
    scrape_s: float = 15.0


class Fleet:
    """All pods. Call `advance` once a step, `scale_to` whenever the autoscaler has spoken."""

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
        """Pods that take requests."""
        return sum(cohort.pods for cohort in self._ready)

    @property
    def starting(self) -> int:
        """Pods that are asked for and not yet ready."""
        return sum(pods for _, pods in self._starting)

    @property
    def waiting(self) -> float:
        """Requests that were let in and are not answered."""
        return sum(cohort.pods * cohort.waiting for cohort in self._ready) + sum(
            group.pods * group.waiting for group in self._draining
        )

    def scrape(self) -> None:
        """Read the metric of every pod that serves."""
        for cohort in self._ready:
            if cohort.busy is not None:
                share = min(cohort.busy / self._pod.slots, 1.0)
                busy = self._random.binomial(self._pod.slots, share, cohort.pods)
                cohort.shown.append(np.stack([busy, np.full(cohort.pods, cohort.waiting * self._pod.texts)]))

    def metrics(self) -> tuple[dict[str, list[float]], int]:
        """The mean over the window of what each ready pod showed, and how many pods showed nothing.

        A pod that starts runs, without being scraped with success: for the autoscaler its metric is missing.
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
        """Start pods, or take some away: as a ReplicaSet does, those that are not ready first, then the youngest."""
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
        """One step, from `now` on, in which `requests` come."""
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
                # The kubelet kills it: what still waited there gets no answer.
                self.refused += group.pods * group.waiting
                group.waiting = 0.0
        self._draining = [
            group
            for group in self._draining
            if group.ends > now + self._step_s and (group.waiting > 0 or group.leaves > now + self._step_s)
        ]


def _alike(older: Cohort, younger: Cohort) -> bool:
    """Whether nothing but their age tells two cohorts apart, which each has been shown for a whole window."""
    full = older.shown.maxlen == len(older.shown) == len(younger.shown)
    return full and older.waiting == younger.waiting == 0.0
