"""Token counts of a plan: exact for what exists (prompts, the student's pairs), stated assumptions for answers."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.prompts import Perspective, encode_prompt, format_answer
from raylib.runs import require_done
from raylib.teacher.encoding import encode_completion

ROW_BYTES = 90  # of a rationale's row besides its text: three short texts, two hashes, four integers


@dataclass
class PromptTokens:
    """Tokens of the prompts of some pairs under some perspectives, `samples` answers each."""

    prompts: int = 0  # different prompts that are sent
    prompt_tokens: int = 0  # times samples, as annotation's metrics count them
    uncached_tokens: int = 0  # of these, those whose prefill is not shared
    cold_tokens: int = 0  # of these, the constant prefixes when they come first: once a run, however many pairs
    too_long: int = 0  # prompts that leave no room for the answer; annotation rejects them
    longest: int = 0


class Answers(NamedTuple):
    """How long an answer is expected to be."""

    tokens: float
    row_bytes: float  # of its row in the rationales table
    source: str


def count_prompts(
    tokenizer: Any,
    perspectives: Sequence[Perspective],
    schema: LabelSchema,
    pairs: Iterable[dict[str, Any]],
    num_few_shots: int,
    samples: int,
    room: int,
    block_size: int,
) -> PromptTokens:
    """Count the prompts that annotation builds, in its order; `room` is what a prompt may have beside its answer.

    The prefix cache is followed as vLLM keeps it when nothing is evicted: whole blocks of `block_size` tokens are
    shared, and the last token of a prompt is always computed.
    """
    counts = PromptTokens()
    seen: set[int] = set()
    hits_of_first: dict[tuple[str, str], int] = {}  # by perspective and locale
    has_second: set[tuple[str, str]] = set()
    for pair in pairs:
        for perspective in perspectives:
            ids = encode_prompt(tokenizer, perspective.messages(schema, pair, num_few_shots))
            length = len(ids)
            if length > room:
                counts.too_long += 1
                continue
            chain, hits, is_hit = 0, 0, True
            for start in range(0, length - length % block_size, block_size):
                chain = hash((chain, *ids[start : start + block_size]))
                is_hit = is_hit and chain in seen
                hits += is_hit
                seen.add(chain)
            key = (perspective.name, str(pair["locale"]))
            if key not in hits_of_first:
                hits_of_first[key] = hits
            elif key not in has_second:
                has_second.add(key)
                counts.cold_tokens += block_size * max(0, hits - hits_of_first[key])
            whole = (length - 1) // block_size
            counts.prompts += 1
            counts.prompt_tokens += length * samples
            counts.uncached_tokens += length - block_size * min(hits, whole)
            counts.uncached_tokens += (length - block_size * whole) * (samples - 1)
            counts.longest = max(counts.longest, length)
    return counts


def expected_answers(
    tokenizer: Any, perspective: Perspective, schema: LabelSchema, max_tokens: int, given: float | None
) -> Answers:
    """The length given by the user, else the mean of the perspective's examples, else the longest allowed answer."""
    examples = [
        format_answer(example.rationale.strip(), example.label)
        for by_locale in perspective.few_shots.get(schema.name, {}).values()
        for example in by_locale
    ]
    sizes = [len(encode_completion(tokenizer, text)) for text in examples]
    token_bytes = sum(len(text.encode()) for text in examples) / sum(sizes) if sizes else 4.0
    if given is not None:
        tokens, origin = min(given, float(max_tokens)), "given as assumptions.answer_tokens"
    elif sizes:
        tokens = sum(min(size, max_tokens) for size in sizes) / len(sizes)
        origin = f"mean of the {len(sizes)} examples in the prompt's file"
    else:
        tokens, origin = float(max_tokens), f"max_tokens, as the prompt has no example for {schema.name}"
    return Answers(tokens, tokens * token_bytes + ROW_BYTES, origin)


def measured_answers(uri: str) -> dict[str, Answers]:
    """Mean generated tokens and stored bytes of an answer of a finished annotate run, by perspective.

    Raises InputError when the run is unfinished or its table is empty.
    """
    require_done(uri)
    totals: dict[str, list[int]] = {}
    num_bytes = num_rows = 0
    for file in tables.list_parquet(uri):
        fs, path = tables.filesystem(file)
        num_bytes += fs.get_file_info(path).size
        for batch in tables.read_batches(file, tables.RATIONALES, ("perspective", "generated_tokens")):
            num_rows += batch.num_rows
            grouped = (
                pa.table(batch).group_by("perspective").aggregate([("generated_tokens", "sum"), ([], "count_all")])
            )
            for row in grouped.to_pylist():
                total = totals.setdefault(row["perspective"], [0, 0])
                total[0] += row["generated_tokens_sum"]
                total[1] += row["count_all"]
    if not num_rows:
        raise InputError(f"{uri}: the rationales table is empty, so it says nothing about the length of answers")
    return {
        name: Answers(tokens / count, num_bytes / num_rows, f"measured in {uri}")
        for name, (tokens, count) in totals.items()
    }


def student_tokens(
    folder: str, pairs: Sequence[dict[str, Any]], item_fields: Sequence[str], max_length: int
) -> list[int]:
    """Tokens of each pair as the student reads it, cut at `max_length`."""
    from transformers import AutoTokenizer

    from raylib.student.data import PairTokenizer, item_text

    tokenizer = PairTokenizer(AutoTokenizer.from_pretrained(folder), max_length)
    items = [item_text(pair, item_fields) for pair in pairs]
    lengths: list[int] = tokenizer.encode([pair["query"] for pair in pairs], items).lengths_N.tolist()
    return lengths
