"""What an extractor adds to a forward pass: 100 pairs of 128 tokens, as in table 2 of arXiv 2601.21611.

    python -m benchmarks.student_extractors [--rounds 7]

In each round the encoder and each extractor run one after the other, on the GPU where there is one; the ratio of the
two is the overhead. Their sum is not timed: a percent of a forward pass drowns in the noise of two of them. Encoders
have random weights and the shapes of MiniLM-L6 and BERT-base. Writes benchmarks/results/student_extractors.{md,json}.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.provenance import describe, provenance, write_result

RESULT = Path(__file__).parent / "results" / "student_extractors"
NUM_PAIRS, NUM_TOKENS = 100, 128
SHAPES = {
    "MiniLM-L6": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "BERT-base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
}
PUBLISHED = {"mlp": 1.36, "poly": 0.35, "gat": 12.51}  # % of 132.22 ms, BERT-base on an A100


def measure(shape: dict[str, int], rounds: int) -> dict[str, Any]:
    """Seconds of the encoder and of each extractor by round, and the parameters that an extractor adds."""
    import torch
    from transformers import BertConfig, BertModel

    from raylib.kernels.fused import FusedEncoder, can_fuse
    from raylib.student.extractors import NAMES, build_extractor

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder: Any = BertModel(BertConfig(**shape), add_pooling_layer=False).eval().to(device)
    encoder = FusedEncoder(encoder) if can_fuse(encoder) else encoder
    size = shape["hidden_size"]
    extractors = {name: build_extractor(name, size, None) for name in NAMES if name != "none"}
    ids_BL = torch.randint(1000, 2000, (NUM_PAIRS, NUM_TOKENS), device=device)
    inputs = {"input_ids": ids_BL, "attention_mask": torch.ones_like(ids_BL)}
    hidden_BLD = torch.randn(NUM_PAIRS, NUM_TOKENS, size, device=device)
    calls: dict[str, Callable[[], Any]] = {"encoder": lambda: encoder(**inputs)}
    for name, extractor in extractors.items():
        module = extractor.eval().to(device)  # type: ignore[union-attr]
        calls[name] = lambda module=module: module(hidden_BLD, inputs["attention_mask"].bool())
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first one is not counted
            for name, call in calls.items():
                started_s = time.perf_counter()
                call()
                if device == "cuda":
                    torch.cuda.synchronize()
                if number:
                    seconds[name].append(time.perf_counter() - started_s)
    parameters = {
        name: sum(one.numel() for one in module.parameters())  # type: ignore[union-attr]
        for name, module in extractors.items()
    }
    return {"device": device, "seconds": seconds, "parameters": parameters}


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    words = parser.parse_args()
    record = {
        **provenance(f"python -m benchmarks.student_extractors --rounds {words.rounds}"),
        "shapes": {name: measure(shape, words.rounds) for name, shape in SHAPES.items()},
    }
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    lines = [
        "# What an extractor adds",
        "",
        describe(record, "torch", "transformers"),
        f"{NUM_PAIRS} pairs of {NUM_TOKENS} tokens, float32, inference; medians over the rounds, in brackets the least "
        "and the largest. Published: BERT-base on an A100.",
        "",
        "| encoder | device | extractor | ms | overhead over the encoder, % | published, % | parameters added |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for shape, found in record["shapes"].items():
        encoder_R = np.array(found["seconds"]["encoder"])
        for name, seconds in found["seconds"].items():
            taken_R = np.array(seconds)
            told = (
                ("| |")
                if name == "encoder"
                else f"{_spread(100 * taken_R / encoder_R, 2)} | {PUBLISHED[name]} | {found['parameters'][name]:,}"
            )
            lines.append(f"| {shape} | {found['device']} | {name} | {_spread(1000 * taken_R, 1)} | {told} |")
    return "\n".join(lines) + "\n"


def _spread(values: np.ndarray, digits: int) -> str:
    return f"{np.median(values):.{digits}f} [{values.min():.{digits}f}, {values.max():.{digits}f}]"


if __name__ == "__main__":
    main()
