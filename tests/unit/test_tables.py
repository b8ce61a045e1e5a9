import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib import tables
from raylib.errors import InputError

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("text", pa.string())])


def batch(*ids: int) -> pa.RecordBatch:
    return tables.rows_batch([{"id": i, "text": f"text {i}"} for i in ids], SCHEMA)


def test_a_table_is_the_parquet_files_of_its_folder_in_order(tmp_path: Path) -> None:
    tables.write_parquet(f"{tmp_path}/b.parquet", SCHEMA, [batch(3)])
    assert tables.write_parquet(f"{tmp_path}/a.parquet", SCHEMA, [batch(1), batch(2)]) == 2
    tables.write_parquet(f"{tmp_path}/rejected/x.parquet", SCHEMA, [batch(9)])
    (tmp_path / "metrics.json").write_text("{}")
    assert tables.read_table(str(tmp_path), SCHEMA).column("id").to_pylist() == [1, 2, 3]
    assert tables.read_table(str(tmp_path), SCHEMA, ["text"]).column_names == ["text"]


def test_half_a_file_is_never_seen(tmp_path: Path) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield batch(1)
        raise RuntimeError("the job dies here")

    with pytest.raises(RuntimeError):
        tables.write_parquet(f"{tmp_path}/a.parquet", SCHEMA, broken())
    with pytest.raises(InputError, match=r"holds no \*.parquet"):
        tables.list_parquet(str(tmp_path))
    tables.write_parquet(f"{tmp_path}/a.parquet", SCHEMA, [batch(1)])
    assert [Path(file).name for file in tables.list_parquet(str(tmp_path))] == ["a.parquet"]


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    uri = f"{tmp_path}/a.txt"
    with tables.writing(uri) as slow:
        slow.write(b"first half, ")
        tables.write_text(uri, "another machine was faster")
        slow.write(b"second half")
    assert tables.read_text(uri) == "first half, second half"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_what_killed_writers_left_is_removed(tmp_path: Path) -> None:
    tables.write_text(f"{tmp_path}/rejected/b.txt", "good")
    with tables.writing(f"{tmp_path}/rejected/c.txt"):
        left = next((tmp_path / "rejected").glob("_partial-*"))
        left.rename(tmp_path / "rejected" / "_partial-0-killed.txt")
        left.touch()
    tables.remove_partials(str(tmp_path))
    assert [file.name for file in sorted((tmp_path / "rejected").iterdir())] == ["b.txt", "c.txt"]


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no file size limit on this system")
def test_a_write_that_finds_no_space_says_what_to_do(tmp_path: Path) -> None:
    big = pa.table({"id": list(range(200_000)), "text": [f"{i * 7919}" for i in range(200_000)]})
    old, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(InputError, match=r"a\.parquet: cannot write: .*; free space or choose another output"):
            tables.write_parquet(f"{tmp_path}/a.parquet", SCHEMA, [big])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.iterdir()), "a full disk must not stay full of halves"


def test_errors_name_file_columns_and_types(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["1"], "other": [1]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet: missing column\(s\) text; columns found: id, other"):
        tables.read_table(str(tmp_path), SCHEMA)
    pq.write_table(pa.table({"id": ["1"], "text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="id is string, not int64"):
        tables.read_table(str(tmp_path), SCHEMA)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not more")
    with pytest.raises(InputError, match=r"a\.parquet: not a readable Parquet file"):
        tables.read_table(str(tmp_path), SCHEMA)
    with pytest.raises(InputError, match="no such file or directory"):
        tables.read_table(f"{tmp_path}/absent", SCHEMA)


def test_every_file_is_checked_before_the_first_row_is_read(tmp_path: Path) -> None:
    tables.write_parquet(f"{tmp_path}/a.parquet", SCHEMA, [batch(1)])
    pq.write_table(pa.table({"id": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet: missing column"):
        next(tables.read_batches(str(tmp_path), SCHEMA))


def test_rows_with_a_forbidden_null_are_a_bug() -> None:
    with pytest.raises(ValueError, match="null in column id"):
        tables.rows_batch([{"id": None, "text": "x"}], SCHEMA)
