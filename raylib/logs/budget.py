"""What a task may hold at once, worked out from one setting: `task_memory_mb`."""

import math
from typing import NamedTuple

# What a task takes whatever it reads: Python with Ray, Arrow, NumPy and pandas (160 MiB measured), and what the Parquet
# reader and the allocators keep (up to 160 MiB more in the map task).
BASE_MB = 320
MIN_MB = BASE_MB + 64
# Shares of what is left. Each holds several times its input while it works: decoded columns, the sorted copy, the
# encoder of the output file. benchmarks/results/prepare.md has the measured peaks.
BATCH_SHARE, SPILL_SHARE, PASS_SHARE = 1 / 8, 1 / 6, 1 / 5


class Budget(NamedTuple):
    """Bytes, decoded, that the steps of a task take in at once."""

    batch_bytes: int  # map: log rows that are validated together
    spill_bytes: int  # map: partial pairs that are added up and cut into buckets together
    pass_bytes: int  # reduce: partial pairs of one bucket, or of a part of it


def plan_budget(task_memory_mb: int) -> Budget:
    """Divide a task's memory; raises ValueError below MIN_MB, where the libraries leave no room to work."""
    if task_memory_mb < MIN_MB:
        raise ValueError(f"task_memory_mb = {task_memory_mb}: must be at least {MIN_MB}")
    free = (task_memory_mb - BASE_MB) << 20
    return Budget(int(free * BATCH_SHARE), int(free * SPILL_SHARE), int(free * PASS_SHARE))


def num_passes(num_bytes: int, pass_bytes: int) -> int:
    """Passes over a bucket's spills so that each takes in about `pass_bytes`; a pass reads all and keeps its part."""
    return max(1, math.ceil(num_bytes / pass_bytes))
