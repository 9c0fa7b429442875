"""A bundle made by hand in a fraction of a second, for tests that need one and not a training.

Its graph counts words: it has the labels, the vocabulary and the limits of the tiny model, and is right about its rows.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tiny import FILLER, WORDS, sentences, vocabulary
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from bentune.bundle.baseline import Baseline, Binned, Histogram
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import BaseModelInfo, Columns, GoldenRow, Limits, Manifest, seal, write_json
from bentune.bundle.plan import CPU, FP32, Check, Entry, Plan, scores_key
from bentune.bundle.seen_rows import RowFilter, SeenRows, labelled_key, row_key
from bentune.bundle.verdict import CompareSettings

NAME, VERSION = "handmade", "20260101-000000-abcdef"
LABELS = sorted(WORDS)
MAX_TOKENS = 24
ROWS, TEST_EVERY, GOLDEN = 300, 5, 12


def word_weights() -> npt.NDArray[np.float32]:
    """Return float32 [tokens, labels]: what each word says for each label."""
    tokens, generator = vocabulary(), np.random.default_rng(0)
    weights = np.zeros((len(tokens), len(LABELS)), np.float32)
    for index, token in enumerate(tokens):
        if token in FILLER:
            weights[index] = generator.normal(0, 0.05, len(LABELS))
        for place, label in enumerate(LABELS):
            if token in WORDS[label]:
                weights[index, place] = generator.uniform(1.8, 2.2)
    return weights


def clueless_weights() -> npt.NDArray[np.float32]:
    """Return weights of a model that gives nearly the same unsure answer to any text.

    The model learned nonsense.
    """
    generator = np.random.default_rng(0)
    return generator.normal(0, 0.02, (len(vocabulary()), len(LABELS))).astype(np.float32) + np.float32(
        [0.08, 0.0, -0.08]
    )


def make_bundle(
    root: Path, name: str = NAME, version: str = VERSION, weights: npt.NDArray[np.float32] | None = None
) -> Path:
    """Fill a new directory with a sealed bundle and return it.

    `weights` are those of the bundle's words; right ones are used where none are given.
    """
    rows = sentences(ROWS)
    held_out = rows[::TEST_EVERY]
    trained = [row for number, row in enumerate(rows) if number % TEST_EVERY]
    for folder in ("model", "processor"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer()
    tokenizer.save(str(root / "processor/tokenizer.json"))
    settings = {"pad_id": 0, "pad_type_id": 0, "padding_side": "right", "truncation_side": "right"}
    write_json(root / "processor/settings.json", settings)
    write_graph(root / "model/fp32.onnx", word_weights() if weights is None else weights)
    encodings = [tokenizer.encode(text) for text, _ in held_out]
    scores = scored(root / "model/fp32.onnx", encodings)
    write_json(root / "plan.json", plan())
    golden = [
        GoldenRow(
            text=text,
            label=LABELS[int(row.argmax())],
            scores={scores_key(FP32, CPU): [round(float(score), 7) for score in row]},
            tolerance=0.02,
        )
        for (text, _), row in zip(held_out[:GOLDEN], scores, strict=False)
    ]
    (root / "golden.jsonl").write_text("".join(f"{row.model_dump_json()}\n" for row in golden), encoding="utf-8")
    write_json(root / "baseline.json", baseline([min(len(one.ids), MAX_TOKENS) for one in encodings], scores))
    seen = SeenRows(
        trained=RowFilter.of([row_key(text) for text, _ in trained]),
        held_out=RowFilter.of([row_key(text) for text, _ in held_out]),
        labelled=RowFilter.of([labelled_key(row_key(text), label) for text, label in rows]),
    )
    write_json(root / "rows.json", seen)
    right = float(
        np.mean([LABELS[int(row.argmax())] == label for (_, label), row in zip(held_out, scores, strict=True)])
    )
    write_json(root / "evidence.json", evidence(name, len(trained), len(held_out), right))
    seal(root, manifest(name, version))
    return root


def make_tokenizer() -> Tokenizer:
    """Return the tiny model's tokenizer, as transformers writes it."""
    tokens = vocabulary()
    tokenizer = Tokenizer(models.WordPiece({token: index for index, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.add_special_tokens(tokens[:5])
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", tokens.index("[CLS]")), ("[SEP]", tokens.index("[SEP]"))],
    )
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def write_graph(file: Path, weights: npt.NDArray[np.float32]) -> None:
    """Write a graph whose logits are the sums of its words' weights.

    The words of a second text count 1.2 times.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    constants = {
        "weights": weights,
        "second": np.float32(0.2),
        "one": np.float32(1),
        "last_axis": np.int64([2]),
        "tokens_axis": np.int64([1]),
    }
    node = helper.make_node
    graph = helper.make_graph(
        [
            node("Gather", ["weights", "input_ids"], ["words"]),
            node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            node("Cast", ["token_type_ids"], ["types"], to=TensorProto.FLOAT),
            node("Mul", ["types", "second"], ["more"]),
            node("Add", ["more", "one"], ["factors"]),
            node("Mul", ["mask", "factors"], ["counts"]),
            node("Unsqueeze", ["counts", "last_axis"], ["counted"]),
            node("Mul", ["words", "counted"], ["weighed"]),
            node("ReduceSum", ["weighed", "tokens_axis"], ["logits"], keepdims=0),
        ],
        "words",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch_size", "sequence_length"])
            for name in ("input_ids", "attention_mask", "token_type_ids")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", len(LABELS)])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(file))


def scored(file: Path, encodings: list[Any]) -> npt.NDArray[np.float64]:
    """Return the probabilities of each encoding, as float64 [encodings, labels].

    Each encoding is cut as the limits define, and computed alone.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=[CPU])
    found = []
    for encoding in encodings:
        encoding.truncate(MAX_TOKENS)
        ids = np.int64([encoding.ids])
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        logits = session.run(["logits"], feed)[0][0].astype(np.float64)
        powers = np.exp(logits - logits.max())
        found.append(powers / powers.sum())
    return np.array(found)


def plan() -> Plan:
    """Return a plan as if it had been measured on this machine.

    It has every way to share two cores.
    """
    speed = {"variant": FP32, "provider": CPU, "lone_ms": 0.6, "padding": 0.1, "rounds": 1}
    ways = [(2, 1, 256, 9000.0), (2, 1, 512, 8800.0), (1, 2, 512, 7000.0), (1, 1, 512, 5000.0)]
    return Plan(
        slots=2,
        threads=1,
        token_budget=256,
        cpu=describe(),
        checks=(Check(variant=FP32, provider=CPU, rows=60, megabytes=0.1, accuracy=1.0, accuracy_loss=0.0),),
        measured=tuple(
            Entry(slots=slots, threads=threads, token_budget=budget, inputs_per_second=texts, **speed)
            for slots, threads, budget, texts in ways
        ),
    )


def baseline(lengths: list[int], scores: npt.NDArray[np.float64]) -> Baseline:
    """Return histograms of the test rows, with thresholds.

    The thresholds are as the plan stage draws them for sixty rows.
    """

    def binned(values: npt.NDArray[Any], bins: int, threshold: float) -> Binned:
        edges = np.unique(np.quantile(values, np.linspace(0, 1, bins + 1)[1:-1]))
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        return Binned(counts=counts.tolist(), threshold=threshold, edges=edges.tolist())

    labels = np.bincount(scores.argmax(axis=1), minlength=len(LABELS))
    return Baseline(
        rows=len(lengths),
        window=500,
        looks_a_month=4320,
        token_length=binned(np.ceil(np.array(lengths)), 9, 0.5886),
        label=Histogram(counts=labels.tolist(), threshold=0.3399),
        confidence=binned(scores.max(axis=1), 3, 0.451),
    )


def evidence(name: str, trained: int, held_out: int, accuracy: float) -> dict[str, Any]:
    """Return the parts of evidence.json that serving and rollout read.

    They have the shape that the package stage writes.
    """

    def measured(value: float) -> dict[str, Any]:
        return {"rows": held_out, "accuracy": {"value": value, "low": value - 0.05, "high": min(1.0, value + 0.05)}}

    def minimum(value: float) -> dict[str, Any]:
        gain = value - 1 / 3
        return {
            "constant": LABELS[0],
            "gain": {"value": gain, "low": gain - 0.05, "high": min(1.0, gain + 0.05)},
            "bounds": [],
        }

    hops = [
        {"hop": hop, "largest_difference": 1e-6, "label_flips": 0, "problems": []}
        for hop in ("merge", "export", "batch")
    ]
    recipe = {
        "compare": CompareSettings().model_dump(mode="json"),
        "name": name,
        "task": "text-classification",
        "model": "handmade",
        "data": {"source": "rows.csv", "split": {"test": 0.2, "validation": 0.0}},
        "max_tokens": MAX_TOKENS,
        "seed": 42,
        "method": {"name": "full"},
        "train": {"epochs": 10.0, "learning_rate": 0.005},
    }
    return {
        "evaluation": {"base": measured(1 / 3), "tuned": measured(accuracy), "minimum": minimum(accuracy)},
        "parity": {"rows": 40, "hops": hops},
        "data": {"labels": LABELS, "rows": {"train": trained, "test": held_out}},
        "training": {"method": "full", "steps": 150},
        "recipe": recipe,
    }


def manifest(name: str, version: str) -> Manifest:
    """Return the manifest before it is sealed."""
    return Manifest(
        name=name,
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        task="text-classification",
        columns=Columns(text="text"),
        labels=LABELS,
        limits=Limits(max_tokens=MAX_TOKENS),
        base_model=BaseModelInfo(source="handmade", sha256="1" * 64),
        method={"name": "full"},
        recipe_digest="2" * 64,
        data_fingerprint="3" * 64,
        code_revision="unknown",
        tools={"python": "3.11"},
        files={},
    )
