import copy

import pytest
import torch
from transformers import BertConfig, BertModel

from raylib.kernels.onednn import OneDnnLinear
from raylib.kernels.training import FastDropout, drop, speed_up


@pytest.fixture
def make_backbone():
    def make(dropout):
        torch.manual_seed(0)
        sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
        config = BertConfig(vocab_size=50, initializer_range=0.3, **sizes, **rates)
        return BertModel(config, add_pooling_layer=False).train()

    return make


@pytest.fixture
def batch():
    torch.manual_seed(1)
    mask_BL = torch.ones(4, 9, dtype=torch.long)
    mask_BL[1, 5:] = 0
    return {"input_ids": torch.randint(0, 50, (4, 9)), "attention_mask": mask_BL}


def states(backbone, batch):
    return backbone(**batch).last_hidden_state[batch["attention_mask"].bool()]


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_states_and_gradients_are_those_of_the_plain_modules(make_backbone, batch, is_bfloat16):
    plain = make_backbone(0.0)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    assert {type(module) for module in fast.modules()} >= {OneDnnLinear, FastDropout}
    found = []
    for backbone in (plain, fast):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_bfloat16):
            state_TD = states(backbone, batch).float()
        (state_TD * torch.linspace(-1, 1, 32)).square().mean().backward()
        found.append(state_TD.detach())
    torch.testing.assert_close(found[1], found[0], atol=0.2 if is_bfloat16 else 1e-5, rtol=0)
    for (name, one), other in zip(plain.named_parameters(), fast.parameters(), strict=True):
        if "key.bias" in name:
            continue  # its gradient is 0 but for rounding: softmax does not see it
        error = (one.grad - other.grad).norm() / one.grad.norm()
        assert error < (0.1 if is_bfloat16 else 1e-5), name


def test_a_product_is_that_of_a_plain_layer_also_for_the_gradient_of_a_sum():
    torch.manual_seed(0)
    fast, input_BLI = OneDnnLinear(7, 5), torch.randn(3, 4, 7, requires_grad=True)
    plain = torch.nn.Linear(7, 5)
    plain.load_state_dict(fast.state_dict())
    gradients = []
    for layer in (plain, fast):
        input_BLI.grad = None
        layer(input_BLI).sum().backward()
        gradients.append([input_BLI.grad, layer.weight.grad, layer.bias.grad])
    torch.testing.assert_close(fast(input_BLI), plain(input_BLI))
    torch.testing.assert_close(gradients[1], gradients[0])


def test_names_weights_and_configuration_stay(make_backbone, tmp_path):
    plain = make_backbone(0.1)
    fast = copy.deepcopy(plain)
    speed_up(fast)
    assert fast.state_dict().keys() == plain.state_dict().keys()
    assert fast.config.to_dict() == plain.config.to_dict()
    fast.save_pretrained(tmp_path)
    loaded = BertModel.from_pretrained(tmp_path, add_pooling_layer=False).state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in plain.state_dict().items())


def test_evaluation_drops_nothing_and_training_repeats_by_seed(make_backbone, batch):
    backbone = make_backbone(0.1)
    speed_up(backbone)
    found = []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        found.append(states(backbone, batch))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    backbone.eval()
    assert torch.equal(states(backbone, batch), states(backbone, batch))


@pytest.mark.parametrize(("probability", "dtype"), [(0.1, torch.float32), (0.5, torch.float32), (0.1, torch.bfloat16)])
def test_drop_keeps_the_expectation(probability, dtype):
    torch.manual_seed(0)
    dropped = drop(torch.ones(1001, 999, dtype=dtype), probability).float()
    is_zero = dropped == 0
    assert is_zero.float().mean() == pytest.approx(probability, abs=2e-3)
    assert dropped[~is_zero].unique().tolist() == pytest.approx([1 / (1 - probability)], rel=4e-3)
    # neighbours come from one draw and must not know of each other
    both = (is_zero[:, :-1] & is_zero[:, 1:]).float().mean()
    assert both == pytest.approx(probability**2, abs=2e-3)


def test_gradients_are_dropped_where_the_values_are():
    values = torch.ones(64, 64, requires_grad=True)
    dropped = drop(values, 0.3)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())
