"""Tiny classifiers of several families, with random weights."""

from typing import Any

ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
LABELS = ["animal", "food", "tool"]


def classifier(kind: str = "bert", *, layers: int = 3, heads: int = 4, neurons: int = 24, **more: Any) -> Any:
    """A model in eval mode; its vocabulary is that of the tiny model."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=72,
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=64,
        initializer_range=0.5,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        pad_token_id=0,
        **{"hidden_dim" if kind == "distilbert" else "intermediate_size": neurons},
        **({"embedding_size": 16} if kind in {"electra", "albert"} else {}),
        **more,
    )
    return AutoModelForSequenceClassification.from_config(config).eval()


def batch() -> dict[str, Any]:
    """Three rows, the last of them padded."""
    import torch

    ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[2, 6:] = mask[2, 6:] = 0
    return {"input_ids": ids, "attention_mask": mask}
