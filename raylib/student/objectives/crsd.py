"""CRSD: the student sees the pair alone and the pair with its rationale, and learns to answer alike (arXiv 2510.11056).

Cross-entropy on both views; the view without rationale is pulled to the other, whose side carries no gradient: by
InfoNCE on [CLS] with the batch as negatives, and by KL on the classes. The temperature and the equal weights of the
terms are ours. Negatives are those of one worker's share of the batch, so here two workers do not equal one exactly.
B batch, C classes, D hidden size.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from raylib.student.judged import Targets

TEMPERATURE = 0.05


class Crsd(nn.Module):
    """No parameters of its own: the student is its own teacher."""

    def forward(self, student: Any, output: Any, _inputs: Any, targets: Targets) -> torch.Tensor:
        """Cross-entropy of the reasoning view, InfoNCE and KL of each guided pair, [B]."""
        is_guided_B = targets.is_guided_B
        loss_B = torch.zeros(len(is_guided_B), device=is_guided_B.device)
        if not is_guided_B.any():
            return loss_B
        reasoned = student(**targets.reasoning)  # of the guided pairs alone
        told_BD, told_BC = reasoned.hidden_BLD[:, 0].detach(), reasoned.logits_BC.detach()
        own_BD, own_BC = output.hidden_BLD[is_guided_B, 0], output.logits_BC[is_guided_B]
        similar_BB = functional.normalize(own_BD, dim=1) @ functional.normalize(told_BD, dim=1).T / TEMPERATURE
        same_B = torch.arange(len(similar_BB), device=similar_BB.device)
        losses_B = (
            functional.cross_entropy(reasoned.logits_BC, targets.gold_B[is_guided_B], reduction="none")
            + functional.cross_entropy(similar_BB, same_B, reduction="none")
            + functional.kl_div(own_BC.log_softmax(1), told_BC.log_softmax(1), reduction="none", log_target=True).sum(1)
        )
        return loss_B.masked_scatter(is_guided_B, losses_B)
