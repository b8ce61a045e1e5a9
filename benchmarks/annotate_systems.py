"""The three systems of benchmarks/annotate.py: each answers the same requests and tells its figures."""

import argparse
import hashlib
import json
import time
from typing import Any

import psutil

ENGINE = {"dtype": "float32", "max_num_seqs": 64, "kv_cache_memory_bytes": 256 << 20}


def settings(words: argparse.Namespace) -> dict[str, Any]:
    return {
        "output": f"{words.work}/job",
        "pairs": words.pairs,
        "label_schema": words.label_schema,
        "model": words.model,
        "splits": ["train"],
        "max_pairs": words.num_pairs,
        "max_tokens": words.max_tokens,
        "num_few_shots": words.num_few_shots,
        "pairs_per_unit": 8,
        "engine": {**ENGINE, "enforce_eager": words.enforce_eager, "num_engines": words.num_engines},
    }


def requests(words: argparse.Namespace) -> list[dict[str, Any]]:
    """Every request of the job, in its order: messages, seed and key."""
    from jobs.annotate import AnnotateConfig
    from raylib.annotation.requests import request_seed
    from raylib.annotation.units import plan_units, read_unit
    from raylib.labels import LabelSchema
    from raylib.prompts import load_perspective

    config = AnnotateConfig.from_mapping(settings(words), "benchmark")
    schema = LabelSchema.load(config.label_schema)
    perspectives = [load_perspective(name) for name in config.perspectives]
    plan = plan_units(config.pairs, config.splits, config.max_pairs, config.pairs_per_unit)
    return [
        {
            "key": f"{pair['pair_id']} {perspective.name} {sample}",
            "messages": perspective.messages(schema, pair, config.num_few_shots),
            "sampling": {
                "temperature": config.temperature,
                "top_p": config.top_p,
                "top_k": config.top_k,
                "max_tokens": config.max_tokens,
                "seed": request_seed(pair["pair_id"], perspective.name, sample, config.seed),
            },
        }
        for index in range(plan.num_units)
        for pair in read_unit(plan, plan.unit(index))
        for perspective in perspectives
        for sample in range(config.samples)
    ]


def engine_settings(words: argparse.Namespace) -> dict[str, Any]:
    from jobs.annotate import AnnotateConfig
    from raylib.annotation.engine import engine_arguments
    from raylib.models import resolve_model

    engine = AnnotateConfig.from_mapping(settings(words), "benchmark").engine
    return engine_arguments(engine.resolve(resolve_model(words.model), None))


def run_bare(words: argparse.Namespace) -> dict[str, Any]:
    started_s = time.time()
    from vllm import LLM, SamplingParams

    from raylib.prompts import encode_prompt

    llm = LLM(**engine_settings(words))
    ready_s = time.time()
    todo = requests(words)
    todo = todo[words.part * len(todo) // words.num_engines : (words.part + 1) * len(todo) // words.num_engines]
    tokenizer = llm.get_tokenizer()
    prompts = [{"prompt_token_ids": encode_prompt(tokenizer, request["messages"])} for request in todo]
    sampling = [SamplingParams(**request["sampling"]) for request in todo]
    generate_s = time.time()
    outputs = llm.generate(prompts, sampling, use_tqdm=False)
    ended_s = time.time()
    texts = {request["key"]: output.outputs[0].text for request, output in zip(todo, outputs, strict=True)}
    tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
    return {
        "start_up_s": ready_s - started_s,
        "tokens": tokens,
        "from_s": generate_s,
        "to_s": ended_s,
        "seconds": ended_s - generate_s,
        "total_s": ended_s - started_s,
        "cached_share": None,
        "digest": digest(words, texts),
    }


def run_job(words: argparse.Namespace) -> dict[str, Any]:
    started_s = time.time()
    from jobs.annotate import AnnotateConfig, run
    from raylib import tables

    metrics = run(AnnotateConfig.from_mapping(settings(words), "benchmark"))
    total_s = time.time() - started_s
    rows = tables.read_table(f"{words.work}/job", tables.RATIONALES).to_pylist()
    answers = {f"{row['pair_id']} {row['perspective']} {row['sample']}": row["rationale"] for row in rows}
    return {
        "start_up_s": total_s - metrics["generated_tokens"] / metrics["generated_tokens_per_s"],
        "tokens": metrics["generated_tokens"],
        "seconds": metrics["generated_tokens"] / metrics["generated_tokens_per_s"],
        "total_s": total_s,
        "cached_share": metrics["cached_tokens"] / metrics["prompt_tokens"],
        "digest": _hash(answers),
    }


def run_ray_data_llm(words: argparse.Namespace) -> dict[str, Any]:
    started_s = time.time()
    import ray
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    arguments = engine_settings(words)
    model = arguments.pop("model")
    arguments.pop("distributed_executor_backend")
    threads = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"}
    stage = {"enabled": True, "concurrency": 1, "num_cpus": 0.25}
    processor = build_processor(
        vLLMEngineProcessorConfig(
            model_source=model,
            engine_kwargs=arguments,
            concurrency=1,
            batch_size=120,
            placement_group_config={"bundle_per_worker": {"CPU": 1}},
            chat_template_stage={**stage, "chat_template_kwargs": {"enable_thinking": False}},
            tokenize_stage=stage,
            detokenize_stage=stage,
            runtime_env={"env_vars": threads},
        ),
        preprocess=lambda row: {
            "messages": row["messages"],
            "sampling_params": json.loads(row["sampling"]),
            "key": row["key"],
        },
        postprocess=lambda row: {
            "key": row["key"],
            "text": row["generated_text"],
            "tokens": row["num_generated_tokens"],
            "at_s": time.time(),
        },
    )
    rows = [{**request, "sampling": json.dumps(request["sampling"])} for request in requests(words)]
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    found = processor(ray.data.from_items(rows, override_num_blocks=max(1, len(rows) // 120))).take_all()
    total_s = time.time() - started_s
    first_s, last_s = min(row["at_s"] for row in found), max(row["at_s"] for row in found)
    # The first batch, whose answers all come within a second, is start-up.
    after = [row for row in found if row["at_s"] > first_s + 1.0]
    return {
        "start_up_s": first_s - started_s,
        "tokens": sum(row["tokens"] for row in found),
        "seconds": last_s - first_s,
        "rated_tokens": sum(row["tokens"] for row in after),
        "total_s": total_s,
        "digest": digest(words, {row["key"]: row["text"] for row in found}),
    }


def cpu_seconds() -> float:
    """CPU time of this process and all it started, ended ones included: steadier than wall time on a busy machine."""
    here = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in [here, *here.children(recursive=True)])


def digest(words: argparse.Namespace, texts: dict[str, str]) -> int:
    """A hash of all answers; those of parts add up to that of the whole."""
    from raylib.labels import LabelSchema
    from raylib.prompts import parse_answer

    schema = LabelSchema.load(words.label_schema)
    return _hash({key: parse_answer(text, "stop", schema)[0] for key, text in texts.items()})


def _hash(rationales: dict[str, str | None]) -> int:
    texts = (json.dumps([key, text]) for key, text in rationales.items())
    return sum(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) for text in texts) % 2**48
