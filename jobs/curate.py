"""Rationales + gold -> what the teacher trains on: conversations for SFT, or preferences for DPO.

    python -m jobs.curate --pairs runs/prepare --rationales runs/annotate --mode sft --output runs/curate_sft

Whatever does not get in is counted by reason; rejected answers are listed in `rejected/`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar, Literal

import pyarrow as pa
from pydantic import Field, model_validator

from raylib import tables
from raylib.config import JobConfig, main
from raylib.curation.build import Curator, Tally, conflict_rows, reward_rows, sft_rows
from raylib.curation.faithfulness import read_lexicon
from raylib.curation.inputs import held_out_queries, read_answered
from raylib.curation.rewards import Reward
from raylib.curation.subset import check_classes, choose_rows, kept_rows, rows_of
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.prompts import UNIFIED, load_perspective
from raylib.runs import Run, require_done

ROWS_PER_BATCH = 4096


class CurateConfig(JobConfig):
    """Keep what agrees with the gold labels (sft), or pair good with bad rationales (preferences, rewards)."""

    adjustable: ClassVar[tuple[str, ...]] = ("on_empty_class",)

    output: str = Field(description="run directory of the sft or preferences table")
    pairs: str = Field(description="run directory of the pairs table (jobs.prepare)")
    rationales: str = Field(description="run directory of the rationales table (jobs.annotate)")
    label_schema: str = Field("marketplace6", description="shipped schema or YAML file")
    mode: Literal["sft", "preferences", "rewards"] = Field(
        description="sft: arXiv 2601.21611 eq. 1-2; preferences: its eq. 4; rewards: arXiv 2510.11056 step 3"
    )
    perspectives: list[str] | None = Field(None, min_length=1, description="perspectives to learn from; null = all")
    prompt: str = Field(UNIFIED, description="perspective under whose prompt the teacher is trained, or a YAML file")
    num_few_shots: int = Field(0, ge=0, description="examples in that prompt; ask the trained teacher with as many")
    allow_same_perspective: bool = Field(
        True, description="preferences: take chosen from the failing perspective where no other is right (counted)"
    )
    reward: Reward = Field(Reward(), description="rewards: how answers are ranked")
    max_unsupported: float | None = Field(
        None,
        ge=0,
        le=1,
        description="learn from no answer of whose brands and values neither text has a larger share",
    )
    balance: Literal["none", "class"] = Field("none", description="class: each class gives as many rows as the rarest")
    max_rows: int | None = Field(None, ge=1, description="rows, drawn by hash; null = all")
    size_of: str | None = Field(None, description="run directory of another curation: draw as many rows as it has")
    on_empty_class: Literal["fail", "count"] = Field("fail", description="sft: when a gold class gives no row at all")
    seed: int = Field(0, description="draws chosen and rejected among the candidates, and rows of a subset")

    @model_validator(mode="after")
    def _one_size(self) -> "CurateConfig":
        if self.max_rows and self.size_of:
            raise ValueError("give max_rows or size_of, not both")
        return self


def run(config: CurateConfig) -> dict[str, Any]:
    """Curate; returns the metrics. A row in is an answer (sft), a pair under one perspective (preferences), a pair."""
    run = Run(config.output, "curate", config)
    if run.is_done:
        return run.metrics()
    schema = LabelSchema.load(config.label_schema)
    prompt = load_perspective(config.prompt)
    prompt.check(schema, config.num_few_shots)
    for uri in (config.pairs, config.rationales):
        require_done(uri)
    run.write_provenance(
        inputs={"pairs": config.pairs, "rationales": config.rationales}, prompt_hashes={prompt.name: prompt.hash}
    )
    curator = Curator(
        unified=prompt,
        schema=schema,
        num_few_shots=config.num_few_shots,
        held_out=held_out_queries(config.pairs),
        lexicon=read_lexicon(config.pairs, schema.names),
        max_unsupported=config.max_unsupported,
        seed=config.seed,
    )

    def rows(tally: Tally) -> Iterator[dict[str, Any]]:
        answered = read_answered(config.pairs, config.rationales, config.perspectives)
        if config.mode == "sft":
            return sft_rows(answered, curator, tally)
        if config.mode == "preferences":
            return conflict_rows(answered, curator, tally, config.allow_same_perspective)
        return reward_rows(answered, curator, tally, config.reward)

    tally = Tally()
    is_kept_N = None
    max_rows = rows_of(config.size_of) if config.size_of else config.max_rows
    if config.balance == "class" or max_rows:
        is_kept_N = choose_rows(rows(Tally()), max_rows, config.balance == "class", config.seed)
    table = tables.SFT if config.mode == "sft" else tables.PREFERENCES
    rejected: Counter[str] = Counter()
    kept = kept_rows(rows(tally), is_kept_N, tally.skipped)
    rows_out = run.write_table("part-00000", table, _batches(run, kept, table, tally, rejected))
    counts = f"{tally.rows_in} rows in, rejected {dict(rejected)}, skipped {dict(tally.skipped)}"
    if not rows_out:
        raise InputError(f"{config.rationales}: nothing left to train on; {counts}")
    if config.mode == "sft" and config.on_empty_class == "fail":
        check_classes(tally.seen["class"], tally.kept["class"])
    return run.finish(
        rows_in=tally.rows_in,
        rows_out=rows_out,
        rejected=dict(rejected),
        skipped=dict(tally.skipped),
        **tally.facts,
        yields=tally.yields(),
        faithfulness=tally.faithfulness(),
    )


def _batches(
    run: Run, rows: Iterator[dict[str, Any]], table: pa.Schema, tally: Tally, rejected: Counter[str]
) -> Iterator[pa.RecordBatch]:
    """The rows as batches; writes the rejects that have gathered after each of them."""
    number = 0
    while True:
        chunk = list(islice(rows, ROWS_PER_BATCH))
        rejected.update(run.write_rejected(f"part-{number:05d}", tally.rejected_rows))
        tally.rejected_rows.clear()
        if not chunk:
            return
        yield tables.rows_batch(chunk, table)
        number += 1


if __name__ == "__main__":
    main(CurateConfig, run, "jobs.curate")
