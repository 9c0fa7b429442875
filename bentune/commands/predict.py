"""Command `predict`: offline scoring of a file."""

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from bentune.bundle.errors import InputError
from bentune.console import ConsoleReporter
from bentune.options import form_of, form_options, json_option


@click.command()
@click.option("--model", "tag", required=True, help="Bundle: NAME, NAME:VERSION, or its directory.")
@click.option(
    "--input",
    "input_path",
    required=True,
    type=click.Path(path_type=Path),
    help="CSV, TSV, JSONL, JSON, Parquet, XLSX or TXT; .gz and .zip of one text file.",
)
@click.option(
    "--output",
    "output_path",
    required=True,
    type=click.Path(path_type=Path),
    help="JSONL with one line per row; .csv or .parquet: the input's columns and the best label.",
)
@click.option("--text-column", help="Column of the text.  [default: that of the training data]")
@click.option("--pair-column", help="Column of the second text, for a model of pairs.")
@click.option("--top-k", type=click.IntRange(min=1), help="Write only the K best labels.")
@click.option("--strict", is_flag=True, help="Stop at the first row that cannot be answered.")
@form_options
@click.option("--overwrite", is_flag=True, help="Replace an existing output, finished or not.")
@json_option
def predict(
    tag: str,
    input_path: Path,
    output_path: Path,
    text_column: str | None,
    pair_column: str | None,
    top_k: int | None,
    strict: bool,
    overwrite: bool,
    as_json: bool,
    **form: Any,
) -> None:
    """Score a file offline with the service's own predictor.

    A row without a text gets an error in its place, and a text that is too long for the model is cut. After an
    interruption the same command resumes.
    """
    from bentune.bundle.rows.encodings import too_many_wrong, wrongly_decoded
    from bentune.bundle.rows.header import require_columns
    from bentune.bundle.rows.read import every_row, read_rows
    from bentune.bundle.rows.row import text_of
    from bentune.bundle.store import find_bundle
    from rollout.compare.models import BundleScorer
    from rollout.predict import predict_file

    report, bundle, how = ConsoleReporter(as_json=as_json), find_bundle(tag), form_of(form)
    columns = bundle.manifest.columns
    text, pair = text_column or columns.text, pair_column or columns.text_pair
    if pair is not None and columns.text_pair is None:
        raise InputError(f"--pair-column {pair}: {bundle.tag} takes single texts; leave the option out")
    wanted = [("--text-column", text), *([("--pair-column", pair)] if pair is not None else [])]
    require_columns(input_path, wanted, how)
    # Checked before any scoring: an invalid row at the end of a long file would waste the work before it.
    rows = wrong = 0
    for row in (read_rows if strict else every_row)(input_path, how):
        for _, column in wanted if strict else ():
            text_of(row, column, input_path)
        rows += 1
        wrong += wrongly_decoded(row.values.get(text))
    if too_many_wrong(wrong, rows):
        raise InputError(
            f"{input_path}: {wrong:,} of {rows:,} texts hold control characters (U+0080 to U+009F) or U+FFFD, as "
            "wrongly decoded texts do: give another --encoding, or convert the original to UTF-8"
        )
    with report.progress("scoring", rows) as finished:
        summary = predict_file(
            BundleScorer(bundle),
            input_path,
            output_path,
            text_column=text,
            pair_column=pair,
            form=how,
            strict=strict,
            top_k=top_k,
            progress=finished,
            overwrite=overwrite,
        )
    report.say(f"{summary.rows} rows in {output_path} ({summary.seconds:.1f} s, started at row {summary.resumed_at})")
    if summary.errors:
        report.say(f"[yellow]![/] {summary.errors} of them have an error and no label; --strict stops at the first")
        report.say(escape(summary.first_error))
    report.result(
        {
            "output": output_path,
            "model": bundle.tag,
            "rows": summary.rows,
            "errors": summary.errors,
            "resumed_at": summary.resumed_at,
        }
    )
