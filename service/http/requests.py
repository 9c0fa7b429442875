"""Requests of predictions: a bounded body, in the shapes of text-embeddings-inference."""

from typing import Annotated, Any, ClassVar

from bentoml import IODescriptor
from pydantic import ConfigDict, Field, RootModel, StrictBool, ValidationError
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request

from bentune.bundle.errors import ClientGone, InvalidRequest, RequestError, TooLarge
from service.http.uploads import is_upload, uploaded

InputRow = tuple[str, str | None]
DEADLINE_HEADER = "x-request-timeout-ms"
SHAPE = "must be a text, a list of texts, or a list of [text] or [text, text]"


class PredictRequest(IODescriptor):
    """Inputs of a request; unknown keys are ignored, as text-embeddings-inference does."""

    model_config = ConfigDict(extra="ignore")
    # BentoML passes the whole model to the API method when this is set, rather than one argument per field.
    __root_input__: ClassVar[bool] = True

    inputs: str | list[str] | list[Annotated[list[str], Field(min_length=1, max_length=2)]] = Field(
        description="A text; a list of texts, each as a string or as [text]; for a model of pairs, [text, text] or a "
        "list of those; for a model of images, one in base64 or as a data URL, or a list of those."
    )
    truncate: StrictBool = Field(default=False, description="Cut a text that is too long; otherwise it is an error.")
    raw_scores: StrictBool = Field(default=False, description="Logits rather than probabilities.")
    top_k: int | None = Field(default=None, ge=1, strict=True, description="Only the best labels; all by default.")

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> "Incoming":  # noqa: ARG003
        """Hand the untouched request to the API method.

        BentoML would parse it here, answer an invalid one with 400 and a body of its own, and log its text.
        """
        return Incoming(request)


class ScoredLabel(IODescriptor):
    """A label and its score."""

    score: float
    label: str


class PredictResponse(RootModel[list[ScoredLabel] | list[list[ScoredLabel]]]):
    """Best label first: a list for one input, a list of lists for a list of inputs.

    With `multi_label` in /info, an input has the labels whose scores are above 0.5, and scores do not sum to 1.
    """


class Incoming:
    """Request whose body is not read yet."""

    def __init__(self, http: Request) -> None:
        self.http = http

    @property
    def declared_bytes(self) -> int:
        """Declared length of the body in bytes; 0 without a Content-Length."""
        declared = self.http.headers.get("content-length", "")
        # int() raises for thousands of digits.
        return int(declared[:18]) if declared.isdecimal() else 0

    async def read(self, max_body_bytes: int, most_files: int = 0) -> PredictRequest:
        """Read and check the body: JSON, or up to `most_files` uploaded images.

        Raises TooLarge, InvalidRequest, or ClientGone.
        """
        body = bytearray()
        try:
            if self.declared_bytes <= max_body_bytes:
                async for piece in self.http.stream():
                    body += piece
                    if len(body) > max_body_bytes:
                        break
        except ClientDisconnect:
            raise ClientGone("the client went away while it sent the body") from None
        if max(len(body), self.declared_bytes) > max_body_bytes:
            raise TooLarge(f"the body has more than {max_body_bytes} bytes: send fewer inputs at a time")
        content_type = self.http.headers.get("content-type", "")
        if most_files and is_upload(content_type):
            return PredictRequest(inputs=await uploaded(content_type, bytes(body), most_files))
        return parse(bytes(body))

    def timeout_ms(self, default: int) -> int:
        """Return the request's timeout in milliseconds, at most `default`.

        Raises InvalidRequest.
        """
        given = self.http.headers.get(DEADLINE_HEADER)
        if given is None:
            return default
        if not given.isdecimal() or not 0 < len(given) <= 9 or int(given) == 0:
            raise InvalidRequest(f"`{DEADLINE_HEADER}` must be a whole number of milliseconds above 0")
        return min(int(given), default)

    async def gone(self) -> None:
        """Wait until the client closes its connection."""
        while (await self.http.receive())["type"] != "http.disconnect":
            pass


def parse(body: bytes) -> PredictRequest:
    """Check a JSON body.

    Raises InvalidRequest that names the field and never repeats its value.
    """
    try:
        content = from_json(body)
    except ValueError as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise InvalidRequest("the body must be a JSON object with `inputs`")
    try:
        request: PredictRequest = PredictRequest.model_validate(content)
    except ValidationError as error:
        raise _explain(error, content) from None
    return request


def rows_of(request: PredictRequest, *, pairs: bool, max_inputs: int) -> tuple[list[InputRow], bool]:
    """Return the texts or pairs of a request, and whether it is a single one.

    A single input gets a flat answer. A list of two strings is two texts for a model of single texts, and one pair for
    a model of pairs. Raises InvalidRequest and TooLarge.
    """
    inputs = request.inputs
    single = isinstance(inputs, str) or (pairs and bool(inputs) and isinstance(inputs[0], str))
    items: list[Any] = [inputs] if single else list(inputs)
    if not items:
        raise InvalidRequest("`inputs` must not be an empty list")
    if len(items) > max_inputs:
        raise TooLarge(f"`inputs` must have at most {max_inputs} entries, this one has {len(items)}")
    rows: list[InputRow] = []
    for index, item in enumerate(items):
        texts = [item] if isinstance(item, str) else item
        field = field_of(index, single=single)
        if len(texts) != 1 + pairs:
            wanted = "a pair [text, text]" if pairs else "a single text"
            raise InvalidRequest(f"{field}: this model takes {wanted}, got {len(texts)} text{'s' * (len(texts) > 1)}")
        if not all(texts):
            raise InvalidRequest(f"{field} must not be empty")
        rows.append((texts[0], texts[1] if pairs else None))
    return rows, single


def field_of(index: int, *, single: bool) -> str:
    """Return the name of an input for error messages."""
    return "`inputs`" if single else f"`inputs.{index}`"


def _explain(error: ValidationError, content: dict[str, Any]) -> RequestError:
    problem = error.errors(include_input=False, include_url=False)[0]
    field = str(problem["loc"][0])
    if field not in content:
        return InvalidRequest(f"`{field}` is missing")
    if field != "inputs":
        return InvalidRequest(f"`{field}`: {problem['msg']}")
    if isinstance(content["inputs"], list):
        # pydantic reports every branch of the union. The first entry that fits none of them is more useful.
        for index, item in enumerate(content["inputs"]):
            texts = item if isinstance(item, list) else [item]
            if not 1 <= len(texts) <= 2 or not all(isinstance(text, str) for text in texts):
                return InvalidRequest(f"`inputs.{index}`: `inputs` {SHAPE}")
    return InvalidRequest(f"`inputs` {SHAPE}")
