"""Requests hold every text of the input, in the shapes that the service takes."""

import json
from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from rollout.load import bodies as module
from rollout.load.bodies import bodies_of, texts_of_file

TEXTS = [("x" * length, None) for length in range(1, 11)]


def test_every_text_is_in_one_request_and_full_batches_only() -> None:
    bodies = bodies_of(TEXTS, batch=4, seed=0)
    sent = [json.loads(body.content) for body in bodies]
    assert {body.inputs for body in bodies} == {4}
    assert {text for one in sent for text in one["inputs"]} == {text for text, _ in TEXTS}
    assert all(one["truncate"] is True for one in sent)


def test_a_lone_text_is_sent_bare_and_pairs_as_a_list_of_pairs() -> None:
    assert json.loads(bodies_of([("Ünïcode", None)], batch=1, seed=0)[0].content)["inputs"] == "Ünïcode"
    assert json.loads(bodies_of([("a", "b")], batch=1, seed=0)[0].content)["inputs"] == [["a", "b"]]
    # One text fills a batch by itself, again and again.
    assert json.loads(bodies_of([("a", None)], batch=3, seed=0)[0].content)["inputs"] == ["a", "a", "a"]


def test_halves_by_length_are_groups() -> None:
    groups = {len(json.loads(body.content)["inputs"]): body.group for body in bodies_of(TEXTS, batch=1, seed=0)}
    assert groups == {length: "shorter half" if length <= 5 else "longer half" for length in range(1, 11)}
    assert {body.group for body in bodies_of([("ab", None), ("cd", None)], batch=1, seed=0)} == {""}


def test_a_seed_gives_its_order_again() -> None:
    assert bodies_of(TEXTS, batch=1, seed=1) == bodies_of(TEXTS, batch=1, seed=1)
    assert bodies_of(TEXTS, batch=1, seed=1) != bodies_of(TEXTS, batch=1, seed=2)
    with pytest.raises(InputError, match="no texts"):
        bodies_of([], batch=1, seed=0)


def test_a_large_file_is_drawn_from_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_TEXTS", 100)
    path = tmp_path / "rows.txt"
    path.write_text("".join(f"{number}\n" for number in range(1000)))
    kept = [int(text) for text, _ in texts_of_file(path, "text", None, seed=0)]
    assert len(set(kept)) == 100
    assert sum(kept) / 100 == pytest.approx(500, rel=0.2)


def test_pairs_and_columns_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("q,a\nwho,me\n")
    assert texts_of_file(path, "q", "a", seed=0) == [("who", "me")]
    with pytest.raises(InputError, match="there is no column 'text'"):
        texts_of_file(path, "text", None, seed=0)
