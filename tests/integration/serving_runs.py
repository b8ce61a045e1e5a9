"""What the tests of the running server share: a tiny student, a port, its counters."""

import socket
from pathlib import Path

import httpx

from raylib.labels import LabelSchema

SCHEMA = LabelSchema.load("marketplace6")


def save(path: Path, seed: int) -> Path:
    """A random BERT (hidden 32, 2 layers) with the GAT extractor, saved as distill saves a student."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from raylib.student.artifact import save_student
    from raylib.student.model import Student, StudentSpec

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [prefix + chr(code) for code in [*range(97, 123), *range(48, 58)] for prefix in ("", "##")]
    words = {word: i for i, word in enumerate([*special, *letters])}
    pieces = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    pieces.normalizer = normalizers.BertNormalizer()
    pieces.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    pieces.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, **names)
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    backbone = BertModel(BertConfig(vocab_size=len(words), **sizes))
    student = Student(backbone, StudentSpec(label_schema=SCHEMA, extractor="gat", max_length=64))
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(4.0)  # so that classes differ by more than rounding
    save_student(student, tokenizer, path)
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def counted(page: httpx.Response) -> dict[str, float]:
    """The samples of a metrics page."""
    lines = [line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}
