"""Which rationales are embedded; every other row is skipped under a reason. No torch, no ray."""

import pyarrow as pa
import pyarrow.compute as pc

REASONS = ("other_perspective", "other_sample", "error", "empty_rationale")


def select_rationales(table: pa.Table, perspective: str) -> tuple[pa.Table, dict[str, int]]:
    """Rows of `perspective` to embed, and the skipped ones by reason (every reason has a count).

    The paper embeds one rationale a pair and does not say which; we take sample 0, which is the only one of a greedy
    run. A row with an error has no label to trust, a blank rationale has nothing to embed.
    """
    keep = table
    skipped = {}
    wanted = {
        "other_perspective": lambda rows: pc.equal(rows["perspective"], perspective),
        "other_sample": lambda rows: pc.equal(rows["sample"], 0),
        "error": lambda rows: pc.is_null(rows["error"]),
        "empty_rationale": lambda rows: pc.not_equal(pc.utf8_trim_whitespace(rows["rationale"]), ""),
    }
    for reason in REASONS:
        kept = keep.filter(wanted[reason](keep))
        skipped[reason] = keep.num_rows - kept.num_rows
        keep = kept
    return keep, skipped
