"""Ray Data actor that embeds rationales files with a frozen sentence encoder.

N rationales, E size of the embedding.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from raylib import tables
from raylib.embedding.selection import select_rationales
from raylib.kernels.fused import FusedEncoder, can_fuse

COLUMNS = ["pair_id", "perspective", "sample", "rationale", "label", "error"]


class Encoder:
    """A sentence encoder with its settings."""

    def __init__(self, path: str, max_tokens: int, is_normalised: bool, batch_size: int, dtype: str) -> None:
        """Load the model at `path` (a sentence-transformers or a plain Hugging Face directory, or an id).

        `max_tokens` is capped by what the model's positions allow; `max_tokens` of the object is the effective value.
        """
        import torch
        from sentence_transformers import SentenceTransformer

        kind = {"float32": torch.float32, "bfloat16": torch.bfloat16}[dtype]
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = SentenceTransformer(path, device=device, model_kwargs={"dtype": kind})
        transformer = getattr(self._model[0], "auto_model", None)
        config = getattr(transformer, "config", None)
        limit = getattr(config, "max_position_embeddings", None) or max_tokens
        # RoBERTa's positions begin after the padding id: two of them are not usable.
        limit -= 2 if "roberta" in str(getattr(config, "model_type", "")) else 0
        self.max_tokens = min(max_tokens, limit)
        self._model.max_seq_length = self.max_tokens
        if transformer is not None and can_fuse(transformer):
            self._model[0].model = FusedEncoder(transformer, dtype)
        self._is_normalised = is_normalised
        self._batch_size = batch_size

    def encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """embedding_NE in the order of `texts`; sentence-transformers sorts them by length, so little is padding."""
        embedding_NE: Any = self._model.encode(
            texts, batch_size=self._batch_size, normalize_embeddings=self._is_normalised, show_progress_bar=False
        )
        return np.asarray(embedding_NE, np.float32)

    def num_cut(self, texts: list[str]) -> int:
        """How many texts are longer than `max_tokens` and lose their end."""
        # No tokenizer makes more tokens than a text has bytes; what it adds around them is few.
        long = [text for text in texts if len(text.encode()) > self.max_tokens - 8]
        if not long:
            return 0
        ids = self._model.tokenizer(long, add_special_tokens=True, truncation=False, verbose=False)["input_ids"]
        return sum(len(piece) > self.max_tokens for piece in ids)


class EmbedFiles:
    """`map_batches` class: rows name a rationales file (`source`) and the embeddings file to write (`target`)."""

    def __init__(self, perspectives: Sequence[str], **encoder: Any) -> None:
        self._perspectives = perspectives
        self._encoder = Encoder(**encoder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Embed the files of the batch, together; the result has one row of counts a file.

        A target that exists is complete (files appear under their name only then) and is kept: its counts are taken
        again from the source, so that a resumed run counts what one run would have counted.
        """
        files = [
            self._read(source, target)
            for source, target in zip(batch["source"].tolist(), batch["target"].tolist(), strict=True)
        ]
        fresh = [file for file in files if file.is_wanted]
        texts = [text for file in fresh for text in file.texts]
        embedding_NE = self._encoder.encode(texts) if texts else np.zeros((0, 0), np.float32)
        first = 0
        for file in fresh:
            rows_NE = embedding_NE[first : first + len(file.texts)]
            first += len(file.texts)
            if not np.isfinite(rows_NE).all():
                raise ValueError(f"{file.source}: the encoder gave numbers that are not finite; use dtype float32")
            tables.write_parquet(file.target, tables.EMBEDDINGS, [_embeddings_table(file.rows, rows_NE)])
            file.counts |= {"dimensions": rows_NE.shape[1], "num_new": len(file.texts)}
        return {name: np.array([file.counts[name] for file in files], np.int64) for name in files[0].counts}

    def _read(self, source: str, target: str) -> "RationalesFile":
        table = tables.read_table(source, tables.RATIONALES, COLUMNS)
        rows, skipped = select_rationales(table, self._perspectives)
        texts: list[str] = rows["rationale"].to_pylist()
        counts = {
            "rows_in": table.num_rows,
            "rows_out": len(texts),
            **skipped,
            "num_cut": self._encoder.num_cut(texts),
            "max_tokens": self._encoder.max_tokens,
            "dimensions": 0,
            "num_new": 0,
        }
        is_there = bool(texts) and tables.exists(target)
        if is_there:
            counts["dimensions"] = len(tables.read_table(target, tables.EMBEDDINGS, ["embedding"])["embedding"][0])
        return RationalesFile(source, target, rows, texts, bool(texts) and not is_there, counts)


@dataclass
class RationalesFile:
    """One file of the rationales table, and what became of it."""

    source: str
    target: str
    rows: pa.Table  # to embed
    texts: list[str]
    is_wanted: bool  # there is something to embed that is not embedded yet
    counts: dict[str, int]


def _embeddings_table(rows: pa.Table, embedding_NE: npt.NDArray[np.float32]) -> pa.Table:
    offsets = np.arange(0, embedding_NE.size + 1, embedding_NE.shape[1], dtype=np.int32)
    column = pa.ListArray.from_arrays(offsets, pa.array(embedding_NE.reshape(-1)))
    columns = [rows["pair_id"], rows["perspective"], rows["label"], column]
    return pa.Table.from_arrays(columns, schema=tables.EMBEDDINGS)


def model_revision(path: str) -> str:
    """16 hex digits over the content of the model's files; a Hugging Face id is its own answer."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    digest = hashlib.blake2b(digest_size=8)
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".json", ".safetensors", ".bin", ".txt", ".model") and file.is_file():
            digest.update(str(file.relative_to(folder)).encode())
            with open(file, "rb") as stream:
                while chunk := stream.read(1 << 24):
                    digest.update(chunk)
    return digest.hexdigest()
