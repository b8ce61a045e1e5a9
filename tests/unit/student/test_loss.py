import pytest
import torch

from raylib.student.loss import classification_losses, total_loss
from raylib.student.objectives.lrkd import guidance_losses

LOGITS_BC = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
LABEL_B = torch.tensor([0, 2])
GUIDE_BE = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
TARGET_BE = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
BOTH = torch.tensor([True, True])


def test_guidance_is_mean_or_sum_of_squares():
    assert guidance_losses(GUIDE_BE, TARGET_BE, BOTH, "sum").tolist() == [5.0, 25.0]
    assert guidance_losses(GUIDE_BE, TARGET_BE, BOTH, "mean").tolist() == [2.5, 12.5]


def test_total_is_eq_9_over_all_pairs():
    classification_B = classification_losses(LOGITS_BC, LABEL_B)
    guidance_B = guidance_losses(GUIDE_BE, TARGET_BE, BOTH, "sum")
    cross_entropy = -LOGITS_BC.log_softmax(1)[[0, 1], LABEL_B]
    expected = (cross_entropy.sum() + 0.1 * 30.0) / 2
    assert total_loss(classification_B, guidance_B, 0.1, 2).item() == pytest.approx(expected.item(), rel=1e-6)
    assert total_loss(classification_B, None, 0.1, 2).item() == pytest.approx(cross_entropy.mean().item(), rel=1e-6)


def test_pair_without_guidance_gets_no_gradient_whatever_its_target_holds():
    guide_BE = GUIDE_BE.clone().requires_grad_()
    target_BE = TARGET_BE.clone()
    target_BE[1] = float("nan")
    losses = guidance_losses(guide_BE, target_BE, torch.tensor([True, False]), "mean")
    assert losses.tolist() == [2.5, 0.0]
    losses.sum().backward()
    assert guide_BE.grad.tolist() == [[1.0, 2.0], [0.0, 0.0]]


def test_class_weight_multiplies_its_own_pairs_only():
    plain_B = classification_losses(LOGITS_BC, LABEL_B)
    weighted_B = classification_losses(LOGITS_BC, LABEL_B, torch.tensor([1.0, 1.0, 3.0]))
    torch.testing.assert_close(weighted_B, plain_B * torch.tensor([1.0, 3.0]))


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'max'"):
        guidance_losses(GUIDE_BE, TARGET_BE, BOTH, "max")
