"""Bodies in all shapes of text-embeddings-inference, hostile ones, and that no message repeats what was sent."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from properties import examples
from starlette.requests import Request

from bentune.bundle.errors import ClientGone, InvalidRequest, RequestError, TooLarge
from service.http.requests import Incoming, PredictRequest, parse, rows_of

SECRET = "Xq7SECRETq7X"


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


# The shapes.

SINGLE = {
    "a text": ("one", [("one", None)], True),
    "a list of texts": (["one", "two", "three"], [("one", None), ("two", None), ("three", None)], False),
    "a list of two texts": (["one", "two"], [("one", None), ("two", None)], False),
    "a list of one text": (["one"], [("one", None)], False),
    "a batch": ([["one"], ["two"]], [("one", None), ("two", None)], False),
    "a batch of one": ([["one"]], [("one", None)], False),
}
PAIRS = {
    "a pair": (["one", "two"], [("one", "two")], True),
    "a batch": ([["one", "two"], ["three", "four"]], [("one", "two"), ("three", "four")], False),
    "a batch of one": ([["one", "two"]], [("one", "two")], False),
}


@pytest.mark.parametrize(("inputs", "rows", "single"), SINGLE.values(), ids=SINGLE)
def test_shapes_of_a_model_of_texts(inputs: Any, rows: Any, single: bool) -> None:
    assert rows_of(parse(body(inputs=inputs)), pairs=False, max_inputs=9) == (rows, single)


@pytest.mark.parametrize(("inputs", "rows", "single"), PAIRS.values(), ids=PAIRS)
def test_shapes_of_a_model_of_pairs(inputs: Any, rows: Any, single: bool) -> None:
    assert rows_of(parse(body(inputs=inputs)), pairs=True, max_inputs=9) == (rows, single)


def test_the_other_fields_and_their_defaults() -> None:
    plain = parse(body(inputs="one"))
    assert (plain.truncate, plain.raw_scores, plain.top_k) == (False, False, None)
    full = parse(
        body(inputs="one", truncate=True, raw_scores=True, top_k=3, parameters={"x": 1}, truncation_direction="R")
    )
    assert (full.truncate, full.raw_scores, full.top_k) == (True, True, 3)
    assert parse(body(inputs="one", top_k=None)).top_k is None


@given(st.text(min_size=1))
@example("\0")
@example("犬\U0001f436\u2028")
def test_a_text_arrives_as_it_was_sent(text: str) -> None:
    for ensure_ascii in (True, False):
        sent = json.dumps({"inputs": [[text]]}, ensure_ascii=ensure_ascii).encode()
        assert rows_of(parse(sent), pairs=False, max_inputs=1) == ([(text, None)], False)


# Refusals, and the field that the message names.

REFUSED = {
    "no inputs": ({}, "`inputs` is missing"),
    "null": ({"inputs": None}, "`inputs` must be a text"),
    "a number": ({"inputs": 3}, "`inputs` must be a text"),
    "an object": ({"inputs": {SECRET: SECRET}}, "`inputs` must be a text"),
    "a number in a list": ({"inputs": [SECRET, SECRET, SECRET, 3, SECRET]}, "`inputs.3`: `inputs` must be"),
    "null in a batch": ({"inputs": [[SECRET], [None]]}, "`inputs.1`: "),
    "too deep": ({"inputs": [[[SECRET]]]}, "`inputs.0`: "),
    "three in a batch": ({"inputs": [[SECRET], [SECRET, SECRET, SECRET]]}, "`inputs.1`: "),
    "an empty entry": ({"inputs": [[SECRET], []]}, "`inputs.1`: "),
    "texts and lists": ({"inputs": [SECRET, [SECRET]]}, "`inputs` must be a text, a list of texts, or a list of"),
    "truncate as text": ({"inputs": SECRET, "truncate": SECRET}, "`truncate`: Input should be a valid boolean"),
    "truncate as number": ({"inputs": SECRET, "truncate": 1}, "`truncate`: "),
    "truncate as null": ({"inputs": SECRET, "truncate": None}, "`truncate`: "),
    "raw_scores as text": ({"inputs": SECRET, "raw_scores": "true"}, "`raw_scores`: "),
    "top_k of 0": ({"inputs": SECRET, "top_k": 0}, "`top_k`: Input should be greater than or equal to 1"),
    "top_k below": ({"inputs": SECRET, "top_k": -1}, "`top_k`: "),
    "top_k as text": ({"inputs": SECRET, "top_k": "3"}, "`top_k`: "),
    "top_k as bool": ({"inputs": SECRET, "top_k": True}, "`top_k`: "),
    "top_k as float": ({"inputs": SECRET, "top_k": 1.5}, "`top_k`: "),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_field_is_named(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(json.dumps(content).encode())
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


ROWS_REFUSED = {
    "an empty list": ([], False, InvalidRequest, "`inputs` must not be an empty list"),
    "an empty text": ("", False, InvalidRequest, "`inputs` must not be empty"),
    "an empty text in a list": (["a", "b", ""], False, InvalidRequest, "`inputs.2` must not be empty"),
    "an empty text in a batch": ([["a"], [""]], False, InvalidRequest, "`inputs.1` must not be empty"),
    "a pair for texts": (
        [["a"], ["b", "c"]],
        False,
        InvalidRequest,
        "`inputs.1`: this model takes a single text, got 2",
    ),
    "too many": (["a"] * 4, False, TooLarge, "`inputs` must have at most 3 entries, this one has 4"),
    "an empty list for pairs": ([], True, InvalidRequest, "`inputs` must not be an empty list"),
    "a text for pairs": ("a", True, InvalidRequest, "`inputs`: this model takes a pair [text, text], got 1 text"),
    "a single for pairs": ([["a", "b"], ["c"]], True, InvalidRequest, "`inputs.1`: this model takes a pair"),
    "three for pairs": (["a", "b", "c"], True, InvalidRequest, "`inputs`: this model takes a pair [text, text], got 3"),
    "half a pair": (["a", ""], True, InvalidRequest, "`inputs` must not be empty"),
    "half a pair in a batch": ([["a", "b"], ["", "d"]], True, InvalidRequest, "`inputs.1` must not be empty"),
    "too many pairs": ([["a", "b"]] * 4, True, TooLarge, "`inputs` must have at most 3 entries, this one has 4"),
}


@pytest.mark.parametrize(("inputs", "pairs", "error", "message"), ROWS_REFUSED.values(), ids=ROWS_REFUSED)
def test_wrong_rows_are_named(inputs: Any, pairs: bool, error: type[RequestError], message: str) -> None:
    with pytest.raises(error) as caught:
        rows_of(parse(body(inputs=inputs)), pairs=pairs, max_inputs=3)
    assert str(caught.value).startswith(message)


# Hostile bodies.

HOSTILE = {
    "empty": b"",
    "no JSON": b"inputs=" + SECRET.encode(),
    "cut off": b'{"inputs": "' + SECRET.encode(),
    "two documents": b'{"inputs": "a"} {"inputs": "' + SECRET.encode() + b'"}',
    "invalid UTF-8": b'{"inputs": "\xff\xfe' + SECRET.encode() + b'"}',
    "half a surrogate pair": b'{"inputs": "\\ud800' + SECRET.encode() + b'"}',
    "the other half": b'{"inputs": "' + SECRET.encode() + b'\\udc00"}',
    "a raw NUL": b'{"inputs": "\x00' + SECRET.encode() + b'"}',
    "UTF-16": '{"inputs": "a"}'.encode("utf-16"),
    "deep lists": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep lists that never end": b"[" * 1_000_000,
    "deep objects": b'{"a":' * 100_000,
    "a number of many digits": b'{"inputs": "a", "top_k": ' + b"9" * 100_000 + b"}",
    "a huge exponent": b'{"inputs": "a", "top_k": 1e999999999}',
    "infinity": b'{"inputs": "a", "top_k": Infinity}',
    "NaN": b'{"inputs": NaN}',
    "a list": b'["' + SECRET.encode() + b'"]',
    "a text": b'"' + SECRET.encode() + b'"',
    "null": b"null",
    "a number": b"3",
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_body_is_invalid(sent: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse(sent)
    assert SECRET not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert caught.value.__cause__ is None


def test_the_last_of_a_repeated_key_counts() -> None:
    assert parse(b'{"inputs": "a", "inputs": "b"}').inputs == "b"


def attempt(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return the call's result, or None and the message of the refusal.

    Anything else that is raised is a failure.
    """
    try:
        return call(), ""
    except (InvalidRequest, TooLarge) as refusal:
        return None, str(refusal)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.just(SECRET)
    | st.text(max_size=3).map(lambda text: SECRET + text),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.just(SECRET) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
FIELDS = ["inputs", "truncate", "raw_scores", "top_k"]


@given(st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4), st.booleans())
@examples(400)
def test_whatever_is_in_the_fields_the_answer_names_one_and_repeats_none(content: dict[str, Any], pairs: bool) -> None:
    sent = json.dumps(content).encode()
    found, refused = attempt(lambda: rows_of(parse(sent), pairs=pairs, max_inputs=3))
    if found is None:
        assert any(f"`{name}" in refused for name in FIELDS)
        assert SECRET not in refused
        return
    rows, single = found
    assert rows
    assert not single or len(rows) == 1
    assert all(text and bool(pair) == pairs for text, pair in rows)


@given(
    st.binary(max_size=60) | st.binary(max_size=20).map(lambda junk: b'{"inputs": "' + junk + SECRET.encode() + junk)
)
@examples(300)
def test_no_bytes_raise_anything_else(sent: bytes) -> None:
    found, refused = attempt(lambda: parse(sent))
    assert isinstance(found, PredictRequest) or SECRET not in refused


# Reading off the wire.


def incoming(*messages: dict[str, Any], **headers: str) -> tuple[Incoming, list[dict[str, Any]]]:
    """Return a request whose body arrives in these messages, and their list.

    The messages are taken from that list.
    """
    waiting = list(messages)

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop(0)
        await asyncio.Event().wait()
        raise AssertionError

    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": raw, "query_string": b""}
    return Incoming(Request(scope, receive)), waiting


def piece(content: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": content, "more_body": more}


def read(*messages: dict[str, Any], limit: int = 40, **headers: str) -> PredictRequest:
    return asyncio.run(asyncio.wait_for(incoming(*messages, **headers)[0].read(limit), 10))


def test_a_body_in_pieces_is_put_together() -> None:
    assert read(piece(b'{"inp'), piece(b""), piece(b'uts": "a"}', more=False)).inputs == "a"


def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not() -> None:
    sent = b'{"inputs": "' + b"a" * 26 + b'"}'
    assert len(sent) == 40
    assert read(piece(sent, more=False), content_length="40").inputs == "a" * 26
    for headers in ({}, {"content_length": "41"}):
        with pytest.raises(TooLarge, match="the body has more than 40 bytes"):
            read(piece(sent + b" ", more=False), **headers)


def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_read() -> None:
    request, waiting = incoming(piece(b"x" * 50, more=False), content_length="50")
    with pytest.raises(TooLarge):
        asyncio.run(request.read(40))
    assert len(waiting) == 1


def test_a_body_without_a_declared_length_is_read_no_further_than_the_limit() -> None:
    request, waiting = incoming(*[piece(b"x" * 30) for _ in range(1000)], transfer_encoding="chunked")
    with pytest.raises(TooLarge):
        asyncio.run(asyncio.wait_for(request.read(40), 10))
    assert len(waiting) == 998


def test_a_length_that_lies_does_not_help() -> None:
    with pytest.raises(TooLarge):
        read(piece(b"x" * 41, more=False), content_length="3")
    with pytest.raises(InvalidRequest, match="not JSON"):
        read(piece(b"x", more=False), content_length="-1")


def test_a_client_that_leaves_while_it_sends_is_gone() -> None:
    with pytest.raises(ClientGone):
        read(piece(b'{"inp'), {"type": "http.disconnect"})


def test_gone_returns_when_the_client_leaves_and_not_before() -> None:
    async def scenario() -> None:
        stays, _ = incoming(piece(b"", more=False))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stays.gone(), 0.05)
        leaves, _ = incoming(piece(b"", more=False), {"type": "http.disconnect"})
        await asyncio.wait_for(leaves.gone(), 10)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("given_ms", "expected"), [("1", 1), ("250", 250), ("5000", 1000), ("999999999", 1000), ("007", 7)]
)
def test_the_callers_deadline_counts_up_to_the_servers(given_ms: str, expected: int) -> None:
    assert incoming(x_request_timeout_ms=given_ms)[0].timeout_ms(1000) == expected


def test_without_a_header_the_servers_deadline_counts() -> None:
    assert incoming()[0].timeout_ms(1234) == 1234


@pytest.mark.parametrize("value", ["0", "000", "-5", "1.5", "1e3", "", " ", "soon", "²", "9" * 10, "9" * 5000, "1;2"])
def test_a_deadline_that_is_no_number_is_invalid_and_names_the_header(value: str) -> None:
    with pytest.raises(InvalidRequest, match="`x-request-timeout-ms` must be a whole number of milliseconds above 0"):
        incoming(x_request_timeout_ms=value)[0].timeout_ms(1000)
