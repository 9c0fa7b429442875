"""The error tree: one status, one type and one reason for each way a request ends without a prediction."""

import re

import pytest

from bentune.bundle import errors
from bentune.bundle.errors import (
    REQUEST_ERRORS,
    BentuneError,
    BundleError,
    GateError,
    InputError,
    Overloaded,
    RequestError,
)

TABLE = {
    "InvalidRequest": (422, "Validation", "invalid"),
    "TooLarge": (413, "Validation", "too_large"),
    "Overloaded": (429, "Overloaded", "overloaded"),
    "ClientGone": (499, "Cancelled", "cancelled"),
    "InferenceFailed": (500, "Backend", "failed"),
    "NotReady": (503, "Unhealthy", "not_ready"),
    "ShuttingDown": (503, "Unhealthy", "shutting_down"),
    "DeadlineExceeded": (504, "Timeout", "deadline"),
}


def test_the_table_is_what_clients_and_dashboards_know() -> None:
    assert {e.__name__: (e.status, e.error_type, e.reason) for e in REQUEST_ERRORS} == TABLE


def test_the_table_holds_every_request_error() -> None:
    assert set(REQUEST_ERRORS) == set(RequestError.__subclasses__())


def test_each_reason_tells_one_error_from_all_others() -> None:
    assert len({e.reason for e in REQUEST_ERRORS}) == len(REQUEST_ERRORS)


def test_the_tree_drawn_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"[├└]── (\w+) +(?:exit )?(\d+|one)", errors.__doc__ or ""))
    expected = {name: str(status) for name, (status, _, _) in TABLE.items()}
    assert drawn == expected | {"InputError": "2", "BundleError": "2", "GateError": "1", "RequestError": "one"}


@pytest.mark.parametrize(
    ("error", "code"), [(BentuneError("x"), 3), (InputError("x"), 2), (BundleError("x"), 2), (GateError("g", "x"), 1)]
)
def test_exit_codes(error: BentuneError, code: int) -> None:
    assert error.exit_code == code


def test_errors_carry_what_their_reader_needs() -> None:
    assert GateError("merge", "too far").gate == "merge"
    assert str(GateError("merge", "too far")) == "too far"
    assert Overloaded("full", 1.5).retry_after_s == 1.5
    assert str(Overloaded("full", 1.5)) == "full"
