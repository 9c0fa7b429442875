"""What an operator may set, and that all mistakes are told at once."""

import pytest
from pydantic import ValidationError

from service.errors import InputError
from service.settings import Settings


def test_without_variables_the_defaults_hold() -> None:
    assert Settings.from_env({}).model_dump() == {
        "request_timeout_ms": 30_000,
        "max_body_bytes": 4_194_304,
        "max_inputs": 256,
        "queue_inputs": 1024,
        "queue_tokens": 131_072,
        "memory_check": True,
        "access_log": False,
        "tracing": False,
        "drain_timeout_ms": 25_000,
    }


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_each_field_is_a_variable(name: str) -> None:
    default = Settings.model_fields[name].default
    value = str(int(not default)) if isinstance(default, bool) else "2048"
    assert Settings.from_env({f"BENTUNE_{name.upper()}": value}) == Settings.model_validate({name: int(value)})
    assert Settings.from_env({f"BENTUNE_{name.upper()}": value}) != Settings()


def test_other_variables_are_none_of_its_business() -> None:
    assert Settings.from_env({"PATH": "/bin", "BENTUNE_DEBUG": "1", "MAX_INPUTS": "1"}) == Settings()


def test_every_wrong_variable_is_named_with_its_value() -> None:
    env = {"BENTUNE_MAX_INPUTS": "0", "BENTUNE_QUEUE_TOKENS": "many", "BENTUNE_QUEUE_INPUTS": "7"}
    with pytest.raises(InputError) as caught:
        Settings.from_env(env)
    message = str(caught.value)
    assert "BENTUNE_MAX_INPUTS='0': Input should be greater than or equal to 1" in message
    assert "BENTUNE_QUEUE_TOKENS='many': Input should be a valid integer" in message
    assert "BENTUNE_QUEUE_INPUTS" not in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("request_timeout_ms", 0), ("request_timeout_ms", 600_001), ("max_body_bytes", 1023), ("drain_timeout_ms", -1)],
)
def test_bounds(name: str, value: int) -> None:
    with pytest.raises(InputError, match=f"BENTUNE_{name.upper()}='{value}'"):
        Settings.from_env({f"BENTUNE_{name.upper()}": str(value)})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().max_inputs = 3  # type: ignore[misc]
