"""The train stage's memory: what is measured of it."""

from pathlib import Path

from benchmarks.data_memory import write_reviews
from benchmarks.train_memory import MOST_MB, TrainMemory, measure, table_of


def test_measured_runs_of_the_train_stage_make_the_table(tiny_model: Path, tmp_path: Path) -> None:
    source = write_reviews(tmp_path / "a.parquet", 1_000)
    run = measure(source, 1_000, tmp_path, str(tiny_model), "max_tokens=64")
    assert 700 < run.training_rows < 800
    assert run.peak_mb > 100
    found = TrainMemory(runs=[run.model_copy(update={"peak_mb": peak}) for peak in (MOST_MB, MOST_MB + 1.0)])
    assert not found.bounded
    assert TrainMemory(runs=found.runs[:1]).bounded
    assert list(table_of(found).columns[4].cells) == ["1500", "1501"]
