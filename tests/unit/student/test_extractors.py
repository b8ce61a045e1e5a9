"""Each extractor against its printed formula (arXiv 2601.21611 eq. 10-16), written as loops."""

import pytest
import torch

from raylib.student.extractors import build_extractor
from raylib.student.extractors.gat import GatExtractor
from raylib.student.extractors.mlp import MlpExtractor
from raylib.student.extractors.poly import PolyExtractor

SIZE, WIDTH = 6, 5
LENGTHS = [4, 1, 7]


def mlp_reference(extractor, tokens):
    outputs = [extractor.outer(torch.relu(extractor.inner(token))) for token in tokens]
    return sum(outputs) / len(outputs)


def poly_reference(extractor, tokens):
    contexts = []
    for code in extractor.codes_KD:
        scores = torch.stack([code @ token / SIZE**0.5 for token in tokens])
        weights = torch.exp(scores) / torch.exp(scores).sum()
        contexts.append(sum(weight * token for weight, token in zip(weights, tokens, strict=True)))
    return sum(contexts) / len(contexts)


def gat_reference(extractor, tokens):
    a = torch.cat([extractor.from_R, extractor.to_R])
    projected = [extractor.project.weight @ token for token in tokens]
    updated = []
    for left in projected:
        scores = torch.stack([a @ torch.cat([left, right]) for right in projected])
        scores = torch.where(scores > 0, scores, 0.2 * scores)
        weights = torch.exp(scores) / torch.exp(scores).sum()
        updated.append(sum(weight * right for weight, right in zip(weights, projected, strict=True)))
    return sum(updated) / len(updated)


CASES = {
    "mlp": (lambda: MlpExtractor(SIZE, WIDTH), mlp_reference),
    "poly": (lambda: PolyExtractor(SIZE, num_codes=3), poly_reference),
    "gat": (lambda: GatExtractor(SIZE, WIDTH), gat_reference),
}


@pytest.fixture(params=sorted(CASES))
def case(request):
    torch.manual_seed(1)
    make, reference = CASES[request.param]
    extractor = make().double()
    hidden_BLD = torch.randn(len(LENGTHS), max(LENGTHS), SIZE, dtype=torch.float64)
    mask_BL = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return extractor, reference, hidden_BLD, mask_BL


def all_gradients(extractor, hidden_BLD, latent_BR):
    # weights that differ by component, so that no gradient cancels
    target = (latent_BR * torch.arange(1.0, latent_BR.numel() + 1, dtype=torch.float64).view_as(latent_BR)).sum()
    return torch.autograd.grad(target, [hidden_BLD, *extractor.parameters()])


def test_equals_printed_formula_with_gradients(case):
    extractor, reference, hidden_BLD, mask_BL = case
    hidden_BLD.requires_grad_()
    latent_BR = extractor(hidden_BLD, mask_BL)
    expected_BR = torch.stack(
        [reference(extractor, list(row[:length])) for row, length in zip(hidden_BLD, LENGTHS, strict=True)]
    )
    torch.testing.assert_close(latent_BR, expected_BR, rtol=1e-10, atol=1e-12)
    ours, theirs = (all_gradients(extractor, hidden_BLD, latent) for latent in (latent_BR, expected_BR))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_padding_changes_nothing(case):
    extractor, _, hidden_BLD, mask_BL = case
    latent_BR = extractor(hidden_BLD, mask_BL)
    garbage = torch.full((len(LENGTHS), 5, SIZE), 1e6, dtype=torch.float64)
    filled = torch.where(mask_BL[..., None], hidden_BLD, torch.tensor(-1e6, dtype=torch.float64))
    padded_BR = extractor(torch.cat([filled, garbage], 1), torch.cat([mask_BL, torch.zeros(3, 5, dtype=torch.bool)], 1))
    torch.testing.assert_close(padded_BR, latent_BR, rtol=1e-10, atol=1e-9)


def test_batch_composition_changes_nothing(case):
    extractor, _, hidden_BLD, mask_BL = case
    together_BR = extractor(hidden_BLD, mask_BL)
    for row, length in enumerate(LENGTHS):
        alone = extractor(hidden_BLD[row : row + 1, :length], mask_BL[row : row + 1, :length])
        torch.testing.assert_close(alone[0], together_BR[row], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("name", "published"), [("mlp", 1.18e6), ("poly", 0.03e6), ("gat", 0.59e6)])
def test_adds_the_published_number_of_parameters(name, published):
    extractor = build_extractor(name, 768, None)
    assert sum(parameter.numel() for parameter in extractor.parameters()) == pytest.approx(published, abs=0.0055e6)


def test_poly_has_no_width_of_its_own():
    with pytest.raises(ValueError, match=r"poly.*768, not 128"):
        build_extractor("poly", 768, 128)
