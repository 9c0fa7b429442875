"""Errors that Bentune raises on purpose, with their exit codes and HTTP statuses.

    BentuneError                 exit 3   something broke
    ├── InputError               exit 2   wrong input: a recipe, a file, a row, a name
    │   └── BundleError          exit 2   a bundle is missing, changed, or of an unknown schema
    ├── GateError                exit 1   a gate refused: the message names the gate
    └── RequestError             one prediction request fails, the others go on
        ├── InvalidRequest       422      the message names the field
        ├── TooLarge             413      too many bytes, inputs or tokens
        ├── Overloaded           429      the queue is full; carries Retry-After
        ├── ClientGone           499      the client closed its connection
        ├── InferenceFailed      500      the model could not compute this input
        ├── NotReady             503      the model did not pass its start-up checks
        ├── ShuttingDown         503      the server finishes what it accepted and takes nothing new
        └── DeadlineExceeded     504      the client's or the server's timeout passed

The body of an error response is {"error": message, "error_type": type}, with the types of text-embeddings-inference
where it has one. Messages never hold the user's text.
"""

from typing import ClassVar


class BentuneError(Exception):
    """Root of the tree."""

    exit_code: ClassVar[int] = 3


class InputError(BentuneError):
    """Some input is wrong; the message names it, its value, and what to do."""

    exit_code: ClassVar[int] = 2


class BundleError(InputError):
    """A bundle is missing, was changed after it was written, or has an unknown schema."""


class GateError(BentuneError):
    """A measurement missed its bound; `gate` is the name of the hop or gate that refused."""

    exit_code: ClassVar[int] = 1

    def __init__(self, gate: str, message: str) -> None:
        super().__init__(message)
        self.gate = gate


class RequestError(BentuneError):
    """One request gets no prediction.

    `status` is the HTTP status, `error_type` the type in the response, `reason` the label in bentune_rejected_total.
    """

    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "Backend"
    reason: ClassVar[str] = "failed"


class InvalidRequest(RequestError):
    """The body does not have the shape of a request."""

    status, error_type, reason = 422, "Validation", "invalid"


class TooLarge(RequestError):
    """The body, the number of inputs, or an input that may not be truncated is over the limit."""

    status, error_type, reason = 413, "Validation", "too_large"


class Overloaded(RequestError):
    """The queue is full; `retry_after_s` is when there should be room, in seconds."""

    status, error_type, reason = 429, "Overloaded", "overloaded"

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ClientGone(RequestError):
    """The client closed its connection before the answer."""

    status, error_type, reason = 499, "Cancelled", "cancelled"


class InferenceFailed(RequestError):
    """The model raised on this input even when it ran alone."""

    status, error_type, reason = 500, "Backend", "failed"


class NotReady(RequestError):
    """The model did not pass its start-up checks."""

    status, error_type, reason = 503, "Unhealthy", "not_ready"


class ShuttingDown(RequestError):
    """The server is draining."""

    status, error_type, reason = 503, "Unhealthy", "shutting_down"


class DeadlineExceeded(RequestError):
    """The answer would have come too late."""

    status, error_type, reason = 504, "Timeout", "deadline"


REQUEST_ERRORS: tuple[type[RequestError], ...] = (
    InvalidRequest,
    TooLarge,
    Overloaded,
    ClientGone,
    InferenceFailed,
    NotReady,
    ShuttingDown,
    DeadlineExceeded,
)
