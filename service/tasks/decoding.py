"""Decoder of requests' images, in a thread of its own with a bounded queue."""

import asyncio
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bentune.bundle.errors import DeadlineExceeded, Overloaded, TooLarge
from service.http.requests import InputRow, field_of
from service.tasks.images import ImageEncoder, Pixels

TOGETHER = 4
"""Most pixels of one request, as a number of images of the largest size: a file of few bytes may have many pixels."""
RETRY_AFTER_S = 1.0


class Decoder:
    """Decoder of requests' images: one at a time, in the order of their requests."""

    watched = True

    def __init__(self, encoder: ImageEncoder, most_waiting: int) -> None:
        """Bound the number of waiting images.

        A request of more than `most_waiting` images is accepted when no other waits.
        """
        self._encoder = encoder
        self._most_waiting = most_waiting
        self._most_pixels = TOGETHER * encoder.limits.max_pixels
        self._thread = ThreadPoolExecutor(1, "decode")
        self._waiting = 0

    async def encode(self, rows: Sequence[InputRow], *, truncate: bool, single: bool, deadline: float) -> list[Pixels]:
        """Decode each image by `deadline` on the clock `time.monotonic`.

        On cancellation it stops after the current image. `truncate` is ignored: an image is never cut. Raises
        Overloaded and DeadlineExceeded, and InvalidRequest and TooLarge for an image.
        """
        del truncate
        if self._waiting and self._waiting + len(rows) > self._most_waiting:
            raise Overloaded(f"{self._waiting} images wait to be decoded: try again later", RETRY_AFTER_S)
        stop = threading.Event()
        self._waiting += len(rows)
        try:
            async with asyncio.timeout(max(deadline - time.monotonic(), 0.0)):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, self._decode, rows, single, stop)
        except TimeoutError:
            raise DeadlineExceeded("the deadline passed before the images were decoded") from None
        finally:
            stop.set()
            self._waiting -= len(rows)

    def close(self) -> None:
        """Stop the thread; waiting images are dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _decode(self, rows: Sequence[InputRow], single: bool, stop: threading.Event) -> list[Pixels]:
        encoded, pixels = list[Pixels](), 0
        for index, (text, _) in enumerate(rows):
            if stop.is_set():
                break  # cancelled, or past the deadline
            encoded.append(self._encoder.encode(text, truncate=False, field=field_of(index, single=single)))
            pixels += encoded[-1].decoded
            if pixels > self._most_pixels:
                raise TooLarge(f"the images of a request have at most {self._most_pixels} pixels: send fewer at a time")
        return encoded
