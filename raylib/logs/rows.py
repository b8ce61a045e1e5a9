"""The rows of search logs as they come in, and as they travel through the shuffle."""

import pyarrow as pa

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
# What validation reads: the log's columns without the position, and the split that some releases publish.
ROWS = pa.schema(
    [pa.field(name, pa.string()) for name in TEXTS] + [pa.field(name, pa.int64()) for name in ("impressions", "clicks")]
)
# A partial pair: what a map task has added up over its rows, per pair and gold label.
PARTIALS = pa.schema(
    [
        pa.field("pair", pa.uint64(), nullable=False),  # hash(locale, query, item_id)
        pa.field("query_hash", pa.uint64(), nullable=False),  # hash of the normalised query
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
        if not (pa.types.is_integer(kind) if wants_integer else _is_text(kind) or pa.types.is_null(kind)):
            wrong.append(f"{name} is {kind}, not {'an integer' if wants_integer else 'a string'}")
    if wrong:
        raise InputError(f"{uri}: wrong type: {'; '.join(wrong)}; rewrite the file with these types")


def as_rows(table: pa.Table) -> pa.Table:
    """Cast to ROWS; absent optional columns become nulls. An unsigned count beyond int64 wraps and is then negative."""
    columns = []
    for field in ROWS:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table.column(field.name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        columns.append(column.cast(field.type, safe=False))
    return pa.table(columns, schema=ROWS)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
