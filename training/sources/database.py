"""Rows of a query: `sql:VARIABLE` names the environment variable that holds the database's URL, with its password."""

import hashlib
import json
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

from bentune.bundle.errors import InputError

SQL = "sql:"
CHUNK_ROWS = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """One SELECT on the database whose URL is in `environ`; no recipe, message or evidence contains the URL."""

    variable: str
    query: str
    environ: Mapping[str, str]

    @classmethod
    def of(cls, source: str, query: str, environ: Mapping[str, str] = os.environ) -> "Query":
        """Build the query of `data.source` and `data.query`.

        Raises InputError when the environment variable is not set.
        """
        variable = source.removeprefix(SQL)
        if not environ.get(variable):
            raise InputError(
                f"data.source: {source}: the environment variable {variable or '(no name)'} is not set; put the "
                "database's URL there, for example sqlite:////data/rows.db or postgresql+psycopg://user@host/name"
            )
        return cls(variable, query, environ)

    def columns(self) -> list[str]:
        """Return the names of the query's columns."""
        with self._result() as result:
            return list(result.keys())

    def rows(self) -> Generator[dict[str, Any]]:
        """Stream the rows; decimal numbers become integers where whole, else floats."""
        with self._result() as result:
            for row in result.mappings():
                yield {name: _plain(value) for name, value in row.items()}

    def digest(self, names: list[str]) -> str:
        """Return a sha256 of these columns of all rows, independent of their order.

        A query guarantees no order.
        """
        total = count = 0
        for row in self.rows():
            spelled = json.dumps([row[name] for name in names], default=str).encode()
            total += int.from_bytes(hashlib.sha256(spelled).digest())
            count += 1
        return hashlib.sha256(f"{count}:{total}".encode()).hexdigest()

    @contextmanager
    def _result(self) -> Iterator[Any]:
        try:
            import sqlalchemy
        except ImportError:
            raise InputError(
                f"data.source: {SQL}{self.variable} needs SQLAlchemy: pip install 'bentune[train]'"
            ) from None
        engine = None
        try:
            engine = sqlalchemy.create_engine(self.environ[self.variable], poolclass=sqlalchemy.NullPool)
            # `:name` and `%` in the query are text, not parameters.
            options = {"yield_per": CHUNK_ROWS, "no_parameters": True}
            with engine.connect() as connection:
                yield connection.execution_options(**options).exec_driver_sql(self.query)
        except (sqlalchemy.exc.SQLAlchemyError, ImportError, OSError) as error:
            raise InputError(f"data.query: {SQL}{self.variable}: {self._said(error)}") from None
        finally:
            if engine is not None:
                engine.dispose()

    def _said(self, error: Exception) -> str:
        """Return the driver's message on one line, without the URL or its password."""
        lines = str(getattr(error, "orig", None) or error).strip().splitlines()
        said = lines[0] if lines else type(error).__name__
        url = self.environ[self.variable]
        secrets = [url]
        with_password = url.partition("://")[2].rpartition("@")[0]
        if ":" in with_password:
            password = with_password.partition(":")[2]
            secrets += [password, unquote(password)]
        for secret in secrets:
            said = said.replace(secret, "***")
        return said


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    return value
