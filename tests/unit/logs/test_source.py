from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raylib.errors import InputError
from raylib.logs import source
from raylib.logs.rows import ROWS, decoded_bytes
from raylib.logs.source import BadFileError, plan_esci, plan_logs, read_unit

MINIMAL = {"query": ["q"] * 10, "locale": ["en"] * 10, "item_id": [f"i{i}" for i in range(10)], "title": ["t"] * 10}
LOG = pa.table(MINIMAL | {"impressions": pa.array([1] * 10, pa.int32()), "clicks": pa.array([0] * 10, pa.uint8())})


def write(path: Path, table: pa.Table = LOG, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)
    return path


def read(plan: source.Plan) -> pa.Table:
    return pa.concat_tables([table for unit in plan.units for table in read_unit(unit, 64 << 20)])


def test_long_files_are_cut_at_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "UNIT_ROWS", 4)
    write(tmp_path / "a.parquet", row_group_size=3)
    write(tmp_path / "b.parquet", LOG.slice(0, 2))
    plan = plan_logs(str(tmp_path), "fail")
    assert [(unit.row_groups, unit.num_rows) for unit in plan.units] == [((0, 1), 6), ((2, 3), 4), ((0,), 2)]
    assert read(plan).column("item_id").to_pylist() == [f"i{i}" for i in [*range(10), 0, 1]]


def test_any_width_of_text_and_integer_is_read(tmp_path: Path) -> None:
    wide = LOG.set_column(0, "query", LOG.column("query").cast(pa.large_string()))
    wide = wide.set_column(1, "locale", wide.column("locale").dictionary_encode())
    rows = read(plan_logs(str(write(tmp_path / "a.parquet", wide)), "fail"))
    assert rows.schema.equals(ROWS)
    assert rows.column("locale").to_pylist() == ["en"] * 10
    assert rows.column("brand").null_count == 10


@pytest.mark.parametrize("num_titles", [200, 1])  # one title all over is short in the file, but not written out
def test_titles_of_100_kb_shrink_the_batch(tmp_path: Path, num_titles: int) -> None:
    titles = pa.array([f"{i % num_titles:06d}" + "x" * 100_000 for i in range(200)])
    table = pa.table({name: ["a"] * 200 for name in ("query", "locale", "item_id")} | {"title": titles})
    table = table.append_column("impressions", [[1] * 200]).append_column("clicks", [[0] * 200])
    plan = plan_logs(str(write(tmp_path / "a.parquet", table)), "fail")
    batches = [rows for unit in plan.units for rows in read_unit(unit, batch_bytes=4 << 20)]
    assert sum(rows.num_rows for rows in batches) == 200
    assert max(decoded_bytes(rows) for rows in batches) < 6 << 20


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            LOG.drop_columns(["title", "clicks"]),
            "missing column(s) title, clicks; columns found: query, locale, item_id",
        ),
        (LOG.set_column(5, "clicks", pa.array(["0"] * 10)), "clicks is string, not an integer"),
        (LOG.set_column(0, "query", pa.array([b"q"] * 10)), "query is binary, not a string"),
        (LOG.append_column("gold", pa.array([1] * 10)), "gold is int64, not a string"),
    ],
)
def test_wrong_columns_are_named_with_the_file(tmp_path: Path, change: pa.Table, says: str) -> None:
    write(tmp_path / "a.parquet")
    bad = write(tmp_path / "b.parquet", change)
    with pytest.raises(InputError) as raised:
        plan_logs(str(tmp_path), "skip")  # a wrong table is no unreadable file: never skipped
    assert str(bad) in str(raised.value)
    assert says in str(raised.value)


def test_unreadable_files_are_all_named_or_skipped(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"no parquet")
    (tmp_path / "c.parquet").write_bytes(write(tmp_path / "x.parquet").read_bytes()[:-100])
    with pytest.raises(BadFileError, match=r"2 of 4 files are bad:\n.*b\.parquet.*\n.*c\.parquet"):
        plan_logs(str(tmp_path), "fail")
    plan = plan_logs(str(tmp_path), "skip")
    assert len(plan.units) == 2
    assert len(plan.bad_files) == 2


def test_damage_inside_a_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", compression="snappy", use_dictionary=False)
    plan = plan_logs(str(path), "fail")
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(content)
    with pytest.raises(BadFileError, match=r"a\.parquet: damaged"):
        read(plan)


@pytest.mark.parametrize("on_bad_file", ["fail", "skip"])
def test_an_input_without_a_row_or_file_is_an_error(tmp_path: Path, on_bad_file: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        plan_logs(str(tmp_path / "nothing"), on_bad_file)
    with pytest.raises(InputError, match=r"holds no \*.parquet"):
        plan_logs(str(tmp_path), on_bad_file)
    write(tmp_path / "a.parquet", LOG.slice(0, 0))
    with pytest.raises(InputError, match="no row"):
        plan_logs(str(tmp_path), on_bad_file)


def esci(folder: Path, product_columns: tuple[str, ...] = source.PRODUCT_COLUMNS) -> Path:
    examples = {
        "query": ["lego", "lego", "lego"],
        "product_id": ["B1", "B1", "B9"],
        "product_locale": ["us", "es", "us"],
        "esci_label": ["E", "S", "I"],
        "split": ["train", "test", "train"],
    }
    products = {
        "product_id": ["B1", "B1"],
        "product_locale": ["es", "us"],
        "product_title": ["coche", "car"],
        "product_brand": [None, "Lego"],
        "product_color": ["rojo", None],
    }
    write(folder / source.EXAMPLES, pa.table(examples))
    write(folder / source.PRODUCTS, pa.table(products).select(product_columns))
    return folder


def test_esci_joins_products_by_id_and_locale(tmp_path: Path) -> None:
    rows = read(plan_esci(str(esci(tmp_path)))).to_pylist()
    assert [(row["title"], row["brand"], row["attributes"]) for row in rows] == [
        ("car", "Lego", None),
        ("coche", None, "color=rojo"),
        (None, None, None),  # no such product: validation rejects the null title
    ]
    assert [(row["gold"], row["split"], row["locale"], row["impressions"]) for row in rows[:2]] == [
        ("E", "train", "us", 0),
        ("S", "test", "es", 0),
    ]


def test_esci_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=source.EXAMPLES):
        plan_esci(str(tmp_path))
    with pytest.raises(InputError, match=r"missing column\(s\) product_title"):
        plan_esci(str(esci(tmp_path, ("product_id", "product_locale", "product_brand", "product_color"))))
