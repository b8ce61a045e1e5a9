"""Probabilities of pairs that were scored a short while ago. One cache belongs to one loaded student."""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

Probs = np.ndarray  # float32 [C]
KEY_BYTES = 16


def cache_keys(query: str, item_texts: Sequence[str]) -> list[bytes]:
    """A key for each item: a hash of all that the student reads of the pair."""
    start = hashlib.blake2b(f"{len(query)} {query}".encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES)
    keys = []
    for text in item_texts:
        key = start.copy()
        key.update(text.encode("utf-8", "surrogatepass"))
        keys.append(key.digest())
    return keys


class ScoreCache:
    """The `max_items` pairs that were asked for last; 0 keeps none."""

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._probs: OrderedDict[bytes, Probs] = OrderedDict()

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self._max_items > 0

    def find(self, keys: Sequence[bytes]) -> list[Probs | None]:
        """Probabilities [C] by key, None where they must be computed."""
        found = [self._probs.get(key) for key in keys]
        for key, probs_C in zip(keys, found, strict=True):
            if probs_C is not None:
                self._probs.move_to_end(key)
        return found

    def keep(self, keys: Sequence[bytes], probs_NC: np.ndarray) -> None:
        """Remember probabilities, in place of those that were not asked for the longest time."""
        for key, probs_C in zip(keys, probs_NC, strict=True):
            self._probs[key] = probs_C.copy()  # else a row would keep its whole batch in memory
        while len(self._probs) > self._max_items:
            self._probs.popitem(last=False)
