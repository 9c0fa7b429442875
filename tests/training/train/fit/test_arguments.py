"""The precision is what the hardware has, or what was asked for is refused by name."""

import pytest
import torch

from bentune.bundle.errors import InputError
from training.train.fit import arguments
from training.train.fit.arguments import precision_for


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A CPU without bf16 and no GPU; what a test sets beside that."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(arguments, "isa_flags", lambda: ("avx2", "avx512_vnni"))
    return monkeypatch


def gpu(patch: pytest.MonkeyPatch, *, bf16: bool) -> None:
    patch.setattr(torch.cuda, "is_available", lambda: True)
    patch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    patch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)


def test_on_a_plain_cpu_there_is_fp32_alone(hardware: pytest.MonkeyPatch) -> None:
    assert precision_for("auto") == precision_for("fp32") == "fp32"
    for asked in ("bf16", "fp16"):
        with pytest.raises(InputError) as caught:
            precision_for(asked)
        assert str(caught.value) == (
            f"train.precision: this CPU does not support {asked}, only fp32: choose one of these, or auto"
        )


@pytest.mark.parametrize("flag", ["avx512_bf16", "amx_bf16", "bf16"])
def test_a_cpu_with_bf16_takes_it_when_it_is_asked_for(flag: str, hardware: pytest.MonkeyPatch) -> None:
    hardware.setattr(arguments, "isa_flags", lambda: (flag,))
    assert (precision_for("auto"), precision_for("bf16")) == ("fp32", "bf16")
    with pytest.raises(InputError, match="only bf16 and fp32"):
        precision_for("fp16")


def test_a_gpu_takes_bf16_by_itself_where_it_has_it(hardware: pytest.MonkeyPatch) -> None:
    gpu(hardware, bf16=True)
    assert [precision_for(asked) for asked in ("auto", "fp32", "bf16", "fp16")] == ["bf16", "fp32", "bf16", "fp16"]
    gpu(hardware, bf16=False)
    assert (precision_for("auto"), precision_for("fp16")) == ("fp32", "fp16")
    with pytest.raises(InputError, match="a GPU does not support bf16, only fp16 and fp32"):
        precision_for("bf16")
