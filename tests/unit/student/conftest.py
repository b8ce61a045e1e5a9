import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from raylib.labels import LabelSchema
from raylib.student.data import PairTokenizer
from raylib.student.judged import JudgedPairs
from raylib.student.model import Student, StudentSpec
from raylib.student.objectives import build_objective

WORDS = ["red", "blue", "green", "shoe", "boot", "lace", "phone", "case", "big", "small", "acme", "zeta"]


@pytest.fixture(scope="session")
def tokenizer():
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    inner = Tokenizer(WordLevel({word: n for n, word in enumerate(specials + WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    inner.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


@pytest.fixture
def make_student():
    def make(extractor="gat", embedding_size=None, width=None, seed=0, objective=None, num_latents=1):
        torch.manual_seed(seed)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
        backbone = BertModel(BertConfig(vocab_size=4 + len(WORDS), max_position_embeddings=64, **sizes, **dropout))
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


@pytest.fixture
def make_judged(tokenizer):
    """N synthetic pairs whose class is the number of words that query and title share."""
    import numpy as np

    def make(num_pairs=24, embedding_size=0, seed=0, with_rationales=False, num_sources=1):
        generator = np.random.default_rng(seed)
        queries, titles, gold = [], [], []
        for _ in range(num_pairs):
            query = generator.choice(WORDS, 2, replace=False).tolist()
            title = generator.choice(WORDS, generator.integers(2, 9), replace=False).tolist()
            gold.append(2 - len(set(query) & set(title)))
            queries.append(" ".join(query))
            titles.append(" ".join(title))
        pairs = PairTokenizer(tokenizer, 16).encode(queries, titles)
        target_NKE = generator.standard_normal((num_pairs, num_sources, embedding_size)).astype(np.float32)
        is_guided_NK = generator.random((num_pairs, num_sources)) < 0.7
        spoken = zip(titles, is_guided_NK[:, 0], strict=True)
        texts = [title if with_rationales and is_guided else None for title, is_guided in spoken]
        rationales = PairTokenizer(tokenizer, 16).encode_rationales(texts, 8)
        return JudgedPairs(
            pairs.tokens_T,
            pairs.starts_N1,
            pairs.item_start_N,
            np.array([f"{n:016x}" for n in range(num_pairs)]),
            np.array(gold, np.int64),
            target_NKE,
            is_guided_NK,
            np.zeros((num_pairs, 0), np.float32),
            rationales.values_T,
            rationales.starts_N1,
            generator.integers(0, 3, len(pairs.tokens_T)) if with_rationales else pairs.tokens_T[:0],
        )

    return make
