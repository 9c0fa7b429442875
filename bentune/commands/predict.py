"""Command `predict`: offline scoring of a file."""

from pathlib import Path

import click

from bentune.bundle.errors import InputError
from bentune.console import ConsoleReporter
from bentune.options import json_option


@click.command()
@click.option("--model", "tag", required=True, help="Bundle: NAME, NAME:VERSION, or its directory.")
@click.option("--input", "input_path", required=True, type=click.Path(path_type=Path), help="CSV, TSV, JSONL or TXT.")
@click.option(
    "--output", "output_path", required=True, type=click.Path(path_type=Path), help="JSONL with one line per row."
)
@click.option("--text-column", help="Column of the text.  [default: that of the training data]")
@click.option("--pair-column", help="Column of the second text, for a model of pairs.")
@click.option("--top-k", type=click.IntRange(min=1), help="Write only the K best labels.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output, finished or not.")
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
    """Score a file offline with the service's own predictor.

    After an interruption the same command resumes.
    """
    from bentune.bundle.rows import read_rows, text_of
    from bentune.bundle.store import find_bundle
    from rollout.compare.models import BundleScorer
    from rollout.predict import predict_file

    report, bundle = ConsoleReporter(as_json=as_json), find_bundle(tag)
    columns = bundle.manifest.columns
    text, pair = text_column or columns.text, pair_column or columns.text_pair
    if pair is not None and columns.text_pair is None:
        raise InputError(f"--pair-column {pair}: {bundle.tag} takes single texts; leave the option out")
    # Checked before any scoring: an invalid row at the end of a long file would waste the work before it.
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
