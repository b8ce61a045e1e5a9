import pytest
import torch

from raylib.student.loss import classification_losses, soft_label_losses, total_loss
from raylib.student.objectives.lrkd import guidance_losses

LOGITS_BC = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
LABEL_B = torch.tensor([0, 2])
GUIDE_BKE = torch.tensor([[[1.0, 2.0]], [[0.0, 4.0]]])
TARGET_BKE = torch.tensor([[[0.0, 0.0]], [[3.0, 0.0]]])
BOTH = torch.tensor([[True], [True]])


def test_guidance_is_mean_or_sum_of_squares():
    assert guidance_losses(GUIDE_BKE, TARGET_BKE, BOTH, "sum").tolist() == [[5.0], [25.0]]
    assert guidance_losses(GUIDE_BKE, TARGET_BKE, BOTH, "mean").tolist() == [[2.5], [12.5]]


def test_total_is_eq_9_over_all_pairs():
    classification_B = classification_losses(LOGITS_BC, LABEL_B)
    guidance_B = guidance_losses(GUIDE_BKE, TARGET_BKE, BOTH, "sum").mean(1)
    cross_entropy = -LOGITS_BC.log_softmax(1)[[0, 1], LABEL_B]
    expected = (cross_entropy.sum() + 0.1 * 30.0) / 2
    assert total_loss(classification_B, guidance_B, 0.1, 2).item() == pytest.approx(expected.item(), rel=1e-6)
    assert total_loss(classification_B, None, 0.1, 2).item() == pytest.approx(cross_entropy.mean().item(), rel=1e-6)


def test_pair_without_guidance_gets_no_gradient_whatever_its_target_holds():
    guide_BKE = GUIDE_BKE.clone().requires_grad_()
    target_BKE = TARGET_BKE.clone()
    target_BKE[1] = float("nan")
    losses = guidance_losses(guide_BKE, target_BKE, torch.tensor([[True], [False]]), "mean")
    assert losses.tolist() == [[2.5], [0.0]]
    losses.sum().backward()
    assert guide_BKE.grad.tolist() == [[[1.0, 2.0]], [[0.0, 0.0]]]


def test_class_weight_multiplies_its_own_pairs_only():
    plain_B = classification_losses(LOGITS_BC, LABEL_B)
    weighted_B = classification_losses(LOGITS_BC, LABEL_B, torch.tensor([1.0, 1.0, 3.0]))
    torch.testing.assert_close(weighted_B, plain_B * torch.tensor([1.0, 3.0]))


def test_unknown_reduction_is_refused():
    with pytest.raises(ValueError, match="'max'"):
        guidance_losses(GUIDE_BKE, TARGET_BKE, BOTH, "max")


def test_soft_labels_are_the_divergence_from_the_teacher_and_nothing_where_it_said_nothing():
    teacher_BC = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    student_C = LOGITS_BC[0].softmax(0)
    divergence = sum(0.5 * (torch.tensor(0.5).log() - student_C[n].log()) for n in (0, 1))
    losses_B = soft_label_losses(LOGITS_BC, teacher_BC)
    torch.testing.assert_close(losses_B, torch.tensor([divergence, 0.0]))
    own_BC = LOGITS_BC.softmax(1)
    torch.testing.assert_close(soft_label_losses(LOGITS_BC, own_BC), torch.zeros(2), atol=1e-6, rtol=0)


def test_label_smoothing_spreads_its_share_over_all_classes():
    log_probs = LOGITS_BC.log_softmax(1)
    gold_B = torch.nn.functional.one_hot(LABEL_B, 3) * 0.7 + 0.1
    torch.testing.assert_close(classification_losses(LOGITS_BC, LABEL_B, None, 0.3), -(gold_B * log_probs).sum(1))
