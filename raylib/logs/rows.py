"""The rows of search logs as they come in, and as they travel through the shuffle."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raylib.errors import InputError

# One row = one shown item of one search.
LOG = pa.schema(
    [
        pa.field("query", pa.string()),
        pa.field("locale", pa.string()),
        pa.field("item_id", pa.string()),
        pa.field("title", pa.string()),
        pa.field("brand", pa.string()),
        pa.field("category", pa.string()),
        pa.field("attributes", pa.string()),  # as sellers write them: "color=red; size=42"
        pa.field("position", pa.int32()),
        pa.field("impressions", pa.int64()),
        pa.field("clicks", pa.int64()),
        pa.field("gold", pa.string()),  # class name or code; null where no human judged the pair
    ]
)
TEXTS = ("query", "locale", "item_id", "title", "brand", "category", "attributes", "gold", "split")
NEEDED = ("query", "locale", "item_id", "title", "impressions", "clicks")
OPTIONAL = ("brand", "category", "attributes", "gold")
TEXT = pa.dictionary(pa.int32(), pa.string())  # a log repeats its texts: each is decoded, checked and hashed once
# What validation reads: the log's columns without the position, and the split that some releases publish.
ROWS = pa.schema(
    [pa.field(name, TEXT) for name in TEXTS] + [pa.field(name, pa.int64()) for name in ("impressions", "clicks")]
)
# A partial pair: what a map task has added up over its rows, per pair and gold label.
PARTIALS = pa.schema(
    [
        pa.field("pair", pa.uint64(), nullable=False),  # hash(locale, query, item_id)
        pa.field("query_hash", pa.uint64(), nullable=False),  # hash of the query's letters, see query_key
        pa.field("gold", pa.int16(), nullable=False),  # class index, -1 where unjudged
        pa.field("split", pa.int8(), nullable=False),  # position in SPLITS where published, else -1
        pa.field(
            "sequence", pa.int64(), nullable=False
        ),  # place in the order of the logs; the newest row gives the texts
        pa.field("num_rows", pa.int64(), nullable=False),  # log rows that it stands for
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field("query", pa.string(), nullable=False),
        pa.field("locale", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("brand", pa.string()),
        pa.field("category", pa.string()),
        pa.field("attributes", pa.string()),
    ]
)


def check_log_columns(found: pa.Schema, needed: tuple[str, ...], optional: tuple[str, ...], uri: str) -> None:
    """Raise InputError naming every missing or wrongly typed column; any width of text and integer is accepted."""
    missing = [name for name in needed if name not in found.names]
    if missing:
        raise InputError(f"{uri}: missing column(s) {', '.join(missing)}; columns found: {', '.join(found.names)}")
    wrong = []
    for name in (*needed, *(name for name in optional if name in found.names)):
        kind = found.field(name).type
        wants_integer = name in ("impressions", "clicks")
        if not (pa.types.is_integer(kind) if wants_integer else is_text(kind) or pa.types.is_null(kind)):
            wrong.append(f"{name} is {kind}, not {'an integer' if wants_integer else 'a string'}")
    if wrong:
        raise InputError(f"{uri}: wrong type: {'; '.join(wrong)}; rewrite the file with these types")


def as_rows(table: pa.Table) -> pa.Table:
    """Cast to ROWS; absent optional columns become nulls. An unsigned count beyond int64 wraps and is then negative."""
    columns = []
    for field in ROWS:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
        elif field.type == TEXT:
            columns.append(_as_text(table.column(field.name)))
        else:
            columns.append(table.column(field.name).cast(field.type, safe=False))
    return pa.table(columns, schema=ROWS)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        return (
            column if column.type == TEXT else column.cast(column.type.value_type).cast(pa.string()).dictionary_encode()
        )
    return column.cast(pa.string()).dictionary_encode()


def decoded_bytes(rows: pa.Table) -> int:
    """Bytes of the texts of ROWS were they written out."""
    total = 0
    for name in TEXTS:
        for chunk in rows.column(name).chunks:
            lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0).to_numpy(zero_copy_only=False)
            codes = chunk.indices.drop_null().to_numpy()
            total += int(np.bincount(codes, minlength=len(lengths)) @ lengths.astype(np.int64)) if len(lengths) else 0
    return total


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text in any of Arrow's forms."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
