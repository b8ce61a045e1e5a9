import numpy as np
import pytest

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.student.data import JudgedPairs, PairTokenizer
from raylib.student.dataset import read_guidance, read_rationales, write_splits

SCHEMA = LabelSchema.load("graded3")
FIELDS = ("title", "brand")


def pair(number, gold, split="train"):
    text = {"query": "red shoe", "title": "acme shoe", "brand": None, "category": None, "attributes": None}
    facts = {"bucket": 0, "item_id": str(number), "locale": "en", "impressions": 1, "clicks": 0}
    return {"pair_id": f"p{number}", "gold": gold, "split": split, **text, **facts}


PAIRS = [
    pair(0, "Exact"),
    pair(1, "Partial"),
    pair(2, "Irrelevant"),
    pair(3, None),
    pair(4, "Exact", "dev"),
    pair(5, "Partial", "test"),
    pair(6, None, "test"),
]


@pytest.fixture
def write(tmp_path, tokenizer):
    def run(pairs=PAIRS, embeddings=None, which="consistent", rationales=None):
        tables.write_parquet(f"{tmp_path}/pairs/a.parquet", tables.PAIRS, [tables.rows_batch(pairs, tables.PAIRS)])
        teacher = None
        if embeddings is not None:
            rows = [
                {"pair_id": pair_id, "perspective": "unified", "label": label, "embedding": vector}
                for pair_id, label, vector in embeddings
            ]
            uri = f"{tmp_path}/embeddings"
            batch = tables.rows_batch(rows, tables.EMBEDDINGS)
            tables.write_parquet(f"{uri}/a.parquet", tables.EMBEDDINGS, [batch])
            teacher = read_guidance(uri)
        if rationales is not None:
            counts = {
                "bucket": 0,
                "finish_reason": "stop",
                "prompt_tokens": 1,
                "generated_tokens": 1,
                "fingerprint": "f",
            }
            rows = [
                {"pair_id": pair_id, "perspective": "unified", "sample": 0, "rationale": text, "label": label, **counts}
                for pair_id, label, text in rationales
            ]
            batch = tables.rows_batch(rows, tables.RATIONALES)
            tables.write_parquet(f"{tmp_path}/rationales/a.parquet", tables.RATIONALES, [batch])
            teacher = read_rationales(f"{tmp_path}/rationales", "unified")
        folder = tmp_path / "splits"
        facts = write_splits(folder, f"{tmp_path}/pairs", teacher, SCHEMA, FIELDS, PairTokenizer(tokenizer, 16), which)
        return facts, JudgedPairs.load(folder / "train")

    return run


EMBEDDINGS = [("p0", "Exact", [1.0, 2.0]), ("p1", "Exact", [3.0, 4.0]), ("p9", "Exact", [5.0, 6.0])]


def test_only_judged_pairs_are_used_and_all_are_counted(write):
    facts, train = write()
    assert facts["rows"] == {"train": 3, "dev": 1, "test": 1, "unjudged": 2}
    assert facts["train_classes"] == {"Exact": 1, "Partial": 1, "Irrelevant": 1}
    assert train.pair_id_N.tolist() == ["p0", "p1", "p2"]
    assert train.gold_N.tolist() == [SCHEMA.index(name) for name in ("Exact", "Partial", "Irrelevant")]


def test_guidance_needs_an_embedding_that_agrees_with_gold(write):
    facts, train = write(embeddings=EMBEDDINGS)
    assert facts["guidance"] == {"guided": 1, "label_differs": 1, "no_embedding": 1}
    assert train.has_guidance_N.tolist() == [True, False, False]
    np.testing.assert_array_equal(train.target_NE, [[1, 2], [0, 0], [0, 0]])


def test_guidance_all_takes_every_embedding(write):
    facts, train = write(embeddings=EMBEDDINGS, which="all")
    assert facts["guidance"] == {"guided": 2, "no_embedding": 1}
    np.testing.assert_array_equal(train.target_NE, [[1, 2], [3, 4], [0, 0]])


def test_rationales_are_tokens_and_tags_of_the_pairs_they_agree_with(write, tokenizer):
    said = [("p0", "Exact", "red shoe asked"), ("p1", "Exact", "acme shoe"), ("p2", "Irrelevant", "acme shoe")]
    facts, train = write(rationales=said)
    assert facts["guidance"] == {"guided": 2, "label_differs": 1}
    assert facts["embedding_size"] is None
    spelled = [tokenizer.decode(train.rationales.row(n)) for n in range(3)]
    assert spelled[1] == ""
    assert (spelled[0].split()[:2], spelled[2]) == (["red", "shoe"], "acme shoe")
    tagged = dict(zip(tokenizer.convert_ids_to_tokens(train.pairs.take(np.array([0])).tokens_T),
                      train.tags_T[: train.starts_N1[1]].tolist(), strict=True))  # fmt: skip
    assert (tagged["red"], tagged["acme"], tagged["[SEP]"]) == (1, 0, 0)
    assert not train.tags_T[train.starts_N1[1] : train.starts_N1[2]].any()


@pytest.mark.parametrize(
    ("rationales", "message"),
    [
        ([("p0", "Exact", "x")] * 2, "pair p0 has several answers"),
        ([("p9", "Exact", "x")], "none of the 3 training pairs"),
    ],
)
def test_unusable_rationales_are_explained(write, rationales, message):
    with pytest.raises(InputError, match=message):
        write(rationales=rationales)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (PAIRS[1:], r"no judged training pair of class Exact \(2 judged training pairs\)"),
        ([row for row in PAIRS if row["split"] != "dev"], "no judged dev pair"),
        ([*PAIRS, pair(8, "Substitute")], r"'Substitute' outside label schema graded3 \(Exact, Partial, Irrelevant\)"),
    ],
)
def test_unusable_pairs_are_explained(write, pairs, message):
    with pytest.raises(InputError, match=message):
        write(pairs)


@pytest.mark.parametrize(
    ("embeddings", "message"),
    [
        ([], "no embeddings"),
        ([("p0", "Exact", [1.0]), ("p1", "Exact", [1.0, 2.0])], r"embeddings of 2 sizes \(\[1, 2\]\)"),
        ([("p0", "Exact", [1.0])] * 2, "pair p0 has several embeddings"),
        ([("p0", "Exact", [float("nan")])], "not finite"),
        ([("p9", "Exact", [1.0])], "none of the 3 training pairs .* has guidance"),
    ],
)
def test_unusable_embeddings_are_explained(write, embeddings, message):
    with pytest.raises(InputError, match=message):
        write(embeddings=embeddings)
