"""Form of a file with rows: what its bytes, quotes and first line mean, where the file itself does not tell."""

import codecs
from typing import Literal

from pydantic import Field, field_validator

from bentune.bundle.files import Frozen

Quoting = Literal["minimal", "none"]


class FileForm(Frozen):
    """Form of a CSV, TSV or JSON lines file; the defaults are those of UTF-8 files with a header and quotes.

    `delimiter` is that of the suffix by default; a .csv whose header has no comma but semicolons or tabs has those.
    `quoting` is `minimal` where quotes enclose a field and `none` where they belong to the texts; by default they
    enclose it, and a quote that swallows the rows after it is an error. `header` names the columns of a file without a
    header.
    """

    encoding: str | None = Field(default=None, description="encoding of text files, such as cp1252; UTF-8 by default")
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="between the fields of a row")
    quoting: Quoting | None = Field(
        default=None, description="minimal: quotes enclose a field; none: they belong to the texts"
    )
    header: tuple[str, ...] | None = Field(
        default=None, min_length=1, description="names of the columns, for files without a header"
    )

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str | None) -> str | None:
        if encoding is None:
            return None
        try:
            found = codecs.lookup(encoding)
            "".encode(encoding)
        except (LookupError, ValueError):
            raise ValueError(
                f"{encoding!r} is no encoding of texts that Python has; give one such as cp1252 or gbk"
            ) from None
        return found.name

    @field_validator("header")
    @classmethod
    def _different(cls, header: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if header is not None and len(set(header)) < len(header):
            raise ValueError("each column must have a name of its own")
        return header


UTF8 = FileForm()
