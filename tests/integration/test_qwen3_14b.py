"""configs/qwen3-14b.yaml without the weights: the model on the meta device, its memory, vLLM's arguments."""

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.pipeline import PipelineConfig, resolve_stages
from raylib.memory import NUMBER_BYTES, state_bytes
from raylib.ray_deepspeed import Workers
from raylib.teacher.adapters import Lora
from raylib.teacher.preflight import footprint

ROOT = Path(__file__).parents[2]
# config.json of Qwen/Qwen3-14B (https://huggingface.co/Qwen/Qwen3-14B), without what has no weights
PUBLISHED = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 5120,
    "intermediate_size": 17408,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-06,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
NUM_PARAMETERS = 14_768_307_200
LORA_PARAMETERS = 40 * 16 * (2 * (5120 + 5120) + 2 * (5120 + 1024) + 3 * (5120 + 17408))
GIB = 2**30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("qwen3-14b")
    (path / "config.json").write_text(json.dumps(PUBLISHED))
    return str(path)


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    config = PipelineConfig.from_file(ROOT / "configs" / "qwen3-14b.yaml")
    return {stage.name: settings for stage, settings in resolve_stages(config)}


def test_parameters_and_lora_targets_are_counted_on_the_meta_device(model: str) -> None:
    assert footprint(model, None) == (NUM_PARAMETERS, NUM_PARAMETERS)
    assert footprint(model, Lora().model_dump(), 2) == (NUM_PARAMETERS + 2 * LORA_PARAMETERS, LORA_PARAMETERS)


@pytest.mark.parametrize("stage", [2, 3])
def test_memory_of_all_weights_is_what_deepspeed_estimates(stage: int) -> None:
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs

    ours = sum(state_bytes(NUM_PARAMETERS, NUM_PARAMETERS, 2, num_workers=8, zero_stage=stage).values())
    if stage == 2:
        _, theirs = estimate_zero2_model_states_mem_needs(NUM_PARAMETERS, 8, cpu_offload=False)
    else:
        largest = 151936 * 5120
        _, theirs, _ = estimate_zero3_model_states_mem_needs(
            NUM_PARAMETERS, largest, 8, cpu_offload=False, cpu_offload_params=False
        )
        theirs -= 4 * largest  # the layer that is gathered, which we count among the activations
        ours -= 2 * NUM_PARAMETERS / 8  # their ZeRO-3 counts no gradients in 16 bits
    assert ours == pytest.approx(theirs, rel=1e-6)


def test_each_training_stage_fits_the_gpus_it_names(stages: dict[str, Any]) -> None:
    for name, trained in (("dapt", NUM_PARAMETERS), ("sft", LORA_PARAMETERS), ("dpo", LORA_PARAMETERS)):
        workers: Workers = stages[name].workers
        assert (workers.use_gpu, workers.precision) == (True, "bfloat16")
        size = NUMBER_BYTES[workers.precision]
        needed = state_bytes(NUM_PARAMETERS, trained, size, workers.num_workers, workers.zero_stage)
        assert sum(needed.values()) < 40 * GIB, f"{name}: leaves too little of 80 GiB for activations: {needed}"


def test_vllm_takes_the_arguments(stages: dict[str, Any], model: str, tmp_path: Path) -> None:
    from vllm.engine.arg_utils import EngineArgs

    from raylib.annotation.engine import engine_arguments

    (tmp_path / "adapter_config.json").write_text(json.dumps({"r": Lora().r}))
    for name in ("annotate_base", "annotate_sft", "unified_dpo"):
        adapter = str(tmp_path) if stages[name].adapter else None
        arguments = engine_arguments(stages[name].engine.resolve(model, adapter))
        taken = EngineArgs(**{key: value for key, value in arguments.items() if key != "use_tqdm_on_load"})
        assert taken.max_model_len == 4096
        assert taken.enable_lora == bool(adapter)
