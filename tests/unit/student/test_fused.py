import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel

from raylib.errors import InputError
from raylib.student.artifact import complete, load_ranges, save_student
from raylib.student.data import PairTokenizer
from raylib.student.fused import FLASH_FROM, FusedEncoder, activation_ranges, can_fuse
from raylib.student.inference import Scorer, for_inference, predict_probs


@pytest.fixture
def backbone():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=50, max_position_embeddings=256, initializer_range=0.3, **sizes)
    return BertModel(config, add_pooling_layer=False).eval()


def inputs(lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask_BL = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    ids_BL = torch.randint(1, 50, mask_BL.shape, generator=generator) * mask_BL
    return {"input_ids": ids_BL, "attention_mask": mask_BL, "token_type_ids": (ids_BL > 25).long() * mask_BL}


@pytest.mark.parametrize("lengths", [[7, 7, 7], [9, 4, 1], [FLASH_FROM, FLASH_FROM - 30]])
def test_float32_is_what_the_modules_compute(backbone, lengths):
    batch = inputs(lengths)
    with torch.inference_mode():
        plain_BLD = backbone(**batch).last_hidden_state
        fused_BLD = FusedEncoder(backbone)(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(fused_BLD[real], plain_BLD[real], rtol=1e-4, atol=2e-5)
    assert fused_BLD.isfinite().all()


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.06), ("int8", 0.05)])
def test_fewer_bits_stay_close(backbone, dtype, tolerance):
    batch = inputs([20, 14, 9])
    ranges = activation_ranges(backbone, [inputs([30] * 20, seed=1)])
    with torch.inference_mode():
        plain_BLD = backbone(**batch).last_hidden_state
        found_BLD = FusedEncoder(backbone, dtype, ranges)(**batch).last_hidden_state
    real = batch["attention_mask"].bool()
    error = (found_BLD.float() - plain_BLD)[real].square().mean().sqrt()  # states have a variance of 1
    assert 1e-5 < error < tolerance


def test_int8_of_a_pair_does_not_depend_on_its_neighbours(backbone):
    batch = inputs([20, 14, 9])
    encoder = FusedEncoder(backbone, "int8", activation_ranges(backbone, [inputs([30] * 20, seed=1)]))
    alone = {name: value[2:, :9] for name, value in batch.items()}
    with torch.inference_mode():
        together_LD = encoder(**batch).last_hidden_state[2, :9]
        torch.testing.assert_close(encoder(**alone).last_hidden_state[0], together_LD, rtol=0, atol=1e-4)


def test_ranges_are_those_of_real_tokens(backbone):
    short, padded = inputs([6, 6]), inputs([6, 6, 12])
    for name in padded:
        padded[name] = padded[name][:2]
        padded[name][:, :6] = short[name]
    torch.testing.assert_close(
        activation_ranges(backbone, [short]), activation_ranges(backbone, [padded]), rtol=1e-4, atol=1e-4
    )
    in_two = activation_ranges(backbone, [inputs([9]), inputs([5], seed=3)])
    both = torch.stack([activation_ranges(backbone, [one]) for one in (inputs([9]), inputs([5], seed=3))])
    torch.testing.assert_close(in_two, torch.stack([both[:, :, :, 0].amin(0), both[:, :, :, 1].amax(0)], 2))


def test_another_architecture_is_scored_by_its_own_modules(backbone):
    other = DistilBertModel(DistilBertConfig(vocab_size=50, dim=32, n_layers=1, n_heads=2, hidden_dim=64))
    assert can_fuse(backbone)
    assert not can_fuse(other)
    assert not can_fuse(BertModel(BertConfig(**{**backbone.config.to_dict(), "hidden_act": "relu"})))


def test_wrong_precisions_and_ranges_are_named(backbone):
    with pytest.raises(ValueError, match="'fp8'"):
        FusedEncoder(backbone, "fp8")
    with pytest.raises(InputError, match=r"of shape \(3, 3, 2, 32\), found none"):
        FusedEncoder(backbone, "int8")
    with pytest.raises(InputError, match=r"found of shape \(2, 3, 2, 32\)"):
        FusedEncoder(backbone, "int8", torch.zeros(2, 3, 2, 32))


def test_scoring_uses_the_weights_of_now_and_leaves_the_student_as_it_is(make_student, make_judged, tokenizer):
    student, pairs, pair_tokenizer = make_student(), make_judged(12).pairs, PairTokenizer(tokenizer, 16)
    for _ in range(2):
        backbone = student.backbone
        fast_NC = predict_probs(for_inference(student), pair_tokenizer, pairs)
        assert student.backbone is backbone
        np.testing.assert_allclose(fast_NC, predict_probs(student, pair_tokenizer, pairs), atol=2e-6)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(0.7)


def test_int8_needs_an_artifact_that_has_its_ranges(make_student, make_judged, tokenizer, tmp_path):
    student, pair_tokenizer = make_student(), PairTokenizer(tokenizer, 16)
    save_student(student, tokenizer, tmp_path / "model")
    with pytest.raises(InputError, match="no activation ranges"):
        Scorer(tmp_path / "model", "int8", "cpu")
    batch = pair_tokenizer.collate(make_judged(24).pairs, np.arange(24))
    ranges = activation_ranges(student.eval().backbone, [batch])
    complete(student, tmp_path / "model", ranges)
    assert torch.equal(load_ranges(tmp_path / "model"), ranges)
    pairs = [{"query": "red shoe", "title": "acme red shoe"}, {"query": "blue", "title": "phone case big small"}] * 3
    exact, rounded = (Scorer(tmp_path / "model", dtype, "cpu").score(pairs) for dtype in ("float32", "int8"))
    assert 0 < np.abs(exact - rounded).max() < 0.05
