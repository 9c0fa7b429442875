"""Images of requests are decoded one at a time: a bounded number waits, and none longer than somebody asks for it."""

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tiny_images import picture, png

from bentune.bundle.errors import DeadlineExceeded, InvalidRequest, Overloaded, TooLarge
from bentune.bundle.manifest import ImageLimits
from bentune.bundle.processor import ImageSettings
from service.tasks.decoding import Decoder
from service.tasks.images import ImageEncoder, Pixels, data_url

IMAGE = data_url(png(picture("left", 1)))  # 12 x 10 pixels
LIMITS = ImageLimits(max_tokens=5, max_pixels=120)


class Held(ImageEncoder):
    """Waits for a word before each image, and counts them."""

    def __init__(self) -> None:
        super().__init__(ImageSettings(size=(8, 8)), LIMITS)
        self.go, self.started, self.begun = threading.Semaphore(0), threading.Event(), 0

    def encode(self, *given: Any, **options: Any) -> Pixels:
        self.begun += 1
        self.started.set()
        self.go.acquire()
        return super().encode(*given, **options)


@pytest.fixture
def held() -> Iterator[Held]:
    encoder = Held()
    yield encoder
    for _ in range(100):
        encoder.go.release()


def rows(count: int) -> list[tuple[str, str | None]]:
    return [(IMAGE, None)] * count


def later(seconds: float = 60.0) -> float:
    return time.monotonic() + seconds


def test_images_come_in_their_order_and_the_wrong_one_is_named() -> None:
    decoder = Decoder(ImageEncoder(ImageSettings(size=(8, 8)), LIMITS), 10)
    found = asyncio.run(decoder.encode(rows(2), truncate=False, single=False, deadline=later()))
    assert [(one.values.shape, one.decoded) for one in found] == [((3, 8, 8), 120)] * 2
    with pytest.raises(InvalidRequest, match=r"`inputs\.1` must be an image in base64"):
        asyncio.run(decoder.encode([(IMAGE, None), ("?", None)], truncate=False, single=False, deadline=later()))
    decoder.close()


def test_all_images_of_a_request_together_are_bounded() -> None:
    """Five of these files decode to five times the largest image.

    Each file has a few hundred bytes.
    """
    decoder = Decoder(ImageEncoder(ImageSettings(size=(8, 8)), LIMITS), 10)
    assert len(asyncio.run(decoder.encode(rows(4), truncate=False, single=False, deadline=later()))) == 4
    with pytest.raises(TooLarge, match="at most 480 pixels"):
        asyncio.run(decoder.encode(rows(5), truncate=False, single=False, deadline=later()))
    decoder.close()


def test_a_bounded_number_waits(held: Held) -> None:
    async def ask() -> None:
        decoder = Decoder(held, 3)
        first = asyncio.ensure_future(decoder.encode(rows(2), truncate=False, single=False, deadline=later()))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 images wait"):
            await decoder.encode(rows(2), truncate=False, single=False, deadline=later())
        second = asyncio.ensure_future(decoder.encode(rows(1), truncate=False, single=True, deadline=later()))
        for _ in range(3):
            held.go.release()
        assert [len(found) for found in await asyncio.gather(first, second)] == [2, 1]
        held.go.release()
        held.go.release()
        held.go.release()
        held.go.release()
        assert len(await decoder.encode(rows(4), truncate=False, single=False, deadline=later())) == 4  # none waits now

    asyncio.run(ask())


def test_what_missed_its_deadline_or_lost_its_client_is_not_decoded(held: Held) -> None:
    async def ask() -> None:
        decoder = Decoder(held, 10)
        with pytest.raises(DeadlineExceeded):
            await decoder.encode(rows(3), truncate=False, single=False, deadline=later(0.05))
        gone = asyncio.ensure_future(decoder.encode(rows(3), truncate=False, single=False, deadline=later()))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        for _ in range(100):
            held.go.release()
        await decoder.encode(rows(1), truncate=False, single=True, deadline=later())

    asyncio.run(ask())
    assert held.begun == 2  # the one that was being decoded, and the last
