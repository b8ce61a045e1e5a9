import numpy as np
import pytest

from raylib import tables
from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.student.data import PairTokenizer
from raylib.student.dataset import read_guidance, read_rationales, read_soft_labels, write_splits
from raylib.student.judged import JudgedPairs

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


def write_answers(uri, answers):
    facts = {"bucket": 0, "finish_reason": "stop", "prompt_tokens": 1, "generated_tokens": 1, "fingerprint": "f"}
    rows = [{"perspective": "unified", "sample": 0, **answer, **facts} for answer in answers]
    tables.write_parquet(f"{uri}/a.parquet", tables.RATIONALES, [tables.rows_batch(rows, tables.RATIONALES)])


@pytest.fixture
def write(tmp_path, tokenizer):
    def run(pairs=PAIRS, embeddings=None, which="consistent", rationales=None, more=None, soft_labels=None):
        tables.write_parquet(f"{tmp_path}/pairs/a.parquet", tables.PAIRS, [tables.rows_batch(pairs, tables.PAIRS)])
        teachers, soft = [], None
        for number, source in enumerate(source for source in (embeddings, more) if source is not None):
            rows = [
                {"pair_id": pair_id, "perspective": "unified", "label": label, "embedding": vector}
                for pair_id, label, vector in source
            ]
            uri = f"{tmp_path}/embeddings{number}"
            batch = tables.rows_batch(rows, tables.EMBEDDINGS)
            tables.write_parquet(f"{uri}/a.parquet", tables.EMBEDDINGS, [batch])
            teachers.append(read_guidance(uri))
        if rationales is not None:
            write_answers(
                f"{tmp_path}/rationales",
                [{"pair_id": pair_id, "rationale": text, "label": label} for pair_id, label, text in rationales],
            )
            teachers = [read_rationales(f"{tmp_path}/rationales", "unified")]
        if soft_labels is not None:
            write_answers(
                f"{tmp_path}/soft",
                [
                    {"pair_id": pair_id, "sample": n, "rationale": "", "label_probs": probs}
                    for n, (pair_id, probs) in enumerate(soft_labels)
                ],
            )
            soft = read_soft_labels(f"{tmp_path}/soft", "unified", SCHEMA)
        folder = tmp_path / "splits"
        pair_tokenizer = PairTokenizer(tokenizer, 16)
        facts = write_splits(folder, f"{tmp_path}/pairs", teachers, SCHEMA, FIELDS, pair_tokenizer, which, soft)
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
    assert train.is_guided_NK[:, 0].tolist() == [True, False, False]
    np.testing.assert_array_equal(train.target_NKE[:, 0], [[1, 2], [0, 0], [0, 0]])


def test_guidance_all_takes_every_embedding(write):
    facts, train = write(embeddings=EMBEDDINGS, which="all")
    assert facts["guidance"] == {"guided": 2, "no_embedding": 1}
    np.testing.assert_array_equal(train.target_NKE[:, 0], [[1, 2], [3, 4], [0, 0]])


def test_several_sources_guide_a_latent_each(write):
    facts, train = write(embeddings=EMBEDDINGS, more=[("p2", "Irrelevant", [7.0, 8.0])])
    assert facts["guidance"] == {"guided": 2, "label_differs": 1, "no_embedding": 3}
    assert train.is_guided_NK.tolist() == [[True, False], [False, False], [False, True]]
    np.testing.assert_array_equal(train.target_NKE[[0, 2]], [[[1, 2], [0, 0]], [[0, 0], [7, 8]]])
    with pytest.raises(InputError, match="of sizes 2, 3"):
        write(embeddings=EMBEDDINGS, more=[("p2", "Irrelevant", [7.0, 8.0, 9.0])])


def test_soft_labels_are_the_mean_over_a_pairs_answers(write):
    said = [("p0", [0.5, 0.5, 0.0]), ("p2", None), ("p0", [1.0, 0.0, 0.0]), ("p1", [0.0, 0.0, 1.0])]
    facts, train = write(soft_labels=said)
    assert facts["soft_labels"] == 2
    np.testing.assert_allclose(train.teacher_prob_NC, [[0.75, 0.25, 0], [0, 0, 1], [0, 0, 0]])


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([("p0", None)], "no answer of perspective unified has class probabilities"),
        ([("p0", [0.5, 0.5])], r"probabilities of \[2\] classes, the label schema graded3 has 3"),
        ([("p9", [0.5, 0.5, 0.0])], "none of the 3 training pairs"),
    ],
)
def test_unusable_soft_labels_are_explained(write, said, message):
    with pytest.raises(InputError, match=message):
        write(soft_labels=said)


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
        (
            [*PAIRS, pair(8, "Substitute")],
            r"'Substitute' outside the label schema graded3 \(Exact, Partial, Irrelevant\)",
        ),
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


def test_pairs_whose_item_is_cut_away_are_counted_and_refused_when_they_are_most(write):
    long = {"query": "red shoe big boot lace case phone small acme zeta green blue red shoe big"}
    pairs = [{**PAIRS[0], **long}, *PAIRS[1:5], {**PAIRS[5], **long}]
    assert write(pairs)[0]["without_item"] == {"train": 1, "dev": 0, "test": 1}
    pairs = [{**row, **long} for row in PAIRS]
    with pytest.raises(InputError, match=r"3 of 3 training pairs have no token of their item left; raise max_length"):
        write(pairs)
