"""A BentoML service that answers a constant: what BentoML's own way of a request costs, and the same without it."""

import os
from typing import Any, ClassVar

import bentoml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

VARIANT = os.environ.get("EMPTY_VARIANT", "as it comes")
VARIANTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "without access log": {"logging": {"access": {"enabled": False}}},
    "without access log and tracing": {
        "logging": {"access": {"enabled": False}},
        "tracing": {"excluded_urls": ".*"},
    },
}
ANSWER = b'[{"score":1.0,"label":"constant"}]'


class Untouched(bentoml.IODescriptor):
    """A request of which BentoML reads and parses nothing."""

    __root_input__: ClassVar[bool] = True

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> "Untouched":  # noqa: ARG003
        """Leave the body where it is."""
        return cls()


def _answer() -> Response:
    return Response(ANSWER, media_type="application/json")


@bentoml.service(workers=1, **VARIANTS[VARIANT])
class EmptyService:
    """Answers on the event loop, as our service does."""

    @bentoml.api(route="/predict")
    async def predict(self, request: Untouched, /) -> Any:  # noqa: ARG002
        """The constant."""
        return _answer()


async def _bare(_: Request) -> Response:
    return _answer()


bare = Starlette(routes=[Route("/predict", _bare, methods=["POST"]), Route("/readyz", _bare)])
