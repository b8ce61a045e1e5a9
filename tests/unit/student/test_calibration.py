import pytest
import torch
from torch.nn import functional

from raylib.student.calibration import cross_entropy, fit_temperature


@pytest.fixture
def drawn():
    """Logits [N, C] and classes drawn from their softmax."""
    generator = torch.Generator().manual_seed(0)
    logits_NC = 2 * torch.randn(20_000, 4, generator=generator)
    return logits_NC, torch.multinomial(logits_NC.softmax(1), 1, generator=generator)[:, 0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_finds_the_temperature_that_the_logits_were_multiplied_with(drawn, temperature):
    logits_NC, gold_N = drawn
    assert fit_temperature(logits_NC * temperature, gold_N) == pytest.approx(temperature, rel=0.03)


def test_no_other_temperature_has_a_lower_cross_entropy(drawn):
    logits_NC, gold_N = drawn
    found = fit_temperature(logits_NC * 2.5, gold_N)
    lowest = cross_entropy(logits_NC * 2.5, gold_N, found)
    assert lowest == pytest.approx(float(functional.cross_entropy(logits_NC * 2.5 / found, gold_N)), abs=1e-5)
    for other in (0.9 * found, 1.1 * found, 1.0):
        assert cross_entropy(logits_NC * 2.5, gold_N, other) > lowest


def test_a_student_that_is_always_right_or_knows_nothing_stays_within_bounds():
    logits_NC = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert fit_temperature(logits_NC, torch.tensor([0, 1])) == pytest.approx(0.1)
    assert fit_temperature(logits_NC, torch.tensor([1, 0])) == pytest.approx(10.0)
    with pytest.raises(ValueError, match="no pair"):
        fit_temperature(logits_NC[:0], torch.tensor([], dtype=torch.long))
