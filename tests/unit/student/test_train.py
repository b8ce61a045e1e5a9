import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from raylib.errors import TrainingError
from raylib.student.data import PairTokenizer
from raylib.student.inference import predict_probs
from raylib.student.train import TorchEngine, TrainSettings, balanced_weights, lr_factor, train_epoch

GOLDEN = Path(__file__).parents[2] / "golden" / "student_trajectories.json"
SETTINGS = TrainSettings(
    num_epochs=3, global_batch=7, learning_rate=5e-3, warmup_ratio=0.2, seed=3, guidance_weight=0.5
)


def trajectory(make_student, make_judged, tokenizer, extractor):
    data = make_judged(24, embedding_size=5)
    engine = TorchEngine(make_student(extractor, embedding_size=5), SETTINGS.learning_rate, weight_decay=0.01)
    pair_tokenizer = PairTokenizer(tokenizer, 16)
    return [loss for epoch in range(3) for loss in train_epoch(engine, data, pair_tokenizer, SETTINGS, epoch)]


@pytest.mark.parametrize("extractor", ["none", "mlp", "poly", "gat"])
def test_golden_trajectory(make_student, make_judged, tokenizer, extractor):
    """The recorded losses, step by step; a change of them is a change of the method, to be explained."""
    golden = json.loads(GOLDEN.read_text())[extractor]
    assert trajectory(make_student, make_judged, tokenizer, extractor) == pytest.approx(golden, rel=2e-4)
    assert sum(golden[-4:]) < sum(golden[:4])  # epochs of four steps


class SharedEngine(TorchEngine):
    """Adds up the gradients of the workers before the update, as a distributed engine averages them."""

    def __init__(self, module, num_workers):
        super().__init__(module, SETTINGS.learning_rate, 0.01)
        self.num_workers = num_workers

    def backward(self, loss):
        (loss / self.num_workers).backward()

    def step(self):
        pass


@pytest.mark.parametrize("num_workers", [2, 3, 5])
def test_workers_sum_to_the_gradient_of_the_whole_batch(make_student, make_judged, tokenizer, num_workers):
    # 22 pairs in batches of 7 leave a last batch of one pair, which does not split evenly
    data, pair_tokenizer = make_judged(22, embedding_size=5), PairTokenizer(tokenizer, 16)
    whole = SharedEngine(make_student(embedding_size=5), 1)
    train_epoch(whole, data, pair_tokenizer, SETTINGS, 0)
    shared = SharedEngine(make_student(embedding_size=5), num_workers)
    for rank in range(num_workers):
        train_epoch(shared, data, pair_tokenizer, SETTINGS, 0, rank, num_workers)
    for (name, one), other in zip(whole.module.named_parameters(), shared.module.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_guidance_weight_zero_equals_no_guidance(make_student, make_judged, tokenizer):
    settings = TrainSettings(
        num_epochs=1, global_batch=8, learning_rate=1e-3, warmup_ratio=0.0, seed=0, guidance_weight=0.0
    )
    guided, alone = make_student(embedding_size=5), make_student()
    alone.load_state_dict({name: v for name, v in guided.state_dict().items() if not name.startswith("objective")})
    pair_tokenizer = PairTokenizer(tokenizer, 16)
    for student, size in ((guided, 5), (alone, 0)):
        train_epoch(SharedEngine(student, 1), make_judged(24, size), pair_tokenizer, settings, 0)
    assert not guided.objective.projections[0].weight.grad.any()
    gradients = dict(guided.named_parameters())
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-5, atol=1e-6, msg=name)


def test_guidance_pulls_the_latent_to_its_embedding(make_student, make_judged, tokenizer):
    settings = TrainSettings(
        num_epochs=40, global_batch=24, learning_rate=1e-2, warmup_ratio=0.1, seed=0, guidance_weight=10.0
    )
    data, pair_tokenizer = make_judged(24, embedding_size=5), PairTokenizer(tokenizer, 16)
    student = make_student(embedding_size=5)
    engine = TorchEngine(student, settings.learning_rate, 0.0)

    def distance():
        latent_BR = student(**pair_tokenizer.collate(data.pairs, torch.arange(24).numpy())).latent_BR
        guide_BKE = student.objective.guides(latent_BR)
        is_guided_BK = torch.from_numpy(data.is_guided_NK)
        return (guide_BKE - torch.from_numpy(data.target_NKE))[is_guided_BK].square().mean().item()

    before = distance()
    for epoch in range(settings.num_epochs):
        train_epoch(engine, data, pair_tokenizer, settings, epoch)
    assert distance() < 0.5 * before


def test_each_of_three_latents_is_pulled_to_its_own_embedding(make_student, make_judged, tokenizer):
    settings = TrainSettings(
        num_epochs=40, global_batch=24, learning_rate=1e-2, warmup_ratio=0.1, seed=0, guidance_weight=30.0
    )
    data, pair_tokenizer = make_judged(24, embedding_size=5, num_sources=3), PairTokenizer(tokenizer, 16)
    student = make_student(embedding_size=5, num_latents=3)
    engine = TorchEngine(student, settings.learning_rate, 0.0)

    def distances():
        latents = student(**pair_tokenizer.collate(data.pairs, torch.arange(24).numpy())).latent_BR
        assert latents.shape == (24, 3 * 16)
        squares = (student.objective.guides(latents) - torch.from_numpy(data.target_NKE)).square().mean(2)
        return [squares[torch.from_numpy(data.is_guided_NK[:, k]), k].mean().item() for k in range(3)]

    before = distances()
    for epoch in range(settings.num_epochs):
        train_epoch(engine, data, pair_tokenizer, settings, epoch)
    assert all(after < 0.6 * earlier for after, earlier in zip(distances(), before, strict=True))


def test_soft_labels_move_the_student_towards_the_teacher(make_student, make_judged, tokenizer):
    data, pair_tokenizer = make_judged(24), PairTokenizer(tokenizer, 16)
    wrong_NC = np.eye(3, dtype=np.float32)[(data.gold_N + 1) % 3]
    data = replace(data, teacher_prob_NC=wrong_NC)
    agreed = []
    for weight in (0.0, 5.0):
        settings = TrainSettings(
            num_epochs=30, global_batch=24, learning_rate=1e-2, warmup_ratio=0.1, seed=0, soft_weight=weight
        )
        engine = TorchEngine(make_student("none"), settings.learning_rate, 0.0)
        for epoch in range(settings.num_epochs):
            train_epoch(engine, data, pair_tokenizer, settings, epoch)
        probs_NC = predict_probs(engine.module, pair_tokenizer, data.pairs)
        agreed.append((probs_NC.argmax(1) == wrong_NC.argmax(1)).mean())
    assert agreed[0] < 0.4
    assert agreed[1] > 0.8


def test_a_loss_that_is_no_number_ends_training_and_says_where(make_student, make_judged, tokenizer):
    data, pair_tokenizer = make_judged(24, embedding_size=5), PairTokenizer(tokenizer, 16)
    data.target_NKE[data.is_guided_NK] = np.inf
    engine = TorchEngine(make_student(embedding_size=5), SETTINGS.learning_rate, 0.0)
    with pytest.raises(
        TrainingError, match=r"loss (inf|nan) at update 5 \(epoch 2\).*none.*learning_rate \(now 0.005\)"
    ):
        train_epoch(engine, data, pair_tokenizer, SETTINGS, 1)


def test_balanced_weights_give_each_class_the_same_total():
    weights = balanced_weights([60, 30, 10])
    assert [weight * count for weight, count in zip(weights, [60, 30, 10], strict=True)] == pytest.approx([100 / 3] * 3)


def test_learning_rate_rises_then_falls_to_almost_zero():
    factors = [lr_factor(step, 100, 0.1) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert 0.0 < factors[-1] < 0.02
