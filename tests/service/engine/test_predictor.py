"""The predictor gives what ONNX Runtime gives when it is asked directly, in the callers' order."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from bentune.bundle.errors import BundleError
from bentune.bundle.hardware import Cpu
from bentune.bundle.manifest import open_bundle
from bentune.bundle.plan import Entry, Plan
from service.engine import predictor as predictor_module
from service.engine.predictor import Predictor, Session, batches_by_length
from service.tasks.registry import task_of

ONE_CORE = Cpu(model="a test", isa=(), cores=1)
WORDS = "cat dog horse bread cheese hammer saw the a is near under with 1 2 3 unknownword".split()


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.from_bundle(open_bundle(tiny_bundle), ONE_CORE)


@pytest.fixture(scope="module")
def direct(tiny_bundle: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(tiny_bundle / "model/fp32.onnx"), providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tokenizer(tiny_bundle: Path) -> Tokenizer:
    plain = Tokenizer.from_file(str(tiny_bundle / "processor/tokenizer.json"))
    plain.no_padding()
    plain.enable_truncation(open_bundle(tiny_bundle).manifest.limits.max_tokens)
    return plain


def sentences(count: int, seed: int = 0) -> list[str]:
    generator = random.Random(seed)
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, 40))) for _ in range(count)]


def ask_directly(
    session: ort.InferenceSession, tokenizer: Tokenizer, texts: Sequence[str | tuple[str, str]]
) -> np.ndarray:
    encodings = [tokenizer.encode(text) if isinstance(text, str) else tokenizer.encode(*text) for text in texts]
    longest = max(len(encoding) for encoding in encodings)
    for encoding in encodings:
        encoding.pad(longest, pad_id=0)
    feed = {
        "input_ids": [encoding.ids for encoding in encodings],
        "attention_mask": [encoding.attention_mask for encoding in encodings],
        "token_type_ids": [encoding.type_ids for encoding in encodings],
    }
    names = [node.name for node in session.get_inputs()]
    return session.run(["logits"], {name: np.array(feed[name], dtype=np.int64) for name in names})[0]


def test_logits_are_those_of_onnxruntime(
    predictor: Predictor, direct: ort.InferenceSession, tokenizer: Tokenizer
) -> None:
    texts = sentences(12)
    for batch in [*([text] for text in texts), texts]:
        got = predictor.logits([predictor.task.encoder.encode(text, truncate=True) for text in batch])
        assert got.dtype == np.float32
        assert got == pytest.approx(ask_directly(direct, tokenizer, batch), abs=1e-6)


def test_logits_of_pairs_are_those_of_onnxruntime(
    predictor: Predictor, direct: ort.InferenceSession, tokenizer: Tokenizer
) -> None:
    pairs = list(zip(sentences(8, seed=1), sentences(8, seed=2), strict=True))
    got = predictor.logits([predictor.task.encoder.encode(*pair, truncate=True) for pair in pairs])
    assert got == pytest.approx(ask_directly(direct, tokenizer, pairs), abs=1e-6)
    swapped = predictor.logits([predictor.task.encoder.encode(second, first, truncate=True) for first, second in pairs])
    assert np.abs(got - swapped).max() > 1e-3, "the order within a pair matters"


@pytest.mark.parametrize("token_budget", [1, 64, 100_000])
def test_scores_keep_the_order_of_the_texts_however_they_are_batched(
    predictor: Predictor, direct: ort.InferenceSession, tokenizer: Tokenizer, token_budget: int
) -> None:
    texts = sentences(40)
    batching = Predictor(predictor.task, predictor.session, token_budget)
    results = batching.score([(text, None) for text in texts])
    assert len(results) == 40
    for text, result in zip(texts, results, strict=True):
        logits = ask_directly(direct, tokenizer, [text])[0].astype(np.float64)
        softmax = np.exp(logits) / np.exp(logits).sum()
        assert [p["score"] for p in result] == sorted((p["score"] for p in result), reverse=True)
        got = {p["label"]: p["score"] for p in result}
        assert got == pytest.approx(dict(zip(["animal", "food", "tool"], softmax, strict=True)), abs=1e-5)


def test_no_texts_give_no_scores(predictor: Predictor) -> None:
    assert predictor.score([]) == []


def test_inputs_that_the_graph_does_not_take_are_left_out(tiny_bundle: Path, tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input_ids"], ["ids"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["ids"], ["logits"], keepdims=1),
        ],
        "sum",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["rows", "tokens"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), tmp_path / "sum.onnx"
    )
    bundle = open_bundle(tiny_bundle)
    session = Session(tmp_path / "sum.onnx", "CPUExecutionProvider", 1)
    small = Predictor(task_of(bundle), session)
    tokens = small.task.encoder.encode("cat dog", truncate=True)
    assert small.logits([tokens]).tolist() == [[sum(tokens.ids)]]


def test_a_missing_provider_is_named_with_those_that_are_there(tiny_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"NoSuchProvider is not installed; available: .*CPUExecutionProvider"):
        Session(tiny_bundle / "model/fp32.onnx", "NoSuchProvider", 1)


@pytest.mark.parametrize("content", [b"", b"no graph"])
def test_what_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"bad\.onnx cannot be loaded"):
        Session(tmp_path / "bad.onnx", "CPUExecutionProvider", 1)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_threads_are_given_and_do_not_spin(tiny_bundle: Path, threads: int) -> None:
    options = Session(tiny_bundle / "model/fp32.onnx", "CPUExecutionProvider", threads)._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (threads, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_file_is_scored_with_what_fits_this_cpu_on_all_of_its_cores(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The winner of the plan needs an instruction that this CPU lacks.

    The next variant that was measured is taken instead.
    """
    shared = {"provider": "CPUExecutionProvider", "threads": 1, "lone_ms": 1.0, "padding": 0.0}
    plan = Plan(
        cpu=Cpu(model="a test", isa=("avx512_vnni",), cores=2),
        measured=(
            Entry(variant="int8-static", slots=1, token_budget=64, inputs_per_second=9, **shared),
            Entry(variant="fp32", slots=2, token_budget=333, inputs_per_second=5, **shared),
        ),
    )
    opened: list[tuple[str, str, int]] = []

    def watched(model: Path, provider: str, threads: int) -> Session:
        opened.append((model.name, provider, threads))
        return Session(tiny_bundle / "model/fp32.onnx", provider, threads)

    monkeypatch.setattr(predictor_module, "Session", watched)
    bundle = replace(open_bundle(tiny_bundle), plan=plan)
    for isa, token_budget in ((("avx512_vnni",), 64), ((), 333)):
        cpu = Cpu(model="a test", isa=isa, cores=3)
        assert Predictor.from_bundle(bundle, cpu).token_budget == token_budget
    assert opened == [("int8-static.onnx", "CPUExecutionProvider", 3), ("fp32.onnx", "CPUExecutionProvider", 3)]


lengths = st.lists(st.integers(1, 200), max_size=60)


@given(lengths, st.integers(1, 1000))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batches_by_length(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(batches)
    assert all(len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= budget for batch in batches)


@given(lengths, st.integers(1, 1000))
def test_batches_are_of_like_lengths_and_no_smaller_than_they_must_be(lengths: list[int], budget: int) -> None:
    batches = batches_by_length(lengths, budget)
    in_order = [lengths[row] for batch in batches for row in batch]
    assert in_order == sorted(lengths, reverse=True)
    for batch in batches[:-1]:
        assert (len(batch) + 1) * lengths[batch[0]] > budget
    assert batches_by_length(lengths, budget) == batches
