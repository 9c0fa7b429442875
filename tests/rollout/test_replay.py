"""A replay counts what really changed, reads hostile logs in bounded memory, and says what it cannot do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binomtest

from bentune.bundle.errors import BundleError, InputError
from bentune.bundle.manifest import open_bundle
from bentune.bundle.targets.many_labels import ManyLabels
from bentune.bundle.targets.one_label import OneLabel
from bentune.bundle.targets.target import Prediction
from rollout.compare.models import BundleScorer
from rollout.replay import Rate, disagreement, read_log, require_same_labels, summary
from service.monitoring.log_files import LogFiles
from service.monitoring.prediction_log import LoggedPrediction

TARGET = OneLabel(labels=["cat", "dog"])
FIRST = f"predictions-{1:020d}-7.jsonl"


def logged(text: str | None, label: str = "cat", score: float = 0.9, **more: Any) -> LoggedPrediction:
    other = {"cat": "dog", "dog": "cat"}[label]
    values = {
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "model": "pets:1",
        "content": "c",
        "key": f"{abs(hash(text)) % 16**8:032x}",
        "characters": len(text or ""),
        "tokens": 3,
        "truncated": False,
        "label": label,
        "scores": {label: score, other: 1 - score},
        "text": text,
    }
    return LoggedPrediction(**values | more)


def write(place: Path, lines: list[LoggedPrediction | bytes], name: str = FIRST) -> Path:
    place.mkdir(exist_ok=True)
    content = [line if isinstance(line, bytes) else line.model_dump_json().encode() + b"\n" for line in lines]
    (place / name).write_bytes(b"".join(content))
    return place


class Candidate:
    """Says of a text what it is told to, and else cat at 0.8."""

    def __init__(self, **says: tuple[str, float]) -> None:
        self.says = says
        self.asked: list[tuple[str, str | None]] = []

    def score(self, texts: list[tuple[str, str | None]]) -> list[list[Prediction]]:
        self.asked += texts
        answers: list[list[Prediction]] = []
        for text, _ in texts:
            label, score = self.says.get(text, ("cat", 0.8))
            other = {"cat": "dog"}.get(label, "cat")
            answers.append([{"label": label, "score": score}, {"label": other, "score": 1 - score}])
        return answers


def test_what_changed_is_counted_by_label_and_the_surest_come_first() -> None:
    rows = [logged(name) for name in "abcdef"] + [logged("g", "dog"), logged("h", "dog", 0.6)]
    candidate = Candidate(a=("dog", 0.7), b=("dog", 0.99), c=("cat", 0.9), h=("cat", 1.0))
    told: list[int] = []
    found = disagreement(candidate, rows, told.append, TARGET)
    # g is a cat for this candidate as well.
    assert (found.rate.flips, found.rate.rows) == (4, 8)
    assert {label: (rate.flips, rate.rows) for label, rate in found.by_label.items()} == {"cat": (2, 6), "dog": (2, 2)}
    assert found.to == {("cat", "dog"): 2, ("dog", "cat"): 2}
    # b: 0.9 and 0.99; g: 0.9 and 0.8; a: 0.9 and 0.7; h: 0.6 and 1.
    assert [flip.logged.text for flip in found.flips] == ["b", "g", "a", "h"]
    assert found.moved == pytest.approx(sorted([0.6, 0.89, 0, 0.1, 0.1, 0.1, 0.7, 0.6]))
    assert found.moved_at(0.5) == pytest.approx(0.6)
    assert (candidate.asked[0], told) == (("a", None), [8])


def test_of_many_flips_the_ten_surest_are_kept_whatever_their_order() -> None:
    rows = [logged(f"t{number}", score=0.5 + (number * 37 % 600) / 1500) for number in range(600)]
    found = disagreement(Candidate(**{f"t{n}": ("dog", 0.99) for n in range(600)}), rows, lambda _: None, TARGET)
    assert found.rate.flips == 600
    surest = sorted((row.scores["cat"] for row in rows), reverse=True)[:10]
    assert [flip.logged.scores["cat"] for flip in found.flips] == surest


@pytest.mark.parametrize(("flips", "rows"), [(0, 10), (1, 10), (10, 10), (7, 300), (150, 10_000)])
def test_the_interval_is_wilsons(flips: int, rows: int) -> None:
    expected = binomtest(flips, rows).proportion_ci(method="wilson")
    assert Rate(flips, rows).interval == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_log_is_read_in_order_over_its_files_and_what_is_no_line_is_counted(tmp_path: Path) -> None:
    good = [logged("one"), logged(None), logged("a", text_pair="b"), logged("two", model="pets:2")]
    wrong = [
        b"\n",
        b"{}\n",
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"text": "' + b"x" * 3_000_000 + b'"}\n',
        logged("nan").model_dump_json().replace("0.9", "NaN").encode() + b"\n",
        logged("other").model_copy(update={"label": "horse"}).model_dump_json().encode() + b"\n",
        good[0].model_dump_json().encode()[:-10],  # the server was killed in the middle of it
    ]
    write(tmp_path / "log", [*good, *wrong])
    write(tmp_path / "log", [logged("three")], f"predictions-{2:020d}-7.jsonl")
    write(tmp_path / "log", [logged("of another program")], "other.jsonl")
    found = read_log(tmp_path / "log", pairs=False, most=100)
    assert [row.text for row in found.rows] == ["one", "two", "three"]
    assert (found.damaged, found.redacted, found.other_inputs, found.usable) == (len(wrong), 1, 1, 3)
    assert found.models == {"pets:1": 2, "pets:2": 1}
    assert [row.text for row in read_log(tmp_path / "log" / FIRST, pairs=False, most=100).rows] == ["one", "two"]
    assert [row.text_pair for row in read_log(tmp_path / "log", pairs=True, most=100).rows] == ["b"]


def test_of_a_long_log_an_even_sample_is_scored_the_same_each_time(tmp_path: Path) -> None:
    write(tmp_path / "log", [logged(f"{number}") for number in range(2000)])
    first, again = (read_log(tmp_path / "log", pairs=False, most=500) for _ in range(2))
    assert first == again
    numbers = [int(row.text or "") for row in first.rows]
    assert len(set(numbers)) == 500
    assert first.usable == 2000
    # Eight standard deviations of the mean of 500 of 2,000.
    assert abs(sum(numbers) / 500 - 1000) < 8 * 23


@pytest.mark.parametrize(
    ("lines", "pairs", "words"),
    [
        ([logged(None), logged(None)], False, "its 2 predictions have no texts.*BENTUNE_PREDICTION_LOG_TEXT=true"),
        ([logged("one")], True, "its 1 predictions are of single texts, the candidate takes pairs"),
        ([logged("one", text_pair="two")], False, "its 1 predictions are of pairs, the candidate takes single texts"),
        ([b"text,label\n"], False, "none of its 1 lines was written by a service"),
    ],
)
def test_what_cannot_be_replayed_says_what_to_do(
    lines: list[LoggedPrediction | bytes], pairs: bool, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        read_log(write(tmp_path / "log", lines), pairs=pairs, most=10)


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such log; give the directory of BENTUNE_PREDICTION_LOG"):
        read_log(tmp_path / "nowhere", pairs=False, most=10)
    with pytest.raises(InputError, match=r"no predictions-\*\.jsonl in it"):
        read_log(tmp_path, pairs=False, most=10)


def test_a_label_that_is_new_counts_and_another_model_is_refused() -> None:
    found = disagreement(Candidate(a=("horse", 0.9)), [logged("a"), logged("b")], lambda _: None, TARGET)
    assert found.to == {("cat", "horse"): 1}
    assert max(found.moved) == pytest.approx(0.8), "horse has 0.9 and cat 0.1"
    require_same_labels([logged("a")], OneLabel(labels=["cat", "horse"]))
    with pytest.raises(BundleError, match="the candidate has the labels good, bad, the log has cat, dog"):
        require_same_labels([logged("a")], OneLabel(labels=["good", "bad"]))


def test_a_log_of_another_kind_of_model_is_refused() -> None:
    tags = ManyLabels(labels=["cat", "dog"])
    several = logged("a", target="many_labels")
    require_same_labels([several], tags)
    with pytest.raises(
        BundleError, match="gives an input one label, the log is of a model that gives any number of labels"
    ):
        require_same_labels([several], TARGET)
    with pytest.raises(
        BundleError, match="gives an input any number of labels, the log is of a model that gives one label"
    ):
        require_same_labels([several, logged("b")], tags)


def test_the_summary_holds_texts_only_where_they_are_asked_for(tmp_path: Path) -> None:
    log = read_log(write(tmp_path / "log", [logged("a secret"), logged("b"), b"{}\n"]), pairs=False, most=10)
    found = disagreement(Candidate(**{"a secret": ("dog", 0.7)}), log.rows, lambda _: None, TARGET)
    said = summary(found, log, "pets:2", texts=False)
    assert "secret" not in str(said)
    assert (said["candidate"], said["answered_by"], said["rows"], said["flips"]) == ("pets:2", {"pets:1": 2}, 2, 1)
    assert said["left_out"] == {"sampled_away": 0, "damaged": 1, "redacted": 0, "other_inputs": 0}
    assert said["disagreement"]["value"] == 0.5
    assert said["to"] == [{"logged": "cat", "candidate": "dog", "rows": 1}]
    assert said["most_certain_flips"][0]["candidate"] == {"label": "dog", "score": 0.7}
    assert "a secret" in str(summary(found, log, "pets:2", texts=True))


def test_the_same_version_agrees_with_itself(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    scorer, files = BundleScorer(bundle), LogFiles(tmp_path, 2**20)
    for row in bundle.golden:
        scores = {one["label"]: one["score"] for one in scorer.score([(row.text, None)])[0]}
        best = max(scores, key=scores.__getitem__)
        files.append(
            logged(row.text).model_copy(update={"label": best, "scores": scores}).model_dump_json().encode() + b"\n"
        )
    found = disagreement(scorer, read_log(tmp_path, pairs=False, most=100).rows, lambda _: None, bundle.manifest.target)
    assert (found.rate.flips, found.rate.rows) == (0, 12)
    assert found.moved[-1] < 1e-4
