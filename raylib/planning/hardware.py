"""The GPUs that a plan is made for, and how much of their data sheet real work reaches."""

from pathlib import Path
from typing import NamedTuple

from pydantic import Field, ValidationError

from raylib.config import Section, read_yaml
from raylib.errors import ConfigError

GPUS_FILE = Path(__file__).parent / "gpus.yaml"


class Gpu(Section):
    """One kind of GPU, as its data sheet has it."""

    memory_gb: int = Field(ge=1, description="memory in GB (10^9 bytes)")
    tflops: int = Field(ge=1, description="dense bfloat16 TFLOP/s")
    bandwidth_gb_s: int = Field(ge=1, description="memory bandwidth in GB/s")


class Hardware(NamedTuple):
    """The GPUs of a plan. Rates are what is expected of real work: data sheet times efficiency."""

    num_gpus: int
    memory_bytes: float  # of one GPU
    flops_per_s: float
    bytes_per_s: float
    price_per_gpu_hour: float | None


def load_gpu(name_or_path: str) -> Gpu:
    """A shipped GPU by name, or a user's YAML file with the same three keys."""
    shipped = read_yaml(GPUS_FILE)
    if name_or_path not in shipped and not Path(name_or_path).is_file():
        raise ConfigError(
            f"hardware.gpu {name_or_path!r}: neither a shipped GPU ({', '.join(shipped)}) nor a YAML file"
        )
    try:
        return Gpu.model_validate(shipped.get(name_or_path) or read_yaml(name_or_path))
    except ValidationError as error:
        raise ConfigError(f"{name_or_path}: not a GPU: {error}") from None
