"""What the recipe's `train` means in the words of transformers' Trainer."""

from pathlib import Path

import torch
from transformers import TrainingArguments

from training.recipe import Recipe

LOGGING_STEPS = 10


def training_arguments(recipe: Recipe, checkpoints: Path, *, validate: bool) -> TrainingArguments:
    """Trainer's arguments; checkpoints go to `checkpoints`, and with `validate` the best of them is kept."""
    train = recipe.train
    return TrainingArguments(
        output_dir=str(checkpoints),
        num_train_epochs=train.epochs,
        learning_rate=recipe.learning_rate,
        per_device_train_batch_size=train.batch_size,
        per_device_eval_batch_size=train.batch_size,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        seed=recipe.seed,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="steps" if validate else "no",
        eval_steps=train.checkpoint_steps if validate else None,
        save_strategy="steps",
        save_steps=train.checkpoint_steps,
        save_total_limit=2,
        load_best_model_at_end=validate,
        metric_for_best_model="accuracy" if validate else None,
        logging_steps=LOGGING_STEPS,
        logging_nan_inf_filter=False,  # it would put the mean of the losses before in the place of a NaN
        report_to=[],
        disable_tqdm=True,
    )
