import pytest
import torch
from transformers import BertConfig, BertModel, DistilBertConfig, DistilBertModel, XLMRobertaConfig, XLMRobertaModel

from raylib.errors import InputError
from raylib.kernels.fused import FLASH_FROM, FusedEncoder, activation_ranges, can_fuse


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


def test_roberta_is_fused_with_its_own_positions():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = XLMRobertaConfig(vocab_size=50, max_position_embeddings=40, initializer_range=0.3, pad_token_id=1, **sizes)
    backbone = XLMRobertaModel(config, add_pooling_layer=False).eval()
    batch = inputs([9, 5])
    del batch["token_type_ids"]
    batch["input_ids"] = torch.where(batch["attention_mask"].bool(), batch["input_ids"].clamp(min=2), 1)
    assert can_fuse(backbone)
    with torch.inference_mode():
        plain_BLD, fused_BLD = (model(**batch).last_hidden_state for model in (backbone, FusedEncoder(backbone)))
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(fused_BLD[real], plain_BLD[real], rtol=1e-4, atol=2e-5)


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
