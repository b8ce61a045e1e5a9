"""From the pairs and embeddings tables to what the student trains and is measured on; every exclusion is counted.

N pairs, K rationale embeddings a pair (one a source of guidance), E size of each, C classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.student.data import Array, PairTokenizer, Ragged, TokenPairs, item_text
from raylib.student.judged import JudgedPairs
from raylib.student.objectives.mkd import mention_tags

MAX_RATIONALE_TOKENS = 128  # of a rationale that the student itself reads or writes


@dataclass(frozen=True)
class Guidance:
    """What the teacher says by pair, with the label that each rationale ends in: embeddings or the texts themselves."""

    row_of: dict[str, int]
    labels: list[str | None]
    embedding_NE: Array  # E is 0 with texts
    texts: list[str] | None = None

    @property
    def size(self) -> int:
        """E."""
        return int(self.embedding_NE.shape[1])


def read_guidance(uri: str) -> Guidance:
    """The embeddings table; raises InputError when it is empty, sizes differ, or a pair has several embeddings."""
    table = tables.read_table(uri, tables.EMBEDDINGS).combine_chunks()
    if not table.num_rows:
        raise InputError(f"{uri}: no embeddings; check the counts in its metrics.json")
    column = table["embedding"].combine_chunks()
    sizes = sorted(set(np.diff(column.offsets.to_numpy()).tolist()))
    if len(sizes) != 1 or not sizes[0]:
        raise InputError(
            f"{uri}: embeddings of {len(sizes)} sizes ({sizes[:5]}); embed all rationales with one encoder"
        )
    pair_ids = table["pair_id"].to_pylist()
    row_of = {pair_id: row for row, pair_id in enumerate(pair_ids)}
    if len(row_of) != len(pair_ids):
        twice = Counter(pair_ids).most_common(1)[0][0]
        raise InputError(f"{uri}: pair {twice} has several embeddings; embed one perspective, one sample a pair")
    embedding_NE = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, sizes[0])
    if not np.isfinite(embedding_NE).all():
        raise InputError(f"{uri}: holds embeddings that are not finite numbers; embed again")
    return Guidance(row_of, table["label"].to_pylist(), embedding_NE)


def read_rationales(uri: str, perspective: str) -> Guidance:
    """The answers of one perspective; raises InputError when there are none, or several for a pair."""
    table = tables.read_table(uri, tables.RATIONALES, ["pair_id", "perspective", "rationale", "label"])
    found = sorted(set(table["perspective"].to_pylist()))
    table = table.filter(pc.equal(table["perspective"], perspective))
    if not table.num_rows:
        raise InputError(f"{uri}: no answer of perspective {perspective}; perspectives there: {', '.join(found)}")
    pair_ids = table["pair_id"].to_pylist()
    row_of = {pair_id: row for row, pair_id in enumerate(pair_ids)}
    if len(row_of) != len(pair_ids):
        twice = Counter(pair_ids).most_common(1)[0][0]
        raise InputError(f"{uri}: pair {twice} has several answers; annotate one sample a pair for the student")
    nothing = np.zeros((len(row_of), 0), np.float32)
    return Guidance(row_of, table["label"].to_pylist(), nothing, table["rationale"].to_pylist())


def read_soft_labels(uri: str, perspective: str, schema: LabelSchema) -> dict[str, Array]:
    """The teacher's class probabilities by pair, [C]: the mean over its answers of one perspective.

    Raises InputError when no answer has them, or when they are of another number of classes.
    """
    table = tables.read_table(uri, tables.RATIONALES, ["pair_id", "perspective", "label_probs"])
    table = table.filter(pc.and_(pc.equal(table["perspective"], perspective), table["label_probs"].is_valid()))
    if not table.num_rows:
        raise InputError(
            f"{uri}: no answer of perspective {perspective} has class probabilities; annotate with "
            "engine.label_probs: true"
        )
    column = table["label_probs"].combine_chunks()
    sizes = set(pc.list_value_length(column).to_pylist())
    if sizes != {len(schema.names)}:
        raise InputError(
            f"{uri}: probabilities of {sorted(sizes)} classes, the label schema {schema.name} has {len(schema.names)}; "
            "use the schema that the run was annotated with"
        )
    prob_AC = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, len(schema.names))
    rows_of: dict[str, list[int]] = {}
    for row, pair_id in enumerate(table["pair_id"].to_pylist()):
        rows_of.setdefault(pair_id, []).append(row)
    return {pair_id: prob_AC[rows].mean(0) for pair_id, rows in rows_of.items()}


def read_judged(
    uri: str, schema: LabelSchema, item_fields: Sequence[str]
) -> tuple[dict[str, pa.Table], dict[str, int]]:
    """Judged pairs by split, and the counts of all rows: `train`, `dev`, `test` and `unjudged`.

    Raises InputError for a gold label outside the schema, a class without a training pair, and no judged dev pair:
    the student would train, but could not learn that class or choose its best epoch.
    """
    columns = ["pair_id", "query", *item_fields, "gold", "split"]
    table = tables.read_table(uri, tables.PAIRS, columns)
    judged = table.filter(table["gold"].is_valid())
    schema.refuse_outside(judged["gold"].unique().to_pylist(), uri)
    splits = {name: judged.filter(pc.equal(judged["split"], name)) for name in tables.SPLITS}
    counts = Counter(splits["train"]["gold"].to_pylist())
    absent = [name for name in schema.names if not counts[name]]
    if absent:
        raise InputError(
            f"{uri}: no judged training pair of class {', '.join(absent)} ({splits['train'].num_rows} judged training "
            "pairs); add judged pairs, or use a label schema without that class"
        )
    if not splits["dev"].num_rows:
        raise InputError(
            f"{uri}: no judged dev pair, by which the best epoch is chosen; prepare with a dev share above 0"
        )
    rows = {name: part.num_rows for name, part in splits.items()}
    return splits, {**rows, "unjudged": table.num_rows - judged.num_rows}


def tokenise_split(
    part: pa.Table,
    schema: LabelSchema,
    item_fields: Sequence[str],
    tokenizer: PairTokenizer,
    guidance: Sequence[Guidance] = (),
    which: str = "consistent",
    soft_labels: Mapping[str, Array] | None = None,
) -> tuple[JudgedPairs, dict[str, int]]:
    """Token ids, gold classes and guidance of one split, and the counts of pairs by state of their guidance.

    `which` is `consistent` (guidance only where the rationale's label is the gold one) or `all`. The paper says
    neither; consistent is the default, as a rationale that argues for another class would teach against L_cls. With
    several sources of guidance each counts by itself. Soft labels are taken whatever class they favour: what is
    learnt from them is what the teacher is unsure of, and the gold class is in the loss anyway.
    """
    rows: list[dict[str, Any]] = part.to_pylist()
    pairs = tokenizer.encode([row["query"] for row in rows], [item_text(row, item_fields) for row in rows])
    num_sources = max(1, len(guidance))
    target_NKE = np.zeros((len(rows), num_sources, guidance[0].size if guidance else 0), np.float32)
    is_guided_NK = np.zeros((len(rows), num_sources), bool)
    texts: list[str | None] = [None] * len(rows)
    states: Counter[str] = Counter() if guidance else Counter(no_embedding=len(rows))
    for k, source in enumerate(guidance):
        for n, row in enumerate(rows):
            found = source.row_of.get(row["pair_id"])
            if found is None:
                states["no_embedding"] += 1
            elif which == "consistent" and source.labels[found] != row["gold"]:
                states["label_differs"] += 1
            else:
                states["guided"] += 1
                is_guided_NK[n, k] = True
                target_NKE[n, k] = source.embedding_NE[found]
                texts[n] = source.texts[found] if source.texts else None
    rationales = tokenizer.encode_rationales(texts, MAX_RATIONALE_TOKENS)
    has_texts = any(source.texts for source in guidance)
    teacher_prob_NC = np.zeros((len(rows), len(schema.names) if soft_labels else 0), np.float32)
    if soft_labels:
        for n, row in enumerate(rows):
            teacher_prob_NC[n] = soft_labels.get(row["pair_id"], 0.0)
    judged = JudgedPairs(
        tokens_T=pairs.tokens_T,
        starts_N1=pairs.starts_N1,
        item_start_N=pairs.item_start_N,
        pair_id_N=np.array([row["pair_id"] for row in rows], dtype=np.str_),
        gold_N=np.array([schema.index(row["gold"]) for row in rows], np.int64),
        target_NKE=target_NKE,
        is_guided_NK=is_guided_NK,
        teacher_prob_NC=teacher_prob_NC,
        rationale_T=rationales.values_T,
        rationale_starts_N1=rationales.starts_N1,
        tags_T=_tags(pairs, rationales, tokenizer.is_word()) if has_texts else pairs.tokens_T[:0],
    )
    return judged, dict(states)


def _tags(pairs: TokenPairs, rationales: Ragged, is_word_V: Array) -> Array:
    tags = [
        mention_tags(pairs.tokens_T[pairs.starts_N1[n] : pairs.starts_N1[n + 1]], rationales.row(n), is_word_V)
        for n in range(len(pairs))
    ]
    return np.concatenate(tags) if tags else np.zeros(0, np.int64)


def write_splits(
    folder: Path,
    pairs: str,
    guidance: Sequence[Guidance],
    schema: LabelSchema,
    item_fields: Sequence[str],
    tokenizer: PairTokenizer,
    which: str = "consistent",
    soft_labels: Mapping[str, Array] | None = None,
) -> dict[str, Any]:
    """Write `train`, `dev` and `test` below `folder` for the workers; returns the counts and E (None without guidance).

    Raises InputError when no training pair would have guidance although some is given, likewise with soft labels, when
    the sources of guidance were embedded with different encoders, and when most items are cut away.
    """
    sizes = [source.size for source in guidance]
    if len(set(sizes)) > 1:
        raise InputError(f"embeddings: of sizes {', '.join(map(str, sizes))}; embed all of them with one encoder")
    parts, rows = read_judged(pairs, schema, item_fields)
    states: dict[str, int] = {}
    num_soft, cut_away = 0, {}
    for name, part in parts.items():
        if name == "train":
            judged, counted = tokenise_split(part, schema, item_fields, tokenizer, guidance, which, soft_labels)
            states = counted if guidance else states
            num_soft = int(judged.teacher_prob_NC.any(1).sum())
        else:
            judged, _ = tokenise_split(part, schema, item_fields, tokenizer)
        cut_away[name] = int((tokenizer.num_item_tokens(judged.pairs) == 0).sum())
        judged.save(folder / name)
    if 2 * cut_away["train"] > rows["train"]:
        raise InputError(
            f"{pairs}: {cut_away['train']} of {rows['train']} training pairs have no token of their item left; raise "
            f"max_length (now {tokenizer.max_length}) or name item_fields that hold text"
        )
    if soft_labels and not num_soft:
        raise InputError(
            f"none of the {rows['train']} training pairs of {pairs} has class probabilities of the teacher; annotate "
            "these pairs with engine.label_probs: true"
        )
    if guidance and not states.get("guided"):
        raise InputError(
            f"none of the {rows['train']} training pairs of {pairs} has guidance ({states}); annotate and embed "
            "these pairs, or set guidance.pairs to all"
        )
    counts = Counter(parts["train"]["gold"].to_pylist())
    return {
        "rows": rows,
        "train_classes": {name: counts[name] for name in schema.names},
        "guidance": states,
        "soft_labels": num_soft,
        "without_item": cut_away,
        "embedding_size": sizes[0] or None if sizes else None,
    }
