"""The judgement of a rollout, over any sequence of what a cluster may say."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollout.release.progress import (
    HOPELESS,
    LOST,
    REVISION,
    RolloutProgress,
    RolloutState,
    Snapshot,
    advance,
    complete,
    describe,
    new_pods,
)

Object = dict[str, Any]


def pod(name: str = "new-1", *, owner: str = "set-2", ready: bool = False, **status: Any) -> Object:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "metadata": {"name": name, "ownerReferences": [{"uid": owner}]},
        "status": {"phase": "Running", "conditions": conditions} | status,
    }


def container(restarts: int = 0, **more: Any) -> Object:
    return {"name": "model", "restartCount": restarts, "state": {"running": {}}} | more


def replica_set(number: int) -> Object:
    metadata = {"uid": f"set-{number}", "annotations": {REVISION: str(number)}, "ownerReferences": [{"uid": "d"}]}
    return {"metadata": metadata}


def snapshot(
    pods: list[Object],
    *,
    wanted: int = 2,
    old: int = 0,
    available: int | None = None,
    generation: int = 2,
    seen: int = 2,
) -> Snapshot:
    new = [
        one
        for one in pods
        if one["metadata"]["ownerReferences"][0]["uid"] == "set-2" and "deletionTimestamp" not in one["metadata"]
    ]
    ready = sum(describe(one).ready for one in new)
    status = {
        "observedGeneration": seen,
        "updatedReplicas": len(new),
        "replicas": len(new) + old,
        "availableReplicas": ready + old if available is None else available,
    }
    metadata = {"uid": "d", "generation": generation, "annotations": {REVISION: "2"}}
    deployment = {"metadata": metadata, "spec": {"replicas": wanted}, "status": status}
    return Snapshot(deployment, [replica_set(1), replica_set(2)], pods)


def start(timeout_s: float = 100) -> RolloutProgress:
    return RolloutProgress(timeout_s=timeout_s, since=0)


def test_it_is_complete_when_all_pods_are_new_and_available() -> None:
    ready = [pod("a", ready=True), pod("b", ready=True)]
    assert advance(start(), snapshot(ready), 1).state is RolloutState.COMPLETE
    for waiting in (
        snapshot(ready, old=1),
        snapshot(ready, available=1),
        snapshot(ready[:1]),
        snapshot([*ready[:1], pod("b")]),
        # The status is still that of the previous spec.
        snapshot(ready, generation=3),
    ):
        assert advance(start(), waiting, 1).state is RolloutState.WAITING


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"containerStatuses": [container(1)]}, "restarted 1 times"),
        (
            {"containerStatuses": [container(1, lastState={"terminated": {"exitCode": 137, "reason": "OOMKilled"}})]},
            "restarts: it exited with 137 (OOMKilled)",
        ),
        (
            {"containerStatuses": [container(state={"terminated": {"exitCode": 1, "reason": "Error"}})]},
            "restarts: it exited with 1 (Error)",
        ),
        # Even an exit that calls itself fine: a server has no reason to end.
        (
            {"containerStatuses": [container(1, lastState={"terminated": {"exitCode": 0, "reason": "Completed"}})]},
            "restarts: it exited with 0 (Completed)",
        ),
        ({"initContainerStatuses": [container(2)]}, "restarted 2 times"),
        ({"phase": "Failed"}, "failed: its container ended"),
        *(
            ({"containerStatuses": [container(state={"waiting": {"reason": reason}})]}, f"cannot start: {reason}")
            for reason in sorted(HOPELESS)
        ),
    ],
)
def test_a_pod_in_trouble_fails_the_rollout_at_once(status: Object, words: str) -> None:
    found = advance(start(), snapshot([pod("a", ready=True), pod("b", **status)]), 1)
    assert (found.state, found.reason) == (RolloutState.FAILED, f"b {words}")


@pytest.mark.parametrize(
    "status",
    [
        {"containerStatuses": [container(state={"waiting": {"reason": "ContainerCreating"}})]},
        {"containerStatuses": [container(state={"waiting": {"reason": "ErrImagePull"}})]},
        # The init container that copies the model is done.
        {"initContainerStatuses": [container(state={"terminated": {"exitCode": 0, "reason": "Completed"}})]},
        *({"phase": "Failed", "reason": reason} for reason in sorted(LOST)),
    ],
)
def test_a_pod_that_may_yet_come_or_that_its_node_lost_does_not(status: Object) -> None:
    assert advance(start(), snapshot([pod(**status)]), 1).state is RolloutState.WAITING


def test_old_pods_and_those_of_others_do_not_count() -> None:
    restarting = {"containerStatuses": [container(3)]}
    leaving = pod("leaving", **restarting)
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    others = [pod("old", owner="set-1", **restarting), pod("foreign", owner="elsewhere", **restarting), leaving]
    found = advance(start(), snapshot([*others, pod("new", ready=True)], wanted=1), 1)
    assert (found.state, [one.name for one in found.pods]) == (RolloutState.COMPLETE, ["new"])
    # Before the controller has seen the new spec, the newest ReplicaSet is the old one.
    assert new_pods(snapshot([pod("a")], generation=3)) == []


def test_each_pod_that_turns_ready_gives_the_next_one_time() -> None:
    watch = start(timeout_s=10)
    for at in (9, 18, 27):
        pods = [pod(str(number), ready=True) for number in range(at // 9)]
        watch = advance(watch, snapshot([*pods, pod("next")], wanted=4), at)
        assert watch.state is RolloutState.WAITING
    watch = advance(watch, snapshot([*pods, pod("next")], wanted=4), 38)
    assert watch.state is RolloutState.FAILED
    assert watch.reason == "nothing new was ready for 10 s: next is running, not ready"


def test_the_clusters_own_deadline_counts() -> None:
    late = snapshot([pod()])
    late.deployment["status"]["conditions"] = [
        {"type": "Progressing", "reason": "ProgressDeadlineExceeded", "message": "has timed out progressing"}
    ]
    assert advance(start(), late, 1).reason == "no progress: has timed out progressing"


PODS = st.lists(
    st.builds(
        lambda owner, ready, restarts: (owner, ready, restarts),
        st.sampled_from(["set-1", "set-2"]),
        st.booleans(),
        st.sampled_from([0, 0, 0, 1]),
    ),
    max_size=5,
)


@given(
    looks=st.lists(st.tuples(PODS, st.integers(1, 4), st.integers(0, 2), st.booleans()), min_size=1, max_size=8),
    step=st.floats(0.1, 40),
)
def test_whatever_a_cluster_says(looks: list[Any], step: float) -> None:
    """The watch ends, and its end state never changes.

    It never completes with a pod that is not ready or that restarted.
    """
    watch = start()
    for number, (described, wanted, old, seen) in enumerate(looks, 1):
        pods = [
            pod(f"p{index}", owner=owner, ready=ready, containerStatuses=[container(restarts)])
            for index, (owner, ready, restarts) in enumerate(described)
        ]
        now = snapshot(pods, wanted=wanted, old=old, seen=2 if seen else 1)
        kept = copy.deepcopy(now)
        before, watch = watch, advance(watch, now, number * step)
        assert now == kept
        if before.state is not RolloutState.WAITING:
            assert watch == before
            continue
        new = [one for one in described if one[0] == "set-2"] if seen else []
        assert len(watch.pods) == len(new)
        if any(restarts for _, _, restarts in new):
            assert watch.state is RolloutState.FAILED
        if watch.state is RolloutState.COMPLETE:
            assert complete(now)
            assert len(new) == wanted
            assert all(ready and not restarts for _, ready, restarts in new)
        if watch.state is RolloutState.WAITING:
            assert number * step - watch.since <= watch.timeout_s
        assert bool(watch.reason) is (watch.state is RolloutState.FAILED)
