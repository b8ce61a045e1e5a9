"""Arrow schemas of every table that jobs exchange, and the only code that reads and writes them.

A table is the set of `*.parquet` files directly inside a run directory. Files appear under their final name only when
they are complete (written beside it, then renamed), so a reader never sees half a file.
"""

import contextlib
import os
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from raylib.errors import InputError

PARTIAL = "_partial-"  # begins the names of files that are being written
SPLITS = ("train", "dev", "test")
SEGMENTS = ("head", "torso", "tail")

PAIRS = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),  # 16 hex digits of hash(locale, query, item_id)
        pa.field(
            "bucket", pa.int32(), nullable=False
        ),  # hash(query's letters) mod num_buckets: a query lives in one bucket
        pa.field("query", pa.string(), nullable=False),
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("title", pa.string(), nullable=False),
        pa.field("brand", pa.string()),
        pa.field("category", pa.string()),
        pa.field("attributes", pa.string()),  # as sellers write them: "color=red; size=42"
        pa.field("locale", pa.string(), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field("gold", pa.string()),  # class name of the label schema; null where no human judged the pair
        pa.field("split", pa.string(), nullable=False),
        pa.field("segment", pa.string()),  # head, torso, tail: the query's place in the traffic; null without traffic
    ]
)
RATIONALES = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("bucket", pa.int32(), nullable=False),
        pa.field("perspective", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("rationale", pa.string(), nullable=False),  # the reasoning without the label line
        pa.field("label", pa.string()),  # class name; null where `error` says why there is none
        pa.field("error", pa.string()),  # annotate rejects such answers: only tables from elsewhere have one
        # in class order, given the rationale; null where they were not asked for or the label's tokens do not tell
        pa.field("label_probs", pa.list_(pa.float32())),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("prompt_tokens", pa.int32(), nullable=False),
        pa.field("generated_tokens", pa.int32(), nullable=False),
        pa.field("fingerprint", pa.string(), nullable=False),
    ]
)
REJECTED = pa.schema(
    [
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("payload", pa.string(), nullable=False),  # the row as JSON
        pa.field("attempt", pa.int32(), nullable=False),
    ]
)
MESSAGES = pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))
SFT = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("perspective", pa.string(), nullable=False),
        pa.field("prompt", MESSAGES, nullable=False),
        pa.field("completion", pa.string(), nullable=False),
        pa.field("unsupported", pa.float32()),  # share of the brands and values it names that the pair does not hold
    ]
)
PREFERENCES = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("prompt", MESSAGES, nullable=False),
        pa.field("chosen", pa.string(), nullable=False),
        pa.field("rejected", pa.string(), nullable=False),
        pa.field("chosen_perspective", pa.string(), nullable=False),
        pa.field("rejected_perspective", pa.string(), nullable=False),
        pa.field("chosen_unsupported", pa.float32()),  # as in sft
        pa.field("rejected_unsupported", pa.float32()),
        pa.field("chosen_reward", pa.float32()),  # in [0, 1]; null where conflicts were mined
        pa.field("rejected_reward", pa.float32()),
    ]
)
EMBEDDINGS = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("perspective", pa.string(), nullable=False),
        pa.field("label", pa.string()),  # the label at the end of the embedded rationale, to mask wrong guidance
        pa.field("embedding", pa.list_(pa.float32()), nullable=False),
    ]
)
EVENTS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("arm", pa.string()),  # of the experiment; null before it
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("impressions", pa.int64(), nullable=False),
        pa.field("clicks", pa.int64(), nullable=False),
        pa.field("revenue", pa.float64(), nullable=False),  # of the ads among them
        pa.field("rating", pa.float64()),  # a human's of what was shown; null where nobody was asked
    ]
)
DECISIONS = pa.schema(
    [
        pa.field("request_id", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("arm", pa.string()),  # null without an experiment or a user
        pa.field("model", pa.string(), nullable=False),  # fingerprint of the student that answered
        pa.field("is_shadow", pa.bool_(), nullable=False),  # scored, but another model's answer was sent
        pa.field("locale", pa.string()),
        pa.field("query", pa.string()),  # null unless the server was told to log texts
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # after the business rules, as are tier and filtered
        pa.field("tier", pa.int8(), nullable=False),
        pa.field("rules", pa.list_(pa.string()), nullable=False),  # names of those that applied
    ]
)
SCORES = pa.schema(
    [
        pa.field("pair_id", pa.string(), nullable=False),
        pa.field("probs", pa.list_(pa.float32()), nullable=False),  # in class order of the label schema
        pa.field("label", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # expected gain
        pa.field("tier", pa.int8(), nullable=False),
    ]
)


def filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """Filesystem and path of a local path or an object-store URI (`s3://...`, `gs://...`)."""
    if "://" in uri:
        fs, path = pafs.FileSystem.from_uri(uri)
        return fs, str(path)
    return pafs.LocalFileSystem(), uri


def absolute_uri(uri: str) -> str:
    """A local path made absolute, since Ray's workers have another working directory; a URI as it is."""
    return uri if "://" in uri else str(Path(uri).absolute())


def exists(uri: str) -> bool:
    """Whether there is a file or directory at a path or URI."""
    fs, path = filesystem(uri)
    found: bool = fs.get_file_info(path).type != pafs.FileType.NotFound
    return found


def list_parquet(uri: str) -> list[str]:
    """URIs of the Parquet files of a table, sorted; `uri` may also name a single file.

    Raises InputError when the path does not exist or holds no Parquet file.
    """
    fs, path = filesystem(uri)
    info = fs.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"{uri}: no such file or directory")
    if info.type == pafs.FileType.File:
        return [uri]
    files = fs.get_file_info(pafs.FileSelector(path))
    # `_partial-*` is what a killed job left of a file that it was writing
    names = sorted(f.base_name for f in files if f.base_name.endswith(".parquet") and not f.base_name.startswith("_"))
    if not names:
        raise InputError(f"{uri}: holds no *.parquet file; is it the run directory of the job that writes this table?")
    return [f"{uri.rstrip('/')}/{name}" for name in names]


def open_parquet(uri: str, as_dictionary: Sequence[str] = ()) -> pq.ParquetFile:
    """Open one file, the columns `as_dictionary` undecoded; raises InputError when it is not readable Parquet."""
    fs, path = filesystem(uri)
    try:
        return pq.ParquetFile(fs.open_input_file(path), read_dictionary=list(as_dictionary))
    except (pa.ArrowInvalid, pa.ArrowIOError, OSError) as error:
        raise InputError(f"{uri}: not a readable Parquet file ({error}); restore it or remove it") from None


def check_columns(found: pa.Schema, needed: pa.Schema, uri: str) -> None:
    """Raise InputError naming every missing or wrongly typed column of `uri`."""
    missing = [name for name in needed.names if name not in found.names]
    if missing:
        raise InputError(f"{uri}: missing column(s) {', '.join(missing)}; columns found: {', '.join(found.names)}")
    wrong = [
        f"{f.name} is {found.field(f.name).type}, not {f.type}" for f in needed if found.field(f.name).type != f.type
    ]
    if wrong:
        raise InputError(f"{uri}: wrong type: {'; '.join(wrong)}; write the table with the job that owns it")


def read_batches(
    uri: str, schema: pa.Schema, columns: Sequence[str] | None = None, batch_rows: int = 65_536
) -> Iterator[pa.RecordBatch]:
    """Stream a table in batches of at most `batch_rows`; every file's schema is checked before the first batch."""
    files = list_parquet(uri)
    for file in files:
        check_columns(open_parquet(file).schema_arrow, schema, file)
    for file in files:
        yield from open_parquet(file).iter_batches(batch_rows, columns=list(columns or schema.names))


def read_table(uri: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole table into memory; for tables that are known to fit (training sets, evaluation)."""
    names = list(columns or schema.names)
    wanted = pa.schema([schema.field(name) for name in names])
    batches = list(read_batches(uri, schema, names))
    return pa.Table.from_batches([batch.cast(wanted) for batch in batches], wanted)


@contextlib.contextmanager
def writing(uri: str, is_durable: bool = True) -> Iterator[pa.NativeFile]:
    """A stream whose content gets the name `uri` when the block ends, whole and on the disk; after an error nothing.

    Not `is_durable`, it may be lost or empty after a power cut, as notes may be that only the living read.

    Two writers of one file, as when a lost machine works on, do not meet: each writes beside it under a name of its
    own, and the last to end stays. Raises InputError when the file system refuses.
    """
    fs, path = filesystem(uri)
    parent, name = str(PurePosixPath(path).parent), PurePosixPath(path).name
    partial = f"{parent}/{PARTIAL}{uuid.uuid4().hex[:8]}-{name}"
    try:
        fs.create_dir(parent, recursive=True)
        with fs.open_output_stream(partial) as stream:
            yield stream
        if is_durable and isinstance(fs, pafs.LocalFileSystem):
            with open(partial, "rb") as file:
                os.fsync(file.fileno())  # else a power cut may leave the name without the content
        fs.move(partial, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            fs.delete_file(partial)  # a full disk must not stay full of halves
        if isinstance(error, OSError):
            message = f"{uri}: cannot write: {error}; free space or choose another output, then rerun"
            raise InputError(message) from None
        raise


def remove_partials(uri: str) -> None:
    """Delete what killed writers left below a run directory that nobody else is working on."""
    fs, path = filesystem(uri)
    for file in fs.get_file_info(pafs.FileSelector(path, recursive=True, allow_not_found=True)):
        if file.is_file and file.base_name.startswith(PARTIAL):
            fs.delete_file(file.path)


def write_parquet(uri: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch | pa.Table]) -> int:
    """Write one file atomically and return its rows; on any error nothing is left under the final name."""
    num_rows = 0
    with writing(uri) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write(batch.cast(schema))
            num_rows += batch.num_rows
    return num_rows


def write_text(uri: str, text: str, is_durable: bool = True) -> None:
    """Write a text file atomically (see `writing`); raises InputError when the file system refuses."""
    with writing(uri, is_durable) as stream:
        stream.write(text.encode())


def read_text(uri: str) -> str:
    """Read a text file; raises FileNotFoundError."""
    fs, path = filesystem(uri)
    with fs.open_input_stream(path) as stream:
        content: bytes = stream.read()
    return content.decode()


def delete(uri: str) -> None:
    """Delete a file."""
    fs, path = filesystem(uri)
    fs.delete_file(path)


def rows_batch(rows: Sequence[dict[str, object]], schema: pa.Schema) -> pa.RecordBatch:
    """Python rows as a record batch of `schema`; raises if a non-nullable column holds a null."""
    batch = pa.RecordBatch.from_pylist(list(rows), schema=schema)
    for field in schema:
        if not field.nullable and batch.column(field.name).null_count:
            raise ValueError(f"null in column {field.name}, which must not be null")
    return batch
