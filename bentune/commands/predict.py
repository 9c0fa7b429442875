"""The command `predict`: a file, offline."""

from pathlib import Path

import click

from bentune.bundle.errors import InputError
from bentune.console import Report
from bentune.options import json_option


@click.command()
@click.option("--model", "tag", required=True, help="Bundle: NAME, NAME:VERSION, or its directory.")
@click.option("--input", "input_path", required=True, type=click.Path(path_type=Path), help="CSV, TSV, JSONL or TXT.")
@click.option("--output", "output_path", required=True, type=click.Path(path_type=Path), help="JSONL, a line a row.")
@click.option("--text-column", help="Column with the text; by default the one the model was trained on.")
@click.option("--pair-column", help="Column with the second text, for a model of pairs.")
@click.option("--top-k", type=click.IntRange(min=1), help="Only the best labels.")
@click.option("--overwrite", is_flag=True, help="Replace the output, finished or not.")
@json_option
def predict(
    tag: str,
    input_path: Path,
    output_path: Path,
    text_column: str | None,
    pair_column: str | None,
    top_k: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Score a file with the service's own predictor; interrupted, the same command goes on."""
    from bentune.bundle.rows import read_rows, text_of
    from bentune.bundle.store import find_bundle
    from rollout.compare.scorer import BundleScorer
    from rollout.predict import predict_file

    report, bundle = Report(as_json=as_json), find_bundle(tag)
    columns = bundle.manifest.columns
    text, pair = text_column or columns.text, pair_column or columns.text_pair
    if pair is not None and columns.text_pair is None:
        raise InputError(f"--pair-column {pair}: {bundle.tag} takes single texts; leave the option out")
    # Before the first row is scored: a bad one at the end of a long file would cost all the work before it.
    rows = 0
    for row in read_rows(input_path):
        for column in filter(None, (text, pair)):
            text_of(row, column, input_path)
        rows += 1
    with report.progress("scoring", rows) as finished:
        summary = predict_file(
            BundleScorer(bundle),
            input_path,
            output_path,
            text_column=text,
            pair_column=pair,
            top_k=top_k,
            progress=finished,
            overwrite=overwrite,
        )
    report.say(f"{summary.rows} rows in {output_path} ({summary.seconds:.1f} s, started at row {summary.resumed_at})")
    report.result({"output": output_path, "model": bundle.tag, "rows": summary.rows, "resumed_at": summary.resumed_at})
