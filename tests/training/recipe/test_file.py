"""Recipe files: every problem at once, with its path and the nearest name; overrides; where each value came from."""

import json
from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from training.recipe.file import LoadedRecipe, digest, explain, load_recipe, spelled_out
from training.recipe.recipe import Recipe

LEAST = "task: text-classification\nmodel: m\ndata: {source: rows.csv}\n"


def load(tmp_path: Path, text: str, *overrides: str, name: str = "reviews.yaml") -> LoadedRecipe:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, overrides)


def problems(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, *overrides)
    first, *rest = str(caught.value).splitlines()
    assert first.startswith(f"{tmp_path / 'reviews.yaml'}: {len(rest)} problem")
    return [line.strip() for line in rest]


def refused(tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text, *overrides)
    return str(caught.value)


def test_every_problem_is_reported_at_once_with_its_path(tmp_path: Path) -> None:
    text = """
task: text-classification
data:
  source: rows.csv
  colums: {text: review}
  columns: {txt: review, label: 5}
  split: {test: [1]}
  rows: {train: 0}
method: {name: lora, rnak: 3, rank: many, target_modules: [1]}
train: {epochs: true, batch_size: 2.5, learning_rate: fast}
evaluate: 3
seeds: 1
"""
    assert problems(tmp_path, text) == [
        "model: is missing; every recipe must give it",
        "data.columns.label: Input should be a valid string, got '5'",
        "data.columns.txt: no such key; did you mean `text`?",
        "data.split.test: Input should be a valid number / Input should be a valid string, got '[1]'",
        "data.rows.train: Input should be greater than or equal to 1, got '0'",
        "data.colums: no such key; did you mean `columns`?",
        "method.rank: Input should be a valid integer, got 'many'",
        "method.target_modules: Input should be 'auto', got '[1]'",
        "method.target_modules.0: Input should be a valid string, got '1'",
        "method.rnak: no such key; did you mean `rank`?",
        "train.epochs: Input should be a valid number, got 'True'",
        "train.learning_rate: Input should be a valid number, got 'fast'",
        "train.batch_size: Input should be a valid integer, got '2.5'",
        "evaluate: Input should be an object, got '3'",
        "seeds: no such key; did you mean `seed`?",
    ]


def test_a_key_that_is_near_to_nothing_gets_the_list_of_valid_ones(tmp_path: Path) -> None:
    assert problems(tmp_path, LEAST + "zzz: 1\n") == [f"zzz: no such key; valid: {', '.join(Recipe.model_fields)}"]
    assert problems(tmp_path, LEAST + "method: {name: full, rank: 3}\n") == ["method.rank: no such key; valid: name"]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("loar", "method: no such method; did you mean `lora`?"),
        ("frezee", "method: no such method; did you mean `freeze`?"),
        ("{name: ful}", "method: no such method; did you mean `full`?"),
        ("{name: zzz}", "method: no such method; valid: full, lora, qlora, bias, freeze, head"),
        ("{rank: 3}", "method: no such method; give `name` as one of full, lora, qlora, bias, freeze, head"),
    ],
)
def test_an_unknown_method(tmp_path: Path, method: str, message: str) -> None:
    assert problems(tmp_path, LEAST + f"method: {method}\n") == [message]


def test_balance_and_augmentation(tmp_path: Path) -> None:
    train = "train: {balance: weight, augment: {copys: 1, word_edits: [swop]}}\n"
    assert problems(tmp_path, LEAST + train) == [
        "train.balance: Input should be 'none', 'weights' or 'oversample' / Input should be an object, got 'weight'",
        "train.augment.word_edits.0: Input should be 'swap', 'drop' or 'duplicate', got 'swop'",
        "train.augment.copys: no such key; did you mean `copies`?",
    ]
    (wrong,) = problems(tmp_path, LEAST + "train: {balance: {cap: 0}}\n")
    assert wrong.startswith("train.balance: Input should be")
    loaded = load(tmp_path, LEAST + "train: {balance: {cap: 9}}\n", "train.augment.copies=2")
    found = {row.key: (row.value, row.origin) for row in explain(loaded)}
    assert found["train.balance.cap"] == (9, str(tmp_path / "reviews.yaml"))
    assert found["train.augment.copies"] == (2, "--set")
    assert found["train.augment.word_rate"] == (0.1, "default")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("{name: qlora, rsloar: true}", "method.rsloar: no such key; did you mean `rslora`?"),
        ("{name: freeze, layers: -1}", "method.layers: Input should be greater than or equal to 0, got '-1'"),
        ("{name: freeze, layers: 1, patterns: [a]}", "method: give `layers` or `patterns`, not both"),
        ("{name: head, rank: 2}", "method.rank: no such key; valid: name"),
    ],
)
def test_a_wrong_value_of_a_method(tmp_path: Path, method: str, message: str) -> None:
    assert problems(tmp_path, LEAST + f"method: {method}\n") == [message]


def test_a_label_may_be_called_like_a_method(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, LEAST, "data.labels={head: [5]}")
    assert line.startswith("data.labels.head: Input should be")


def test_a_validators_own_words_are_shown_without_its_type(tmp_path: Path) -> None:
    assert problems(tmp_path, LEAST, "data.split.test=1.5") == [
        "data.split: test must be a share between 0 and 1, or the name of a hub split"
    ]


def test_a_long_value_is_shown_in_part(tmp_path: Path) -> None:
    (line,) = problems(tmp_path, LEAST + f"seed: {'x' * 5000}\n")
    assert line == f"seed: Input should be a valid integer, got '{'x' * 80}'"


@pytest.mark.parametrize("text", ["model: a\nmodel: b\n", "data: {source: a, 'source': b}\n", "1: a\n'1': b\n"])
def test_a_key_that_is_there_twice(tmp_path: Path, text: str) -> None:
    message = refused(tmp_path, text)
    assert "the key" in message
    assert "is there twice; remove one" in message
    assert f"line {text.strip().count(chr(10)) + 1}" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a recipe is a mapping with `task`, `model` and `data`"),
        ("- task\n- model\n", "a recipe is a mapping"),
        ("just words\n", "a recipe is a mapping"),
        ("task: [", "not YAML"),
        ("task: a: b", "not YAML"),
        ("task: !!python/object/apply:os.system [touch hacked]\n", "not YAML"),
        ("seed: !!int 1e99999999999999999\n", "not YAML"),
        ("a: &x [1]\nb: *x\n", "line 2: an alias (*name) is not allowed"),
        ("a: &x\n  b: *x\n", "line 2: an alias (*name) is not allowed"),
        ("[" * 5000, "nested too deep"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = refused(tmp_path, text)
    assert message.startswith(f"{tmp_path / 'reviews.yaml'}: ")
    assert words in message
    assert not (tmp_path / "hacked").exists()


def test_plain_values_are_those_of_yaml_1_2(tmp_path: Path) -> None:
    text = LEAST.replace("}", ", labels: {no: 2026-01-01, yes: 007, 5: on}}") + "train: {learning_rate: 1e-4}\n"
    recipe = load(tmp_path, text).recipe
    assert recipe.data.labels == {"no": "2026-01-01", "yes": "007", "5": "on"}
    assert recipe.learning_rate == 1e-4


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeff" + LEAST).recipe.task == "text-classification"


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"task: text-classification # caf\xe9\n")
    with pytest.raises(InputError, match=r"latin\.yaml: not UTF-8 at byte 31; save it as UTF-8"):
        load_recipe(path)


def test_a_file_too_large_for_a_recipe_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.yaml"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match=r"1000000000000 bytes is too large for a recipe; is it the data\?"):
        load_recipe(path)


def test_a_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    load(tmp_path, LEAST)
    with pytest.raises(InputError, match=r"review\.yaml: no such recipe file; recipes there: reviews\.yaml"):
        load_recipe(tmp_path / "review.yaml")
    with pytest.raises(InputError, match="no such recipe file"):
        load_recipe(tmp_path / "nowhere/review.yaml")
    with pytest.raises(InputError, match="no such recipe file"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("file", "name"),
    [("Yelp Stars (v2).yaml", "yelp-stars-v2"), ("_.yaml", "model"), ("x" * 100 + ".yaml", "x" * 63)],
)
def test_the_files_name_is_the_models_unless_the_recipe_gives_one(tmp_path: Path, file: str, name: str) -> None:
    assert load(tmp_path, LEAST, name=file).recipe.name == name
    assert load(tmp_path, LEAST + "name: own\n", name=file).recipe.name == "own"


def test_overrides_of_values_sections_and_the_method(tmp_path: Path) -> None:
    text = LEAST + "train: {epochs: 5, batch_size: 4}\nmethod: lora\n"
    overrides = ("train.epochs=1.5", "data.columns={text: review}", "method.rank=4", "model=", "model=other", "seed=7")
    recipe = load(tmp_path, text, *overrides).recipe
    assert (recipe.train.epochs, recipe.train.batch_size) == (1.5, 4)
    assert recipe.data.columns.text == "review"
    assert recipe.method.model_dump()["rank"] == 4
    assert (recipe.model, recipe.seed) == ("other", 7)
    replaced = load(tmp_path, text, "train={batch_size: 2}", "method=full").recipe
    assert (replaced.train.epochs, replaced.train.batch_size, replaced.method.name) == (3.0, 2, "full")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.epochs", "write it as key=value"),
        ("=1", "write it as key=value"),
        (" =1", "write it as key=value"),
        ("a..b=1", "write it as key=value"),
        ("model.name=x", "model is a value, not a section"),
        ("data.source.x.y=1", "data.source is a value, not a section"),
        ("data={source: a, source: b}", "is there twice"),
    ],
)
def test_a_wrong_override_is_quoted(tmp_path: Path, override: str, words: str) -> None:
    message = refused(tmp_path, LEAST, override)
    assert message.startswith(f"--set {override}: ")
    assert words in message


@pytest.mark.parametrize("value", ["[" * 5000, "a: b: c", "'"])
def test_an_override_that_is_not_yaml_is_a_text(tmp_path: Path, value: str) -> None:
    assert load(tmp_path, LEAST, f"model={value}").recipe.model == value


def test_an_unknown_key_in_an_override_gets_the_nearest_one(tmp_path: Path) -> None:
    assert problems(tmp_path, LEAST, "train.epoch=1") == ["train.epoch: no such key; did you mean `epochs`?"]


def test_explain_shows_every_value_and_where_it_came_from(tmp_path: Path) -> None:
    text = LEAST + "method: lora\ntrain: {epochs: 5, batch_size: 4}\n"
    loaded = load(
        tmp_path, text, "train.epochs=1", "data.columns={text: review}", "method.rank=4", "data.labels={a: b}"
    )
    rows = {row.key: row for row in explain(loaded)}
    file = str(tmp_path / "reviews.yaml")
    origins = {key: (row.value, row.origin) for key, row in rows.items()}
    assert origins["name"] == ("reviews", "the recipe file's name")
    assert origins["model"] == ("m", file)
    assert origins["train.epochs"] == (1.0, "--set")
    assert origins["train.batch_size"] == (4, file)
    assert origins["train.weight_decay"] == (0.01, "default")
    assert origins["data.columns.text"] == ("review", "--set")
    assert origins["data.columns.label"] == ("label", "default")
    assert origins["data.labels"] == ({"a": "b"}, "--set")
    assert origins["method.name"] == ("lora", file)
    assert origins["method.rank"] == (4, "--set")
    assert origins["method.alpha"] == (32, "default")
    assert rows["max_tokens"].meaning == "longer texts are cut, in training and serving"
    leaves = {
        f"{section}.{key}" for section in ("plan", "verify") for key in getattr(loaded.recipe, section).model_dump()
    }
    assert leaves <= rows.keys()


def test_an_override_of_the_method_replaces_its_origins(tmp_path: Path) -> None:
    loaded = load(tmp_path, LEAST + "method: {name: lora, rank: 4}\n", "method=full")
    assert [(row.value, row.origin) for row in explain(loaded) if row.key.startswith("method")] == [("full", "--set")]


def test_equal_recipes_have_equal_digests_however_they_were_written(tmp_path: Path) -> None:
    one = load(tmp_path, LEAST + "method: {name: lora}\nseed: 1\n").recipe
    other = load(tmp_path, "seed: 1\n" + LEAST).recipe
    assert digest(one) == digest(other)
    assert digest(one) != digest(load(tmp_path, "seed: 2\n" + LEAST).recipe)


@pytest.mark.parametrize(
    "text", ["no", "2026-01-01", "1e-4", "007", "~", "true", "5", "0x1f", "1_000", "a: b #c", "*x"]
)
def test_a_recipe_spelled_out_is_the_same_recipe(text: str, tmp_path: Path) -> None:
    given = {"task": "text-classification", "model": text, "data": {"source": text, "labels": {text: text}}}
    (tmp_path / "given.yaml").write_text(json.dumps(given))
    recipe = load_recipe(tmp_path / "given.yaml").recipe
    (tmp_path / "other-name.yaml").write_text(spelled_out(recipe))
    assert load_recipe(tmp_path / "other-name.yaml").recipe == recipe


def test_problems_of_settings_of_training_name_their_place(tmp_path: Path) -> None:
    text = LEAST + "train: {evaluate: 0, schedule: cosin, early_stopping: {metrik: accuracy, patience: 0}}\n"
    assert problems(tmp_path, text) == [
        "train.schedule: Input should be 'linear', 'cosine', 'cosine_with_restarts', 'polynomial', 'constant', "
        "'constant_with_warmup' or 'inverse_sqrt', got 'cosin'",
        "train.evaluate: Input should be 'checkpoint' or 'epoch' / Input should be greater than or equal to 1, got '0'",
        "train.early_stopping.patience: Input should be greater than or equal to 1, got '0'",
        "train.early_stopping.metrik: no such key; did you mean `metric`?",
    ]


def test_a_section_that_is_off_by_default_can_be_set_value_by_value(tmp_path: Path) -> None:
    loaded = load(tmp_path, LEAST, "train.early_stopping.patience=5")
    assert loaded.recipe.train.early_stopping is not None
    assert loaded.recipe.train.early_stopping.patience == 5
    origins = {row.key: row.origin for row in explain(loaded)}
    assert origins["train.early_stopping.patience"] == "--set"
    assert origins["train.early_stopping.metric"] == "default"


def test_sections_that_may_be_left_out_are_checked_and_explained_like_the_others(tmp_path: Path) -> None:
    wrong = LEAST + "distill: {temperature: 0, weigth: 1}\nprune: {kind: weights, amount: true}\n"
    found = problems(tmp_path, wrong)
    assert found == [
        "distill.teacher: is missing; `distill` must give it",
        "distill.temperature: Input should be greater than 0, got '0'",
        "distill.weigth: no such key; did you mean `weight`?",
        "prune.kind: Input should be 'magnitude', 'structured', 'heads' or 'neurons', got 'weights'",
        "prune.amount: Input should be a valid number, got 'True'",
    ]
    rows = {row.key: row for row in explain(load(tmp_path, LEAST, "prune.amount=0.2"))}
    assert (rows["distill"].value, rows["distill"].origin) == (None, "default")
    assert (rows["prune.amount"].value, rows["prune.amount"].origin) == (0.2, "--set")
    assert (rows["prune.kind"].value, rows["prune.kind"].origin) == ("structured", "default")
