"""Models of a comparison: a bundle scored in this process, or a service over HTTP."""

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import numpy as np

from bentune.bundle.arrays import Floats
from bentune.bundle.errors import BentuneError, InputError
from bentune.bundle.hardware import describe
from bentune.bundle.manifest import Bundle
from bentune.bundle.plan import model_file
from bentune.bundle.store import find_bundle
from bentune.bundle.targets.target import Prediction, Target
from bentune.bundle.verdict import Judged
from rollout.load.bodies import Text
from rollout.server.live import Info, parse_info
from rollout.server.target import DEADLINE_HEADER, address_of, is_address
from service.engine.predictor import Predictor
from service.engine.providers import available
from service.engine.runtime import choose
from service.tasks.registry import task_class

MAX_INFO_BYTES = 4_000_000
MAX_ANSWER_BYTES = 64_000_000
TIMEOUT_S = 60.0
TRIES = 5
MAX_WAIT_S = 30.0
COMPARED = ("text", "pair")
"""Kinds of inputs in /info that can be compared: their texts identify the rows."""


class Side(Protocol):
    """Model of a comparison.

    `bundle` is None for a service whose bundle is not in the store.
    """

    judged: Judged
    target: Target
    pairs: bool
    bundle: Bundle | None
    variant: str
    provider: str
    most_texts: int

    @property
    def live(self) -> bool:
        """Return true for a service over HTTP."""
        ...

    def score(self, texts: Sequence[Text]) -> Floats:
        """Return scores, float64 [texts, labels], in the order of the target's labels."""
        ...


@contextmanager
def open_side(name: str) -> Iterator[Side]:
    """Open a model by a bundle's tag or directory, or by a running service's address.

    Raises InputError, BundleError, and BentuneError for a service that does not answer as a Bentune service does.
    """
    if not is_address(name):
        yield BundleSide(find_bundle(name))
        return
    url, path = address_of(name)
    headers = {DEADLINE_HEADER: str(int(TIMEOUT_S * 1000)), "accept-encoding": "identity"}
    with httpx.Client(base_url=url, timeout=TIMEOUT_S, headers=headers, follow_redirects=False) as client:
        yield LiveSide(name, path, client)


def size_of(side: Side) -> int | None:
    """Return the bytes of the running variant's files.

    Returns None for a service whose bundle is not in the store.
    """
    if side.bundle is None:
        return None
    files = side.bundle.manifest.files
    prefix = model_file(side.variant)
    return sum(entry.size for name, entry in files.items() if name.startswith(prefix)) or None


class BundleScorer:
    """Predictor of a bundle's inputs with the variant and provider of its plan, on every core."""

    def __init__(self, bundle: Bundle) -> None:
        self.digest = bundle.digest
        self._predictor = Predictor.from_bundle(bundle, describe())

    def score(self, texts: Sequence[tuple[str, str | None]]) -> list[list[Prediction]]:
        """Return predictions of texts or pairs in their order, best label first."""
        return self._predictor.score(texts)


class BundleSide:
    """Bundle that is scored in this process, with the variant and provider of its plan."""

    live = False
    most_texts = 1_000_000

    def __init__(self, bundle: Bundle) -> None:
        self.bundle: Bundle | None = bundle
        self.judged = Judged(tag=bundle.tag, content=bundle.content)
        if not task_class(bundle.manifest.task).comparable:
            raise _not_comparable(bundle.tag)
        self.target = bundle.manifest.target
        self.pairs = bundle.manifest.columns.text_pair is not None
        runtime, _ = choose(bundle.plan, describe(), available())
        self.variant, self.provider = runtime.variant, runtime.provider
        self._scorer = BundleScorer(bundle)

    def score(self, texts: Sequence[Text]) -> Floats:
        """Return scores as `Side.score` does."""
        return _read(self.target, self._scorer.score(texts), self.judged.tag)


def _not_comparable(name: str) -> InputError:
    return InputError(
        f"{name} takes no texts, and versions of such models cannot be compared yet: compare their reports"
    )


@dataclass(frozen=True)
class _Answer:
    status: int
    retry_after_s: float
    content: bytes


class LiveSide:
    """Running service over HTTP; an overloaded one is retried after its Retry-After."""

    live = True

    def __init__(self, address: str, path: str, client: httpx.Client) -> None:
        self._address, self._path, self._client = address, path, client
        answer = self._ask("GET", "/info", None, MAX_INFO_BYTES)
        info = parse_info(Info, address, answer.content)
        self.judged = Judged(tag=info.tag, content=info.content, address=address)
        self.target = info.target
        if info.inputs not in COMPARED:
            raise _not_comparable(address)
        self.pairs = info.inputs == "pair"
        self.variant, self.provider = info.plan.variant, info.plan.provider
        self.most_texts = info.limits.max_inputs
        self.bundle = _stored(self.judged)
        if self.bundle is not None:
            self.target = self.bundle.manifest.target
            self._require_itself(self.bundle)

    def _require_itself(self, bundle: Bundle) -> None:
        """Raise BentuneError unless the golden rows of /info's bundle get their scores."""
        scores = self.score([(row.text, row.text_pair) for row in bundle.golden])
        for number, (row, found) in enumerate(zip(bundle.golden, scores, strict=True)):
            differences = [self.target.distance(found, np.asarray(variant)) for variant in row.scores.values()]
            if not any(difference <= row.tolerance for difference in differences):
                raise BentuneError(
                    f"{self._address}: /info names {bundle.tag}, but golden row {number} of that is off by "
                    f"{min(differences):.2g}: another model answers there"
                )

    def score(self, texts: Sequence[Text]) -> Floats:
        """Return probabilities as `Side.score` does.

        A list that is too large for the service is sent in halves.
        """
        inputs = [[text, pair] if pair is not None else text for text, pair in texts]
        answer = self._ask("POST", self._path, {"inputs": inputs, "truncate": True}, MAX_ANSWER_BYTES)
        if answer.status == httpx.codes.REQUEST_ENTITY_TOO_LARGE and len(texts) > 1:
            middle = len(texts) // 2
            return np.vstack([self.score(texts[:middle]), self.score(texts[middle:])])
        if answer.status != httpx.codes.OK:
            raise BentuneError(f"{self._address}: answered {answer.status} to {len(texts)} texts")
        try:
            predictions = json.loads(answer.content)
        except (ValueError, RecursionError):
            raise BentuneError(f"{self._address}: its answer is not JSON") from None
        if not isinstance(predictions, list) or len(predictions) != len(texts):
            raise BentuneError(f"{self._address}: the answer to {len(texts)} texts is not a list of the same length")
        return _read(self.target, predictions, self._address)

    def _ask(self, method: str, path: str, body: Any, most_bytes: int) -> _Answer:
        for _ in range(TRIES):
            answer = self._once(method, path, body, most_bytes)
            if answer.status not in {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}:
                break
            time.sleep(answer.retry_after_s)
        if method == "GET" and answer.status != httpx.codes.OK:
            raise BentuneError(f"{self._address}: {path} answered {answer.status}; is it a Bentune service?")
        return answer

    def _once(self, method: str, path: str, body: Any, most_bytes: int) -> _Answer:
        ends = time.monotonic() + 2 * TIMEOUT_S
        try:
            with self._client.stream(method, path, json=body) as answer:
                content = bytearray()
                for piece in answer.iter_raw():
                    content += piece
                    if len(content) > most_bytes or time.monotonic() > ends:
                        raise BentuneError(f"{self._address}: the answer of {path} is too long or too slow")
                waits = answer.headers.get("retry-after", "1")
                wait_s = float(waits) if waits.isdecimal() and len(waits) < 9 else 1.0
                return _Answer(answer.status_code, min(wait_s, MAX_WAIT_S), bytes(content))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise BentuneError(f"{self._address}: no answer ({type(error).__name__}); is the server up?") from None


def _stored(judged: Judged) -> Bundle | None:
    """Return the served bundle from the store; None unless it has the same content."""
    try:
        bundle = find_bundle(judged.tag)
    except InputError:
        return None
    return bundle if bundle.content == judged.content else None


def _read(target: Target, answers: Any, name: str) -> Floats:
    """Read the scores of the answers, float64 [rows, labels].

    Raises BentuneError unless every row has a plausible score for every label.
    """
    try:
        return target.read(answers)
    except ValueError as problem:
        raise BentuneError(f"{name}: {problem}") from None
