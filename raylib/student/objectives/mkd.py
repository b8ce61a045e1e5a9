"""MKD: which words of query and item the rationale speaks of, told by a linear-chain CRF (arXiv 2411.13045).

The paper's details are not all given; ours: a token is inside when it belongs to the longest run of the pair's tokens
that the rationale holds too, punctuation aside; tags are B, I and O; the CRF has learnt transitions and no
constraints. B batch, L tokens, K = 3 tags.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from raylib.student.data import Array
from raylib.student.judged import Targets

OUTSIDE, BEGIN, INSIDE = 0, 1, 2
NUM_TAGS = 3


class Mkd(nn.Module):
    """Emissions from the encoder's states, and transitions between tags."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.emit = nn.Linear(size, NUM_TAGS)
        self.start_K = nn.Parameter(torch.zeros(NUM_TAGS))
        self.end_K = nn.Parameter(torch.zeros(NUM_TAGS))
        self.transition_KK = nn.Parameter(torch.zeros(NUM_TAGS, NUM_TAGS))  # from, to

    def forward(self, _student: Any, output: Any, inputs: dict[str, torch.Tensor], targets: Targets) -> torch.Tensor:
        """Negative log-likelihood of each pair's tags, a token, [B]."""
        mask_BL = inputs["attention_mask"].bool()
        emission_BLK = self.emit(output.hidden_BLD)
        loss_B = self.normaliser(emission_BLK, mask_BL) - self.path_score(emission_BLK, targets.tag_BL, mask_BL)
        return loss_B / mask_BL.sum(1) * targets.is_guided_B

    def path_score(self, emission_BLK: torch.Tensor, tag_BL: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Score of one sequence of tags a pair, [B]; pairs have at least one token, padding comes last."""
        emitted_BL = emission_BLK.gather(2, tag_BL[:, :, None]).squeeze(2) * mask_BL
        moved_BL = self.transition_KK[tag_BL[:, :-1], tag_BL[:, 1:]] * mask_BL[:, 1:]
        last_B = tag_BL.gather(1, mask_BL.sum(1, keepdim=True) - 1).squeeze(1)
        return self.start_K[tag_BL[:, 0]] + emitted_BL.sum(1) + moved_BL.sum(1) + self.end_K[last_B]

    def normaliser(self, emission_BLK: torch.Tensor, mask_BL: torch.Tensor) -> torch.Tensor:
        """Log of the summed exponentials of the scores of all sequences of tags, [B] (forward algorithm)."""
        score_BK = self.start_K + emission_BLK[:, 0]
        for i in range(1, emission_BLK.shape[1]):
            reached_BKK = score_BK[:, :, None] + self.transition_KK + emission_BLK[:, i, None, :]
            score_BK = torch.where(mask_BL[:, i, None], reached_BKK.logsumexp(1), score_BK)
        return (score_BK + self.end_K).logsumexp(1)


def mention_tags(tokens_L: Array, rationale_M: Array, is_word_V: Array) -> Array:
    """Tags [L] of a pair's tokens: B and I for runs that occur in the rationale, the longest first from the left.

    `is_word_V` says of each token id whether it has a letter or digit; runs hold only such tokens.
    """
    tags_L = np.zeros(len(tokens_L), np.int64)
    places: dict[int, list[int]] = {}
    for place, token in enumerate(rationale_M.tolist()):
        places.setdefault(token, []).append(place)
    i = 0
    while i < len(tokens_L):
        length = 0
        if is_word_V[tokens_L[i]]:
            length = max(
                (_run(tokens_L, i, rationale_M, j, is_word_V) for j in places.get(int(tokens_L[i]), ())), default=0
            )
        if length:
            tags_L[i] = BEGIN
            tags_L[i + 1 : i + length] = INSIDE
        i += max(length, 1)
    return tags_L


def _run(tokens_L: Array, i: int, rationale_M: Array, j: int, is_word_V: Array) -> int:
    length = 0
    while (
        i + length < len(tokens_L)
        and j + length < len(rationale_M)
        and tokens_L[i + length] == rationale_M[j + length]
        and is_word_V[tokens_L[i + length]]
    ):
        length += 1
    return length
