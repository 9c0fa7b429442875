"""Rows of a query: streamed, in any order the same, and without the database's password in anything that is kept."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bentune.bundle.errors import InputError
from training.recipe.data import DataSettings
from training.sources.database import Query
from training.sources.files import open_source, source_digests

VARIABLE = "REVIEWS_URL"
SELECT = "SELECT body, stars FROM reviews"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "rows.db"
    monkeypatch.setenv(VARIABLE, f"sqlite:///{path}")
    write(path, "CREATE TABLE reviews (body TEXT, stars NUMERIC)")
    write(path, "INSERT INTO reviews VALUES ('good food', 5), ('100% cold: bad', 1), ('dull', 3)")
    return path


def write(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement)


def settings(query: str = SELECT, source: str = f"sql:{VARIABLE}", **more: Any) -> DataSettings:
    columns = {"text": "body", "label": "stars"}
    return DataSettings.model_validate({"source": source, "query": query, "columns": columns} | more)


def test_the_rows_of_a_query(database: Path) -> None:
    source = open_source(settings(), "train")
    assert source.name == "sql:REVIEWS_URL"
    for _ in range(2):
        rows = [(raw.origin, raw.text, raw.label) for raw in source.read()]
        assert rows == [
            ("sql:REVIEWS_URL row 0", "good food", 5),
            ("sql:REVIEWS_URL row 1", "100% cold: bad", 1),
            ("sql:REVIEWS_URL row 2", "dull", 3),
        ]


def test_a_query_is_taken_as_it_is_written(database: Path) -> None:
    query = "SELECT body, stars FROM reviews WHERE body LIKE '100% cold: b%' AND body <> ' :name'"
    assert [raw.text for raw in open_source(settings(query), "train").read()] == ["100% cold: bad"]


def test_the_digest_follows_the_rows_and_not_their_order(database: Path) -> None:
    before = source_digests(settings())
    assert source_digests(settings(f"{SELECT} ORDER BY body")) == before
    assert source_digests(settings(f"{SELECT} WHERE stars > 1")) != before
    write(database, "INSERT INTO reviews VALUES ('dull', 3)")
    assert source_digests(settings()) != before
    write(database, "DELETE FROM reviews WHERE rowid = 4")
    assert source_digests(settings()) == before
    write(database, "UPDATE reviews SET stars = 2 WHERE body = 'dull'")
    assert source_digests(settings()) != before


def test_what_is_not_read_changes_nothing(database: Path) -> None:
    before = source_digests(settings("SELECT body, stars, 1 AS seen FROM reviews"))
    assert source_digests(settings("SELECT body, stars, 2 AS seen FROM reviews")) == before


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(InputError, match="the environment variable NOWHERE is not set"):
        Query.of("sql:NOWHERE", SELECT, {})


def test_a_column_that_the_query_does_not_give(database: Path) -> None:
    with pytest.raises(InputError, match="text: sql:REVIEWS_URL has no column 'body'; the columns are 'stars'"):
        open_source(settings("SELECT stars FROM reviews"), "train")


@pytest.mark.parametrize(
    ("url", "query", "words"),
    [
        ("sqlite://", "SELECT * FROM nowhere", "no such table: nowhere"),
        ("nosuch://user:hunter2@host/name", SELECT, "nosuch"),
        ("sqlite:////no/such/directory/of/hunter2.db", SELECT, "unable to open database file"),
        ("hunter2", SELECT, "Could not parse"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line_without_the_password(url: str, query: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        list(Query.of(f"sql:{VARIABLE}", query, {VARIABLE: url}).rows())
    message = str(caught.value)
    assert message.startswith("data.query: sql:REVIEWS_URL: ")
    assert words in message
    assert "hunter2" not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None


def test_a_password_that_a_driver_repeats_is_struck_out() -> None:
    url = "postgresql://user:hunter2@host/name"
    said = Query(VARIABLE, SELECT, {VARIABLE: url})._said(ValueError(f"no {url} with hunter2\nmore"))
    assert said == "no *** with ***"


@pytest.mark.parametrize("given", [{"source": "rows.csv", "query": SELECT}, {"source": f"sql:{VARIABLE}"}])
def test_a_query_and_a_database_go_together(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="a source sql:VARIABLE and a query go together"):
        DataSettings.model_validate(given)


def test_a_query_has_no_splits(database: Path) -> None:
    with pytest.raises(InputError, match="sql:REVIEWS_URL has no splits"):
        open_source(settings(split={"test": "test"}), "train")


def test_rows_are_streamed(database: Path) -> None:
    """The first rows come at once from a query with more rows than any memory holds."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    rows = Query.of(f"sql:{VARIABLE}", endless).rows()
    assert [next(rows) for _ in range(3)] == [{"i": 1}, {"i": 2}, {"i": 3}]
    rows.close()
