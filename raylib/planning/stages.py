"""The plan of each stage that computes with a model: a table of facts. Other stages are named as not planned."""

from collections.abc import Callable
from typing import Any

from raylib.memory import NUMBER_BYTES
from raylib.planning.context import Context, Stage
from raylib.planning.costs import work_hours
from raylib.planning.inference import CPU_BLOCK, GPU_BLOCK, generation_s, size_replica
from raylib.planning.model_shape import load_shape
from raylib.planning.training_stages import plan_dapt, plan_distill, plan_dpo, plan_sft
from raylib.prompts import load_perspective

Facts = dict[str, Any]


def plan_stage(context: Context, stage: Stage) -> Facts | None:
    """The facts of one stage; None for jobs without a model. Raises InputError when something cannot be counted."""
    plans: dict[str, Callable[[Context, Stage], Facts]] = {
        "prepare": _prepare,
        "annotate": _annotate,
        "dapt": plan_dapt,
        "sft": plan_sft,
        "dpo": plan_dpo,
        "embed": _embed,
        "distill": plan_distill,
    }
    plan = plans.get(stage.job)
    return plan(context, stage) if plan else None


def _prepare(context: Context, stage: Stage) -> Facts:
    sample = context.sample(stage.config.output)
    facts: Facts = {"rows_in": sample.num_rows_in, "pairs": round(sum(sample.num_pairs.values()))}
    facts |= {f"pairs_{split}": round(count) for split, count in sample.num_pairs.items()}
    return {**facts, "judged_pairs": round(sum(sample.num_judged.values())), "sampled_pairs": len(sample.rows)}


def _annotate(context: Context, stage: Stage) -> Facts:
    config, engine = stage.config, stage.config.engine
    folder = context.model(config.model)
    shape = load_shape(folder)
    rows, num_pairs = context.sample(config.pairs).select(config.splits, config.max_pairs)
    if not rows:
        context.note(f"{stage.name}: no sampled pair is in split(s) {', '.join(config.splits)}, so nothing is planned")
        return {"pairs": round(num_pairs)}
    length = engine.max_model_len or shape.max_positions
    tokens = context.prompts(
        folder,
        tuple(config.perspectives),
        config.label_schema,
        rows,
        config.num_few_shots,
        samples=config.samples,
        room=length - config.max_tokens,
        block_size=GPU_BLOCK if engine.num_gpus else CPU_BLOCK,
    )
    scale = num_pairs / len(rows)
    answers = [context.answers(folder, name, config.label_schema, config.max_tokens) for name in config.perspectives]
    answer_tokens = sum(answer.tokens for answer in answers) / len(answers)
    num_answers = tokens.prompts * config.samples * scale
    prompt_mean = tokens.prompt_tokens / max(1, tokens.prompts * config.samples)
    replica = size_replica(
        shape,
        context.hardware,
        num_gpus=engine.num_gpus,
        tensor_parallel_size=engine.tensor_parallel_size,
        number_bytes=NUMBER_BYTES.get(engine.dtype, 2),
        sequence_tokens=prompt_mean + answer_tokens,
        max_num_seqs=engine.max_num_seqs,
        kv_cache_memory_bytes=engine.kv_cache_memory_bytes,
    )
    facts: Facts = {
        "pairs": round(num_pairs),
        "prompts": round(tokens.prompts * scale),
        "prompts_too_long": round(tokens.too_long * scale),
        "answers": round(num_answers),
        "prompt_tokens": round(tokens.prompt_tokens * scale),
        "uncached_prompt_tokens": round((tokens.uncached_tokens - tokens.cold_tokens) * scale + tokens.cold_tokens),
        "generated_tokens": round(num_answers * answer_tokens),
        "output_bytes": round(num_answers * sum(answer.row_bytes for answer in answers) / len(answers)),
        "weight_bytes": replica.weight_bytes,
        "kv_cache_bytes_per_token": replica.kv_token_bytes,
        "kv_cache_bytes": replica.kv_cache_bytes,
        "answers_at_once_in_memory": replica.max_sequences,
        "answers_at_once": replica.num_sequences,
    }
    if tokens.too_long:
        share = tokens.too_long / (tokens.prompts + tokens.too_long)
        context.note(
            f"{stage.name}: {share:.1%} of the prompts leave no room for an answer of {config.max_tokens} tokens "
            f"within {length}, and will be REJECTED; raise engine.max_model_len where the model allows it, or lower "
            "num_few_shots or max_tokens"
        )
    rate = context.assumptions.generated_tokens_per_s
    if not replica.fits:
        context.note(
            f"{stage.name}: the model does NOT FIT: {replica.weight_bytes / 2**30:.1f} GiB of weights and the KV cache "
            f"on {engine.tensor_parallel_size} GPU(s); raise engine.tensor_parallel_size or name larger GPUs"
        )
        return facts
    seconds = facts["generated_tokens"] / rate if rate else None
    if rate is None and engine.num_gpus:
        seconds = generation_s(
            shape,
            replica,
            context.hardware,
            uncached_tokens=facts["uncached_prompt_tokens"],
            output_tokens=facts["generated_tokens"],
            context_tokens=prompt_mean + answer_tokens / 2,
        )
    return facts | work_hours(context, stage, seconds, replica.num_gpus, engine.num_engines)


def _embed(context: Context, stage: Stage) -> Facts:
    config = stage.config
    annotate = context.writer(config.rationales, "annotate")
    files = annotate.config.perspectives if annotate else []
    file = next((file for file in files if load_perspective(file).name == config.perspective), None)
    if annotate is None or file is None:
        context.note(f"{stage.name}: planned only where the pipeline writes rationales of {config.perspective}")
        return {}
    asked = annotate.config
    shape = load_shape(context.model(config.encoder))
    _, num_pairs = context.sample(asked.pairs).select(asked.splits, asked.max_pairs)
    teacher = context.model(asked.model)
    answer = context.answers(teacher, file, asked.label_schema, asked.max_tokens).tokens
    tokens = num_pairs * min(answer, config.max_tokens)
    flops = 2 * shape.num_multiplied * tokens
    context.note("an encoder reads as many tokens of a rationale as the teacher wrote")
    facts = {"rows": round(num_pairs), "tokens": round(tokens), "flops": flops}
    facts["output_bytes"] = round(num_pairs * (4 * shape.hidden_size + 60))
    seconds = flops / context.hardware.flops_per_s if config.gpus_per_actor else None
    return facts | work_hours(context, stage, seconds, config.gpus_per_actor, config.num_actors)
