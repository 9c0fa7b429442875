"""BentoML service: the bundle is chosen at import, and served by the class of its task."""

import os
from pathlib import Path
from typing import Any

import bentoml
from bentoml.models import BentoModel
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import open_bundle, read_manifest
from bentune.bundle.plan import OPENVINO, Plan
from bentune.bundle.store import bundle_tag, remember_model
from service.engine.memory import require_memory
from service.engine.providers import OPENVINO_REQUIREMENT
from service.http.openapi import corrected, description
from service.http.requests import Incoming, PredictRequest, PredictResponse
from service.scheduling.priority import favour_slots
from service.settings import Settings
from service.tasks.registry import TASKS
from service.tasks.task import Task

# BentoML's own timeout answers without our error body and keeps each timer until it ends, so it must come last.
TIMEOUT_MARGIN_S = 5


class Arguments(BaseModel):
    """Arguments of `bentoml build --arg model=NAME:VERSION`. Without VERSION or NAME, the newest is chosen."""

    model: str | None = None


def choose_model() -> str:
    """Return the tag of the bundle to serve.

    BentoML stores its arguments in a Bento and restores them when the Bento is loaded. The chosen tag is stored there,
    so that a Bento always serves the model with which it was built. Raises InputError when the store has no such
    bundle.
    """
    tag = bundle_tag(bentoml.use_arguments(Arguments).model)
    remember_model(tag)
    return tag


async def _info(_: Request) -> Response:
    return _json(bentoml.get_current_service().info())


async def _docs(_: Request) -> Response:
    body = TASKS[bentoml.get_current_service().info()["task"]].body
    return _json(corrected(service.openapi_spec.asdict(), body))


def _json(value: Any) -> Response:
    # JSON has no infinity, which is the difference of a golden row without scores.
    return Response(to_json(value, inf_nan_mode="null"), media_type="application/json")


def _image(tag: str, task: type[Task]) -> dict[str, Any]:
    """Return the `image` option with the packages of plan and task."""
    plan = Plan.model_validate_json((Path(bentoml.models.get(tag).path) / "plan.json").read_bytes())
    packages = [*([OPENVINO_REQUIREMENT] if plan.provider == OPENVINO else []), *task.requirements]
    return {"image": bentoml.images.Image().python_packages(*packages)} if packages else {}


def service_of(tag: str, task: type[Task], settings: Settings) -> Any:
    """Return the service class of a bundle."""
    about = description(read_manifest(Path(bentoml.models.get(tag).path)))
    # A span costs the event loop as much as all our work for a request (docs/log.md), so tracing is off by default.
    unasked = {} if settings.tracing else {"tracing": {"excluded_urls": ".*"}}

    @bentoml.asgi_app(Starlette(routes=[Route("/info", _info), Route("/docs.json", _docs)]), path="/")
    @bentoml.service(
        name=tag.partition(":")[0],
        description=about,  # otherwise BentoML takes the README of the build's directory
        workers=1,
        traffic={"timeout": settings.request_timeout_ms / 1000 + TIMEOUT_MARGIN_S},
        logging={"access": {"enabled": settings.access_log}},
        **_image(tag, task),
        **unasked,
    )
    class Inference:
        model = BentoModel(tag)

        def __init__(self) -> None:
            from service.app import Application

            # The tokenizer's thread pool would take the slots' cores.
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
            self.application = Application(open_bundle(Path(self.model.path)), settings)

        @bentoml.on_deployment
        @staticmethod
        def check() -> None:
            """Raise for a changed bundle, and for too little memory, before a worker starts.

            A worker that raises at its start is restarted forever.
            """
            require_memory(open_bundle(Path(bentoml.models.get(tag).path)), settings)

        @bentoml.on_startup
        async def start(self) -> None:
            favour_slots()
            self.application.start()

        @bentoml.on_shutdown
        async def stop(self) -> None:
            await self.application.stop()

        async def __is_ready__(self) -> bool:
            return self.application.ready

        @bentoml.api(route="/predict", output_spec=PredictResponse)
        async def predict(self, request: PredictRequest, /) -> Any:
            """Predict, in the shapes of text-embeddings-inference."""
            incoming: Any = request
            if not isinstance(incoming, Incoming):
                raise TypeError("call this service over HTTP")
            return await self.application.answer(incoming)

        def info(self) -> dict[str, Any]:
            """Return the content of GET /info."""
            return self.application.info()

    return Inference


def build() -> Any:
    """Return the service of the chosen bundle's task.

    Raises InputError for a task that this version does not serve, and for a wrong BENTUNE_* variable.
    """
    tag = choose_model()
    task = bentoml.models.get(tag).info.labels.get("task", "")
    if task not in TASKS:
        raise InputError(f"{tag} has the task {task!r}; this version serves {', '.join(TASKS)}")
    return service_of(tag, TASKS[task], Settings.from_env(os.environ))


service = build()
