"""Offline scoring: the one path by which distill, evaluation and serving turn pairs into class probabilities.

N pairs, C classes, R width of the latent.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from raylib.errors import InputError
from raylib.kernels.fused import DTYPES, FusedEncoder, can_fuse
from raylib.student.artifact import load_ranges, load_student
from raylib.student.data import PairTokenizer, TokenPairs, budget_batches, item_text
from raylib.student.model import Student, StudentOutput

Probs = npt.NDArray[np.float32]
Logits = npt.NDArray[np.float32]
Latents = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
# Tokens a batch, padding included. On CPU small batches stay in the cache; on GPU large ones fill the device.
TOKEN_BUDGET = {"cpu": 1024, "cuda": 65_536}


def predict_probs(
    student: Student, tokenizer: PairTokenizer, pairs: TokenPairs, token_budget: int | None = None
) -> Probs:
    """probs_NC of tokenised pairs, in their order, at the student's temperature; leaves it in evaluation mode."""
    logits_NC = predict_logits(student, tokenizer, pairs, token_budget)
    probs_NC: Probs = (torch.from_numpy(logits_NC) / student.spec.temperature).softmax(1).numpy()
    return probs_NC


def predict_logits(
    student: Student, tokenizer: PairTokenizer, pairs: TokenPairs, token_budget: int | None = None
) -> Logits:
    """logits_NC of tokenised pairs, in their order; leaves the student in evaluation mode."""
    logits_NC = np.zeros((len(pairs), len(student.spec.label_schema.names)), np.float32)
    for rows, output in _outputs(student, tokenizer, pairs, token_budget):
        logits_NC[rows] = output.logits_BC.float().cpu().numpy()
    return logits_NC


def predict_with_latents(student: Student, tokenizer: PairTokenizer, pairs: TokenPairs) -> tuple[Probs, Latents]:
    """probs_NC as `predict_probs`, and the latents_NR; for as many pairs as have room in memory with them."""
    probs_NC = np.zeros((len(pairs), len(student.spec.label_schema.names)), np.float32)
    latents_NR = np.zeros((len(pairs), student.latent_size), np.float32)
    for rows, output in _outputs(student, tokenizer, pairs, None):
        probs_NC[rows] = (output.logits_BC.float() / student.spec.temperature).softmax(1).cpu().numpy()
        latents_NR[rows] = output.latent_BR.float().cpu().numpy()
    return probs_NC, latents_NR


def _outputs(
    student: Student, tokenizer: PairTokenizer, pairs: TokenPairs, token_budget: int | None
) -> Iterator[tuple[Rows, StudentOutput]]:
    device = next(student.parameters()).device
    budget = token_budget or TOKEN_BUDGET.get(device.type, TOKEN_BUDGET["cpu"])
    student.eval()
    for rows in budget_batches(pairs.lengths_N, budget):
        with torch.inference_mode():
            output = student(**tokenizer.collate(pairs, rows, device))
        yield rows, output


def for_inference(student: Student, dtype: str = "float32", ranges: torch.Tensor | None = None) -> Student:
    """The student with the fastest encoder there is here for `dtype` (see `Scorer`); a plain one is cast in place.

    A fused encoder copies the weights as they are now; extractor and head stay those of `student`. Raises ValueError
    on an unknown dtype, InputError for int8 where it cannot be.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype {dtype!r}: not one of {', '.join(DTYPES)}")
    if can_fuse(student.backbone):
        fast = copy.copy(student)
        fast._modules = {**student._modules, "backbone": FusedEncoder(student.backbone, dtype, ranges)}
        fast.autocast_dtype = None
        return fast.eval()
    if dtype == "int8":
        raise InputError("dtype int8: only for BERT backbones on a CPU; use float32 or bfloat16")
    if dtype == "bfloat16":
        student.backbone.to(torch.bfloat16)
    return student.eval()


class Scorer:
    """A student artifact, loaded for scoring."""

    def __init__(self, path: str | Path, dtype: str = "float32", device: str | None = None) -> None:
        """Load the artifact at `path`; raises InputError when it is incomplete or of a newer format.

        dtype: `float32`; `bfloat16` for the backbone; or `int8` for its matrix products, on a CPU. Extractor and head
        stay in float32. device: torch device; None = GPU where there is one.
        """
        student, tokenizer = load_student(path)
        student = student.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.student = for_inference(student, dtype, load_ranges(path) if dtype == "int8" else None)
        self.spec = student.spec
        self.tokenizer = PairTokenizer(tokenizer, self.spec.max_length)
        self.tokenizer.check_fits(student.backbone.config.vocab_size, str(path))  # type: ignore[union-attr, arg-type]

    def tokenise(self, pairs: Sequence[Mapping[str, Any]]) -> TokenPairs:
        """Token ids of pairs; each a mapping with `query` and the artifact's item fields (absent or None is empty)."""
        items = [item_text(pair, self.spec.item_fields) for pair in pairs]
        return self.tokenizer.encode([pair["query"] for pair in pairs], items)

    def score(self, pairs: Sequence[Mapping[str, Any]], token_budget: int | None = None) -> Probs:
        """probs_NC in the order of `pairs`; a pair's row does not depend on the other pairs."""
        return predict_probs(self.student, self.tokenizer, self.tokenise(pairs), token_budget)


def score_rows(pair_ids: Sequence[str], probs_NC: Probs, schema: Any) -> list[dict[str, object]]:
    """Rows of the scores table: most probable class, expected gain and its tier."""
    score_N = probs_NC.astype(np.float64) @ np.asarray(schema.gains)
    return [
        {"pair_id": pair_id, "probs": probs_C, "label": schema.names[best], "score": score, "tier": schema.tier(score)}
        for pair_id, probs_C, best, score in zip(
            pair_ids, probs_NC.tolist(), probs_NC.argmax(1).tolist(), score_N.tolist(), strict=True
        )
    ]
