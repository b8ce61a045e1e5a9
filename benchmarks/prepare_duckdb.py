"""The work of jobs.prepare as one would write it in SQL, on DuckDB: the comparison of benchmarks/prepare.py.

    python benchmarks/prepare_duckdb.py LOGS OUTPUT --threads 2 --memory_mb 1024 --num_buckets 16

Bad rows dropped by the same rules (without a reason a row), texts cleaned, gold by majority, impressions and clicks
summed, the newest texts, the split by the query's letters, head, torso and tail, one sorted zstd Parquet file a bucket.
Not in it, as SQL cannot say it in reasonable time: near-identical queries across splits. Prints one line of JSON.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import duckdb

UNCLEAN = r"[\x00-\x1f\x7f-\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]|  |^ | $"
SPACES = r"[\x00-\x20\x7f-\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"
TEXTS = ("query", "locale", "item_id", "title", "brand", "category", "attributes")


def clean(name: str) -> str:
    mended = f"trim(regexp_replace({name}, '{SPACES}', ' ', 'g'))"
    return f"CASE WHEN regexp_matches({name}, '{UNCLEAN}') THEN {mended} ELSE {name} END AS {name}"


# Adding up comes before everything that works on texts: DuckDB does it per distinct row, not per log row.
STATEMENTS = [
    f"""CREATE TEMP TABLE votes AS
        SELECT query, locale, item_id, gold, count(*) AS num_rows,
               sum(impressions)::BIGINT AS impressions, sum(clicks)::BIGINT AS clicks, max(sequence) AS sequence,
               arg_max({{title: title, brand: brand, category: category, attributes: attributes}}, sequence) AS texts
        FROM (SELECT {", ".join(clean(name) for name in TEXTS)}, gold, impressions, clicks,
                     (regexp_extract(filename, '(\\d+)[^/]*$', 1)::BIGINT << 36) + file_row_number AS sequence
              FROM read_parquet('{{logs}}/*.parquet', filename = true, file_row_number = true))
        WHERE length(query) BETWEEN 1 AND 512 AND length(title) BETWEEN 1 AND 2000 AND length(item_id) >= 1
          AND length(locale) >= 1 AND impressions >= 0 AND clicks >= 0
          AND coalesce(length(brand), 0) <= 2000 AND coalesce(length(category), 0) <= 2000
          AND coalesce(length(attributes), 0) <= 2000
        GROUP BY query, locale, item_id, gold""",
    r"""CREATE TEMP TABLE keys AS
        SELECT query, hash(list_sort(string_split(regexp_replace(regexp_replace(
                   lower(strip_accents(nfc_normalize(query))), '([a-z]{2}[a-rt-z])''?s\b', '\1', 'g'),
                   '[^\p{L}\p{N}\p{M}]', '', 'g'), ''))) AS key
        FROM (SELECT DISTINCT query FROM votes)""",
    """CREATE TEMP TABLE traffic AS
        SELECT key, CASE WHEN total = 0 THEN NULL WHEN before * 3 < total THEN 'head'
                         WHEN before * 3 < total * 2 THEN 'torso' ELSE 'tail' END AS segment
        FROM (SELECT key, sum(impressions) OVER () AS total,
                     sum(impressions) OVER (ORDER BY impressions DESC, key
                                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) - impressions AS before
              FROM (SELECT key, sum(impressions) AS impressions FROM votes JOIN keys USING (query) GROUP BY key))""",
    """COPY (
        SELECT printf('%016x', hash(locale, query, item_id)) AS pair_id, key % {num_buckets} AS bucket,
               query, item_id, texts.title, texts.brand, texts.category, texts.attributes, locale,
               impressions, clicks, gold,
               CASE WHEN hash(key, 0) / 18446744073709551616.0 < 0.1 THEN 'test'
                    WHEN hash(key, 0) / 18446744073709551616.0 < 0.15 THEN 'dev' ELSE 'train' END AS split,
               segment
        FROM (SELECT query, locale, item_id, arg_max(texts, sequence) AS texts, sum(impressions) AS impressions,
                     sum(clicks) AS clicks, list_sort(list({num: num_rows, gold: gold}) FILTER (gold IS NOT NULL),
                                                      'DESC') AS ballots,
                     ballots[1].gold AS gold
              FROM votes GROUP BY query, locale, item_id)
        JOIN keys USING (query) JOIN traffic USING (key)
        WHERE len(ballots) IS NULL OR len(ballots) < 2 OR ballots[1].num > ballots[2].num
        ORDER BY bucket, key
    ) TO '{output}' (FORMAT parquet, PARTITION_BY (bucket), COMPRESSION zstd, WRITE_PARTITION_COLUMNS true)""",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--memory_mb", type=int, required=True)
    parser.add_argument("--num_buckets", type=int, required=True)
    options = parser.parse_args()
    shutil.rmtree(options.output, ignore_errors=True)
    started_s = time.monotonic()
    connection = duckdb.connect()
    connection.execute(f"SET threads = {options.threads}")
    connection.execute(f"SET memory_limit = '{options.memory_mb}MB'")
    connection.execute(f"SET temp_directory = '{options.output}-spill'")
    for statement in STATEMENTS:
        for name in ("logs", "output", "num_buckets"):
            statement = statement.replace(f"{{{name}}}", str(vars(options)[name]))
        connection.execute(statement)
    work_s = time.monotonic() - started_s
    written = f"read_parquet('{options.output}/**/*.parquet', hive_partitioning = false)"
    counts = connection.execute(f"SELECT count(*), sum(impressions), count(gold) FROM {written}").fetchone()
    assert counts is not None
    print(json.dumps(dict(zip(("num_pairs", "impressions", "num_judged_pairs"), map(int, counts), strict=True))
                     | {"work_s": work_s, "version": duckdb.__version__}))  # fmt: skip


if __name__ == "__main__":
    main()
