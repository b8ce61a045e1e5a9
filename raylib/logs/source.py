"""Where rows come from: plain log files, or the published ESCI release.

The work is planned as units (a file, or some row groups of a long one) from the files' footers alone, so that every
missing column and unreadable file is known before Ray starts.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from raylib import tables
from raylib.errors import InputError
from raylib.logs.rows import NEEDED, OPTIONAL, TEXTS, as_rows, check_log_columns, decoded_bytes, is_text

UNIT_ROWS = 500_000  # a map task reads about so many rows: seconds of work, which is what a lost node costs
BATCH_ROWS = 131_072  # a batch holds at most so many rows

EXAMPLES, PRODUCTS = "shopping_queries_dataset_examples.parquet", "shopping_queries_dataset_products.parquet"
EXAMPLE_COLUMNS = ("query", "product_id", "product_locale", "esci_label", "split")
PRODUCT_COLUMNS = ("product_id", "product_locale", "product_title", "product_brand", "product_color")


class BadFileError(InputError):
    """A file that is not readable Parquet, or is damaged further in; the text names it."""


class Unit(NamedTuple):
    """The rows of one map task."""

    uri: str  # a log file, or the directory of an ESCI release
    row_groups: tuple[int, ...]  # empty for an ESCI release
    num_rows: int
    num_bytes: int  # of the file, to notice a changed input on resume


class Plan(NamedTuple):
    """All units of an input, and the files that cannot be read at all."""

    units: list[Unit]
    bad_files: list[str]


def plan_logs(uri: str, on_bad_file: str) -> Plan:
    """Units of a directory of log files (or one file).

    Raises InputError for a missing or empty input, a missing column, a wrong type, and, unless `on_bad_file` is
    `skip`, for files that are not readable, all of them named.
    """
    files = tables.list_parquet(tables.absolute_uri(uri))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(_inspect, files))
    bad = [result for result in found if isinstance(result, str)]
    if bad and (on_bad_file != "skip" or len(bad) == len(files)):
        raise BadFileError(f"{len(bad)} of {len(files)} files are bad:\n  " + "\n  ".join(bad))
    units = [unit for result in found if not isinstance(result, str) for unit in result]
    if not units:
        raise InputError(f"{uri}: empty: no row in {len(files)} file(s)")
    return Plan(units, bad)


def _inspect(file: str) -> list[Unit] | str:
    """The units of one file, or why it cannot be read; raises InputError on a missing column or wrong type."""
    try:
        parquet = tables.open_parquet(file)
    except InputError as error:
        return str(error)
    check_log_columns(parquet.schema_arrow, NEEDED, OPTIONAL, file)
    fs, path = tables.filesystem(file)
    num_bytes = fs.get_file_info(path).size
    units, groups, num_rows = [], [], 0
    for i in range(parquet.num_row_groups):
        groups.append(i)
        num_rows += parquet.metadata.row_group(i).num_rows
        if num_rows >= UNIT_ROWS or i == parquet.num_row_groups - 1:
            if num_rows:
                units.append(Unit(file, tuple(groups), num_rows, num_bytes))
            groups, num_rows = [], 0
    return units


def plan_esci(uri: str) -> Plan:
    """The one unit of an ESCI release; raises InputError when one of its two files is missing, empty or damaged."""
    uri = tables.absolute_uri(uri).rstrip("/")
    examples, products = f"{uri}/{EXAMPLES}", f"{uri}/{PRODUCTS}"
    for file, columns in ((examples, EXAMPLE_COLUMNS), (products, PRODUCT_COLUMNS)):
        tables.list_parquet(file)
        check_log_columns(tables.open_parquet(file).schema_arrow, columns, (), file)
    num_rows = tables.open_parquet(examples).metadata.num_rows
    if not num_rows:
        raise InputError(f"{examples}: empty: no row")
    fs, path = tables.filesystem(examples)
    return Plan([Unit(uri, (), num_rows, fs.get_file_info(path).size)], [])


def read_unit(unit: Unit, batch_bytes: int) -> Iterator[pa.Table]:
    """Stream a unit as tables of ROWS of about `batch_bytes` at most (one row at least).

    Raises BadFileError when the file turns out to be damaged.
    """
    source = _read_logs(unit, batch_bytes) if unit.row_groups else _read_esci(unit.uri)
    while True:
        try:
            table = next(source)
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise BadFileError(f"{unit.uri}: damaged ({error}); restore it or remove it") from None
        yield from _cut(table, batch_bytes)


def _read_logs(unit: Unit, batch_bytes: int) -> Iterator[pa.Table]:
    found = tables.open_parquet(unit.uri).schema_arrow
    texts = [name for name in TEXTS if name in found.names and is_text(found.field(name).type)]
    parquet = tables.open_parquet(unit.uri, texts)
    names = [name for name in (*NEEDED, *OPTIONAL) if name in parquet.schema_arrow.names]
    # The file's own bytes of a row: its texts once a dictionary page. Written out they may be more, hence _cut.
    groups = [parquet.metadata.row_group(i) for i in unit.row_groups]
    row_bytes = sum(group.total_byte_size for group in groups) / max(1, sum(group.num_rows for group in groups))
    batch_rows = max(1, min(BATCH_ROWS, int(batch_bytes / max(1.0, row_bytes))))
    pending: list[pa.RecordBatch] = []
    for batch in parquet.iter_batches(batch_rows, unit.row_groups, names, use_threads=False):
        if sum(part.num_rows for part in pending) + batch.num_rows > batch_rows:  # batches end with their row group
            yield as_rows(pa.Table.from_batches(pending))
            pending = []
        pending.append(batch)
    if pending:
        yield as_rows(pa.Table.from_batches(pending))


def _cut(table: pa.Table, batch_bytes: int) -> Iterator[pa.Table]:
    num_parts = math.ceil(max(1, decoded_bytes(table)) / batch_bytes)
    size = max(1, math.ceil(table.num_rows / num_parts))
    for start in range(0, table.num_rows, size):
        yield table.slice(start, size)


def _read_esci(uri: str) -> Iterator[pa.Table]:
    """Join examples with their products on (product_id, product_locale).

    The products' five short columns are held in memory (about 0.4 GB for the full release of 1.8 M). Locales keep the
    release's own words (us, jp, es). The colour becomes the attribute `color`. An example without a product has a null
    title. The release has no traffic: impressions and clicks are 0.
    """
    products = tables.open_parquet(f"{uri}/{PRODUCTS}").read(list(PRODUCT_COLUMNS))
    product_keys = _item_keys(products).combine_chunks()
    color = products.column("product_color")
    attributes = pc.binary_join_element_wise("color=", color.cast(pa.string()), "")
    items = {
        "title": products.column("product_title"),
        "brand": products.column("product_brand"),
        "attributes": attributes,
    }
    for batch in tables.open_parquet(f"{uri}/{EXAMPLES}").iter_batches(BATCH_ROWS, columns=list(EXAMPLE_COLUMNS)):
        examples = pa.table(batch)
        rows = pc.index_in(_item_keys(examples), product_keys)
        zeros = pa.repeat(pa.scalar(0, pa.int64()), examples.num_rows)
        yield as_rows(
            pa.table(
                {
                    "query": examples.column("query"),
                    "locale": examples.column("product_locale"),
                    "item_id": examples.column("product_id"),
                    "gold": examples.column("esci_label"),
                    "split": examples.column("split"),
                    "impressions": zeros,
                    "clicks": zeros,
                    **{name: column.take(rows) for name, column in items.items()},
                }
            )
        )


def _item_keys(table: pa.Table) -> pa.ChunkedArray:
    product_id, locale = (table.column(name).cast(pa.string()) for name in ("product_id", "product_locale"))
    return pc.binary_join_element_wise(locale, product_id, "\x1f")
