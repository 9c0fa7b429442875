"""Runtimes and queues that a memory limit allows, on file systems that are made for the test."""

import logging
from pathlib import Path

import pytest

from bentune.bundle.errors import InputError
from bentune.bundle.manifest import Bundle, open_bundle
from bentune.bundle.plan import CPU, FP32
from service.engine.memory import allowed_bytes, needed_bytes, queue_limits, require_memory
from service.engine.runtime import Runtime
from service.settings import Settings

MB = 1_000_000


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def limited(root: Path, limit: int | str, cores: int = 1) -> Path:
    """The root of a machine whose cgroup, of version 2, has these limits."""
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "cpu.max").write_text(f"{cores * 100_000} 100000\n")
    return root


def slots(number: int) -> Runtime:
    return Runtime(FP32, CPU, number, 1, 512)


def test_what_is_needed_grows_with_the_copies_of_the_weights(bundle: Bundle) -> None:
    """One session serves a single slot, and two serve several slots.

    Several slots share one session, beside that of a lone request. Each slot works apart.
    """
    weights = (bundle.root / "model/fp32.onnx").stat().st_size
    alone = needed_bytes(bundle, slots(1))
    assert alone == pytest.approx(1.15 * (190 * MB + 1.7 * weights), abs=2)
    assert needed_bytes(bundle, slots(2)) - alone == pytest.approx(1.15 * 1.7 * weights, abs=2)
    assert needed_bytes(bundle, slots(4)) - needed_bytes(bundle, slots(2)) == 2 * 512 * 60_000
    longest = bundle.manifest.limits.max_tokens
    one_by_one = [needed_bytes(bundle, Runtime(FP32, CPU, number, 1, 1)) for number in (2, 3)]
    assert one_by_one[1] - one_by_one[0] == longest * 60_000


def test_too_little_is_refused_with_both_numbers(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        require_memory(bundle, Settings(), limited(tmp_path, 150 * MB))
    needed = needed_bytes(bundle, slots(1)) / MB
    assert str(caught.value) == (
        f"the memory limit is 150 MB, and serving {bundle.tag} on 1 cores takes about {needed:.0f} MB: raise the limit"
    )


@pytest.mark.parametrize("limit", ["max", 400 * MB])
def test_enough_is_enough(bundle: Bundle, tmp_path: Path, limit: int | str) -> None:
    require_memory(bundle, Settings(), limited(tmp_path, limit))


def test_without_a_limit_the_settings_say_how_much_may_wait(bundle: Bundle, tmp_path: Path) -> None:
    settings = Settings(queue_inputs=77, queue_tokens=5555)
    limits = queue_limits(bundle, slots(1), settings, limited(tmp_path, "max"))
    assert (limits.max_items, limits.max_tokens) == (77, 5555)


def test_an_operator_who_knows_better_is_believed(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = limited(tmp_path, 100 * MB)
    settings = Settings(memory_check=False, queue_inputs=77, queue_tokens=5555)
    require_memory(bundle, settings, root)
    limits = queue_limits(bundle, slots(1), settings, root)
    assert (limits.max_items, limits.max_tokens) == (77, 5555)
    assert allowed_bytes(settings, root) is None
    assert allowed_bytes(Settings(), root) == 100 * MB
    assert not caplog.records


def test_what_the_limit_leaves_bounds_the_queue(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("bentoml").propagate = True
    settings = Settings(queue_inputs=1000, queue_tokens=100_000, max_inputs=8)
    most = 1000 * 65_536 + 100_000 * 48
    limit = needed_bytes(bundle, slots(1)) + most // 4
    limits = queue_limits(bundle, slots(1), settings, limited(tmp_path, limit))
    assert (limits.max_items, limits.max_tokens) == (pytest.approx(250, abs=1), pytest.approx(25_000, abs=2))
    [warning] = caplog.records
    assert warning.getMessage() == (
        f"{bundle.tag}: the memory limit of {limit / MB:.0f} MB leaves room for {limits.max_items} waiting inputs "
        f"and {limits.max_tokens} tokens, not for 1000 and 100000"
    )


def test_a_request_of_the_most_inputs_and_a_text_of_the_most_tokens_may_always_wait(
    bundle: Bundle, tmp_path: Path
) -> None:
    limits = queue_limits(bundle, slots(1), Settings(), limited(tmp_path, needed_bytes(bundle, slots(1))))
    assert (limits.max_items, limits.max_tokens) == (256, bundle.manifest.limits.max_tokens)


def test_an_image_takes_memory_to_decode_and_to_wait(image_bundle: Path, tmp_path: Path) -> None:
    """One image is decoded at a time, of the most pixels.

    Each image that waits is 3 x 8 x 8 numbers for five patches.
    """
    images = open_bundle(image_bundle)
    weights = (image_bundle / "model/fp32.onnx").stat().st_size
    assert needed_bytes(images, slots(1)) == pytest.approx(1.15 * (190 * MB + 1.7 * weights) + 300 * MB, abs=2)
    settings = Settings()
    half = (settings.queue_inputs * 65_536 + settings.queue_tokens * 154) // 2
    limits = queue_limits(images, slots(1), settings, limited(tmp_path, needed_bytes(images, slots(1)) + half))
    assert limits.max_tokens == pytest.approx(settings.queue_tokens / 2, abs=2)
