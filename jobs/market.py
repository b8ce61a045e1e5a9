"""Write search logs of a synthetic marketplace with known truth, and the corpus of traces for a small base model.

python -m jobs.market --output runs/market --num_rows 10000000 --num_queries 100000
"""

import time
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from raylib.config import JobConfig, main
from raylib.market.search_logs import NUM_SHOWN, Market, write_logs
from raylib.market.traces import write_corpus
from raylib.runs import Run

Locale = Literal["en", "es", "ja", "ko", "pt", "fr"]
CORPUS_SEED_OFFSET = 1_000_003  # the corpus is another market over the same catalogue


class MarketConfig(JobConfig):
    """Synthetic marketplace: catalogue, queries, result pages, clicks and human labels (marketplace6)."""

    output: str = Field(description="run directory (path or object-store URI)")
    seed: int = Field(1, ge=0, description="all draws follow from it; ours")
    num_rows: int = Field(30_000, ge=1, description="log rows, one shown item of one search each; ours, for the demo")
    num_queries: int = Field(300, ge=1, description="different searches, drawn by Zipf's law; ours, for the demo")
    num_items: int = Field(
        400_000, ge=1, description="listings in the catalogue, at least one of each product (64,800 a locale); ours"
    )
    gold_share: float = Field(0.5, ge=0.0, le=1.0, description="share of the pairs that a human judged; ours")
    locales: tuple[Locale, ...] = Field(
        ("en", "es", "ja", "ko", "pt", "fr"), min_length=1, strict=False, description="en has half of the queries; ours"
    )
    rows_per_file: int = Field(1_000_000, ge=1, description="log rows a Parquet file; ours")
    corpus_traces: int = Field(0, ge=0, description="traces to write to OUTPUT/corpus, from another seed; 0 = none")

    @model_validator(mode="after")
    def _distinct_locales(self) -> Self:
        if len(set(self.locales)) != len(self.locales):
            raise ValueError(f"locales: each may be named once, got {', '.join(self.locales)}")
        return self


def run(config: MarketConfig) -> dict[str, Any]:
    """Write the logs, then the corpus; print rows/s."""
    run = Run(config.output, "market", config)
    if run.is_done:
        return run.metrics()
    run.write_provenance(label_schema="marketplace6")
    market = Market(config.seed, config.num_queries, config.num_items, config.locales, config.gold_share)
    started_s = time.monotonic()
    num_files = write_logs(market, run.uri, config.num_rows, config.rows_per_file)
    rows_per_s = config.num_rows / (time.monotonic() - started_s)
    print(f"market: {config.num_rows} log rows in {num_files} files, {rows_per_s:,.0f} rows/s", flush=True)
    if config.corpus_traces:
        corpus_queries = max(config.num_queries, config.corpus_traces)
        corpus_market = Market(
            config.seed + CORPUS_SEED_OFFSET, corpus_queries, config.num_items, config.locales, config.gold_share
        )
        write_corpus(corpus_market, f"{run.uri}/corpus", config.corpus_traces)
        print(f"market: {config.corpus_traces} traces in {run.uri}/corpus", flush=True)
    return run.finish(
        rows_in=config.num_rows,
        rows_out=config.num_rows,
        rejected={},
        skipped={},
        num_searches=-(-config.num_rows // NUM_SHOWN),
        num_items=market.catalogue_size,
        num_traces=config.corpus_traces,
        rows_per_s=round(rows_per_s),
    )


if __name__ == "__main__":
    main(MarketConfig, run, "jobs.market")
