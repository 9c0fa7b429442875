"""What the same variant does without HTTP: the bound for a server, and what a second slot is worth."""

import itertools
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from service.contract import Bundle
from service.engine import Engine
from service.plan import model_file
from service.predictor import batches_by_length
from service.runtime import Runtime
from service.tokens import TextTokenizer, Tokens


class InProcess:
    """The sessions of the bundle's plan, with so many slots, in this process."""

    def __init__(self, bundle: Bundle, slots: int) -> None:
        best = bundle.plan.measured[0]
        tokenizer = TextTokenizer(
            bundle.root / "processor/tokenizer.json", bundle.processor, bundle.manifest.limits.max_tokens
        )
        runtime = Runtime(best.variant, best.provider, slots, best.threads, best.token_budget)
        model = bundle.root / model_file(best.variant)
        self._engine = Engine(model, runtime, tokenizer, bundle.manifest.labels)
        self._budget = best.token_budget
        self._tokenizer = tokenizer

    def texts_per_second(self, texts: Sequence[str], seconds: float) -> float:
        """Texts a second when every slot takes the next batch of texts of like length as soon as it is free."""
        tokens = [self._tokenizer.encode(text, truncate=True) for text in texts]
        groups = batches_by_length([len(row) for row in tokens], self._budget)
        random.Random(0).shuffle(groups)  # noqa: S311 (long ones first would be all that there is time for)
        batches = itertools.cycle([[tokens[row] for row in group] for group in groups])
        lock = threading.Lock()
        end = time.perf_counter() + seconds

        def slot(number: int) -> int:
            done = 0
            while time.perf_counter() < end:
                with lock:
                    batch: list[Tokens] = next(batches)
                self._engine.slots[number].logits(batch)
                done += len(batch)
            return done

        start = time.perf_counter()
        with ThreadPoolExecutor(len(self._engine.slots)) as threads:
            done = sum(threads.map(slot, range(len(self._engine.slots))))
        return done / (time.perf_counter() - start)
