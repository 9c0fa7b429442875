"""Made-up report of the data stage with every kind of finding once."""

from training.data.report import (
    CleaningRule,
    Contradictions,
    DataReport,
    Duplicates,
    Lengths,
    Pair,
    RowChange,
    RowExcerpt,
    SourceRows,
    SplitPart,
    SplitReport,
)


def row_report(text: str = "a cat") -> DataReport:
    """Return a report of twelve training rows and three held-out ones.

    `text` is every text, label and name in it.
    """
    side = RowExcerpt(origin=text, label=text, text=text)
    pair = Pair(kept=side, other=side.model_copy(update={"origin": "row 9"}), similarity=0.93)

    def part(rows: int, counts: list[int]) -> SplitPart:
        found = Lengths(counts=counts, smallest=2, median=9.0, p95=14.0, largest=1234)
        return SplitPart(rows=rows, labels={text: rows}, characters=found, words=found)

    return DataReport(
        fingerprint="f" * 64,
        sources=[SourceRows(name=text, rows=21)],
        rows_read=21,
        rows_kept=15,
        labels=[text],
        split=SplitReport(kind="group", seed=3, test=0.2, validation=0.0, column="customer", groups=7),
        parts={"train": part(12, [3, 9]), "test": part(3, [3, 0])},
        character_edges=[0, 8],
        word_edges=[0, 8],
        cleaning=[
            CleaningRule(
                rule="html",
                effect="fixed",
                rows=4,
                samples=[RowChange(origin="row 3", before=f"<b>{text}", after=text)],
            ),
            CleaningRule(rule="empty", effect="left out", rows=1, samples=[]),
        ],
        duplicates=[
            Duplicates(kind="near", part="test", rows=2, samples=[pair]),
            Duplicates(kind="exact", part="train", rows=0, samples=[]),
        ],
        contradictions=[Contradictions(kind="exact", rows=1, samples=[pair])],
    )
