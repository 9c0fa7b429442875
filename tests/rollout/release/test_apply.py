"""Whatever goes wrong after a version was applied, what served before serves again, and nothing forgets it."""

import contextlib
import dataclasses
import os
import signal
from pathlib import Path
from typing import Any

import http_server
import pytest
from releasing import answer, image_of, serves, verdict_on, with_verdicts
from rich.text import Text

from bentune.bundle.errors import BentuneError, GateError, InputError
from rollout.release.kubectl import Kubectl
from rollout.release.record import Action, read


@pytest.fixture
def two(releasing: Any) -> tuple[Any, Any]:
    """The first serves, the second was promoted against it."""
    first = releasing.version("1")
    assert releasing.release(first).problem == ""
    return first, releasing.version("2", first)


def kept_as_it_was(releasing: Any, first: Any) -> None:
    for _ in range(6):
        releasing.cluster.step()
    assert serves(releasing.cluster) == {image_of(first)}
    assert releasing.target().pinned().content == first.content


@pytest.mark.parametrize("error", [BentuneError("the API server is gone"), KeyboardInterrupt(), SystemExit(143)])
def test_an_error_while_it_is_watched_takes_it_back(
    releasing: Any, two: Any, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two

    def fails(*_: Any) -> None:
        assert releasing.cluster.image() == image_of(second)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(releasing.options.listener, "pods", fails)
        with pytest.raises(type(error)):
            releasing.release(second)
    kept_as_it_was(releasing, first)
    assert read(releasing.options.record)[-1].action is Action.INTERRUPTED
    # Nothing is known against it; but it is nothing to go back to either.
    releasing.options.record.unlink()
    with pytest.raises(InputError, match="no earlier release"):
        releasing.rollback()


def test_a_sigterm_takes_it_back(releasing: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = two
    monkeypatch.setattr(releasing.options.listener, "pods", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        releasing.release(second)
    assert ended.value.code == 128 + signal.SIGTERM
    kept_as_it_was(releasing, first)
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_apply_that_failed_half_way_is_taken_back(releasing: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An apply that failed half way is taken back.

    It fails as where the overlay has a ServiceMonitor and the cluster lacks the kind.
    """
    first, second = two
    apply = Kubectl.apply

    def in_part(self: Kubectl, overlay: Path) -> list[str]:
        apply(self, overlay)
        raise BentuneError("no matches for kind ServiceMonitor")

    with monkeypatch.context() as patched:
        patched.setattr(Kubectl, "apply", in_part)
        with pytest.raises(BentuneError, match="no matches for kind"):
            releasing.release(second)
    kept_as_it_was(releasing, first)
    # When the kind is there, nothing speaks against it.
    assert releasing.release(second).problem == ""


def test_some_looks_that_fail_are_no_reason(releasing: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, second = two
    get, failures = Kubectl.get, iter([False, True, True, False, True])

    def sometimes(self: Kubectl, kind: str, name: str) -> Any:
        if next(failures, False):
            raise BentuneError("connection refused")
        return get(self, kind, name)

    monkeypatch.setattr(Kubectl, "get", sometimes)
    assert releasing.release(second).problem == ""
    assert serves(releasing.cluster) == {image_of(second)}


def test_what_was_never_proven_is_not_what_is_served(releasing: Any, two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was killed before anything took the version back.

    The next process finds the version that served before.
    """
    first, second = two
    assert releasing.release(first).problem == ""
    undo = Kubectl.undo
    monkeypatch.setattr(Kubectl, "undo", lambda *_: (_ for _ in ()).throw(BentuneError("gone")))
    releasing.behind.ill.add(image_of(second))
    lost = releasing.release(second)
    assert "and it was not undone: gone" in lost.problem
    assert not lost.undone
    # The files and the record say so nevertheless.
    assert releasing.target().pinned().content == first.content
    assert read(releasing.options.record)[-1].action is Action.UNDONE
    monkeypatch.setattr(Kubectl, "undo", undo)
    assert serves(releasing.cluster) == {image_of(second)}
    releasing.options.record.unlink()
    held = releasing.make("3", None)
    releasing.behind.knows(held)
    with pytest.raises(GateError, match="was not compared with what is served"):
        releasing.release(held)
    # The same again is compared with what was proven last, and goes back to that.
    again = releasing.release(second)
    assert again.before.content == first.content
    assert again.undone
    kept_as_it_was(releasing, first)
    # A rollback does the same.
    monkeypatch.setattr(Kubectl, "undo", lambda *_: (_ for _ in ()).throw(BentuneError("gone")))
    releasing.release(second, force=True, reason="again")
    monkeypatch.setattr(Kubectl, "undo", undo)
    releasing.options.record.unlink()
    assert releasing.rollback().pin.content == first.content
    kept_as_it_was(releasing, first)


def test_words_never_keep_it_from_being_undone(releasing: Any, two: Any) -> None:
    first, second = two
    said: list[str] = []

    def say(words: Any) -> None:
        said.append(Text.from_markup(str(words)).plain)

    releasing.options.listener.say = say
    # The version in a server's answer must not be read as markup.
    odd = releasing.version("odd")
    odd.manifest.__dict__["version"] = "[/ill]"
    releasing.behind.versions[image_of(second)] = odd
    outcome = releasing.release(second)
    assert outcome.undone
    assert "/info shows handmade:[/ill]" in outcome.problem
    kept_as_it_was(releasing, first)
    assert any("/info shows handmade:[/ill]" in words for words in said)


def test_a_failed_first_release_has_served_nobody(releasing: Any) -> None:
    first, other = releasing.version("1"), releasing.version("2")
    releasing.cluster.fate = lambda image: "restarts" if image == image_of(first) else "ready"
    failed = releasing.release(first)
    assert "OOMKilled" in failed.problem
    assert not failed.undone
    outcome = releasing.release(other)
    assert (outcome.problem, outcome.pin.verdict) == ("", "none, the first version")
    assert serves(releasing.cluster) == {image_of(other)}
    with pytest.raises(GateError, match="was not compared"):
        releasing.release(first)


def test_each_new_pod_is_asked_and_not_one_of_the_service(
    releasing: Any, two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two
    asked: list[str] = []

    @contextlib.contextmanager
    def forward(_: Kubectl, target: str, port: int) -> Any:
        kind, _, name = target.partition("/")
        asked.append(f"{kind}:{port}")
        image = releasing.cluster.objects["Pod", name]["spec"]["containers"][0]["image"]

        async def pod(request: Any) -> Any:
            return await answer(
                request, releasing.behind.versions[image], len(asked) == 2 and image == image_of(second)
            )

        with http_server.serving(pod) as url:
            yield url

    monkeypatch.setattr(Kubectl, "forward", forward)
    releasing.options = dataclasses.replace(releasing.options, url=None)
    releasing.cluster.objects["Deployment", "bentune"]["spec"]["replicas"] = 2
    outcome = releasing.release(second)
    assert asked == ["pod:3000", "pod:3000"]
    assert "golden rows are answered wrongly" in outcome.problem
    assert outcome.undone
    asked += ["more"]
    third = releasing.version("3", first)
    assert releasing.release(third).problem == ""


def test_pods_of_other_evidence_are_told(releasing: Any, two: Any) -> None:
    first, second = two
    built = second
    judged_again = with_verdicts(second, [verdict_on(second, served=first.content)])
    releasing.behind.versions[image_of(second)] = built
    assert built.digest != judged_again.digest
    assert releasing.release(judged_again).problem == ""
    assert any(f"the pods' digest is {built.digest[:12]}" in words for words in releasing.options.listener.said)


def test_an_address_that_is_none_is_refused_before_anything(releasing: Any, two: Any) -> None:
    first, second = two
    for url in ("http://x:99999", "service:80", "ftp://there", "http://"):
        releasing.options = dataclasses.replace(releasing.options, url=url)
        with pytest.raises(InputError, match="--url"):
            releasing.release(second)
        with pytest.raises(InputError, match="--url"):
            releasing.rollback()
    assert releasing.cluster.image() == image_of(first)
