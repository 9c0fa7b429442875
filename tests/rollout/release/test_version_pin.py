"""Change of a release to an overlay: one file, one line, and not a byte of the user's other content."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from programs import require

from bentune.bundle.errors import InputError
from rollout.release.kubectl import Kubectl
from rollout.release.target import OverlayTarget
from rollout.release.version_pin import FILE, Pin, Saved, pin_of, pinned_container, read_pin, write_pin

K8S = Path(__file__).parents[3] / "k8s"
PIN = Pin("news:2", "c" * 64, "registry.test/news:2@sha256:" + "d" * 64, digest="e" * 64, verdict="PROMOTE")

USER = """# My own overlay: never touch this comment.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization

resources: [../../base]   # in a style of mine
images:
- name: bentune/model   # this tag is older than the release
  newTag: "1"
"""


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    shutil.copytree(K8S, tmp_path / "k8s")
    (tmp_path / "k8s/overlays/dev/kustomization.yaml").write_text(USER)
    return tmp_path / "k8s/overlays/dev"


def rendered(overlay: Path) -> list[dict[str, object]]:
    done = subprocess.run([require("kubectl"), "kustomize", overlay], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))


def test_it_says_more_than_the_overlays_own_images_and_keeps_its_words(overlay: Path) -> None:
    write_pin(overlay, "bentune", PIN)
    assert (overlay / "kustomization.yaml").read_text() == USER + f"transformers:\n  - {FILE}\n"
    assert read_pin(rendered(overlay), "bentune") == PIN
    # Another time changes only our file.
    forced = Pin("news:3", "f" * 64, "registry.test/news:3", verdict="HOLD, forced", forced='it\'s: a "test" # no')
    write_pin(overlay, "bentune", forced)
    assert (overlay / "kustomization.yaml").read_text().count(FILE) == 1
    assert read_pin(rendered(overlay), "bentune") == forced


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("transformers:\n- a.yaml\n", f"transformers:\n- a.yaml\n- {FILE}\n"),
        (
            "transformers:\n    - a.yaml # mine\nnamePrefix: x-\n",
            f"transformers:\n    - a.yaml # mine\n    - {FILE}\nnamePrefix: x-\n",
        ),
        ("namePrefix: x-", f"namePrefix: x-\ntransformers:\n  - {FILE}\n"),
        (f"transformers: [{FILE}]\n", f"transformers: [{FILE}]\n"),
    ],
)
def test_it_is_the_last_of_the_transformers(before: str, after: str, tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text(before)
    saved = Saved(tmp_path)
    write_pin(tmp_path, "bentune", PIN)
    assert (tmp_path / "kustomization.yaml").read_text() == after
    saved.restore()
    assert (tmp_path / "kustomization.yaml").read_text() == before
    assert not (tmp_path / FILE).exists()


def test_a_style_that_cannot_be_kept_is_left_to_its_owner(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("transformers: [a.yaml]\n")
    with pytest.raises(InputError, match=f"add `- {FILE}` to its `transformers:` by hand"):
        write_pin(tmp_path, "bentune", PIN)
    assert not (tmp_path / FILE).exists()
    with pytest.raises(InputError, match="is no overlay: it has no kustomization.yaml"):
        write_pin(tmp_path / "nowhere", "bentune", PIN)


@given(reason=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), min_size=1, max_size=200))
def test_any_reason_comes_out_as_it_went_in(reason: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("overlay")
    (directory / "kustomization.yaml").write_text("resources: []\n")
    write_pin(directory, "bentune", Pin("a:1", "c" * 64, "image:1", forced=reason))
    patch = yaml.safe_load(yaml.safe_load((directory / FILE).read_text())["patch"])
    assert patch["spec"]["template"]["metadata"]["annotations"]["bentune/forced"] == reason


def test_a_deployment_of_another_kind_is_refused(overlay: Path) -> None:
    require("kubectl")
    template = {"metadata": {}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}}
    assert pin_of(template) is None
    with pytest.raises(InputError, match=r"has no container 'model': .* it has \['web'\]"):
        pinned_container(template)
    with pytest.raises(InputError, match="should render one serving Deployment other; found none"):
        OverlayTarget(overlay, Kubectl(), "other")
    (overlay / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(InputError, match="does not render: .*nowhere.yaml"):
        OverlayTarget(overlay, Kubectl())


def test_the_overlays_namespace_is_where_it_goes(overlay: Path) -> None:
    require("kubectl")
    (overlay / "kustomization.yaml").write_text(USER + "namespace: news\n")
    assert OverlayTarget(overlay, Kubectl()).kubectl.namespace == "news"
    assert OverlayTarget(overlay, Kubectl(namespace="news")).kubectl.namespace == "news"
    with pytest.raises(InputError, match="--namespace other: .* sets news"):
        OverlayTarget(overlay, Kubectl(namespace="other"))


def test_the_canary_beside_it_is_not_released(overlay: Path) -> None:
    (overlay / "kustomization.yaml").write_text(USER + "components: [../../components/canary]\n")
    target = OverlayTarget(overlay, Kubectl())
    assert f"+        image: {PIN.image}" in target.write(PIN)
    images = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in rendered(overlay)
        if one["kind"] == "Deployment"
    }
    assert images == {"bentune": PIN.image, "bentune-canary": "bentune/canary"}
    assert target.rollout == ""


def test_a_rollout_takes_it_over(overlay: Path) -> None:
    require("kubectl")
    (overlay / "kustomization.yaml").write_text(USER + "components: [../../components/canary-argo]\n")
    assert OverlayTarget(overlay, Kubectl()).rollout == "bentune"
