import math

import pytest
import torch

from raylib.annotation.truncation import truncate


def plain(logits, top_k, top_p):
    """Positions that can be drawn, as the definitions of top-k and then top-p say it."""
    order = sorted(range(len(logits)), key=lambda position: -logits[position])[:top_k]
    weights = [math.exp(logits[position]) for position in order]
    kept, mass = set(), 0.0
    for position, weight in zip(order, weights, strict=True):
        if mass >= top_p:
            break
        kept.add(position)
        mass += weight / sum(weights)
    return kept


@pytest.mark.parametrize(("top_k", "top_p"), [(20, 0.95), (20, 0.5), (1, 0.95), (5, 1.0), (500, 0.8)])
def test_keeps_what_the_definitions_keep_and_nothing_else_changes(top_k, top_p):
    torch.manual_seed(0)
    logits_NV = 3 * torch.randn(16, 100)
    found = truncate(logits_NV.clone(), top_k, top_p)
    for before, after in zip(logits_NV, found, strict=True):
        kept = plain(before.tolist(), top_k, top_p)
        assert set(torch.isfinite(after).nonzero().flatten().tolist()) == kept
        assert all(after[position] == before[position] for position in kept)


def test_the_likeliest_token_stays_whatever_top_p_is():
    assert torch.isfinite(truncate(torch.tensor([[0.0, 9.0, 1.0]]), 3, 1e-9)).tolist() == [[False, True, False]]


def test_a_row_does_not_depend_on_its_neighbours():
    torch.manual_seed(1)
    logits_NV = torch.randn(8, 50)
    together = truncate(logits_NV.clone(), 10, 0.9)
    torch.testing.assert_close(torch.cat([truncate(row.clone(), 10, 0.9) for row in logits_NV.split(1)]), together)
