#!/usr/bin/env bash
# A generic fast tokenizer changes the outputs of GPT-2, in silence.
#
# With: transformers 4.57.6, tokenizers 0.22.2, torch 2.13.0 (CPU), Python 3.11.
#
# A tokenizer that is made with `tokenizers` and wrapped in PreTrainedTokenizerFast returns token_type_ids, all 0, for
# every model. BERT has an embedding of its own for segment 0, which is always added, so that passing zeros or nothing is
# the same. Guess: GPT-2, which has no segments, ignores them or refuses them. It does neither: it takes the embedding of
# *token* 0 for each position and adds it, so that the logits are others than those of the same ids without them. An
# exported graph has no such input, and so computes another model than the one that was trained.
#
# Output seen:
#   the tokenizer returns ['input_ids', 'token_type_ids', 'attention_mask']
#   BERT: largest difference 0.000
#   GPT-2: largest difference 0.440
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet --disable-pip-version-check transformers==4.57.6 tokenizers==0.22.2 torch==2.13.0 "numpy>=2"
cd "$place"
"$place/venv/bin/python" - <<'PYTHON'
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)

words = ["<pad>", "<unk>", *"a few words of a small vocabulary".split()]
backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(dict.fromkeys(words))}, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>")
given = tokenizer("a few words of a small vocabulary", return_tensors="pt")
print("the tokenizer returns", list(given))
assert "token_type_ids" in given
assert not given["token_type_ids"].any()

size = {"vocab_size": len(tokenizer), "initializer_range": 0.1, "pad_token_id": 0}
bert = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **size)
gpt2 = GPT2Config(n_embd=32, n_layer=2, n_head=2, **size)
found = {}
for name, model in (("BERT", BertForSequenceClassification), ("GPT-2", GPT2ForSequenceClassification)):
    torch.manual_seed(0)
    made = model(bert if name == "BERT" else gpt2).eval()
    without = {key: value for key, value in given.items() if key != "token_type_ids"}
    with torch.no_grad():
        found[name] = (made(**given).logits - made(**without).logits).abs().max().item()
    print(f"{name}: largest difference {found[name]:.3f}")
assert found["BERT"] == 0
assert found["GPT-2"] > 0.01
PYTHON
