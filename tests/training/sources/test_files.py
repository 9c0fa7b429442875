"""Every form of data gives the same rows; what is wrong with it is said with the file, the column or the row."""

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_repository import write_hub

from bentune.bundle.errors import InputError
from training.recipe.data import DataSettings
from training.sources.files import Raw, open_source, open_sources, source_digests

ROWS = [("good food", "5"), ("bad, cold food", "1"), ("dull\nfood", "3")]


def settings(source: Path | str, **more: Any) -> DataSettings:
    return DataSettings.model_validate({"source": str(source)} | more)


def read(data: DataSettings, split: str = "train") -> list[Raw]:
    return list(open_source(data, split).read())


def texts_and_labels(data: DataSettings, split: str = "train") -> list[tuple[object, object]]:
    return [(raw.text, raw.label) for raw in read(data, split)]


def write_csv(path: Path, delimiter: str = ",") -> Path:
    lines = [("text", "label"), *ROWS]
    path.write_text("".join(f'"{text}"{delimiter}{label}\n' for text, label in lines))
    return path


def write_jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS))
    return path


def write_parquet(path: Path) -> Path:
    pq.write_table(pa.table({"label": [label for _, label in ROWS], "text": [text for text, _ in ROWS]}), path)
    return path


def write_folder(path: Path) -> Path:
    for number, (text, label) in enumerate(ROWS):
        (path / label).mkdir(parents=True)
        (path / label / f"{number}.txt").write_text(text)
    return path


@pytest.mark.parametrize(
    "write",
    [
        lambda tmp: write_csv(tmp / "rows.csv"),
        lambda tmp: write_csv(tmp / "ROWS.CSV"),
        lambda tmp: write_csv(tmp / "rows.tsv", "\t"),
        lambda tmp: write_jsonl(tmp / "rows.jsonl"),
        lambda tmp: write_jsonl(tmp / "rows.ndjson"),
        lambda tmp: write_parquet(tmp / "rows.parquet"),
        lambda tmp: write_folder(tmp / "rows"),
    ],
)
def test_every_form_gives_the_same_rows(write: Callable[[Path], Path], tmp_path: Path) -> None:
    data = settings(write(tmp_path))
    assert sorted(texts_and_labels(data)) == sorted(ROWS)  # type: ignore[type-var]
    assert sorted(texts_and_labels(data)) == sorted(ROWS)  # type: ignore[type-var]


def test_a_row_is_named_by_its_line_row_or_file(tmp_path: Path) -> None:
    origins = [raw.origin for raw in read(settings(write_csv(tmp_path / "rows.csv")))]
    assert origins == ["rows.csv line 2", "rows.csv line 3", "rows.csv line 4"]
    assert [raw.origin for raw in read(settings(write_parquet(tmp_path / "rows.parquet")))][-1] == "rows.parquet row 2"
    assert [raw.origin for raw in read(settings(write_folder(tmp_path / "rows")))] == ["1/1.txt", "3/2.txt", "5/0.txt"]


def test_pairs_have_a_second_text(tmp_path: Path) -> None:
    (tmp_path / "pairs.csv").write_text("first,second,label\na,b,yes\n")
    columns = {"text": "first", "text_pair": "second"}
    (raw,) = read(settings(tmp_path / "pairs.csv", columns=columns))
    assert (raw.text, raw.text_pair, raw.label) == ("a", "b", "yes")
    with pytest.raises(InputError, match="data.columns.text_pair: second: a folder of classes has no second text"):
        open_source(settings(write_folder(tmp_path / "rows"), columns=columns), "train")


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_missing_column_names_those_that_are_there_and_the_nearest(name: str, tmp_path: Path) -> None:
    path = {"rows.csv": write_csv, "rows.jsonl": write_jsonl, "rows.parquet": write_parquet}[name](tmp_path / name)
    with pytest.raises(InputError) as caught:
        open_source(settings(path, columns={"text": "txet"}), "train")
    message = str(caught.value)
    assert message.startswith(f"data.columns.text: {path} has no column 'txet'; the columns are ")
    assert "'text'" in message
    assert "'label'" in message
    assert message.endswith("; did you mean 'text'?")


def test_a_file_of_an_unknown_form(tmp_path: Path) -> None:
    (tmp_path / "rows.doc").touch()
    with pytest.raises(InputError, match=r"data\.source: .*rows\.doc: unknown file type '\.doc'; convert it to one of"):
        open_source(settings(tmp_path / "rows.doc"), "train")
    (tmp_path / "rows.txt").write_text("a text\n")
    with pytest.raises(InputError, match=r"rows\.txt is a text file, and its lines have no labels; give one of \.csv"):
        open_source(settings(tmp_path / "rows.txt"), "train")


def test_a_csv_that_is_not_utf_8_is_named_with_line_and_byte(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text,label\ngood,1\ncaf\xe9,2\n")
    (first, second) = read(settings(tmp_path / "rows.csv"))
    assert (first.text, first.problem) == ("good", None)
    assert second.origin == "rows.csv line 3"
    assert str(second.problem).startswith("not UTF-8: byte 0xe9 at byte offset 21; it may be cp1252")


def test_a_parquet_file_that_is_none_or_broken(tmp_path: Path) -> None:
    (tmp_path / "none.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match=r"none\.parquet is not a Parquet file"):
        open_source(settings(tmp_path / "none.parquet"), "train")
    broken = write_parquet(tmp_path / "broken.parquet")
    content = bytearray(broken.read_bytes())
    content[4:80] = bytes(76)
    broken.write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.parquet cannot be read after row 0"):
        read(settings(broken))
    pq.write_table(
        pa.table({"text": pa.array([b"caf\xe9"]).view(pa.string()), "label": ["a"]}), tmp_path / "text.parquet"
    )
    with pytest.raises(InputError, match=r"text\.parquet cannot be read after row 0"):
        read(settings(tmp_path / "text.parquet"))


def test_a_folder_names_files_that_cannot_be_used_and_leaves_out_what_is_no_text(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "rows")
    (folder / "1/latin.txt").write_bytes(b"caf\xe9")
    (folder / "1/bom.txt").write_bytes(b"\xef\xbb\xbfmarked")
    with (folder / "1/huge.txt").open("wb") as file:
        file.truncate(10_000_001)
    (folder / "1/folder.txt").mkdir()
    os.mkfifo(folder / "1/pipe.txt")
    (folder / "1/gone.txt").symlink_to("nowhere")
    (folder / "1/notes.md").write_text("no text")
    (folder / "notes.txt").write_text("no class")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/x.txt").write_text("hidden")
    found = {raw.origin: raw for raw in read(settings(folder))}
    assert sorted(found) == ["1/1.txt", "1/bom.txt", "1/huge.txt", "1/latin.txt", "3/2.txt", "5/0.txt"]
    assert found["1/latin.txt"].problem == "not UTF-8 (byte 0xe9 at 3)"
    assert found["1/huge.txt"].problem == "larger than 10000000 bytes"
    assert found["1/bom.txt"].text == "marked"


def test_a_folder_without_classes_and_without_files_of_rows(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(
        InputError, match=r"holds no file of rows \(\.csv, .*\) and no <class>/<text>\.txt; give a folder"
    ):
        open_source(settings(tmp_path), "train")


def test_a_folder_that_grows_has_the_rows_of_all_its_files_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    write_csv(folder / "b.csv")
    write_parquet(folder / "a.parquet")
    for name in (".part.csv", "_c.csv", "notes.txt"):
        (folder / name).write_text("text,label\nnever,read\n")
    (folder / "deeper").mkdir()
    write_csv(folder / "deeper/c.csv")
    assert texts_and_labels(settings(folder)) == [*ROWS, *ROWS]
    assert [raw.origin for raw in read(settings(folder))][2:4] == ["a.parquet row 2", "b.csv line 2"]
    before = source_digests(settings(folder))
    assert source_digests(settings(folder)) == before
    write_jsonl(folder / "c.jsonl")
    assert source_digests(settings(folder)) != before
    assert texts_and_labels(settings(folder)) == [*ROWS, *ROWS, *ROWS]
    (folder / "d.csv").write_text("txet,label\na,b\n")
    with pytest.raises(InputError, match=r"data\.columns\.text: .*d\.csv has no column 'text'"):
        read(settings(folder))


def test_classes_and_cards_are_still_seen_beside_files_of_rows(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "rows")
    write_csv(folder / "extra.csv")
    assert sorted(texts_and_labels(settings(folder))) == sorted(ROWS)  # type: ignore[type-var]
    hub = write_hub(tmp_path / "hub")
    (hub / "extra.csv").write_text("text,label\na,b\n")
    assert len(open_sources(settings(hub, split={"test": "test"}))) == 2


def test_a_card_beside_the_classes_does_not_make_a_hub_repository_of_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "rows")
    (folder / "README.md").write_text("# What this is")
    assert sorted(texts_and_labels(settings(folder))) == sorted(ROWS)  # type: ignore[type-var]


def test_a_hub_repository_on_this_machine_has_splits_and_names_for_its_classes(tmp_path: Path) -> None:
    data = settings(write_hub(tmp_path / "yelp"), split={"train": "train", "test": "test"})
    train, test = open_sources(data)
    assert [(raw.text, raw.label) for raw in train.read()][:4] == [
        ("train review 0", "1 star"),
        ("train review 1", "2 star"),
        ("train review 2", "3 stars"),
        ("train review 3", "1 star"),
    ]
    assert [raw.text for raw in test.read()] == ["test review 0", "test review 1", "test review 2"]
    assert next(iter(test.read())).origin.endswith("yelp test, test-00000-of-00001.parquet row 0")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"split": {"test": "tset"}}, "split 'tset': Bad split: tset. Available splits: ['train', 'test']"),
        ({"config": "nope"}, "BuilderConfig 'nope' not found. Available: ['yelp_review_full']"),
        ({"columns": {"text": "txet"}}, "has no column 'txet'; the columns are 'label', 'text'; did you mean 'text'?"),
    ],
)
def test_what_a_hub_repository_does_not_have(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_sources(settings(write_hub(tmp_path / "yelp"), **more))
    assert words in str(caught.value)


def test_a_broken_file_of_a_hub_repository(tmp_path: Path) -> None:
    folder = write_hub(tmp_path / "yelp")
    (folder / "yelp_review_full/train-00000-of-00001.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(InputError, match="yelp.*is not a Parquet file"):
        read(settings(folder))


def test_a_file_has_no_splits(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "rows.csv")
    with pytest.raises(
        InputError, match=r"data\.split\.test: 'test' is a split of a hub data set, and .* has no splits"
    ):
        open_sources(settings(path, split={"test": "test"}))


def test_a_hub_name_without_a_network_fails_soon_and_says_why() -> None:
    start = time.monotonic()
    with pytest.raises(InputError) as caught:
        open_source(settings("Yelp/yelp_review_full"), "train")
    assert time.monotonic() - start < 10
    assert str(caught.value) == (
        "data.source: Yelp/yelp_review_full could not be loaded: there is no such path here, and the hub "
        "(http://127.0.0.1:9) cannot be reached. Check the network, or give a local path or package:NAME/path"
    )


@pytest.mark.parametrize("form", ["csv", "folder", "hub", "parquet"])
def test_the_digest_changes_with_the_content_and_only_with_it(form: str, tmp_path: Path) -> None:
    if form == "csv":
        path = file = write_csv(tmp_path / "rows.csv")
    elif form == "parquet":
        path = file = write_parquet(tmp_path / "rows.parquet")
    elif form == "folder":
        path = write_folder(tmp_path / "rows")
        file = path / "1/1.txt"
    else:
        path = write_hub(tmp_path / "yelp")
        file = path / "yelp_review_full/train-00000-of-00001.parquet"
    before = source_digests(settings(path))
    os.utime(file, (1, 1))
    assert source_digests(settings(path)) == before
    if file.suffix == ".parquet":
        pq.write_table(pa.table({"label": [0], "text": ["other"]}), file)
    else:
        file.write_text(file.read_text().replace("food", "feed"))
    assert source_digests(settings(path)) != before
    if form == "hub":
        # The cache of datasets would still give the rows of before.
        assert [raw.text for raw in read(settings(path))] == ["other"]


def test_the_digest_of_a_folder_changes_when_a_text_changes_its_class(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "rows")
    before = source_digests(settings(folder))
    (folder / "1/1.txt").rename(folder / "3/1.txt")
    assert source_digests(settings(folder)) != before


def test_each_split_of_a_hub_repository_has_a_digest(tmp_path: Path) -> None:
    data = settings(write_hub(tmp_path / "yelp"), split={"test": "test"})
    assert len(source_digests(data)) == 2
    assert len(source_digests(settings(tmp_path / "yelp"))) == 1


def test_several_files_and_globs_are_read_as_one(tmp_path: Path) -> None:
    write_csv(tmp_path / "one.csv")
    (tmp_path / "more").mkdir()
    write_jsonl(tmp_path / "more/two.jsonl")
    write_parquet(tmp_path / "more/three.parquet")
    places = [str(tmp_path / "one.csv"), str(tmp_path / "more/*"), str(tmp_path / "more/two.jsonl")]
    data = DataSettings.model_validate({"source": places})
    # A file that two of the names lead to is read once.
    assert sorted(raw.origin.split()[0] for raw in read(data)) == sorted(
        ["one.csv"] * 3 + ["two.jsonl"] * 3 + ["three.parquet"] * 3
    )
    assert texts_and_labels(data).count(ROWS[0]) == 3
    turned = DataSettings.model_validate({"source": places[::-1]})
    assert source_digests(turned) == source_digests(data)
    (tmp_path / "one.csv").write_text("text,label\nx,y\n")
    assert source_digests(turned) != source_digests(DataSettings.model_validate({"source": places[1:]}))


def test_rows_of_files_with_the_same_name_can_be_told_apart(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_csv(tmp_path / folder / "rows.csv")
    origins = [raw.origin for raw in read(settings(tmp_path / "*/rows.csv"))]
    assert len(set(origins)) == 6
    assert origins[0] == f"{tmp_path / 'a/rows.csv'}, rows.csv line 2"


def test_one_of_several_files_without_the_column_is_named(tmp_path: Path) -> None:
    write_csv(tmp_path / "one.csv")
    (tmp_path / "two.csv").write_text("txt,label\na,b\n")
    with pytest.raises(InputError, match=r"data.columns.text: .*two.csv has no column 'text'.*did you mean 'txt'"):
        read(DataSettings.model_validate({"source": [str(tmp_path / "one.csv"), str(tmp_path / "two.csv")]}))


@pytest.mark.parametrize("source", ["", [], ["a.csv", ""], ["sql:A", "sql:B"]])
def test_a_list_of_sources_that_is_none(source: Any) -> None:
    with pytest.raises(ValueError, match="name at least one source|only one source may be sql"):
        DataSettings.model_validate({"source": source, "query": "SELECT 1" if "sql:A" in source else None})


LABELS = ["NA", "null", "None", "n/a", "01", "1", "001", "true", "nan", "7", "1e3"]
CARD = "---\nlicense: cc0-1.0\n---\nRandom words.\n"


def write_odd(folder: Path, name: str) -> Path:
    """Rows with labels that readers of tables take for something else, one of them a JSON number."""
    folder.mkdir()
    rows = [{"text": f"text {number}", "label": label} for number, label in enumerate(LABELS)]
    if name.endswith(".jsonl"):
        rows.append({"text": "a number", "label": 5})  # type: ignore[dict-item]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        delimiter = "," if name.endswith(".csv") else "\t"
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    return folder


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl"])
def test_a_card_beside_a_file_does_not_change_its_rows(name: str, tmp_path: Path) -> None:
    plain = write_odd(tmp_path / "plain", name)
    hub = write_odd(tmp_path / "hub", name)
    (hub / "README.md").write_text(CARD)
    expected = [*LABELS, 5] if name.endswith(".jsonl") else LABELS
    for folder in (plain, hub):
        assert [raw.label for raw in read(settings(folder))] == expected
    assert texts_and_labels(settings(plain)) == texts_and_labels(settings(hub))


def test_the_card_names_the_classes_of_a_csv(tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    (folder / "train.csv").write_text("text,label\na,1\nb,0\nc,7\n")
    names = "class_label:\n        names:\n          '0': bad\n          '1': good"
    features = f"  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      {names}"
    (folder / "README.md").write_text(f"---\ndataset_info:\n  features:\n{features}\n---\n")
    assert [raw.label for raw in read(settings(folder))] == ["good", "bad", 7]


def test_a_split_of_a_hub_layout_is_its_own_files(tmp_path: Path) -> None:
    folder = write_odd(tmp_path / "hub", "train.csv")
    (folder / "test.csv").write_text("text,label\nheld out,NA\n")
    (folder / "README.md").write_text(CARD)
    train, test = open_sources(settings(folder, split={"test": "test"}))
    assert len([*train.read()]) == len(LABELS)
    assert [(raw.text, raw.label) for raw in test.read()] == [("held out", "NA")]
    assert train.digest != test.digest
    with pytest.raises(InputError, match=r"Bad split: train\[:10\]\. Available splits: \['test', 'train'\]"):
        open_source(settings(folder), "train[:10]")


def test_a_folder_that_datasets_has_saved(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    rows = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    rows.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "two"))
    assert texts_and_labels(settings(tmp_path / "one")) == [("a", "good"), ("b", "bad")]
    train, test = open_sources(settings(tmp_path / "two", split={"test": "test"}))
    assert [raw.label for raw in train.read()] == ["good", "bad"]
    assert [raw.label for raw in test.read()] == ["good"]
    with pytest.raises(InputError, match="has no split 'valid'; it has 'train', 'test'"):
        open_source(settings(tmp_path / "two"), "valid")


def test_keys_of_inner_objects_are_columns(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"body": {"en": "a text"}, "meta": {"label": "x"}}\n')
    (raw,) = read(settings(tmp_path / "rows.jsonl", columns={"text": "body.en", "label": "meta.label"}))
    assert (raw.text, raw.label) == ("a text", "x")


def test_every_row_that_cannot_be_read_has_its_problem(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,1\nb\nc,2,3\nd,1\n")
    found = read(settings(tmp_path / "rows.csv"))
    assert [(raw.origin, raw.text, bool(raw.problem)) for raw in found] == [
        ("rows.csv line 2", "a", False),
        ("rows.csv line 3", None, True),
        ("rows.csv line 4", None, True),
        ("rows.csv line 5", "d", False),
    ]


def test_the_form_of_a_file_is_the_recipes(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("\u597d;gut\n\u574f;schlecht\n".encode("gbk"))
    found = read(settings(tmp_path / "rows.csv", encoding="gbk", delimiter=";", header=["text", "label"]))
    assert [(raw.text, raw.label) for raw in found] == [("\u597d", "gut"), ("\u574f", "schlecht")]
    for more in ({"encoding": "nonsense"}, {"delimiter": "::"}, {"header": ["a", "a"]}, {"header": []}):
        with pytest.raises(ValueError, match=next(iter(more))):
            settings(tmp_path / "rows.csv", **more)
