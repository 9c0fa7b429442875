"""Releases against the real kubectl and a stand-in cluster, with a real server as the pods' Service."""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cluster import Cluster
from programs import require
from releasing import GOOD, NEXT, OLD, Heard, deployed, judged, serves

from bentune.bundle.errors import GateError, InputError
from bentune.bundle.manifest import Bundle, open_bundle, seal
from bentune.bundle.store import find_bundle
from bentune.bundle.verdict import Decision
from rollout.release.kubectl import Kubectl
from rollout.release.options import ReleaseOptions
from rollout.release.record import Action, read
from rollout.release.release import read_state, release, require_allowed, rollback
from rollout.release.target import LiveTarget, OverlayTarget
from rollout.release.version_pin import pin_of
from rollout.server.server import running

K8S = Path(__file__).parents[3] / "k8s"

pytestmark = pytest.mark.usefixtures("kubectl")


@pytest.fixture
def kubectl() -> None:
    require("kubectl")


@pytest.fixture(scope="module")
def url(tiny_tag: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The Service: the pods behind it serve the tiny bundle."""
    with running(tiny_tag, cwd=tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture
def options(url: str, tmp_path: Path) -> ReleaseOptions:
    """A minute passes with each look at the clock."""
    ticks = itertools.count(step=60.0)
    return ReleaseOptions(Heard(), 600, url, tmp_path / "releases.jsonl", lambda: next(ticks), lambda _: None)


@pytest.fixture
def promoted(tiny_bundle: Path, tmp_path: Path) -> Bundle:
    return judged(tiny_bundle, tmp_path / "promoted", Decision.PROMOTE)


def test_a_promoted_version_is_written_applied_watched_and_asked(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions
) -> None:
    deployed(cluster, overlay)
    outcome = release(OverlayTarget(overlay, Kubectl()), promoted, NEXT, options)
    assert (outcome.problem, outcome.applied, outcome.pods, outcome.golden) == ("", True, 1, len(promoted.golden))
    assert serves(cluster) == {NEXT}
    found = pin_of(cluster.objects["Deployment", "bentune"]["spec"]["template"])
    assert found == outcome.pin
    assert found.annotations() == {
        "bentune/version": promoted.tag,
        "bentune/content": promoted.content,
        "bentune/digest": promoted.digest,
        "bentune/image": NEXT,
        "bentune/verdict": "PROMOTE",
        "bentune/forced": None,
    }
    assert f"+        image: {NEXT}" in options.listener.diffs[0]
    states = [pod.state for watch in options.listener.looks for pod in watch.pods]
    assert states[-1] == "ready"
    assert "running, not ready" in states
    (line,) = read(options.record)
    assert (line.action, line.where, line.image) == (Action.RELEASED, "test/default/bentune", NEXT)
    assert (line.tag, line.content, line.reason) == (promoted.tag, promoted.content, "")


@pytest.mark.usefixtures("direct_reads")
@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("restarts", "restarts: it exited with 137 (OOMKilled)"),
        ("no image", "cannot start: ImagePullBackOff"),
        ("never ready", "nothing new was ready for 600 s"),
    ],
)
def test_pods_that_do_not_do_are_undone(
    fate: str, words: str, cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions
) -> None:
    deployed(cluster, overlay)
    before = (overlay / "kustomization.yaml").read_bytes()
    cluster.fate = lambda image: fate if image == NEXT else "ready"
    outcome = release(OverlayTarget(overlay, Kubectl()), promoted, NEXT, options)
    assert words in outcome.problem
    assert outcome.undone
    assert serves(cluster) == {GOOD} == {cluster.image()}
    assert (overlay / "kustomization.yaml").read_bytes() == before
    assert not (overlay / "release.yaml").exists()
    (line,) = read(options.record)
    assert line.action is Action.UNDONE
    assert line.reason == outcome.problem


@pytest.mark.usefixtures("direct_reads")
def test_pods_that_serve_another_version_are_undone(
    cluster: Cluster, overlay: Path, tiny_bundle: Path, tmp_path: Path, options: ReleaseOptions
) -> None:
    """The image holds something else than the tag that is released."""
    deployed(cluster, overlay)
    shutil.copytree(tiny_bundle, tmp_path / "other")
    first = open_bundle(tmp_path / "other")
    seal(tmp_path / "other", first.manifest.model_copy(update={"version": "other"}))
    other = judged(tmp_path / "other", tmp_path / "other-promoted", Decision.PROMOTE)
    outcome = release(OverlayTarget(overlay, Kubectl()), other, NEXT, options)
    assert "does not serve the version: /info shows handmade:" in outcome.problem
    assert outcome.undone
    assert serves(cluster) == {GOOD}


@pytest.mark.usefixtures("direct_reads")
def test_without_a_verdict_nothing_is_released_but_the_first(
    cluster: Cluster, overlay: Path, tiny_bundle: Path, tmp_path: Path, options: ReleaseOptions
) -> None:
    unjudged, kept = open_bundle(tiny_bundle), sorted(overlay.iterdir())
    outcome = release(OverlayTarget(overlay, Kubectl()), unjudged, GOOD, options)
    assert (outcome.problem, outcome.pin.verdict) == ("", "none, the first version")
    assert any("first version needs no verdict" in line for line in options.listener.said)
    assert serves(cluster) == {GOOD}
    # The same model in another image is compared with nothing.
    again = release(OverlayTarget(overlay, Kubectl()), unjudged, NEXT, options)
    assert (again.problem, again.pin.verdict) == ("", "none, the first version")
    # Served is something else now.
    cluster.objects["Deployment", "bentune"]["spec"]["template"]["metadata"]["annotations"]["bentune/content"] = OLD
    with pytest.raises(GateError, match="was not compared with what is served"):
        release(OverlayTarget(overlay, Kubectl()), unjudged, GOOD, options)
    held = judged(tiny_bundle, tmp_path / "held", Decision.HOLD)
    with pytest.raises(GateError, match="may not be released: HOLD: for the test"):
        release(OverlayTarget(overlay, Kubectl()), held, GOOD, options)
    stale = judged(tiny_bundle, tmp_path / "stale", Decision.PROMOTE, served="1" * 64)
    cluster.objects["Deployment", "bentune"]["spec"]["template"]["metadata"]["annotations"]["bentune/version"] = "a:2"
    with pytest.raises(GateError, match="was compared with news:1, but a:2 is served"):
        release(OverlayTarget(overlay, Kubectl()), stale, GOOD, options)
    assert cluster.image() == NEXT
    assert {path.name for path in overlay.iterdir()} == {"release.yaml", *(path.name for path in kept)}


@pytest.mark.usefixtures("direct_reads")
def test_a_forced_release_says_why(
    cluster: Cluster, overlay: Path, tiny_bundle: Path, tmp_path: Path, options: ReleaseOptions
) -> None:
    deployed(cluster, overlay)
    held = judged(tiny_bundle, tmp_path / "held", Decision.HOLD)
    for wrong in ({"force": True}, {"reason": "no flag"}, {"force": True, "reason": "two\nlines"}):
        with pytest.raises(InputError, match="--force and --reason belong together"):
            release(OverlayTarget(overlay, Kubectl()), held, NEXT, options, **wrong)
    outcome = release(OverlayTarget(overlay, Kubectl()), held, NEXT, options, force=True, reason="a legal deadline")
    assert outcome.problem == ""
    annotations = cluster.of("Deployment")[0]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["bentune/verdict"] == "HOLD, forced"
    assert annotations["bentune/forced"] == "a legal deadline"
    assert [line.reason for line in read(options.record)] == ["a legal deadline"]


def test_a_dry_run_changes_nothing(cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions) -> None:
    deployed(cluster, overlay)
    before, files = cluster.image(), {path: path.read_bytes() for path in overlay.iterdir()}
    cluster.requests.clear()
    outcome = release(OverlayTarget(overlay, Kubectl()), promoted, NEXT, options, mode="dry-run")
    assert not outcome.applied
    rendered, on_the_cluster = options.listener.diffs
    assert f"+        image: {NEXT}" in rendered
    # The served image differs from the overlay's.
    assert f"-        image: {GOOD}" in on_the_cluster
    assert cluster.image() == before
    assert {path: path.read_bytes() for path in overlay.iterdir()} == files
    assert read(options.record) == []


def test_a_commit_writes_the_overlay_and_asks_no_cluster(
    overlay: Path, tiny_bundle: Path, options: ReleaseOptions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    bundle = open_bundle(tiny_bundle)
    with pytest.raises(InputError, match="no cluster answers"):
        release(OverlayTarget(overlay, Kubectl()), bundle, GOOD, options)
    outcome = release(OverlayTarget(overlay, Kubectl()), bundle, GOOD, options, mode="commit")
    assert (outcome.applied, outcome.where) == (False, f"commit:{overlay}/default/bentune")
    assert OverlayTarget(overlay, Kubectl()).pinned() == outcome.pin
    # The overlay is the truth: another version needs a verdict from here on.
    text = (overlay / "release.yaml").read_text()
    (overlay / "release.yaml").write_text(text.replace(bundle.content, OLD))
    with pytest.raises(GateError, match="was not compared"):
        release(OverlayTarget(overlay, Kubectl()), bundle, NEXT, options, mode="commit")


@pytest.mark.usefixtures("direct_reads")
def test_a_rollback_returns_to_the_last_that_served(
    cluster: Cluster, overlay: Path, promoted: Bundle, tiny_tag: str, options: ReleaseOptions
) -> None:
    target = OverlayTarget(overlay, Kubectl())
    with pytest.raises(InputError, match="no earlier release of test/default/bentune is known"):
        rollback(target, options)
    bundle = find_bundle(tiny_tag)
    for image in (GOOD, NEXT):
        assert release(OverlayTarget(overlay, Kubectl()), bundle, image, options).problem == ""
    outcome = rollback(OverlayTarget(overlay, Kubectl()), options)
    assert (outcome.problem, outcome.pin.image, outcome.golden) == ("", GOOD, len(bundle.golden))
    assert serves(cluster) == {GOOD}
    assert OverlayTarget(overlay, Kubectl()).pinned() == outcome.pin
    assert [line.action.value for line in read(options.record)] == ["released", "released", "rolled-back"]
    with pytest.raises(InputError, match="no earlier release"):
        rollback(OverlayTarget(overlay, Kubectl()), options)


@pytest.mark.usefixtures("direct_reads")
def test_without_a_record_the_cluster_knows_what_was_before(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions, tmp_path: Path
) -> None:
    deployed(cluster, overlay)
    assert release(LiveTarget("bentune", Kubectl()), promoted, NEXT, options).problem == ""
    options.record.unlink()
    # Its server is not there to be asked, so that the end is a problem; it is where it should be nevertheless.
    outcome = rollback(LiveTarget("bentune", Kubectl()), options)
    assert (outcome.pin.tag, outcome.pin.content, outcome.pin.image) == ("news:1", OLD, GOOD)
    assert "does not serve the version" in outcome.problem
    assert not outcome.undone
    assert serves(cluster) == {GOOD}


def test_one_deployment_is_patched_where_no_overlay_is(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions
) -> None:
    """And nothing is asked for but what the Role of the retraining allows."""
    deployed(cluster, overlay)
    cluster.requests.clear()
    outcome = release(LiveTarget("bentune", Kubectl()), promoted, NEXT, options)
    assert outcome.problem == ""
    assert serves(cluster) == {NEXT}
    assert f"+image: {NEXT}" in options.listener.diffs[0]
    cluster.fate = lambda image: "restarts" if image == GOOD else "ready"
    assert release(LiveTarget("bentune", Kubectl()), promoted, GOOD, options).undone
    assert serves(cluster) == {NEXT}
    rights = yaml.safe_load_all((K8S / "training/retrain/rights.yaml").read_text())
    (role,) = (one for one in rights if one["kind"] == "Role")
    allowed = {
        (verb, group, resource, name)
        for rule in role["rules"]
        for verb, group, resource, name in itertools.product(
            rule["verbs"], rule["apiGroups"], rule["resources"], rule.get("resourceNames", [""])
        )
    }
    assert asked(cluster) == allowed


def asked(cluster: Cluster) -> set[tuple[str, str, str, str]]:
    """Verb, API group, resource and name of each request, as RBAC sees them."""
    found = set()
    for verb, path in cluster.requests:
        before, inside, after = path.partition("/namespaces/default/")
        if inside:
            resource, _, name = after.partition("/")
            group = "apps" if before == "/apis/apps/v1" else ""
            word = {"GET": "get" if name else "list", "PATCH": "patch", "POST": "create"}[verb]
            found.add((word, group, resource, name))
    return found


def test_a_state_that_is_given_is_not_read_again(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions
) -> None:
    deployed(cluster, overlay)
    cluster.requests.clear()
    target = LiveTarget("bentune", Kubectl())
    state = read_state(target, options)
    assert require_allowed(promoted, state, options) == "PROMOTE"
    outcome = release(target, promoted, NEXT, options, state=state)
    assert (outcome.problem, outcome.before) == ("", state.before)
    lists = [path for verb, path in cluster.requests if verb == "GET" and path.endswith("/pods")]
    # The state, each look, and one after the check.
    assert len(lists) == 1 + len(options.listener.looks) + 1


@pytest.mark.usefixtures("direct_reads")
def test_the_image_of_the_model_alone_is_what_a_release_changes(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions
) -> None:
    kustomization = overlay / "kustomization.yaml"
    more = {"components": ["../../components/model-image"]}
    kustomization.write_text(kustomization.read_text() + yaml.safe_dump(more))
    target = OverlayTarget(overlay, Kubectl())
    assert target.container == "bundle"
    assert release(target, promoted, NEXT, options).problem == ""
    spec = cluster.of("Deployment")[0]["spec"]["template"]["spec"]
    assert [one["image"] for one in spec["initContainers"]] == [NEXT]
    assert cluster.image() == "bentune/model:dev"


@pytest.mark.usefixtures("direct_reads")
def test_the_same_release_again_is_fine_and_makes_no_pods(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions
) -> None:
    deployed(cluster, overlay)
    first = release(OverlayTarget(overlay, Kubectl()), promoted, NEXT, options)
    pods = [pod["metadata"]["name"] for pod in cluster.of("Pod")]
    again = release(OverlayTarget(overlay, Kubectl()), promoted, NEXT, options)
    assert (first.problem, again.problem, again.diff) == ("", "", "")
    assert again.pin == first.pin
    assert [pod["metadata"]["name"] for pod in cluster.of("Pod")] == pods


def test_what_argo_rollouts_makes_is_left_to_it(
    cluster: Cluster, overlay: Path, promoted: Bundle, options: ReleaseOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    kustomization = overlay / "kustomization.yaml"
    more = {"components": ["../../components/canary-argo"]}
    kustomization.write_text(kustomization.read_text() + yaml.safe_dump(more))
    applied: list[Path] = []
    monkeypatch.setattr(Kubectl, "apply", lambda _, directory: applied.append(directory))
    outcome = release(OverlayTarget(overlay, Kubectl()), promoted, NEXT, options)
    assert (outcome.applied, outcome.problem, outcome.pods, applied) == (True, "", 0, [overlay])
    assert options.listener.looks == []
    assert any("kubectl argo rollouts get rollout bentune --watch" in line for line in options.listener.said)
