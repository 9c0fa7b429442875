"""The lineage: parents, what was changed, verdicts, and who is served where, from a record that may be damaged."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bentoml
import pytest
from aiohttp import web
from bentoml._internal.configuration.containers import BentoMLContainer
from command import ask
from http_server import serving

from bentune.bundle.errors import InputError
from bentune.bundle.files import write_json
from bentune.bundle.manifest import EVIDENCE, MODULE, Bundle, Parent, open_bundle, seal
from bentune.bundle.verdict import VERDICTS, Decision, Difference, Judged, Verdict
from bentune.commands.lineage import draw
from rollout.lineage import Lineage, LineageChange, Version, lineage
from rollout.release.record import record_file

NAME = "family"
VERSIONS = [f"2026{month}01-000000-abcdef" for month in (10, 11, 12)]
TAGS = [f"{NAME}:{version}" for version in VERSIONS]


@pytest.fixture
def store(tiny_bundle: Path) -> Iterator[Callable[..., Bundle]]:
    """Put copies of the tiny bundle into the store, as versions of one name.

    All are deleted after the test.
    """

    def put(version: str, parent: Bundle | None = None, rows: int = 300, **recipe: Any) -> Bundle:
        manifest = open_bundle(tiny_bundle).manifest
        with bentoml.models.create(f"{NAME}:{version}", module=MODULE) as stored:
            root = Path(stored.path)
            shutil.copytree(
                tiny_bundle, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("m*.json", "model.yaml")
            )
            evidence = json.loads((root / EVIDENCE).read_text())
            evidence["recipe"] |= {"parent": parent and parent.tag} | recipe
            evidence["data"]["rows"] = {"train": rows - 60, "test": 60}
            write_json(root / EVIDENCE, evidence)
            link = None if parent is None else Parent(tag=parent.tag, content=parent.content)
            seal(root, manifest.model_copy(update={"name": NAME, "version": version, "parent": link}))
        return open_bundle(Path(bentoml.models.get(f"{NAME}:{version}").path))

    yield put
    for model in bentoml.models.list(NAME) if (Path(BentoMLContainer.model_store_dir.get()) / NAME).exists() else []:
        bentoml.models.delete(model.tag)


@pytest.fixture
def record() -> Iterator[Callable[..., None]]:
    """Write lines of the record of releases."""
    path = record_file()
    path.parent.mkdir(exist_ok=True)

    def write(*lines: object) -> None:
        path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))

    yield write
    path.unlink(missing_ok=True)


def judge(bundle: Bundle, served: Bundle, decision: Decision) -> None:
    verdict = Verdict(
        decision=decision,
        reasons=["because"],
        created_at=datetime(2026, 11, 1, tzinfo=UTC),
        candidate=Judged(tag=bundle.tag, content=bundle.content),
        served=Judged(tag=served.tag, content=served.content),
        rows=60,
        data_fingerprint="f",
        metric="accuracy",
        margin=0.01,
        confidence=0.9,
        difference=Difference(value=0.0125, low=-0.004, high=0.03),
    )
    evidence = open_bundle(bundle.root).evidence()
    verdicts = [*evidence.get(VERDICTS, []), verdict.model_dump(mode="json")]
    write_json(bundle.root / EVIDENCE, evidence | {VERDICTS: verdicts})
    manifest = bundle.manifest
    (bundle.root / "manifest.json").unlink()
    seal(bundle.root, manifest)


def released(bundle: Bundle, where: str = "kind/prod/bentune", action: str = "released") -> dict[str, str]:
    return {
        "at": "2026-11-01T00:00:00Z",
        "tag": bundle.tag,
        "content": bundle.content,
        "where": where,
        "action": action,
        "image": "registry.test/news:1",
    }


def by_tag(found: Lineage) -> dict[str, Version]:
    return {version.tag: version for version in found.versions}


def test_each_version_says_what_it_continues_and_what_is_new(store: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first, rows=450)
    store(VERSIONS[2], second, rows=440, seed=7, data={"source": "x"})
    judge(second, first, Decision.PROMOTE)
    found = lineage(NAME)
    assert found.problems == []
    assert [version.tag for version in found.versions] == TAGS
    versions = by_tag(found)
    assert versions[TAGS[0]].parent is versions[TAGS[0]].more is versions[TAGS[0]].changed is None
    assert versions[TAGS[1]].parent == Parent(tag=TAGS[0], content=first.content)
    assert (versions[TAGS[1]].more, versions[TAGS[1]].changed) == (150, [])
    assert versions[TAGS[1]].verdict is not None
    assert versions[TAGS[1]].verdict.decision == Decision.PROMOTE
    assert versions[TAGS[2]].more == -10
    changed = versions[TAGS[2]].changed
    assert changed is not None
    assert LineageChange(key="seed", before=42, now=7) in changed
    assert {change.key for change in changed} >= {"seed", "data.source", "data.split.test"}
    assert versions[TAGS[2]].verdict is None
    assert versions[TAGS[0]].accuracy == pytest.approx(first.evidence()["evaluation"]["tuned"]["accuracy"]["value"])


def test_a_parent_that_was_deleted_is_missing_and_one_that_was_changed_is_damaged(store: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first)
    bentoml.models.delete(first.tag)
    versions = by_tag(lineage(NAME))
    assert versions[TAGS[0]].missing
    assert versions[TAGS[1]].more is None
    (second.root / "golden.jsonl").write_text("")
    versions = by_tag(lineage(NAME))
    assert "golden.jsonl was changed" in str(versions[TAGS[1]].damaged)


@pytest.mark.parametrize("evidence", ["[]", '{"verdicts": 5}', '{"recipe": [], "data": 5, "verdicts": [{}]}'])
def test_evidence_that_nothing_of_ours_wrote_is_damage_and_the_others_are_shown(evidence: str, store: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first)
    store(VERSIONS[2], second)
    (second.root / EVIDENCE).write_text(evidence)
    (second.root / "manifest.json").unlink()
    seal(second.root, second.manifest)
    versions = by_tag(lineage(NAME))
    assert "evidence.json" in str(versions[TAGS[1]].damaged)
    assert (versions[TAGS[0]].damaged, versions[TAGS[2]].damaged) == (None, None)
    assert ask("lineage", NAME).code == 0


def test_numbers_and_recipes_without_bounds_are_left_out(store: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first)
    evidence = {"evaluation": {"tuned": {"accuracy": {"value": 10**400}}}, "data": {"rows": {"train": float("inf")}}}
    deep = '{"a": ' * 900 + "1" + "}" * 900
    (second.root / EVIDENCE).write_text(json.dumps(evidence)[:-1] + f', "recipe": {deep}' + "}")
    (second.root / "manifest.json").unlink()
    seal(second.root, second.manifest)
    version = by_tag(lineage(NAME))[TAGS[1]]
    assert (version.damaged, version.accuracy, version.rows) == (None, None, {})


def test_every_verdict_is_shown_and_the_newest_is_marked(store: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first)
    for decision in (Decision.NEED_MORE_ROWS, Decision.PROMOTE, Decision.HOLD):
        judge(second, first, decision)
    drawn = " ".join(ask("lineage", NAME).out.replace("│", " ").split())
    one = f"against {TAGS[0]}: accuracy +1.25 points [-0.40, +3.00] on 60 rows"
    assert f"verdict HOLD {one} (newest) before it PROMOTE {one} before it NEED MORE ROWS {one}" in drawn
    version = by_tag(lineage(NAME))[TAGS[1]]
    assert version.verdict == version.verdicts[2]


def test_a_parent_that_was_made_again_is_another(store: Any) -> None:
    first = store(VERSIONS[0])
    store(VERSIONS[1], first)
    bentoml.models.delete(first.tag)
    store(VERSIONS[0], None, base="other")
    found = lineage(NAME)
    # Evidence is not content: it is the same bundle with another recipe in its evidence.
    assert found.problems == []
    bundle = open_bundle(Path(bentoml.models.get(first.tag).path))
    (bundle.root / "manifest.json").unlink()
    seal(bundle.root, bundle.manifest.model_copy(update={"code_revision": "other"}))
    assert lineage(NAME).problems == [f"{TAGS[1]} continues another {TAGS[0]} than the one in the store"]


def test_who_is_served_where_by_the_record(store: Any, record: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first)
    record(
        released(first),
        released(first, "kind/dev/bentune"),
        "not json",
        '{"tag": 5}',
        "[" * 100_000,
        "",
        released(second),
        released(second, "kind/dev/bentune", "undone"),
        released(second, "kind/old/bentune"),
        released(first, "kind/old/bentune", "rolled-back"),
        released(second, "kind/new/bentune") | {"more": 1},
    )
    found = lineage(NAME)
    versions = by_tag(found)
    assert versions[TAGS[0]].served == ["kind/dev/bentune", "kind/old/bentune"]
    assert versions[TAGS[1]].served == ["kind/prod/bentune", "kind/new/bentune"]
    (problem,) = found.problems
    assert problem.endswith("releases.jsonl: 3 lines are no record of a release, the first is line 3")


def test_who_is_served_where_by_asking(store: Any) -> None:
    first = store(VERSIONS[0])
    content = first.content

    async def info(request: web.Request) -> web.Response:
        said = {"plan": {}, "digest": "d", "name": NAME, "version": VERSIONS[0], "content": content}
        return web.json_response(said)

    with serving(info) as address:
        assert by_tag(lineage(NAME, [address]))[TAGS[0]].served == [address]
        content = "0" * 64
        found = lineage(NAME, [address, "http://127.0.0.1:9"])
        assert by_tag(found)[TAGS[0]].served == []
        assert found.problems == [
            "http://127.0.0.1:9: no Bentune service answers /info there; give its address, a tag or a directory",
            f"{TAGS[0]} is served at {address}, but is not in the store here",
        ]


def test_a_name_that_nothing_has(tiny_tag: str) -> None:
    with pytest.raises(InputError, match="nowhere is not in the BentoML model store; it has .*handmade"):
        lineage("nowhere")


def test_the_tree_goes_straight_down_and_what_was_not_gone_on_with_branches_off() -> None:
    def version(number: int, parent: int | None, **more: Any) -> Version:
        link = None if parent is None else Parent(tag=f"n:{parent}", content="0" * 64)
        return Version(tag=f"n:{number}", parent=link, **more)

    held_back, last = version(2, 1), version(4, 3, served=["kind/prod/x"])
    tree = draw("n", [version(1, None), held_back, version(3, 1), last, version(5, 3)])

    def tags(node: Any) -> list[Any]:
        return [(str(child.label).partition("]")[2].partition("[")[0], tags(child)) for child in node.children]

    assert tags(tree) == [("n:1", [("n:2", [])]), ("n:3", [("n:5", [])]), ("n:4", [])]


def test_the_command_draws_and_prints_json(store: Any, record: Any) -> None:
    first = store(VERSIONS[0])
    second = store(VERSIONS[1], first, rows=450, seed=7)
    judge(second, first, Decision.HOLD)
    record(released(first))
    drawn = ask("lineage", NAME)
    assert drawn.code == 0
    for words in (
        "served at kind/prod/bentune",
        "450 rows (+150): 390 train, 60 test",
        "changed: seed: 42 -> 7",
        f"HOLD against {TAGS[0]}: accuracy +1.25 points [-0.40, +3.00] on 60 rows",
        "verdict none",
    ):
        assert words in drawn.out, drawn.out
    versions = ask("lineage", NAME, "--json").json["versions"]
    assert [version["tag"] for version in versions] == TAGS[:2]
    assert [verdict["decision"] for verdict in versions[1]["verdicts"]] == ["HOLD"]
    assert versions[0]["served"] == ["kind/prod/bentune"]
