"""No time limit on property tests (a bound on time belongs in a benchmark), and the order of the test files."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("no-clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no-clock")
# Two test processes and what they start share the cores: a thread that spins while it waits takes one from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file first: two processes share the files in order, and one would wait for the other at the end."""
    items.sort(key=lambda item: item.path.name != "test_faults.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the fault suite goes on."""
    parser.addoption("--kills", type=int, default=3, help="random kills in tests/integration/test_faults.py")


@pytest.fixture(scope="session")
def words():
    """All that the tiny student's tokenizer knows."""
    return ["red", "blue", "green", "shoe", "boot", "lace", "phone", "case", "big", "small", "acme", "zeta"]


@pytest.fixture(scope="session")
def tokenizer(words):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    inner = Tokenizer(WordLevel({word: n for n, word in enumerate(specials + words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture(scope="session")
def make_student(words):
    """A BERT student of 16 dimensions and one layer for the tokenizer above."""
    import torch
    from transformers import BertConfig, BertModel

    from raylib.labels import LabelSchema
    from raylib.student.model import Student, StudentSpec
    from raylib.student.objectives import build_objective

    def make(extractor="gat", embedding_size=None, width=None, seed=0, objective=None, num_latents=1):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
        backbone = BertModel(BertConfig(vocab_size=4 + len(words), max_position_embeddings=64, **sizes, **dropout))
        schema = LabelSchema.load("graded3")
        shape = {"extractor": extractor, "width": width, "num_latents": num_latents, "max_length": 16}
        spec = StudentSpec(label_schema=schema, **shape)
        student = Student(backbone, spec)
        objective = objective or ("lrkd" if embedding_size else "bert")
        student.objective = build_objective(
            objective, backbone, student.latent_size, embedding_size, num_latents=num_latents
        )
        return student

    return make
