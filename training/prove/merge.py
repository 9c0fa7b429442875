"""Stage `merge`: the adapter folded into the base weights; a fully tuned model is written as it is."""

import torch

from bentune.bundle.errors import GateError
from bentune.bundle.files import sha256_file
from training.pipeline.layout import MergeFiles, TrainFiles
from training.pipeline.results import MergeResult
from training.pipeline.stage import Context
from training.tasks.base.load import quiet
from training.tasks.saved import labels_of, tokenizer_of
from training.train.methods import merge_tuned


def run(context: Context) -> MergeResult:
    """Write model/: config, weights and tokenizer.

    Raises GateError when the merged weights are not finite.
    """
    quiet()
    trained, files = context.files(TrainFiles).directory, MergeFiles(context.work)
    try:
        model = merge_tuned(context.recipe, labels_of(trained), trained)
    except ValueError as error:
        raise GateError("merge", f"merge: {error}; lower train.learning_rate and train again") from error
    broken = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if broken:
        raise GateError("merge", f"merge: {broken[0]} holds values that are not finite; lower train.learning_rate")
    model.save_pretrained(files.model, safe_serialization=True)
    tokenizer_of(trained).save_pretrained(files.model)
    return MergeResult(weights_sha256=sha256_file(files.weights))
