"""Rationales + gold -> what the teacher trains on: conversations for SFT, or preferences for DPO.

    python -m jobs.curate --pairs runs/prepare --rationales runs/annotate --mode sft --output runs/curate_sft

Whatever does not get in is counted by reason; rejected answers are listed in `rejected/`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from raylib import tables
from raylib.config import JobConfig, main
from raylib.curation.build import Prompter, Tally, preference_rows, sft_rows
from raylib.curation.inputs import held_out_queries, read_answered
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.prompts import UNIFIED, load_perspective
from raylib.runs import Run, require_done

ROWS_PER_BATCH = 4096


class CurateConfig(JobConfig):
    """Keep what agrees with the gold labels (sft), or pair right with wrong rationales (preferences)."""

    output: str = Field(description="run directory of the sft or preferences table")
    pairs: str = Field(description="run directory of the pairs table (jobs.prepare)")
    rationales: str = Field(description="run directory of the rationales table (jobs.annotate)")
    label_schema: str = Field("marketplace6", description="shipped schema or YAML file")
    mode: Literal["sft", "preferences"] = Field(description="sft: arXiv 2601.21611 eq. 1-2; preferences: eq. 4")
    perspectives: list[str] | None = Field(None, min_length=1, description="perspectives to learn from; null = all")
    prompt: str = Field(UNIFIED, description="perspective under whose prompt the teacher is trained, or a YAML file")
    num_few_shots: int = Field(0, ge=0, description="examples in that prompt; ask the trained teacher with as many")
    allow_same_perspective: bool = Field(
        True, description="preferences: take chosen from the failing perspective where no other is right (counted)"
    )
    seed: int = Field(0, description="preferences: draws chosen and rejected among the candidates")


def run(config: CurateConfig) -> dict[str, Any]:
    """Curate; returns the metrics. sft: a row in is an answer; preferences: a pair under one perspective."""
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
    held_out = held_out_queries(config.pairs)
    answered = read_answered(config.pairs, config.rationales, config.perspectives)
    prompter = Prompter(prompt, schema, config.num_few_shots)
    tally = Tally()
    if config.mode == "sft":
        table, rows = tables.SFT, sft_rows(answered, prompter, held_out, tally)
    else:
        table = tables.PREFERENCES
        rows = preference_rows(answered, prompter, held_out, tally, config.seed, config.allow_same_perspective)
    rejected: Counter[str] = Counter()
    run.write_table("part-00000", table, _batches(run, rows, table, tally, rejected))
    if not tally.rows_out:
        raise InputError(
            f"{config.rationales}: nothing left to train on; {tally.rows_in} rows in, rejected {dict(rejected)}, "
            f"skipped {dict(tally.skipped)}"
        )
    return run.finish(
        rows_in=tally.rows_in,
        rows_out=tally.rows_out,
        rejected=dict(rejected),
        skipped=dict(tally.skipped),
        **tally.facts,
        yields=tally.yields(),
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
