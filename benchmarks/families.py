"""Families of base models, each as a tiny random model from rows to a served answer: the table of docs/models.md.

The names are those of transformers' heads for sequences that Optimum exports. What a family cannot do is in the table
with the message that its users get.
"""

import csv
import random
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx

from benchmarks.command import say
from bentune.bundle.errors import BentuneError
from rollout.server.server import running
from training.pipeline.follow import Silent
from training.pipeline.layout import DataFiles
from training.pipeline.pipeline import run_all
from training.pipeline.results import PackageResult
from training.pipeline.run_dir import RunDir
from training.preflight import rehearse
from training.recipe.recipe import Recipe

SPECIAL = ["<pad>", "<unk>", "<s>", "</s>", "<mask>"]
WORDS = {
    "animal": ["cat", "dog", "horse", "bird", "fish", "cow"],
    "tool": ["hammer", "saw", "drill", "wrench", "nail", "screw"],
}
FILLER = ["the", "a", "is", "was", "near", "under", "with", "very", "some", "and", "of", "it", "here", "there"]
MAX_TOKENS, ROWS = 24, 80
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
MORE: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "bart": {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "d_model": 32},
    "convbert": {"embedding_size": 32, "num_groups": 1},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 16},
    "electra": {"embedding_size": 16},
    "esm": {"mask_token_id": 4},
    "gemma": {"head_dim": 16, "num_key_value_heads": 2},
    "gemma2": {"head_dim": 16, "num_key_value_heads": 2, "query_pre_attn_scalar": 16},
    "gpt_neo": {"num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "longformer": {"attention_window": 8},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 16, "true_hidden_size": 16},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "qwen3_moe": {"num_key_value_heads": 2, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "phi": {"num_key_value_heads": 2, "partial_rotary_factor": 0.5},
    "phi3": {"num_key_value_heads": 2},
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roformer": {"embedding_size": 32},
    "smollm3": {"num_key_value_heads": 2},
    "squeezebert": {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1, "intermediate_groups": 1},
}
MORE["mbart"] = MORE["bart"]
NO_TEXT_ALONE = {"gemma3", "layoutlm", "layoutlmv3", "lilt", "markuplm", "perceiver"}
"""Families whose inputs are more than text: pages with the place of each word, or images."""


@dataclass(frozen=True)
class Family:
    """One family: the outcome of tuning all weights to a served answer, and of LoRA to ONNX; "yes" or the message."""

    name: str
    served: str
    lora: str


def families() -> list[str]:
    """Return the names of the families with a head for sequences that Optimum exports."""
    import optimum.exporters.onnx.model_configs  # noqa: F401 (it registers the architectures)
    from optimum.exporters.tasks import TasksManager
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    found = []
    for name in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        try:
            tasks = TasksManager.get_supported_tasks_for_model_type(name, exporter="onnx", library_name="transformers")
        except KeyError:
            continue
        if "text-classification" in tasks and name not in NO_TEXT_ALONE:
            found.append(name)
    return sorted(found)


def write_model(family: str, directory: Path) -> None:
    """Write a tiny random model of the family and its tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

    words = [*SPECIAL, *FILLER, *(word for group in WORDS.values() for word in group)]
    backend = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=SPECIAL[1]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = [("<s>", 2), ("</s>", 3)]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=special
    )
    named = {f"{name}_token": token for name, token in zip(("pad", "unk", "bos", "eos", "mask"), SPECIAL, strict=True)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=48, **named)
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SMALL | {"vocab_size": len(words)} | MORE.get(family, {}))
    config.initializer_range = 0.1  # so that random weights carry enough signal
    AutoModel.from_config(config).save_pretrained(directory)


def recipe_of(root: Path, family: str, method: str) -> Recipe:
    """Return a recipe for the tiny model and rows in `root`."""
    return Recipe.model_validate(
        {
            "name": f"family-{family}-{method}",
            "task": "text-classification",
            "model": str(root / "model"),
            "data": {"source": str(root / "rows.csv"), "doubtful_labels": "off"},
            "max_tokens": MAX_TOKENS,
            "method": method,
            "train": {"epochs": 1, "batch_size": 8},
            "evaluate": {"resamples": 100, "minimum": {"accuracy": 0.0}},
            "plan": {"seconds": 0.05, "rows": 16, "batch_rows": 8, "calibration_rows": 8, "variants": []},
        }
    )


def measure(family: str, root: Path) -> Family:
    """Take one family from rows to a served answer, and its adapter to ONNX."""
    try:
        write_model(family, root / "model")
        write_rows(root / "rows.csv")
    except Exception as error:  # of a config that has other names for its sizes
        said = f"no tiny model: {_line(error)}"
        return Family(family, said, said)
    served = lora = "yes"
    with RunDir.open(root / "runs", f"family-{family}") as run:
        try:
            for _ in run_all(recipe_of(root, family, "full"), run, Silent()):
                pass
            served = answered(run.result(PackageResult).bento)
        except BentuneError as error:
            served = _line(error)
        if DataFiles(run.root / "data").train.is_file():
            try:
                rehearse(recipe_of(root, family, "lora"), DataFiles(run.root / "data"), root / "lora")
            except Exception as error:  # of PEFT or torch
                lora = _line(error)
    return Family(family, served, lora)


def answered(bento: str) -> str:
    """Serve the Bento, which replays its golden rows, and ask it. Return "yes", or its answer."""
    with running(bento) as url:
        answer = httpx.post(f"{url}/predict", json={"inputs": ["the cat is here", "a saw"]}, timeout=30)
    labels = {row[0]["label"] for row in answer.json()} if answer.is_success else set()
    return "yes" if labels and labels <= WORDS.keys() else f"HTTP {answer.status_code}"


def write_rows(path: Path) -> None:
    """Write rows of two labels that are plain from the words."""
    generator = random.Random(0)  # noqa: S311 (draws words, keeps no secret)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for number in range(ROWS):
            label = sorted(WORDS)[number % 2]
            words = generator.choices(FILLER, k=generator.randint(1, 20)) + generator.choices(WORDS[label], k=3)
            writer.writerow((" ".join([*words, str(number)]), label))


def markdown(found: list[Family]) -> str:
    """Return the table, families that are served first."""
    ordered = sorted(found, key=lambda one: (one.served != "yes", one.lora != "yes", one.name))
    rows = [f"| `{one.name}` | {one.served} | {one.lora} |" for one in ordered]
    return "\n".join(["| family | all weights, served | LoRA |", "| --- | --- | --- |", *rows]) + "\n"


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[0].partition("before any training: ")[2] or lines[0]
    return re.sub(r"/\S*family-\S+", "the model", line).removesuffix(".")


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Try the families NAMES, or all of them, and print the table."""
    found = []
    for name in names or families():
        root = Path(tempfile.mkdtemp(prefix="family-"))
        try:
            found.append(measure(name, root))
        finally:
            shutil.rmtree(root, ignore_errors=True)
        say(f"{name}: {found[-1].served}; LoRA {found[-1].lora}")
    click.echo(markdown(found))


if __name__ == "__main__":
    main()
