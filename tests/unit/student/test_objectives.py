from itertools import product

import numpy as np
import pytest
import torch

from raylib.student.data import PairTokenizer
from raylib.student.objectives import CedKd, Mkd, build_objective
from raylib.student.objectives.mkd import NUM_TAGS, mention_tags
from raylib.student.train import TorchEngine, TrainSettings, train_epoch

RIVALS = ("ced_kd", "mkd", "crsd")


def batch(make_student, make_judged, tokenizer, objective, rows=8):
    """A student in evaluation mode with its output on a batch of which some pairs are guided."""
    data, pair_tokenizer = make_judged(24, with_rationales=True), PairTokenizer(tokenizer, 16)
    student = make_student("none", objective=objective).eval()
    chosen = np.arange(rows)
    inputs = pair_tokenizer.collate(data.pairs, chosen)
    targets = data.targets(chosen, pair_tokenizer, "cpu", with_reasoning=objective == "crsd")
    return student, inputs, targets, student(**inputs, targets=targets)


@pytest.mark.parametrize("objective", RIVALS)
def test_a_pair_without_a_rationale_has_no_loss_and_one_with_it_has(make_student, make_judged, tokenizer, objective):
    _, _, targets, output = batch(make_student, make_judged, tokenizer, objective)
    is_guided_B = targets.is_guided_B
    assert 0 < is_guided_B.sum() < len(is_guided_B)
    assert (output.auxiliary_B[~is_guided_B] == 0).all()
    assert (output.auxiliary_B[is_guided_B] > 0).all()


@pytest.mark.parametrize("objective", RIVALS)
def test_training_lowers_what_the_objective_adds(make_student, make_judged, tokenizer, objective):
    settings = TrainSettings(
        num_epochs=25, global_batch=12, learning_rate=1e-2, warmup_ratio=0.1, seed=0, guidance_weight=1.0
    )
    data, pair_tokenizer = make_judged(24, with_rationales=True), PairTokenizer(tokenizer, 16)
    engine = TorchEngine(make_student("none", objective=objective), settings.learning_rate, 0.0)

    def added():
        engine.module.eval()
        rows = np.arange(24)
        targets = data.targets(rows, pair_tokenizer, "cpu", with_reasoning=True)
        return engine(**pair_tokenizer.collate(data.pairs, rows), targets=targets).auxiliary_B.sum().item()

    before = added()
    for epoch in range(settings.num_epochs):
        train_epoch(engine, data, pair_tokenizer, settings, epoch)
    assert added() < 0.7 * before


@pytest.mark.parametrize("objective", ["ced_kd", "mkd"])
def test_a_pairs_loss_does_not_depend_on_its_neighbours(make_student, make_judged, tokenizer, objective):
    *_, many = batch(make_student, make_judged, tokenizer, objective, rows=8)
    *_, few = batch(make_student, make_judged, tokenizer, objective, rows=3)
    torch.testing.assert_close(many.auxiliary_B[:3], few.auxiliary_B, rtol=1e-4, atol=1e-5)


def test_crf_normaliser_sums_over_all_sequences():
    torch.manual_seed(0)
    crf = Mkd(4)
    for parameter in (crf.start_K, crf.end_K, crf.transition_KK):
        torch.nn.init.normal_(parameter)
    emission_BLK = torch.randn(2, 4, NUM_TAGS)
    mask_BL = torch.tensor([[True] * 4, [True, True, False, False]])
    found_B = crf.normaliser(emission_BLK, mask_BL)
    for b, length in ((0, 4), (1, 2)):
        scores = []
        for tags in product(range(NUM_TAGS), repeat=length):
            tag_BL = torch.zeros(1, 4, dtype=torch.long)
            tag_BL[0, :length] = torch.tensor(tags)
            scores.append(crf.path_score(emission_BLK[b : b + 1], tag_BL, mask_BL[b : b + 1])[0])
            by_hand = crf.start_K[tags[0]] + crf.end_K[tags[-1]]
            by_hand = by_hand + sum(emission_BLK[b, i, tag] for i, tag in enumerate(tags))
            by_hand = by_hand + sum(crf.transition_KK[tags[i], tags[i + 1]] for i in range(length - 1))
            torch.testing.assert_close(scores[-1], by_hand)
        torch.testing.assert_close(found_B[b], torch.stack(scores).logsumexp(0))


@pytest.mark.parametrize(
    ("pair", "rationale", "expected"),
    [
        ([1, 2, 3, 9, 2], [5, 2, 3, 6], [0, 1, 2, 0, 1]),  # 9 is punctuation
        ([2, 3, 4], [2, 3, 6, 2, 3, 4], [1, 2, 2]),  # the longest run counts
        ([2, 2], [2], [1, 1]),
        ([9, 1], [9, 1], [0, 1]),
        ([1, 2], [], [0, 0]),
    ],
)
def test_tags_mark_what_the_rationale_speaks_of(pair, rationale, expected):
    is_word_V = np.array([False] + [True] * 8 + [False])
    assert mention_tags(np.array(pair), np.array(rationale, np.int64), is_word_V).tolist() == expected


def test_the_decoder_sees_the_pair_and_the_words_before_and_no_word_after(make_student, make_judged, tokenizer):
    student, inputs, targets, output = batch(make_student, make_judged, tokenizer, "ced_kd")
    decoder = student.objective
    assert isinstance(decoder, CedKd)
    row = int(targets.is_rationale_BM.sum(1).argmax())
    length = int(targets.is_rationale_BM[row].sum())
    assert length > 2

    def loss_of_first(ids_BM):
        first_BM = torch.zeros_like(targets.is_rationale_BM)
        first_BM[row, 0] = True
        changed = targets.__class__(**{**vars(targets), "rationale_BM": ids_BM, "is_rationale_BM": first_BM})
        return decoder(student, output, inputs, changed)[row].item()

    other_BM = targets.rationale_BM.clone()
    other_BM[row, 1:] = 0
    assert loss_of_first(other_BM) == pytest.approx(loss_of_first(targets.rationale_BM), rel=1e-5)


def test_the_reasoning_view_holds_pair_and_rationale(make_student, make_judged, tokenizer):
    data, pair_tokenizer = make_judged(24, with_rationales=True), PairTokenizer(tokenizer, 16)
    row = int(np.flatnonzero(data.is_guided_NK[:, 0])[0])
    reasoned = pair_tokenizer.with_rationales(data.pairs, data.rationales, np.array([row]))
    pair, rationale = data.pairs.take(np.array([row])).tokens_T, data.rationales.row(row)
    assert reasoned.tokens_T.tolist() == [*pair, *rationale, tokenizer.sep_token_id]


def test_an_unknown_objective_is_refused(make_student):
    student = make_student("none")
    with pytest.raises(ValueError, match="'magic'"):
        build_objective("magic", student.backbone, 16, None)
    with pytest.raises(ValueError, match="needs rationale embeddings"):
        build_objective("lrkd", student.backbone, 16, None)
