"""Joining Ray: the cluster of `ray job submit` or a running one, else a local one for the life of the process."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

# Ray's workers inherit these. Each was needed on a real run:
WORKER_ENV = {
    "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),  # loading by path must not wait for a network
    "TOKENIZERS_PARALLELISM": "false",  # tokenizers' threads deadlock after fork
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",  # else training logs fill with byte-code listings
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # the default of 2 s can lose the last report before a kill
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # after the default of 5 s a busy machine's proxy is killed
    # the autoscaler hears of the load every second and not every ten
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",  # jobs print their own lines, which also read well in `ray job logs`
}


@contextmanager
def ray_session(num_cpus: int | None = None) -> Iterator[None]:
    """Connect to Ray for the duration of a `with` block; nested use keeps the outer connection.

    Joins the cluster that RAY_ADDRESS names (`ray job submit` sets it). Otherwise starts a local one without
    dashboard whose ports are bound to the loopback; `num_cpus` then overrides the number of cores.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    runtime_env = {"env_vars": WORKER_ENV}
    if os.environ.get("RAY_ADDRESS"):
        ray.init(runtime_env=runtime_env)
    else:
        # Ray runs workers at niceness 15, behind everything else: on a machine of its own they are what should run.
        os.environ.setdefault("RAY_worker_niceness", "0")
        ray.init(
            "local",  # without it Ray joins whatever cluster it finds on the machine
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=512 << 20,
            runtime_env=runtime_env,
            _node_ip_address="127.0.0.1",
        )
    try:
        yield
    finally:
        ray.shutdown()
