"""The recipe's `data`: the sources of labelled rows, their cleaning, and the split."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints, ValidationError, field_validator, model_validator

from bentune.bundle.rows.form import FileForm, Quoting
from bentune.bundle.targets.target import NO_LABEL
from training.recipe.section import Fraction, Section

Rule = Literal["fix", "show", "off"]


class ColumnNames(Section):
    """Names of the columns; the columns of a folder of classes are `text` and `label`."""

    text: str = Field(default="text", description="column with the text")
    text_pair: str | None = Field(default=None, description="column with the second text of a pair")
    label: str = Field(default="label", description="column with the label")
    image: str = Field(default="image", description="images: column with the path or the bytes")

    @model_validator(mode="after")
    def _different(self) -> "ColumnNames":
        names = [name for name in (self.text, self.text_pair, self.label) if name is not None]
        if repeated := [name for number, name in enumerate(names) if name in names[:number]]:
            raise ValueError(f"text, text_pair and label must be different columns, {repeated[0]!r} is given twice")
        return self


class SplitSettings(Section):
    """Settings of the test set and the validation set."""

    test: float | str = Field(default=0.2, description="share of the rows for the test set; or a hub split's name")
    validation: Fraction = Field(default=0.0, description="share of the training rows for the validation set")
    train: str = Field(default="train", description="name of the hub split to train on")
    group: str | None = Field(default=None, min_length=1, description="column; rows of the same value stay together")
    time: str | None = Field(default=None, min_length=1, description="column; the newest rows by it are held out")

    @model_validator(mode="after")
    def _share(self) -> "SplitSettings":
        if isinstance(self.test, float) and not 0 < self.test < 1:
            raise ValueError("test must be a share between 0 and 1, or the name of a hub split")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> "SplitSettings":
        if self.group is not None and self.time is not None:
            raise ValueError("rows are held out by group or by time: give one of the two")
        if isinstance(self.test, str) and self.kind != "label":
            raise ValueError(f"test must be a share of the rows where they are held out by {self.kind}")
        return self

    @property
    def kind(self) -> Literal["label", "group", "time"]:
        """Return the rule that assigns rows: by label, group or time."""
        return "group" if self.group is not None else "time" if self.time is not None else "label"


class RowLimits(Section):
    """Largest numbers of rows, drawn with the recipe's seed."""

    train: int | None = Field(default=None, ge=1, description="training rows; all by default")
    test: int | None = Field(default=None, ge=1, description="test rows; all by default")


class CleanSettings(Section):
    """Rules for dirty rows. By default none changes a text, because the service does not clean texts either."""

    control_characters: Rule = Field(default="show", description="control characters: fix removes them, show counts")
    mojibake: Rule = Field(default="show", description="wrongly decoded texts: fix decodes them again, show counts")
    html: Rule = Field(default="show", description="HTML tags and entities: fix turns them into text, show counts")
    max_characters: int | None = Field(default=100_000, ge=1, description="longer rows are left out")
    min_characters: int | None = Field(default=None, ge=1, description="shorter rows are left out")

    @property
    def fixes(self) -> dict[str, bool]:
        """Return for each rule of texts whether it changes them."""
        return {name: getattr(self, name) == "fix" for name in ("control_characters", "mojibake", "html")}


class NearDuplicateSettings(Section):
    """Near duplicates of one label, found by MinHash over shingles of three words."""

    action: Literal["remove", "show", "off"] = Field(default="remove", description="action for all but one of them")
    threshold: float = Field(
        default=0.8, ge=0.5, le=1, description="least share of common word shingles of near duplicates"
    )


def label_text(label: object) -> str:
    """Return a label as it is served: 5, 5.0 and "5" are one label."""
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label).strip()


def _texts(value: Any) -> Any:
    """Convert labels that YAML read as numbers to texts; pydantic refuses other types."""
    if not isinstance(value, dict):
        return value
    numbers = {old for old, new in value.items() if isinstance(new, int | float) and not isinstance(new, bool)}
    return {label_text(old): label_text(new) if old in numbers else new for old, new in value.items()}


LabelName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class DataSettings(Section):
    """Sources of the labelled rows, their cleaning and their split."""

    source: str | list[str] = Field(
        description="hub name, local path or glob, package:NAME/path, or sql:VARIABLE; or a list of them"
    )
    query: str | None = Field(default=None, min_length=1, description="SELECT on the database of sql:VARIABLE")
    config: str | None = Field(default=None, description="configuration of a hub data set")
    encoding: str | None = Field(
        default=None, description="encoding of text files, for example cp1252 or gbk; UTF-8 by default"
    )
    delimiter: str | None = Field(
        default=None, description="character between the fields; that of the suffix by default"
    )
    quoting: Quoting | None = Field(
        default=None,
        description="minimal: quotes enclose a field; none: they belong to the texts; by default they enclose, and one "
        "that swallows rows is an error",
    )
    header: list[str] | None = Field(
        default=None, description="names of the columns, for files whose first line is a row"
    )
    columns: ColumnNames = ColumnNames()
    labels: Annotated[dict[str, LabelName], BeforeValidator(_texts)] = Field(
        default={}, description="new names for labels, old: new"
    )
    merge_labels: bool = Field(
        default=False,
        description="join labels that look alike (case, blanks, 5 and 5.0) under the commonest spelling; also written "
        "as `merge: true` in labels",
    )
    multi_label: bool = Field(default=False, description="rows have any number of labels: a list, or a text of several")
    label_separator: str | None = Field(
        default=None, min_length=1, description="text between the labels of a row where they are one text"
    )
    split: SplitSettings = SplitSettings()
    rows: RowLimits = RowLimits()
    clean: CleanSettings = CleanSettings()
    near_duplicates: NearDuplicateSettings = NearDuplicateSettings()
    invalid_rows: Literal["error", "drop"] = Field(default="error", description="action for an unusable row")
    doubtful_labels: Literal["show", "remove", "off"] = Field(
        default="show", description="rows whose label is probably wrong; remove leaves such training rows out"
    )

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, values: Any) -> Any:
        """Take `merge: true` out of the new names, where no label can be a truth value."""
        labels = values.get("labels") if isinstance(values, dict) else None
        if not isinstance(labels, dict) or not isinstance(labels.get("merge"), bool):
            return values
        rest = {name: new for name, new in labels.items() if name != "merge"}
        return {**values, "labels": rest, "merge_labels": labels["merge"]}

    @field_validator("source")
    @classmethod
    def _named(cls, source: str | list[str]) -> str | list[str]:
        if not source or not all(source):
            raise ValueError("name at least one source, and none by an empty text")
        return source

    @model_validator(mode="after")
    def _any_number_of_labels(self) -> "DataSettings":
        if self.label_separator is not None and not self.multi_label:
            raise ValueError("label_separator is for rows with any number of labels: set multi_label to true")
        if self.multi_label and NO_LABEL in self.labels.values():
            raise ValueError(f"labels: no label may be called {NO_LABEL}, for that is a row without one")
        return self

    @model_validator(mode="after")
    def _query(self) -> "DataSettings":
        queried = [source for source in self.sources if source.startswith("sql:")]
        if bool(queried) != (self.query is not None):
            raise ValueError("a source sql:VARIABLE and a query go together")
        if len(queried) > 1:
            raise ValueError("only one source may be sql:VARIABLE, for there is one query")
        return self

    @model_validator(mode="after")
    def _readable(self) -> "DataSettings":
        for name in ("encoding", "delimiter", "quoting", "header"):
            try:
                FileForm.model_validate({name: getattr(self, name)})
            except ValidationError as error:
                raise ValueError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        return self

    @property
    def form(self) -> FileForm:
        """Return the form of the files."""
        return FileForm(encoding=self.encoding, delimiter=self.delimiter, quoting=self.quoting, header=self.header)

    @property
    def sources(self) -> list[str]:
        """Return `source` as a list."""
        return [self.source] if isinstance(self.source, str) else list(self.source)
