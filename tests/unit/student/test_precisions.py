import numpy as np
import pytest
import torch

from raylib.errors import InputError
from raylib.kernels.fused import activation_ranges
from raylib.student.artifact import complete, load_ranges, save_student
from raylib.student.data import PairTokenizer
from raylib.student.inference import Scorer, for_inference, predict_probs


def test_scoring_uses_the_weights_of_now_and_leaves_the_student_as_it_is(make_student, make_judged, tokenizer):
    student, pairs, pair_tokenizer = make_student(), make_judged(12).pairs, PairTokenizer(tokenizer, 16)
    for _ in range(2):
        backbone = student.backbone
        fast_NC = predict_probs(for_inference(student), pair_tokenizer, pairs)
        assert student.backbone is backbone
        np.testing.assert_allclose(fast_NC, predict_probs(student, pair_tokenizer, pairs), atol=2e-6)
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.mul_(0.7)


def test_int8_needs_an_artifact_that_has_its_ranges(make_student, make_judged, tokenizer, tmp_path):
    student, pair_tokenizer = make_student(), PairTokenizer(tokenizer, 16)
    save_student(student, tokenizer, tmp_path / "model")
    with pytest.raises(InputError, match="no activation ranges"):
        Scorer(tmp_path / "model", "int8", "cpu")
    batch = pair_tokenizer.collate(make_judged(24).pairs, np.arange(24))
    ranges = activation_ranges(student.eval().backbone, [batch])
    complete(student, tmp_path / "model", ranges)
    assert torch.equal(load_ranges(tmp_path / "model"), ranges)
    pairs = [{"query": "red shoe", "title": "acme red shoe"}, {"query": "blue", "title": "phone case big small"}] * 3
    exact, rounded = (Scorer(tmp_path / "model", dtype, "cpu").score(pairs) for dtype in ("float32", "int8"))
    assert 0 < np.abs(exact - rounded).max() < 0.05
