"""Which bundle a Bento holds and serves, and the bundles that are never served."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import bentoml
import pytest

import service
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Columns, GoldenRow, open_bundle
from bentune.bundle.plan import CPU, FP32, scores_key
from service.engine.predictor import Predictor

ROOT = Path(service.__file__).resolve().parent.parent
Serve = Callable[..., AbstractContextManager[Any]]


def command(*arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
    """Run Python in the repository, with the stores of the tests."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=False
    )


@pytest.fixture
def build() -> Iterator[Callable[..., bentoml.Bento]]:
    """Run `bentoml build`; what it built is deleted afterwards."""
    built: list[str] = []

    def run(name: str, *arguments: str) -> bentoml.Bento:
        version = f"test{len(built)}"
        outcome = command("-m", "bentoml", "build", ".", "--version", version, *arguments)
        assert outcome.returncode == 0, outcome.stderr
        built.append(f"{name}:{version}")
        return bentoml.bentos.get(built[-1])

    yield run
    for tag in built:
        bentoml.bentos.delete(tag)


def test_a_bento_holds_the_newest_bundle_or_the_named_one_and_serves_no_other(
    store_bundle: Callable[..., str], build: Callable[..., bentoml.Bento], serve: Serve, tmp_path: Path
) -> None:
    first = store_bundle("first", version="99991231-235958-aaaaaa")
    store_bundle("zeroth", version="99991231-235957-ffffff")  # after the clock was set back
    newest = build("first")
    store_bundle("second", version="99991231-235959-aaaaaa")
    named = build("first", "--arg", f"model={first}")
    for bento in (newest, named):
        assert [str(model.tag) for model in bento.info.all_models] == [first]
    packed = {path.relative_to(named.path).as_posix() for path in Path(named.path).rglob("*.py")}
    rooms = [*(ROOT / "service").rglob("*.py"), *(ROOT / "bentune/bundle").rglob("*.py"), ROOT / "bentune/__init__.py"]
    assert packed == {f"src/{path.relative_to(ROOT)}" for path in rooms}
    with serve(str(newest.tag), cwd=tmp_path) as server:
        server.until_status("/readyz", 200)
        info = server.client.get("/info").json()
        assert f"{info['name']}:{info['version']}" == first
        assert info["digest"] == open_bundle(Path(bentoml.models.get(first).path)).digest
        assert server.predict("a cat").json()[0]["label"] == "animal"


# Bundles and settings that are never served.


def test_golden_rows_with_other_scores_keep_it_alive_and_never_ready(
    store_bundle: Callable[..., str], serve: Serve
) -> None:
    def swap(root: Path) -> None:
        rows = [json.loads(line) for line in (root / "golden.jsonl").read_text().splitlines()]
        for row in rows[:3]:
            row["scores"] = {key: [0.0, 0.0, 0.0] for key in row["scores"]}
        rows[3]["scores"] = {key: scores[:2] for key, scores in rows[3]["scores"].items()}
        (root / "golden.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    with serve(".", "--arg", f"model={store_bundle('swapped', swap)}") as server:
        server.until_status("/livez", 200)
        assert server.client.get("/readyz").status_code == 503
        answer = server.predict("a cat")
        assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")
        info = server.client.get("/info").json()
        assert info["ready"] is False
        assert info["golden"]["failed"] >= 3
        assert info["golden"]["largest_difference"] is None, "JSON has no infinity"
        assert server.metric("bentune_rejected_total", reason="not_ready") == 1
        assert server.client.get("/readyz").status_code == 503
        assert "is not ready" in server.printed()
        assert "golden rows (numbers [" in server.printed()


def assert_does_not_start(serve: Serve, tag: str, message: str, env: dict[str, str] | None = None) -> None:
    with serve(".", "--arg", f"model={tag}", env=env) as server:
        assert server.process.wait(60) not in (0, None)
        assert message in server.printed()


def test_a_changed_bundle_ends_the_server_and_the_file_is_named(store_bundle: Callable[..., str], serve: Serve) -> None:
    tag = store_bundle("tampered")
    file = Path(bentoml.models.get(tag).path) / "model/fp32.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert_does_not_start(serve, tag, f"{file.name} was changed after it was written")


def test_a_wrong_setting_ends_the_server_and_the_variable_is_named(
    store_bundle: Callable[..., str], serve: Serve
) -> None:
    tag = store_bundle("setting")
    assert_does_not_start(serve, tag, "BENTUNE_QUEUE_TOKENS='many'", env={"BENTUNE_QUEUE_TOKENS": "many"})


def test_a_task_that_is_not_served_is_named(store_bundle: Callable[..., str]) -> None:
    tag = store_bundle("future", task="token-classification")
    outcome = command("-m", "bentoml", "build", ".", "--arg", f"model={tag}")
    assert outcome.returncode != 0
    assert (
        "future:1 has the task 'token-classification'; this version serves text-classification, image-classification"
        in outcome.stderr
    )


def test_without_a_bundle_there_is_nothing_to_build(tmp_path: Path) -> None:
    outcome = command("-m", "bentoml", "build", ".", BENTOML_HOME=str(tmp_path))
    assert outcome.returncode != 0
    assert "the BentoML model store has no bundle: `bentune run RECIPE` makes one" in outcome.stderr


# Settings of BentoML, and imports of the service.


def test_the_time_limit_of_bentoml_comes_after_ours(tiny_tag: str) -> None:
    code = "import service.bento; print(service.bento.service.config['traffic']['timeout'])"
    outcome = command("-c", code, BENTUNE_REQUEST_TIMEOUT_MS="120000")
    assert outcome.stdout.strip() == "125.0", outcome.stderr


def test_serving_imports_neither_training_nor_torch(tiny_tag: str) -> None:
    code = "import service.bento, service.app, json, sys; print(json.dumps(sorted(sys.modules)))"
    outcome = command("-c", code)
    assert outcome.returncode == 0, outcome.stderr
    modules = json.loads(outcome.stdout)
    loaded = {name.partition(".")[0] for name in modules}
    assert {".".join(name.split(".")[:2]) for name in modules if name.startswith("bentune.")} == {"bentune.bundle"}
    assert {"service", "onnxruntime", "tokenizers"} <= loaded
    assert not loaded & {
        "training",
        "rollout",
        "torch",
        "transformers",
        "optimum",
        "peft",
        "onnx",
        "datasets",
    }


# A model of pairs.

FP32_SCORES = scores_key(FP32, CPU)
PAIRS = [("a cat near", "the dog"), ("bread and", "some hammer"), ("here", "the saw was with a drill and a wrench 12")]


@pytest.fixture(scope="module")
def pair_server(share_bundle: Callable[..., str], serve: Serve, tiny_bundle: Path) -> Iterator[Any]:
    predictor = Predictor.from_bundle(open_bundle(tiny_bundle), describe())
    target = predictor.task.target

    def pair(root: Path) -> None:
        rows = [
            GoldenRow(
                text=first,
                text_pair=second,
                label=scores[0]["label"],
                scores={FP32_SCORES: target.read([scores])[0].tolist()},
                tolerance=1e-3,
            )
            for (first, second), scores in zip(PAIRS, predictor.score(PAIRS), strict=True)
        ]
        (root / "golden.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in rows))

    tag = share_bundle("pairs", pair, columns=Columns(text="premise", text_pair="hypothesis"))
    with serve(".", "--arg", f"model={tag}") as server:
        server.until_status("/readyz", 200)
        yield server


def test_a_pair_gets_a_list_and_a_batch_of_pairs_a_list_of_lists(pair_server: Any, tiny_bundle: Path) -> None:
    expected = Predictor.from_bundle(open_bundle(tiny_bundle), describe()).score(PAIRS)
    scores = [{p["label"]: pytest.approx(p["score"], abs=1e-5) for p in one} for one in expected]
    for pair, wanted in zip(PAIRS, scores, strict=True):
        assert {p["label"]: p["score"] for p in pair_server.predict(list(pair)).json()} == wanted
    batch = pair_server.predict([list(pair) for pair in PAIRS]).json()
    assert [{p["label"]: p["score"] for p in one} for one in batch] == scores
    assert len(pair_server.predict([list(PAIRS[0])]).json()) == 1
    assert pair_server.client.get("/info").json()["inputs"] == "pair"


def test_the_order_within_a_pair_matters(pair_server: Any) -> None:
    first, second = PAIRS[1]
    assert pair_server.predict([first, second]).json() != pair_server.predict([second, first]).json()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("a cat", "`inputs`: this model takes a pair [text, text], got 1 text"),
        (["a cat"], "`inputs`: this model takes a pair [text, text], got 1 text"),
        (["a", "b", "c"], "`inputs`: this model takes a pair [text, text], got 3 texts"),
        ([["a", "b"], ["c"]], "`inputs.1`: this model takes a pair [text, text], got 1 text"),
        (["a cat", ""], "`inputs` must not be empty"),
    ],
)
def test_what_is_no_pair_is_refused(pair_server: Any, inputs: Any, message: str) -> None:
    answer = pair_server.predict(inputs)
    assert (answer.status_code, answer.json()) == (422, {"error": message, "error_type": "Validation"})


def test_the_longer_text_of_a_pair_is_cut_first(pair_server: Any) -> None:
    short, long = "the dog", "cat " * 40
    assert pair_server.predict([short, long]).status_code == 413
    cut = pair_server.predict([short, long], truncate=True).json()
    assert cut == pair_server.predict([short, "cat " * 60], truncate=True).json()
    assert cut != pair_server.predict(["the saw", long], truncate=True).json(), "the short one is still there"
