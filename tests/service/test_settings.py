"""Settings that an operator may change, and one message for all mistakes."""

import pytest
from pydantic import ValidationError

from bentune.bundle.errors import InputError
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
        "prediction_log": "",
        "prediction_log_sample": 0.01,
        "prediction_log_max_bytes": 67_108_864,
        "prediction_log_text": False,
    }


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_each_field_is_a_variable(name: str) -> None:
    default = Settings.model_fields[name].default
    given: dict[type, tuple[str, object]] = {
        bool: (str(int(not default)), not default),
        int: ("2097152", 2_097_152) if name == "prediction_log_max_bytes" else ("2048", 2048),
        float: ("0.5", 0.5),
        str: ("/var/log/x", "/var/log/x"),
    }
    value, meant = given[type(default)]
    found = getattr(Settings.from_env({f"BENTUNE_{name.upper()}": value}), name)
    assert found == meant
    assert found != default


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
    [
        *[
            ("request_timeout_ms", 0),
            ("request_timeout_ms", 600_001),
            ("max_body_bytes", 1023),
            ("drain_timeout_ms", -1),
        ],
        *[("prediction_log_sample", 0), ("prediction_log_sample", 1.1), ("prediction_log_sample", "nan")],
        *[("prediction_log_max_bytes", 1000), ("prediction_log", "logs/here")],
    ],
)
def test_bounds(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"BENTUNE_{name.upper()}='{value}'"):
        Settings.from_env({f"BENTUNE_{name.upper()}": str(value)})


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().max_inputs = 3  # type: ignore[misc]
