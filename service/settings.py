"""Settings of one serving process, read from the environment."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bentune.bundle.errors import InputError

PREFIX = "BENTUNE_"


class Settings(BaseModel):
    """Settings of the service: each field is read from the environment variable BENTUNE_<FIELD>."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    request_timeout_ms: int = Field(default=30_000, ge=1, le=600_000, description="deadline of a request without one")
    max_body_bytes: int = Field(default=4_194_304, ge=1024, description="a larger body is answered 413")
    max_inputs: int = Field(default=256, ge=1, description="texts or pairs in one request; more are answered 413")
    queue_inputs: int = Field(default=1024, ge=1, description="waiting texts; more are answered 429")
    queue_tokens: int = Field(default=131_072, ge=1, description="waiting tokens; more are answered 429")
    memory_check: bool = Field(default=True, description="fit the queue to the memory limit; refuse too small a limit")
    access_log: bool = Field(default=False, description="a line in the log for every request")
    tracing: bool = Field(default=False, description="OpenTelemetry spans, exported by BentoML's configuration")
    drain_timeout_ms: int = Field(default=25_000, ge=0, description="at shutdown, time to finish accepted requests")
    prediction_log: str = Field(
        default="", pattern="^(/.*)?$", description="directory of the prediction log, from the root; none when empty"
    )
    prediction_log_sample: float = Field(default=0.01, gt=0, le=1, description="share of the inputs that is logged")
    prediction_log_max_bytes: int = Field(
        default=67_108_864, ge=2**20, description="size of the whole log; the oldest eighth is deleted when it is full"
    )
    prediction_log_text: bool = Field(default=False, description="log the texts too, not only their hashes and lengths")

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the variables that are set. Raises InputError that names every wrong one."""
        given = {name: env[PREFIX + name.upper()] for name in cls.model_fields if PREFIX + name.upper() in env}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = [
                f"{PREFIX}{str(problem['loc'][0]).upper()}={problem['input']!r}: {problem['msg']}"
                for problem in error.errors()
            ]
            raise InputError("environment: " + "; ".join(problems)) from None
