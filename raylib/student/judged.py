"""Judged pairs with what the teacher says of them, as files that workers map into memory, and as one batch's targets.

B batch, L tokens, N pairs, T tokens of all pairs, K rationale embeddings a pair, E size of each, C classes.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import numpy as np
import torch

from raylib.student.data import Array, PairTokenizer, Ragged, TokenPairs


@dataclass(frozen=True)
class Targets:
    """What is known of the pairs of a batch: the gold class, and what the teacher says as far as it is needed."""

    gold_B: torch.Tensor
    is_guided_BK: torch.Tensor  # the teacher said something; K is 1 for guidance by a rationale's text
    embedding_BKE: torch.Tensor  # E is 0 without embeddings
    teacher_prob_BC: torch.Tensor  # zeros where the teacher gave none; C is 0 without soft labels
    rationale_BM: torch.Tensor  # token ids; M is 1 without rationales
    is_rationale_BM: torch.Tensor
    tag_BL: torch.Tensor  # MKD's tags of the pair's tokens; padding is 0
    reasoning: dict[str, torch.Tensor]  # model inputs of the guided pairs with their rationales; for CRSD

    @property
    def is_guided_B(self) -> torch.Tensor:  # noqa: N802
        """Pairs of which the teacher said something."""
        return self.is_guided_BK.any(1)


@dataclass(frozen=True)
class JudgedPairs:
    """Tokenised pairs with gold class, and for training their rationale embeddings; stored as .npy files.

    Workers map the files into memory, so that several of them on a machine share one copy.
    """

    tokens_T: Array
    starts_N1: Array
    item_start_N: Array
    pair_id_N: Array
    gold_N: Array  # class index
    target_NKE: Array  # zeros where there is no guidance; E is 0 when the student trains without
    is_guided_NK: Array  # the teacher says something: an embedding or a rationale
    teacher_prob_NC: Array  # zeros where the teacher gave none; C is 0 without soft labels
    rationale_T: Array  # token ids of the rationales; empty without
    rationale_starts_N1: Array
    tags_T: Array  # MKD's tag of each token of `tokens_T`; empty without rationales

    @property
    def pairs(self) -> TokenPairs:
        """The token ids alone."""
        return TokenPairs(self.tokens_T, self.starts_N1, self.item_start_N)

    @property
    def rationales(self) -> Ragged:
        """The rationales' token ids."""
        return Ragged(self.rationale_T, self.rationale_starts_N1)

    def __len__(self) -> int:
        return len(self.gold_N)

    def targets(
        self, rows: Array, tokenizer: PairTokenizer, device: torch.device | str, with_reasoning: bool
    ) -> Targets:
        """What the teacher says of the pairs `rows`."""
        ids_BM, is_token_BM = self.rationales.padded(rows)
        tags = Ragged(self.tags_T, self.starts_N1) if len(self.tags_T) else Ragged(self.tags_T, self.starts_N1 * 0)
        guided = rows[self.is_guided_NK[rows, 0]]
        reasoning = {}
        if with_reasoning and len(guided):
            reasoned = tokenizer.with_rationales(self.pairs, self.rationales, guided)
            reasoning = tokenizer.collate(reasoned, np.arange(len(guided)), device)
        return Targets(
            gold_B=torch.from_numpy(self.gold_N[rows]).to(device),
            is_guided_BK=torch.from_numpy(self.is_guided_NK[rows]).to(device),
            embedding_BKE=torch.from_numpy(self.target_NKE[rows]).to(device),
            teacher_prob_BC=torch.from_numpy(self.teacher_prob_NC[rows]).to(device),
            rationale_BM=torch.from_numpy(ids_BM.astype(np.int64)).to(device),
            is_rationale_BM=torch.from_numpy(is_token_BM).to(device),
            tag_BL=torch.from_numpy(tags.padded(rows)[0].astype(np.int64)).to(device),
            reasoning=reasoning,
        )

    def save(self, folder: Path) -> None:
        """Write one .npy file a field."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Map the files of `save` into memory."""
        # An empty file cannot be mapped: such an array is read instead.
        arrays = {}
        for field in fields(cls):
            path = folder / f"{field.name}.npy"
            empty = np.load(path, mmap_mode=None, allow_pickle=False) if path.stat().st_size <= 128 else None
            arrays[field.name] = np.load(path, mmap_mode="r", allow_pickle=False) if empty is None else empty
        return cls(**arrays)
