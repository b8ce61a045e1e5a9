"""The parity gate: what is served must be what the offline scores table says, in the replica and over HTTP."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.errors import InputError, ParityError
from raylib.serving.schemas import ID_CHARS, QUERY_CHARS, TEXT_CHARS

FIELDS = ("item_id", "title", "brand", "category", "attributes")


@dataclass(frozen=True)
class ParitySample:
    """Scored pairs to ask the server about; `num_over_limit` further ones are longer than requests may be."""

    pairs: list[dict[str, Any]]  # FIELDS, pair_id, query, locale
    probs: dict[str, list[float]]  # offline, by pair_id
    labels: dict[str, str]
    num_over_limit: int


def read_sample(scores: str, pairs: str, num_rows: int, seed: int) -> ParitySample:
    """Draw up to `num_rows` rows of a scores table and find their pairs.

    Raises InputError for an empty scores table and for scored pairs that the pairs table lacks.
    """
    table = tables.read_table(scores, tables.SCORES, ["pair_id", "probs", "label"])
    if table.num_rows == 0:
        raise InputError(f"{scores}: the scores table is empty; nothing to compare")
    rows = np.random.default_rng(seed).permutation(table.num_rows)[:num_rows]
    chosen = table.take(pa.array(np.sort(rows)))
    pair_ids = chosen.column("pair_id").combine_chunks()
    found: list[dict[str, Any]] = []
    for batch in tables.read_batches(pairs, tables.PAIRS, ["pair_id", "query", "locale", *FIELDS]):
        found += batch.filter(pc.is_in(batch.column("pair_id"), value_set=pair_ids)).to_pylist()
    if missing := set(pair_ids.to_pylist()) - {pair["pair_id"] for pair in found}:
        raise InputError(
            f"{pairs}: lacks {len(missing)} pair(s) of {scores}, e.g. {min(missing)}; name the pairs that were scored"
        )
    fitting = [pair for pair in found if _fits(pair)]
    probs = dict(zip(pair_ids.to_pylist(), chosen.column("probs").to_pylist(), strict=True))
    labels = dict(zip(pair_ids.to_pylist(), chosen.column("label").to_pylist(), strict=True))
    return ParitySample(fitting, probs, labels, len(found) - len(fitting))


def save_sample(sample: ParitySample, path: Path) -> None:
    """Store a sample where replicas find it."""
    tables.write_text(str(path), json.dumps(asdict(sample), ensure_ascii=False))


def load_sample(path: Path) -> ParitySample:
    """Read what `save_sample` wrote; raises InputError when it is not there or damaged."""
    try:
        return ParitySample(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: no parity sample that can be read ({error}); can every node read it?") from None


def compare_online(
    url: str, sample: ParitySample, classes: tuple[str, ...], max_items: int, key: str | None
) -> dict[str, Any]:
    """Ask the server about every pair of the sample, query by query, one request at a time.

    Returns rows compared, the largest absolute difference of a probability and where it is, changed labels, requests
    and their latency in ms. Raises ParityError when the server refuses a request.
    """
    worst, worst_pair, num_changed, latencies_ms = 0.0, "", 0, []
    headers = {"X-Deadline-Ms": "60000", **({"Authorization": f"Bearer {key}"} if key else {})}
    with httpx.Client(base_url=url, timeout=60.0, headers=headers) as client:
        for request, pairs in requests_of(sample.pairs, max_items):
            start = time.perf_counter()
            answer = client.post("/v1/score", json=request)
            latencies_ms.append(1000 * (time.perf_counter() - start))
            if answer.status_code != 200:
                raise ParityError(f"{url}/v1/score: status {answer.status_code}: {answer.text[:500]}")
            for pair, item in zip(pairs, answer.json()["items"], strict=True):
                online = np.array([item["probs"][name] for name in classes])
                difference = float(np.abs(online - np.array(sample.probs[pair["pair_id"]])).max())
                num_changed += item["label"] != sample.labels[pair["pair_id"]]
                if difference >= worst:
                    worst, worst_pair = difference, pair["pair_id"]
    quantiles = np.quantile(latencies_ms, [0.5, 0.99]) if latencies_ms else [float("nan")] * 2
    return {
        "num_rows": len(sample.pairs),
        "max_abs_difference": worst,
        "worst_pair_id": worst_pair,
        "num_changed_labels": int(num_changed),
        "num_requests": len(latencies_ms),
        "latency_p50_ms": round(float(quantiles[0]), 2),
        "latency_p99_ms": round(float(quantiles[1]), 2),
    }


def check_parity(parity: dict[str, Any], tolerance: float) -> None:
    """Raise ParityError when a probability differs by more than `tolerance`."""
    if parity["max_abs_difference"] > tolerance:
        raise ParityError(
            f"online and offline probabilities differ by up to {parity['max_abs_difference']:.3g}"
            f" (tolerance {tolerance:.3g}, pair {parity['worst_pair_id']};"
            f" {parity['num_changed_labels']} of {parity['num_rows']} labels changed);"
            " is the served model the one that wrote the scores?"
        )


def requests_of(pairs: list[dict[str, Any]], max_items: int) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Requests of at most `max_items` items of one query, each with the pairs it asks about."""
    by_query: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for pair in pairs:
        by_query[pair["locale"], pair["query"]].append(pair)
    for (locale, query), group in by_query.items():
        for start in range(0, len(group), max_items):
            part = group[start : start + max_items]
            items = [{name: pair[name] for name in FIELDS} for pair in part]
            yield {"query": query, "locale": locale, "items": items}, part


def _fits(pair: dict[str, Any]) -> bool:
    texts = [pair[name] or "" for name in FIELDS if name != "item_id"]
    return len(pair["query"]) <= QUERY_CHARS and len(pair["item_id"]) <= ID_CHARS and max(map(len, texts)) <= TEXT_CHARS
