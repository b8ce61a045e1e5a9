"""The words of the marketplace (`vocabulary.yaml`) as tables of word ids, so that texts are built by array look-ups.

Suffixes: L locale, D department, K kind, B brand, M model of a brand and kind, C color, V value of a measure, U use.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from raylib.config import read_yaml
from raylib.market.draws import Ints

ABSENT = -1  # a word that is not written
MODELS_PER_LINE = 3  # models that one brand has of one kind


class Vocabulary:
    """Word ids index `words`; the id of a word plus `num_words` is the same word with a typing error."""

    def __init__(self) -> None:
        """Load the shipped vocabulary."""
        tree: dict[str, Any] = read_yaml(Path(__file__).parent / "vocabulary.yaml")
        self._words: list[str] = []
        self._ids: dict[str, int] = {}
        self.locales: tuple[str, ...] = tuple(tree["locales"])
        self.brands: list[str] = tree["brands"]
        self.models: list[str] = tree["models"]
        self.departments: list[str] = tree["departments"]
        self.kinds = list(tree["kinds"])
        self.accessories = [accessory for _, _, accessory in tree["kinds"].values()]
        self.colors: list[str] = tree["colors"]
        self.uses: list[str] = tree["uses"]
        self.measures = list(tree["measures"])
        self.department_K = np.array([self.departments.index(d) for d, _, _ in tree["kinds"].values()])
        self.measure_K = np.array([self.measures.index(m) for _, m, _ in tree["kinds"].values()])

        texts = list(tree["locales"].values())
        self.brand_B = self._table(self.brands)
        self.query_brand_B = self._table([brand.lower() for brand in self.brands])
        self.kind_LK = self._table([text["kinds"] for text in texts])
        self.accessory_LK = self._table([text["accessories"] for text in texts])
        self.department_LD = self._table([text["departments"] for text in texts])
        self.color_LC = self._table([text["colors"] for text in texts])
        self.use_LU = self._table([[text["use_form"].format(use) for use in text["uses"]] for text in texts])
        self.fits_L = self._table([text["fits"] for text in texts])
        self.in_accessories_L = self._table([text["accessory"] for text in texts])
        self.noise_LN = self._table([text["noise"] for text in texts])
        self.wish_LN = self._table([text["wishes"] for text in texts])
        values = list(tree["measures"].values())  # [measure][value][usual unit, other unit]
        self.measure_FVU = self._table(values)
        self.color_pair_LC = self._table([[f"color={word}" for word in text["colors"]] for text in texts])
        self.use_pair_LU = self._table([[f"use={word}" for word in text["uses"]] for text in texts])
        self.measure_pair_FV = self._table(
            [[f"{name}={v}" for v, _ in tree["measures"][name]] for name in self.measures]
        )
        self.model_name_BKM = self._draw_models()
        self.model_BKM = self._table(self.models)[self.model_name_BKM]
        self.query_model_BKM = self._table([model.lower() for model in self.models])[self.model_name_BKM]

    @property
    def num_words(self) -> int:
        """Number of words without typing errors."""
        return len(self._words)

    @property
    def num_products(self) -> int:
        """Products of one locale: main products and, for each, its accessory."""
        sizes = (self.kinds, self.brands, range(MODELS_PER_LINE), self.colors, range(3), self.uses)
        return 2 * int(np.prod([len(size) for size in sizes]))

    @cached_property
    def words(self) -> pa.Array:
        """All words, then all words again with a typing error."""
        return pa.array(self._words + [misspelt(word) for word in self._words], pa.string())

    def word(self, position: int) -> str:
        """The word of an id, typing errors mended."""
        return self._words[position % self.num_words]

    def _table(self, words: Any) -> Ints:
        """Ids of a nested list of words, in its shape."""
        array = np.array(words, dtype=object)
        flat = [self._ids.setdefault(str(word), len(self._ids)) for word in array.ravel()]
        self._words = list(self._ids)
        return np.array(flat, dtype=np.int64).reshape(array.shape)

    def _draw_models(self) -> Ints:
        """Which model names a brand has of a kind; a fixed draw, since the catalogue is the same for every seed."""
        generator = np.random.default_rng(2601_21611)
        lines = len(self.brands) * len(self.kinds)
        drawn = np.array([generator.permutation(len(self.models))[:MODELS_PER_LINE] for _ in range(lines)])
        return drawn.reshape(len(self.brands), len(self.kinds), MODELS_PER_LINE)


def misspelt(word: str) -> str:
    """`word` with two inner letters swapped (one dropped where they are equal); short and non-Latin words unchanged."""
    middle = len(word) // 2
    if len(word) < 5 or not word[middle - 1 : middle + 1].isascii() or not word.replace(" ", "").isalpha():
        return word
    left, right = word[middle - 1], word[middle]
    if " " in (left, right):
        return word
    return word[: middle - 1] + ("" if left == right else right) + left + word[middle + 1 :]
