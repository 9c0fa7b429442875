"""Identity of a live service: its /info as typed values, and the bundle that it serves."""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle, Name, Sha256
from bentune.bundle.plan import Variant
from bentune.bundle.store import find_bundle
from bentune.bundle.targets.registry import target_in
from bentune.bundle.targets.target import Target
from rollout.server.scrape import read_info
from rollout.server.target import address_of, is_address

MAX_LABELS = 100_000


class _Said(BaseModel):
    """Part of /info; a newer service may have more keys."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Identity(_Said):
    """Identity of the served bundle, in the /info of every Bentune service."""

    name: Name
    version: Name
    content: Sha256

    @property
    def tag(self) -> str:
        """Return the tag in the BentoML model store."""
        return f"{self.name}:{self.version}"


class PlanInfo(_Said):
    """Variant and provider in use."""

    variant: Variant
    provider: str = Field(max_length=100)


class LimitsInfo(_Said):
    """Limits of a request."""

    max_inputs: int = Field(ge=1)


class Info(Identity):
    """Content of /info that a comparison needs."""

    inputs: Literal["text", "pair", "image"]
    target: Target
    plan: PlanInfo
    limits: LimitsInfo

    @model_validator(mode="before")
    @classmethod
    def _read_target(cls, said: Any) -> Any:
        if not isinstance(said, dict) or isinstance(said.get("target"), Target):
            return said
        labels = said.get("labels")
        if isinstance(labels, list) and len(labels) > MAX_LABELS:
            raise ValueError(f"it has more than {MAX_LABELS} labels")
        return said | {"target": target_in(said)}


InfoT = TypeVar("InfoT", bound=Identity)


def parse_info(kind: type[InfoT], address: str, said: bytes | dict[str, JsonValue]) -> InfoT:
    """Parse the /info of the service at `address`, bytes or JSON. Raises InputError."""
    try:
        return kind.model_validate_json(said) if isinstance(said, bytes) else kind.model_validate(said)
    except ValidationError as error:
        problem = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in problem["loc"])
        raise InputError(
            f"{address}: /info is not that of a Bentune service of this version ({where or 'content'}: "
            f"{problem['msg']})"
        ) from None


def find_served(given: str) -> Bundle:
    """Find a bundle in the store by its tag, its directory, or a service's address.

    Raises InputError when no Bentune service answers there, or when the store does not have a bundle of the same
    content.
    """
    if is_address(given):
        identity = read_identity(given)
        tag, content, where = identity.tag, identity.content, f"{given} serves {identity.tag}"
    else:
        found = find_bundle(given)
        tag, content, where = found.tag, found.content, f"{given} is {found.tag}"
    try:
        bundle = find_bundle(tag)
    except InputError:
        bundle = None
    if bundle is None or bundle.content != content:
        there = "is not in the BentoML model store here" if bundle is None else "in the BentoML model store is another"
        raise InputError(
            f"{where}, which {there}: bring it there with `bentoml models import` or `bentoml models pull`"
        )
    return bundle


def read_identity(address: str) -> Identity:
    """Read the identity of a service's bundle from its /info.

    Raises InputError.
    """
    url, _ = address_of(address)
    said = read_info(url)
    if said is None:
        raise InputError(f"{address}: no Bentune service answers /info there; give its address, a tag or a directory")
    return parse_info(Identity, address, said)
