"""The plan of each stage that trains: the teacher's stages and the student's."""

from typing import Any

from raylib.labels import LabelSchema
from raylib.memory import NUMBER_BYTES
from raylib.planning.context import Context, Stage
from raylib.planning.costs import process_memory, training_hours
from raylib.planning.model_shape import load_shape
from raylib.planning.sample import Row
from raylib.planning.tokens import student_tokens
from raylib.planning.training import Trained, flops_per_token, memory_bytes, num_steps
from raylib.prompts import load_perspective
from raylib.runs import finished_metrics

Facts = dict[str, Any]


def plan_dapt(context: Context, stage: Stage) -> Facts:
    """Facts of a dapt stage."""
    config = stage.config
    if config.model is None or context.writer(config.corpus, "prepare") is None:
        context.note(f"{stage.name}: only the training of an existing model on a pairs table is planned")
        return {}
    folder = context.model(config.model)
    sample = context.sample(config.corpus)
    tokenizer = context.tokenizer(folder)
    from raylib.teacher.corpus import row_texts

    ids = tokenizer(list(row_texts("pairs", sample.rows)), add_special_tokens=False)["input_ids"]
    num_tokens = sum(len(one) + 1 for one in ids) * sum(sample.num_pairs.values()) / len(sample.rows)
    documents = num_tokens / config.max_length
    return _teacher(context, stage, folder, documents, num_tokens, num_tokens, None)


def plan_sft(context: Context, stage: Stage) -> Facts:
    """Facts of a sft stage."""
    folder = context.model(stage.config.model)
    rows, prompt, answer = _curated(context, stage.config.sft, folder)
    tokens = rows * (prompt + answer)
    return _teacher(context, stage, folder, rows, tokens, tokens, stage.config.lora.r)


def plan_dpo(context: Context, stage: Stage) -> Facts:
    """Facts of a dpo stage."""
    folder = context.model(stage.config.model)
    sft = context.writer(stage.config.adapter, "sft")
    rank = sft.config.lora.r if sft else 16
    rows, prompt, answer = _curated(context, stage.config.preferences, folder)
    stored, computed = rows * (prompt + 2 * answer), rows * 2 * (prompt + answer)
    return _teacher(context, stage, folder, rows, stored, computed, rank, has_reference=True)


def _teacher(
    context: Context,
    stage: Stage,
    folder: str,
    num_rows: float,
    num_tokens: float,
    computed_tokens: float,
    lora_rank: int | None,
    has_reference: bool = False,
) -> Facts:
    """Facts of training the teacher; `computed_tokens` pass the model in an epoch, DPO's prompts twice."""
    config, workers = stage.config, stage.config.workers
    trained = Trained(
        load_shape(folder),
        lora_rank,
        NUMBER_BYTES[workers.precision],
        workers.num_workers,
        workers.zero_stage,
        workers.micro_batch * (2 if has_reference else 1),
        workers.use_gpu,
        True,
    )
    steps = num_steps(round(num_rows), config.num_epochs, config.global_batch, workers.num_workers, workers.micro_batch)
    flops = flops_per_token(trained, has_reference) * computed_tokens * config.num_epochs
    facts: Facts = {
        "rows": round(num_rows),
        "tokens": round(num_tokens),
        "tokens_trained": round(num_tokens * config.num_epochs),
        "tokens_computed": round(computed_tokens * config.num_epochs),
        "steps": steps,
        "flops": flops,
        "parameters": trained.shape.num_parameters,
        "parameters_trained": trained.num_trained,
    }
    facts |= process_memory(context, stage, memory_bytes(trained, config.max_length, has_reference), workers.use_gpu)
    return facts | training_hours(context, stage, flops, facts["tokens_trained"])


def plan_distill(context: Context, stage: Stage) -> Facts:
    """Facts of a distill stage."""
    config, workers = stage.config, stage.config.workers
    folder = context.model(config.backbone)
    judged, num_judged = _judged(context, config.pairs)
    lengths = student_tokens(folder, judged, config.item_fields, config.max_length)
    mean = sum(lengths) / max(1, len(lengths))
    train, dev, test = (num_judged[split] for split in ("train", "dev", "test"))
    micro_batch = config.global_batch // workers.num_workers
    trained = Trained(load_shape(folder), None, 4, workers.num_workers, 1, micro_batch, False, False)
    scored = dev * config.num_epochs + dev + test
    flops = mean * (flops_per_token(trained) * train * config.num_epochs + 2 * trained.shape.num_multiplied * scored)
    facts: Facts = {
        "rows": round(train),
        "tokens": round(train * mean),
        "tokens_trained": round(train * mean * config.num_epochs),
        "steps": num_steps(round(train), config.num_epochs, config.global_batch, workers.num_workers, micro_batch),
        "flops": flops,
        "parameters": trained.shape.num_parameters,
    }
    context.note("a student's extractor, head and padding are not counted: a few per cent of its backbone")
    facts |= process_memory(context, stage, memory_bytes(trained, config.max_length), workers.use_gpu)
    return facts | training_hours(context, stage, flops, facts["tokens_trained"])


def _judged(context: Context, uri: str) -> tuple[list[Row], dict[str, float]]:
    """Sampled pairs with a label that a student can train on, and how many there are in each split."""
    stage = context.writer(uri, "negatives")
    if stage is None:
        sample = context.sample(uri)
        return [row for row in sample.rows if row["gold"] is not None], sample.num_judged
    config, schema = stage.config, LabelSchema.load(stage.config.label_schema)
    good = {item.name for item in schema.classes if item.gain >= config.min_gain}
    rows, num_judged = _judged(context, config.pairs)
    positives = [row for row in rows if row["gold"] in good]
    context.note(f"{stage.name}: each draw is ASSUMED to find an item; clicked pairs (min_clicks) are left out")
    factor = len(positives) / max(1, len(rows)) * (1 + config.num_negatives)
    return positives, {"train": num_judged["train"] * factor, "dev": num_judged["dev"] * factor, "test": 0.0}


def _curated(context: Context, uri: str, folder: str) -> tuple[float, float, float]:
    """Rows of a curated table, and the mean tokens of a prompt and of an answer in it."""
    stage = context.writer(uri, "curate")
    asked = stage and context.writer(stage.config.rationales, "annotate")
    if stage is None or asked is None:
        context.note(f"{uri}: planned only where the pipeline curates and annotates it")
        return 0.0, 0.0, 0.0
    config, annotate = stage.config, asked.config
    rows, num_pairs = context.sample(annotate.pairs).select(annotate.splits, annotate.max_pairs)
    judged: list[Row] = [row for row in rows if row["split"] == "train" and row["gold"] is not None]
    if not judged:
        context.note(f"{stage.name}: no judged train pair in the sample, so nothing is left to train on")
        return 0.0, 0.0, 0.0
    names = [load_perspective(name).name for name in annotate.perspectives]
    used = [name for name in names if config.perspectives is None or name in config.perspectives]
    candidates = num_pairs * len(judged) / len(rows) * len(used)
    done = finished_metrics(stage.config.output)
    if done:
        num_rows = float(done["rows_out"])
        context.note(f"{stage.name} has run: its {num_rows:,.0f} rows are counted, not assumed")
    elif config.mode == "sft":
        share = context.assumptions.sft_share
        num_rows = candidates * annotate.samples * share
        context.note(f"{stage.name} is ASSUMED to keep {share:.0%} of the answers on judged train pairs (sft_share)")
    else:
        share = context.assumptions.preference_share
        num_rows = candidates * share
        context.note(
            f"{stage.name} is ASSUMED to find a preference in {share:.0%} of (judged train pair, perspective) "
            "(preference_share)"
        )
    counts = context.prompts(
        folder,
        (config.prompt,),
        config.label_schema,
        judged,
        config.num_few_shots,
        samples=1,
        room=1 << 30,
        block_size=16,
    )
    files = [name for name in annotate.perspectives if load_perspective(name).name in used]
    answers = [context.answers(folder, name, config.label_schema, annotate.max_tokens).tokens for name in files]
    return num_rows, counts.prompt_tokens / counts.prompts, sum(answers) / max(1, len(answers))
