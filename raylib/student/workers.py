"""What the processes that train one student together ask of each other; alone, a process answers for itself."""

from typing import Any

import torch
from torch import distributed


def world() -> tuple[int, int]:
    """Rank of this process and number of processes; (0, 1) outside a process group."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


def summed(values: Any) -> Any:
    """Sum of a numpy array over all workers, on each of them."""
    if world()[1] == 1:
        return values
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    total = torch.from_numpy(values).to(device)
    distributed.all_reduce(total)
    return total.cpu().numpy()
