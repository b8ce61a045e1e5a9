"""Pairs -> pairs that belong together and random negatives, on which an encoder learns to tell them apart.

    python -m jobs.negatives --pairs runs/prepare --label_schema esci --output runs/negatives
    python -m jobs.distill --pairs runs/negatives --label_schema matching --objective bert --extractor none \\
        --output runs/matching
    python -m jobs.distill --backbone runs/matching/model ...

Judgements are few and say what is better among items that a search engine found already. That an item of another query
belongs to this one as a rule not, costs nothing to know. Test pairs are not read.
"""

from collections import Counter
from typing import Any

import pyarrow.compute as pc
from pydantic import Field

from raylib import tables
from raylib.config import JobConfig, main
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.runs import Run, require_done

MATCHING = "matching"  # the label schema of the written pairs: what belongs together comes first


class NegativesConfig(JobConfig):
    """Positives of the train and dev split, each with random negatives."""

    output: str = Field(description="run directory to write")
    pairs: str = Field(description="run directory of prepare")
    label_schema: str = Field(description="shipped label schema, or path of a YAML file, of the gold labels there")
    min_gain: float = Field(0.1, gt=0.0, le=1.0, description="gain from which a judged pair is a positive; ours")
    min_clicks: int | None = Field(
        None, ge=1, description="clicks from which a pair that nobody judged is a positive; null: judged pairs only"
    )
    num_negatives: int = Field(4, ge=1, description="items of other queries drawn for a positive; ours")
    seed: int = Field(0, ge=0, description="of the draws")


def run(config: NegativesConfig) -> dict[str, Any]:
    """Draw; returns the metrics. A row in is a pair, or a draw."""
    run = Run(config.output, "negatives", config)
    if run.is_done:
        return run.metrics()
    from raylib.logs.negatives import is_positive, with_negatives

    schema = LabelSchema.load(config.label_schema)
    match, mismatch = LabelSchema.load(MATCHING).names
    require_done(config.pairs)
    run.write_provenance({"pairs": config.pairs})
    rows_in, counts, skipped = 0, Counter[str](), Counter[str]()
    for number, file in enumerate(tables.list_parquet(config.pairs)):
        every = tables.read_table(file, tables.PAIRS)
        pairs = every.filter(pc.not_equal(every["split"], "test"))
        is_positive_N = is_positive(pairs, schema, config.min_gain, config.min_clicks, file)
        num_positives = int(is_positive_N.sum())
        rows, num_missed = with_negatives(
            pairs, is_positive_N, config.num_negatives, config.seed + number, (match, mismatch)
        )
        run.write_table(f"bucket-{number:05d}", tables.PAIRS, [rows])
        rows_in += every.num_rows + num_positives * config.num_negatives
        counts.update(rows["gold"].to_pylist())
        skipped.update(
            test=every.num_rows - pairs.num_rows,
            not_positive=pairs.num_rows - num_positives,
            no_other_item=num_missed,
        )
    if not counts.total():
        raise InputError(
            f"{config.pairs}: no train or dev pair has a gain of at least {config.min_gain:g} or enough clicks "
            f"({rows_in} pairs); lower min_gain, or set min_clicks for pairs that nobody judged"
        )
    return run.finish(rows_in, counts.total(), {}, dict(skipped), pairs_by_label=dict(counts))


if __name__ == "__main__":
    main(NegativesConfig, run, "jobs.negatives")
