"""Before training starts: does every worker see the model, have the memory, and reach the first one?

A worker group that cannot start says so late and in the words of NCCL; these checks take seconds and name the rank.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from raylib.errors import InputError
from raylib.memory import NUMBER_BYTES, state_bytes
from raylib.ray_deepspeed import Workers, worker_env

CONNECT_S = 10.0


class Footprint(NamedTuple):
    """Parameters of a model as it will be trained."""

    num_parameters: int  # all, the adapters' included
    num_trained: int


class Seen(NamedTuple):
    """What one worker says of the place where it runs."""

    address: str
    missing: list[str]
    free_bytes: int  # of its GPU, or of the host's memory


def footprint(model: str, lora: dict[str, Any] | None, num_adapters: int = 1) -> Footprint:
    """Count parameters on the meta device: the model is built from its config, no weight is read or held.

    `lora` are the arguments of peft's LoraConfig, None trains all weights; of several adapters one is trained.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))
        base = sum(parameter.numel() for parameter in built.parameters())
        if lora is None:
            return Footprint(base, base)
        adapted = get_peft_model(built, LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", **lora))
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return Footprint(base + num_adapters * trained, trained)


def preflight(workers: Workers, model: str, lora: dict[str, Any] | None, num_adapters: int) -> Footprint:
    """Ask a process at the place of every worker; raises InputError that names each rank with a problem.

    `lora` and `num_adapters` as for `footprint`, whose count is returned. Needs a Ray session; takes the workers'
    resources and gives them back.
    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = {"CPU": float(workers.cpus_per_worker)} | ({"GPU": 1.0} if workers.use_gpu else {})
    group = placement_group([bundle] * workers.num_workers)
    try:
        ray.get(group.ready())
        probes = [
            ray.remote(Probe)
            .options(
                num_cpus=workers.cpus_per_worker,
                num_gpus=int(workers.use_gpu),
                runtime_env={"env_vars": worker_env(workers)},
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            )
            .remote()
            for rank in range(workers.num_workers)
        ]
        seen = ray.get([probe.look.remote([model], workers.use_gpu) for probe in probes])
        counted = probes[0].count.remote(model, lora, num_adapters)
        master = ray.get(probes[0].listen.remote())
        unreached = ray.get([probe.reach.remote(*master) for probe in probes])
        missing = find_problems(seen, unreached, master, 0.0, workers.use_gpu)
        if missing:  # the model's config is among what may be missing
            raise InputError("training cannot start: " + "; ".join(missing))
        found: Footprint = ray.get(counted)
    finally:
        remove_placement_group(group)
    size = NUMBER_BYTES[workers.precision]
    needed = state_bytes(found.num_parameters, found.num_trained, size, workers.num_workers, workers.zero_stage)
    problems = find_problems(seen, unreached, master, sum(needed.values()), workers.use_gpu)
    if problems:
        raise InputError("training cannot start: " + "; ".join(problems))
    return found


def find_problems(
    seen: Sequence[Seen], unreached: Sequence[str | None], master: tuple[str, int], needed_bytes: float, use_gpu: bool
) -> list[str]:
    """What is wrong, a sentence a rank; a host's memory is shared by the workers on it, a GPU's is not."""
    on_host = Counter(one.address for one in seen)
    problems = []
    for rank, (one, why) in enumerate(zip(seen, unreached, strict=True)):
        where = f"rank {rank} on {one.address}"
        free = one.free_bytes / (1 if use_gpu else on_host[one.address])
        if one.missing:
            problems.append(
                f"{where} does not see {', '.join(one.missing)}: put the model on a path that all nodes mount"
            )
        if why:
            problems.append(
                f"{where} cannot reach rank 0 at {master[0]}:{master[1]} ({why}): open the ports between nodes"
            )
        if free < needed_bytes:
            problems.append(
                f"{where} has {free / 2**30:.1f} GiB free, weights, gradients and optimizer need "
                f"{needed_bytes / 2**30:.1f} GiB before any activation: take more workers, zero_stage 3 or bfloat16"
            )
    return problems


class Probe:
    """A process at the place of one worker."""

    def look(self, paths: Sequence[str], use_gpu: bool) -> Seen:
        """What is here; of the paths only directories on disk count, ids of models are looked up when they load."""
        import psutil
        import ray

        missing = [path for path in paths if Path(path).is_absolute() and not (Path(path) / "config.json").exists()]
        free_bytes = psutil.virtual_memory().available
        if use_gpu:
            import torch

            free_bytes = torch.cuda.mem_get_info()[0]
        return Seen(ray.util.get_node_ip_address(), missing, free_bytes)

    def count(self, model: str, lora: dict[str, Any] | None, num_adapters: int) -> Footprint:
        """`footprint` here, so that the driver imports no torch."""
        return footprint(model, lora, num_adapters)

    def listen(self) -> tuple[str, int]:
        """Open a port for the others, as the first worker will; returns address and port."""
        import ray

        self._listening = socket.create_server(("", 0))
        return ray.util.get_node_ip_address(), self._listening.getsockname()[1]

    def reach(self, address: str, port: int) -> str | None:
        """Why the first worker cannot be reached; None when it can."""
        try:
            socket.create_connection((address, port), timeout=CONNECT_S).close()
        except OSError as error:
            return str(error)
        return None
