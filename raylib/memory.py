"""Peak memory of this process and everything it started, Ray's processes included."""

import threading
from types import TracebackType
from typing import Self

import psutil

SAMPLE_EVERY_S = 1.0


class PeakMemory:
    """Context manager; afterwards `peak_bytes` is the largest sum seen, sampled every second.

    Counts proportional set sizes (PSS), so that pages which processes share, such as Ray's object store, count once.
    Workers of a remote cluster are not children of this process and are not seen.
    """

    def __enter__(self) -> Self:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while True:
            self.peak_bytes = max(self.peak_bytes, tree_memory_bytes())
            if self._stop.wait(SAMPLE_EVERY_S):
                return


def tree_memory_bytes() -> int:
    """Sum of the PSS of this process and its descendants, in bytes."""
    total = 0
    own = psutil.Process()
    for process in [own, *own.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.Error:  # ended meanwhile
            continue
    return total
