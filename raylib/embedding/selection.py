"""Which rationales are embedded; every other row is skipped under a reason. No torch, no ray."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

REASONS = ("other_perspective", "other_sample", "error", "empty_rationale", "incomplete", "joined")


def select_rationales(table: pa.Table, perspectives: Sequence[str]) -> tuple[pa.Table, dict[str, int]]:
    """Rows of `perspectives` to embed, and the skipped ones by reason (every reason has a count).

    The paper embeds one rationale a pair and does not say which; we take sample 0, which is the only one of a greedy
    run. A row with an error has no label to trust, a blank rationale has nothing to embed. Of several perspectives the
    rationales of a pair become one text (see `join_perspectives`).
    """
    keep = table
    skipped = dict.fromkeys(REASONS, 0)
    wanted = {
        "other_perspective": lambda rows: pc.is_in(rows["perspective"], pa.array(perspectives)),
        "other_sample": lambda rows: pc.equal(rows["sample"], 0),
        "error": lambda rows: pc.is_null(rows["error"]),
        "empty_rationale": lambda rows: pc.not_equal(pc.utf8_trim_whitespace(rows["rationale"]), ""),
    }
    for reason, condition in wanted.items():
        kept = keep.filter(condition(keep))
        skipped[reason] = keep.num_rows - kept.num_rows
        keep = kept
    if len(perspectives) == 1:
        return keep, skipped
    joined, skipped["incomplete"] = join_perspectives(keep, perspectives)
    skipped["joined"] = keep.num_rows - skipped["incomplete"] - joined.num_rows
    return joined, skipped


def join_perspectives(table: pa.Table, perspectives: Sequence[str]) -> tuple[pa.Table, int]:
    """One row a pair, its rationales one after the other in the order of `perspectives`: LRKD-Combined's text.

    Also returns how many rows are of pairs that lack one of them and are left out. The label is the one that most of
    them end in, on a tie the one named first; the paper does not say.
    """
    said: dict[str, dict[str, dict[str, str | None]]] = {}
    for row in table.select(["pair_id", "perspective", "rationale", "label"]).to_pylist():
        said.setdefault(row["pair_id"], {})[row["perspective"]] = row
    complete = {pair_id: by for pair_id, by in said.items() if len(by) == len(perspectives)}
    rows = []
    for pair_id, by in complete.items():
        ordered = [by[name] for name in perspectives]
        labels = Counter(row["label"] for row in ordered)  # counts in order of first occurrence
        rows.append(
            {
                "pair_id": pair_id,
                "perspective": "+".join(perspectives),
                "rationale": "\n\n".join(str(row["rationale"]) for row in ordered),
                "label": labels.most_common(1)[0][0],
            }
        )
    columns = pa.schema([table.schema.field(name) for name in ("pair_id", "perspective", "rationale", "label")])
    return pa.Table.from_pylist(rows, columns), table.num_rows - len(complete) * len(perspectives)
