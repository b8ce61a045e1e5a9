from collections import Counter

from raylib import tables
from raylib.serving.decisions import Decision, DecisionLog, DecisionSection


def decision(number, num_items=2):
    ids = [f"{number}-{item}" for item in range(num_items)]
    return Decision(
        "user", None, "f" * 16, False, "en", f"query {number}", ids, ["a"] * num_items, [0.5] * num_items,
        [2] * num_items, [["rule"]] + [[]] * (num_items - 1),
    )  # fmt: skip


def counted():
    counts = Counter()
    return counts, lambda result, rows: counts.update({result: rows})


def test_what_is_noted_is_in_the_table(tmp_path):
    counts, count = counted()
    log = DecisionLog(DecisionSection(folder=str(tmp_path), rows_per_file=5, log_texts=True), count)
    for number in range(8):
        log.note(decision(number))
    log.close()
    rows = tables.read_table(str(tmp_path), tables.DECISIONS).to_pylist()
    assert sorted(row["item_id"] for row in rows) == [f"{n}-{item}" for n in range(8) for item in range(2)]
    assert {row["query"] for row in rows} == {f"query {n}" for n in range(8)}
    assert [row["rules"] for row in rows if row["item_id"] == "3-0"] == [["rule"]]
    assert len(tables.list_parquet(str(tmp_path))) >= 3
    assert counts == {"written": 16}


def test_a_full_queue_and_a_disk_that_refuses_drop_and_count(tmp_path):
    counts, count = counted()
    (tmp_path / "file").write_text("no folder")
    log = DecisionLog(DecisionSection(folder=str(tmp_path / "file" / "log"), max_waiting=1), count)
    log._is_closing.set()
    log._thread.join()  # nobody takes from the queue any more
    log._is_closing.clear()
    log.note(decision(1))
    log.note(decision(2, 3))
    assert counts == {"dropped": 3}
    log._save([{**row} for row in _rows_of(decision(3))])
    assert counts == {"dropped": 5}


def _rows_of(one):
    from raylib.serving.decisions import _rows

    return _rows(one, has_texts=False)


def test_without_a_folder_nothing_is_kept():
    counts, count = counted()
    log = DecisionLog(DecisionSection(), count)
    log.note(decision(1))
    log.close()
    assert not counts
