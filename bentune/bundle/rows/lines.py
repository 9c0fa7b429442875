"""Lines of an open file, decoded, with their own line ends."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

from bentune.bundle.errors import InputError
from bentune.bundle.rows.encodings import SAMPLE_BYTES, advice

# Bytes of all fields and line ends of one row. The bound keeps memory constant even when a quote is never closed.
MAX_ROW_BYTES = 10_000_000

_UTF8_BOM = b"\xef\xbb\xbf"


class BrokenLine(Exception):
    """A line that cannot be read; the message is the reason. The lines after it can."""


class Lines:
    """Lines of a binary file, as the csv module wants them.

    Iterating raises BrokenLine for a line that is not of the encoding, and InputError for a row over MAX_ROW_BYTES.
    """

    def __init__(
        self, path: Path, file: IO[bytes], encoding: str | None, again: Callable[[], AbstractContextManager[IO[bytes]]]
    ) -> None:
        """`again` opens the file another time, for a guess of its encoding."""
        self.path = path
        self.number = 0  # of the line handed out last
        self.row_line = 1  # where the row being read starts
        self.ended = False
        self.row: list[str] = []
        """Lines of the row being read."""
        self._encoding = encoding or "utf-8"
        # Lines of these end by two or four bytes, so that they are decoded first.
        wide = self._encoding.startswith(("utf-16", "utf-32"))
        self._file: IO[bytes] | io.TextIOWrapper = (
            io.TextIOWrapper(io.BufferedReader(file), encoding=self._encoding, newline="") if wide else file  # type: ignore[type-var]
        )
        self._ahead: str | None = None
        self._offset = 0  # of the first byte not yet handed out
        self._row_bytes = 0
        self.again = again
        self._advised = False

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._ahead if self._ahead is not None else self._read()
        self._ahead = None
        self.number += 1
        self.row.append(line)
        return line

    def peek(self) -> str:
        """Return the next line without handing it out; empty at the end of the file."""
        if self._ahead is None:
            try:
                self._ahead = self._read()
            except StopIteration:
                self.ended = False
                return ""
        return self._ahead

    def start_row(self) -> None:
        """Start a row at the next line."""
        self.row_line = self.number + 1
        self._row_bytes = 0
        self.row = []

    @property
    def several(self) -> bool:
        """True while the row being read has more than one line."""
        return self.number > self.row_line

    def error(self, problem: str, line: int | None = None) -> InputError:
        """Make an error that names the file and a line, by default the last one."""
        return InputError(f"{self.path}, line {line or self.number}: {problem}")

    def _read(self) -> str:
        try:
            line = self._file.readline(MAX_ROW_BYTES + 1)
        except UnicodeError as error:  # without a BOM it is no UnicodeDecodeError
            raise self.error(f"not {self._encoding}: {error}{self._advice()}", self.number + 1) from None
        self._row_bytes += len(line)
        if not line:
            self.ended = True
            raise StopIteration
        if self._row_bytes > MAX_ROW_BYTES:
            raise self.error(
                f"the row is longer than {MAX_ROW_BYTES // 1_000_000} MB; shorten it, "
                "or look for a quote that is opened there and never closed",
                self.row_line,
            )
        if isinstance(line, str):
            return line
        start = self._offset
        self._offset += len(line)
        if self.number == 0 and line.startswith(_UTF8_BOM):
            line = line[len(_UTF8_BOM) :]
            start += len(_UTF8_BOM)
        return self._decoded(line, start)

    def _decoded(self, line: bytes, start: int) -> str:
        try:
            text = line.decode(self._encoding)
        except UnicodeDecodeError as error:
            self.number += 1
            name = "UTF-8" if self._encoding == "utf-8" else self._encoding
            raise BrokenLine(
                f"not {name}: byte 0x{line[error.start]:02x} at byte offset {start + error.start}{self._advice()}"
            ) from None
        if "\0" in text:
            self.number += 1
            raise BrokenLine(
                f"a NUL byte at byte offset {start + line.index(0)}: this is no text file, or it is UTF-16; then give "
                "the encoding (data.encoding in a recipe, --encoding for `bentune predict`)"
            )
        return text

    def _advice(self) -> str:
        """Return what to do about the encoding, at its first use; guessing takes a second."""
        if self._advised:
            return ""
        self._advised = True
        with self.again() as file:
            data = file.read(SAMPLE_BYTES)
            if self._offset > SAMPLE_BYTES:
                file.seek(self._offset - SAMPLE_BYTES // 2)
                data += file.read(SAMPLE_BYTES)
        return f"; {advice(data)}"
