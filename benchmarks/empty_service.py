"""BentoML service that returns a constant, and the same without BentoML, for the cost of BentoML's request path."""

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
    """Request that BentoML neither reads nor parses."""

    __root_input__: ClassVar[bool] = True

    @classmethod
    async def from_http_request(cls, request: Request, serde: Any) -> "Untouched":  # noqa: ARG003
        """Leave the body unread."""
        return cls()


def _answer() -> Response:
    return Response(ANSWER, media_type="application/json")


@bentoml.service(workers=1, **VARIANTS[VARIANT])
class EmptyService:
    """Service that answers on the event loop, as Bentune's does."""

    @bentoml.api(route="/predict")
    async def predict(self, request: Untouched, /) -> Any:  # noqa: ARG002
        """Return the constant."""
        return _answer()


async def _bare(_: Request) -> Response:
    return _answer()


bare = Starlette(routes=[Route("/predict", _bare, methods=["POST"]), Route("/readyz", _bare)])
