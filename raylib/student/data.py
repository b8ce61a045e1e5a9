"""Pairs as token ids: tokenised once, truncated item first, batched by length.

B batch, L tokens, N pairs, T tokens of all pairs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raylib.errors import InputError

Array = npt.NDArray[Any]
GROUP_BATCHES = 50  # pairs are sorted by length within groups of this many batches, so that shuffling stays random


def item_text(pair: Mapping[str, Any], item_fields: Sequence[str]) -> str:
    """The item as the student reads it: its non-empty fields joined by " | "."""
    values = [str(pair[name]).strip() for name in item_fields if pair.get(name)]
    return " | ".join(value for value in values if value)


@dataclass(frozen=True)
class Ragged:
    """N sequences of different length in one flat array."""

    values_T: Array
    starts_N1: Array

    def row(self, n: int) -> Array:
        """Sequence n."""
        return self.values_T[self.starts_N1[n] : self.starts_N1[n + 1]]

    def padded(self, rows: Array) -> tuple[Array, Array]:
        """The sequences `rows` side by side, [B, M], zeros behind their end, and where they have values, [B, M].

        M is at least 1, so that a batch without any value has a shape.
        """
        lengths_B = np.diff(self.starts_N1)[rows]
        position_M = np.arange(max(int(lengths_B.max(initial=0)), 1))
        mask_BM = position_M < lengths_B[:, None]
        source_BM = np.where(mask_BM, self.starts_N1[rows][:, None] + position_M, 0)
        values = self.values_T[source_BM] if len(self.values_T) else np.zeros(mask_BM.shape, np.int32)
        return np.where(mask_BM, values, 0), mask_BM


@dataclass(frozen=True)
class TokenPairs:
    """Token ids of N pairs in one flat array; pair n is `tokens_T[starts_N1[n] : starts_N1[n + 1]]`."""

    tokens_T: Array
    starts_N1: Array
    item_start_N: Array  # position in the pair at which the item begins, for segment ids

    @property
    def lengths_N(self) -> Array:  # noqa: N802
        """Tokens of each pair."""
        return np.diff(self.starts_N1)

    def __len__(self) -> int:
        return len(self.item_start_N)

    def take(self, rows: Array) -> "TokenPairs":
        """The pairs `rows`, in that order."""
        starts_N1 = np.concatenate([[0], np.cumsum(self.lengths_N[rows])])
        pieces = [self.tokens_T[self.starts_N1[row] : self.starts_N1[row + 1]] for row in rows]
        tokens_T = np.concatenate(pieces) if pieces else self.tokens_T[:0]
        return TokenPairs(tokens_T, starts_N1, self.item_start_N[rows])


class PairTokenizer:
    """Writes `[CLS] query [SEP] item [SEP]` in whatever special tokens the backbone's tokenizer has for a pair.

    Over `max_length` the item is cut first, then the query. Distinct texts are tokenised once, however many pairs
    they are in.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.max_length = max_length
        self.pad_id = int(tokenizer.pad_token_id)
        self.has_segments = "token_type_ids" in tokenizer.model_input_names
        self._tokenizer = tokenizer
        probe = tokenizer("a", "a")
        sides = probe.sequence_ids(0)
        first, second = sides.index(0), sides.index(1)
        after_first = len(sides) - 1 - sides[::-1].index(0) + 1
        after_second = len(sides) - 1 - sides[::-1].index(1) + 1
        ids = np.asarray(probe["input_ids"], dtype=np.int32)
        self._before, self._between, self._after = ids[:first], ids[after_first:second], ids[after_second:]

    def check_fits(self, vocab_size: int, place: str) -> None:
        """Raise InputError when an encoder with `vocab_size` embeddings cannot take all tokens; `place` names both."""
        if len(self._tokenizer) > vocab_size:
            raise InputError(
                f"{place}: the tokenizer has {len(self._tokenizer)} tokens, the encoder embeds {vocab_size}: they are "
                "not of one model; restore the directory"
            )

    def encode(self, queries: Sequence[str], items: Sequence[str]) -> TokenPairs:
        """Tokenise N pairs."""
        query_ids, item_ids = self._tokenise(queries), self._tokenise(items)
        room = self.max_length - len(self._before) - len(self._between) - len(self._after)
        pieces: list[Array] = []
        starts_N1, item_start_N = np.zeros(len(queries) + 1, np.int64), np.zeros(len(queries), np.int32)
        for n, (query, item) in enumerate(zip(queries, items, strict=True)):
            query_piece = query_ids[query][:room]
            item_piece = item_ids[item][: room - len(query_piece)]
            pieces += [self._before, query_piece, self._between, item_piece, self._after]
            item_start_N[n] = len(self._before) + len(query_piece) + len(self._between)
            starts_N1[n + 1] = starts_N1[n] + item_start_N[n] + len(item_piece) + len(self._after)
        tokens_T = np.concatenate(pieces) if pieces else np.zeros(0, np.int32)
        return TokenPairs(tokens_T, starts_N1, item_start_N)

    def num_item_tokens(self, pairs: TokenPairs) -> Array:
        """Tokens of each pair's item, [N]; 0 where the query leaves no room for it, or it has no text."""
        num_tokens_N: Array = pairs.lengths_N - pairs.item_start_N - len(self._after)
        return num_tokens_N

    def collate(self, pairs: TokenPairs, rows: Array, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """Model inputs of the pairs `rows`, padded to the longest of them."""
        lengths_B = pairs.lengths_N[rows]
        position_L = np.arange(lengths_B.max())
        mask_BL = position_L < lengths_B[:, None]
        source_BL = np.where(mask_BL, pairs.starts_N1[rows][:, None] + position_L, 0)
        inputs = {
            "input_ids": np.where(mask_BL, pairs.tokens_T[source_BL], self.pad_id).astype(np.int64),
            "attention_mask": mask_BL.astype(np.int64),
        }
        if self.has_segments:
            inputs["token_type_ids"] = (mask_BL & (position_L >= pairs.item_start_N[rows][:, None])).astype(np.int64)
        return {name: torch.from_numpy(value).to(device, non_blocking=True) for name, value in inputs.items()}

    def with_rationales(self, pairs: TokenPairs, rationales: Ragged, rows: Array) -> TokenPairs:
        """The pairs `rows` with their rationales behind the item: `... item [SEP] rationale [SEP]`."""
        pieces: list[Array] = []
        for row in rows:
            pair = pairs.tokens_T[pairs.starts_N1[row] : pairs.starts_N1[row + 1]]
            pieces += [np.concatenate([pair, rationales.row(row), self._after])]
        starts_N1 = np.cumsum([0, *(len(piece) for piece in pieces)])
        tokens_T = np.concatenate(pieces) if pieces else pairs.tokens_T[:0]
        return TokenPairs(tokens_T, starts_N1, pairs.item_start_N[rows])

    def encode_rationales(self, texts: Sequence[str | None], max_tokens: int) -> Ragged:
        """Token ids of N rationales without special tokens, cut at `max_tokens`; None is no token."""
        ids = self._tokenise([text for text in texts if text], max_tokens)
        pieces = [ids[text] if text else np.zeros(0, np.int32) for text in texts]
        starts_N1 = np.cumsum([0, *(len(piece) for piece in pieces)])
        return Ragged(np.concatenate(pieces) if pieces else np.zeros(0, np.int32), starts_N1)

    def is_word(self) -> Array:
        """For each token id whether it holds a letter or digit, [V]; special tokens do not."""
        vocabulary = self._tokenizer.get_vocab()
        is_word_V = np.zeros(max(vocabulary.values()) + 1, bool)
        for token, number in vocabulary.items():
            is_word_V[number] = any(char.isalnum() for char in token)
        is_word_V[self._tokenizer.all_special_ids] = False
        return is_word_V

    def _tokenise(self, texts: Sequence[str], max_tokens: int | None = None) -> dict[str, Array]:
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        encoded = self._tokenizer(
            distinct,
            add_special_tokens=False,
            split_special_tokens=True,  # a seller's "[SEP]" is text
            truncation=True,
            max_length=max_tokens or self.max_length,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return {text: np.asarray(ids, np.int32) for text, ids in zip(distinct, encoded["input_ids"], strict=True)}


def epoch_batches(lengths_N: Array, batch_size: int, seed: int, epoch: int) -> list[Array]:
    """Row numbers of every batch of an epoch: each pair once, batches of similar lengths, order random by seed.

    The same on every worker, whatever their number. The last batch of the shuffled pairs may be smaller.
    """
    generator = np.random.default_rng((seed, epoch))
    order = generator.permutation(len(lengths_N))
    batches: list[Array] = []
    for start in range(0, len(order), GROUP_BATCHES * batch_size):
        group = order[start : start + GROUP_BATCHES * batch_size]
        group = group[np.argsort(-lengths_N[group], kind="stable")]
        batches += [group[first : first + batch_size] for first in range(0, len(group), batch_size)]
    return [batches[position] for position in generator.permutation(len(batches))]


def budget_batches(lengths_N: Array, token_budget: int) -> Iterator[Array]:
    """Row numbers in batches of at most `token_budget` tokens, padding included, longest pairs first.

    Sorting by length leaves next to no padding. A pair longer than the budget is a batch of its own.
    """
    order = np.argsort(-lengths_N, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, token_budget // int(lengths_N[order[start]]))
        yield order[start : start + size]
        start += size
