"""Memory: what this process and all it started took at most, and what training a model will take."""

import threading
import time
from types import TracebackType
from typing import Self

import psutil

SAMPLE_EVERY_S = 1.0
MAX_SHARE = 0.02  # of the time spent on looking: a dozen processes with gigabytes mapped take a tenth of a second
NUMBER_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class PeakMemory:
    """Context manager; afterwards `peak_bytes` is the largest sum seen, sampled every second, or less often.

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
            started_s = time.monotonic()
            self.peak_bytes = max(self.peak_bytes, tree_memory_bytes())
            if self._stop.wait(max(SAMPLE_EVERY_S, (time.monotonic() - started_s) / MAX_SHARE)):
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


def state_bytes(
    num_parameters: int, num_trained: int, number_bytes: int, num_workers: int, zero_stage: int
) -> dict[str, float]:
    """Bytes of one process by what they hold, activations aside (arXiv 1910.02054, sections 3 and 5).

    Optimizer: Adam's two float32 moments, and where weights are in 16 bits float32 masters and gradients, which
    DeepSpeed keeps for the step (its own `estimate_zero2_model_states_mem_needs` counts them too). ZeRO stage 1 shards
    it over the processes, 2 the gradients too, 3 the weights too, frozen ones included.
    """
    shards = {stage: num_workers if zero_stage >= stage else 1 for stage in (1, 2, 3)}
    return {
        "weights": num_parameters * number_bytes / shards[3],
        "gradients": num_trained * number_bytes / shards[2],
        "optimizer": num_trained * (8 + (8 if number_bytes == 2 else 0)) / shards[1],
    }
