"""The command `compare` as a shell sees it, and over HTTP with a real server."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ask
from judged import worse, write_rows

from bentune.bundle.files import write_json
from bentune.bundle.manifest import EVIDENCE, MANIFEST, open_bundle, seal
from rollout.server.scrape import read_info
from rollout.server.server import running


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl", 120)


@pytest.fixture
def quick(tiny_bundle: Path) -> Iterator[Path]:
    """The stored bundle with quick settings in its recipe; it is as before afterwards."""
    before = {name: (tiny_bundle / name).read_bytes() for name in (EVIDENCE, MANIFEST)}
    bundle = open_bundle(tiny_bundle)
    evidence = bundle.evidence()
    evidence["recipe"]["compare"] |= {"resamples": 100, "latency_rows": 10, "margin": 5.0, "max_latency_ratio": 20}
    write_json(tiny_bundle / EVIDENCE, evidence)
    seal(tiny_bundle, bundle.manifest)
    yield tiny_bundle
    for name, content in before.items():
        (tiny_bundle / name).write_bytes(content)


def test_promote_is_0_and_hold_is_1(quick: Path, tiny_tag: str, rows: Path, tmp_path: Path) -> None:
    fine = ask("compare", tiny_tag, tiny_tag, "--data", rows, "--slice", "set", "--out", tmp_path / "out")
    assert fine.code == 0, fine.err
    assert f"PROMOTE  {tiny_tag} against {tiny_tag} on 120 rows" in fine.err
    assert "set: reference" in fine.err
    assert "the verdict is in the candidate's evidence.json" in fine.err
    assert fine.out == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["comparison.html", "comparison.json"]
    bad = worse(quick, tmp_path / "worse")
    held = ask("compare", bad, tiny_tag, "--data", rows)
    assert held.code == 1
    assert "HOLD" in held.err
    assert f"HOLD: {tiny_tag} does not replace {tiny_tag}" in " ".join(held.err.split())


def test_json_is_one_object_whatever_the_verdict(quick: Path, tiny_tag: str, rows: Path, tmp_path: Path) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(f"{line}\n" for line in rows.read_text().splitlines()[:12]))
    answer = ask("compare", tiny_tag, tiny_tag, "--data", few, "--margin", "1", "--json")
    assert answer.code == 1
    verdict = answer.json["verdict"]
    assert verdict["decision"] == "NEED MORE ROWS"
    assert verdict["rows_needed"] > 361
    assert verdict["margin"] == 0.01


def test_rows_that_were_trained_on_are_wrong_input(quick: Path, tiny_tag: str, tiny_csv: Path) -> None:
    refused = ask("compare", tiny_tag, tiny_tag, "--data", tiny_csv, "--json")
    assert refused.code == 2
    assert "was trained on 240 of the 300 rows" in refused.json["error"]


def test_a_judged_bundle_is_still_served_and_a_service_is_a_side(
    quick: Path, tiny_tag: str, rows: Path, tmp_path: Path
) -> None:
    assert ask("compare", tiny_tag, tiny_tag, "--data", rows).code == 0
    with running(tiny_tag) as url:
        info = read_info(url)
        assert info is not None
        assert info["ready"] is True
        assert info["verdict"]["decision"] == "PROMOTE"
        by_service = ask("compare", tiny_tag, url, "--data", rows)
        assert by_service.code == 0, by_service.err
        assert "the latencies were not judged" in " ".join(by_service.err.split())
        both = ask("compare", url, url, "--data", rows, "--json")
        assert both.code == 0
        assert both.json["judged_speed"] is True
        # The verdict on a service is written nowhere.
        assert len(json.loads((quick / EVIDENCE).read_text())["verdicts"]) == 2
        # Here the store has another bundle than the one that is served.
        aside = tmp_path / "aside"
        shutil.move(quick, aside)
        try:
            refused = ask("compare", aside, url, "--data", rows)
            assert refused.code == 2
            assert "skip the check with --trust-rows" in refused.err
            trusted = ask("compare", aside, url, "--data", rows, "--trust-rows", "--json")
            assert trusted.code == 0
            assert trusted.json["left_out"]["trusted"] == [f"the served model {url}"]
            assert "not checked (--trust-rows)" in trusted.json["verdict"]["reasons"][-1]
        finally:
            shutil.move(aside, quick)


@pytest.mark.parametrize("margin", ["0", "-1", "51", "nan", "inf"])
def test_a_wrong_margin_is_refused(margin: str) -> None:
    refused = ask("compare", "a", "b", "--data", "rows.csv", "--margin", margin)
    assert refused.code == 2
    assert f"--margin {margin}" in refused.err
