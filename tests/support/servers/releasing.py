"""Parts of release tests: versions that differ, a Service that answers as its pods, and their listeners."""

import itertools
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from cluster import Cluster

from bentune.bundle.files import write_json
from bentune.bundle.manifest import EVIDENCE, Bundle, open_bundle, seal
from bentune.bundle.verdict import VERDICTS, Decision, Difference, Judged, Verdict
from rollout.release.kubectl import Kubectl
from rollout.release.progress import RolloutProgress

OLD = "0" * 64
GOOD, NEXT = "registry.test/news:1@sha256:" + "a" * 64, "registry.test/news:2@sha256:" + "b" * 64


class Heard:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.diffs: list[str] = []
        self.looks: list[RolloutProgress] = []

    def say(self, renderable: Any) -> None:
        self.said.append(str(renderable))

    def diff(self, text: str) -> None:
        self.diffs.append(text)

    def pods(self, progress: RolloutProgress) -> None:
        self.looks.append(progress)


def verdict_on(
    bundle: Bundle, decision: Decision = Decision.PROMOTE, served: str = OLD, tag: str = "news:1", margin: float = 0.01
) -> Verdict:
    return Verdict(
        decision=decision,
        reasons=["for the test"],
        created_at=datetime.now(UTC),
        candidate=Judged(tag=bundle.tag, content=bundle.content),
        served=Judged(tag=tag, content=served),
        rows=100,
        data_fingerprint="f",
        metric="accuracy",
        margin=margin,
        confidence=0.95,
        difference=Difference(value=0.0, low=-0.005, high=0.005),
    )


def with_verdicts(bundle: Bundle, verdicts: Sequence[Verdict]) -> Bundle:
    """Return the same bundle with these verdicts and no other verdicts.

    Its content is therefore the same.
    """
    written = [verdict.model_dump(mode="json") for verdict in verdicts]
    write_json(bundle.root / EVIDENCE, bundle.evidence() | {VERDICTS: written})
    seal(bundle.root, bundle.manifest)
    return open_bundle(bundle.root)


def judged(bundle: Path, directory: Path, decision: Decision, served: str = OLD) -> Bundle:
    """A copy of a bundle with a verdict: of the same content, therefore."""
    shutil.copytree(bundle, directory)
    opened = open_bundle(directory)
    return with_verdicts(opened, [verdict_on(opened, decision, served)])


def version(bundle: Path, directory: Path, name: str, after: Bundle | None = None) -> Bundle:
    """Return a copy of a bundle that is another version, of a content of its own.

    It is promoted against the version `after` which it comes.
    """
    shutil.copytree(bundle, directory / name)
    seal(directory / name, open_bundle(bundle).manifest.model_copy(update={"version": name}))
    other = open_bundle(directory / name)
    return other if after is None else with_verdicts(other, [verdict_on(other, served=after.content, tag=after.tag)])


def image_of(bundle: Bundle) -> str:
    return f"registry.test/news:{bundle.manifest.version}@sha256:" + "c" * 64


def deployed(cluster: Cluster, overlay: Path, pin: bool = True) -> None:
    """A version is served already, released by us or not."""
    Kubectl().apply(overlay)
    if pin:
        one = cluster.objects["Deployment", "bentune"]["spec"]["template"]
        one["metadata"]["annotations"] |= {"bentune/version": "news:1", "bentune/content": OLD}
        one["spec"]["containers"][0]["image"] = GOOD
    for _ in range(4):
        cluster.step()


def serves(cluster: Cluster) -> set[str]:
    """The images of the pods that are ready."""
    return {
        pod["spec"]["containers"][0]["image"]
        for pod in cluster.of("Pod")
        if {"type": "Ready", "status": "True"} in pod["status"]["conditions"]
    }


class Behind:
    """The Service in front of the cluster's pods: answers as the version whose image they have, in turn.

    `ill` are the images whose pods answer wrongly.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.versions: dict[str, Bundle] = {}
        self.ill: set[str] = set()
        self._turns = itertools.count()

    def knows(self, *bundles: Bundle) -> None:
        self.versions |= {image_of(bundle): bundle for bundle in bundles}

    async def __call__(self, request: web.Request) -> web.Response:
        images = sorted(serves(self.cluster))
        image = images[next(self._turns) % len(images)] if images else ""
        return await answer(request, self.versions.get(image), image in self.ill)


async def answer(request: web.Request, bundle: Bundle | None, ill: bool = False) -> web.Response:
    """As a server of that bundle does, or with every score wrong."""
    if bundle is None:
        return web.Response(status=503)
    plan, manifest = bundle.plan, bundle.manifest
    if request.path == "/info":
        said = {"name": manifest.name, "version": manifest.version, "content": bundle.content}
        more = {"digest": bundle.digest, "plan": {"variant": plan.variant, "provider": plan.provider}}
        return web.json_response(said | more)
    inputs = (await request.json())["inputs"]
    row = next(one for one in bundle.golden if one.text == inputs)
    scores = next(iter(row.scores.values()))
    return web.json_response(
        [{"label": label, "score": 2.0 if ill else score} for label, score in zip(manifest.labels, scores, strict=True)]
    )
