import pytest

from raylib.student.data import PairTokenizer
from raylib.student.judged import JudgedPairs


@pytest.fixture
def make_judged(tokenizer, words):
    """N synthetic pairs whose class is the number of words that query and title share."""
    import numpy as np

    def make(num_pairs=24, embedding_size=0, seed=0, with_rationales=False, num_sources=1):
        generator = np.random.default_rng(seed)
        queries, titles, gold = [], [], []
        for _ in range(num_pairs):
            query = generator.choice(words, 2, replace=False).tolist()
            title = generator.choice(words, generator.integers(2, 9), replace=False).tolist()
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
