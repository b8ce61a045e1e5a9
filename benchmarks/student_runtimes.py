"""Pairs/s of the student's encoder in the runtimes one could choose from on a CPU: which is the shipped one, and why.

    pip install --target RUNTIMES --no-deps onnx onnxscript onnx_ir onnxruntime openvino flatbuffers ml_dtypes
    PYTHONPATH=RUNTIMES python -m benchmarks.student_runtimes --student RUN [--num_pairs 512] [--repeats 5]

The packages are no dependency of the project. RUN is a directory of jobs.distill, whose labels are ESCI's; the pairs
are benchmarks.student_inference's. Tokenisation, batches, extractor and head are the same for all; the encoder alone
runs in another runtime: PyTorch as it is, torch.compile, ONNX Runtime, OpenVINO, and the fused one of the Scorer.
Making a form (export, compilation, the first call of each shape) is reported apart. Rounds alternate. int8 is the
dynamic quantisation of ONNX Runtime and the static one of the Scorer; OpenVINO's needs NNCF, which is not measured.
Writes benchmarks/results/student_runtimes.{md,json}.
"""

import argparse
import copy
import os
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.provenance import describe, provenance, write_result
from benchmarks.student_inference import quality, read_pairs
from raylib.student.artifact import load_student
from raylib.student.inference import Scorer, predict_probs

RESULT = Path(__file__).parent / "results" / "student_runtimes"
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
PLAIN = "PyTorch, float32"
RUNTIMES = ("onnxruntime", "openvino", "onnx")
Run = Callable[[dict[str, np.ndarray]], np.ndarray]


class Encoder(nn.Module):
    """A backbone that another runtime computes: int64 inputs [B, L] -> hidden states [B, L, D]."""

    def __init__(self, backbone: Any, run: Run) -> None:
        super().__init__()
        self.config = backbone.config
        self.embeddings = backbone.embeddings  # tells the device; not used
        self._run = run

    def forward(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """As a backbone of transformers."""
        found = self._run({name: tensor.numpy() for name, tensor in inputs.items()})
        return SimpleNamespace(last_hidden_state=torch.from_numpy(found))


class HiddenStates(nn.Module):
    """A backbone with positional inputs and one output, as exporters take it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor) -> Any:
        """The last hidden states."""
        return self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


def export(backbone: nn.Module, folder: str) -> str:
    """The encoder as ONNX with free batch and length; returns the file."""
    example = tuple(torch.ones(3, 17, dtype=torch.int64) for _ in INPUTS)
    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
    file = f"{folder}/encoder.onnx"
    with torch.no_grad():
        torch.onnx.export(
            HiddenStates(backbone).eval(),
            example,
            file,
            input_names=list(INPUTS),
            output_names=["hidden"],
            dynamic_shapes=(free,) * len(INPUTS),
            dynamo=True,
            verbose=False,
        )
    return file


def onnx_runtime(file: str) -> Run:
    """The ONNX file in ONNX Runtime on all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["hidden"], inputs)[0]  # type: ignore[no-any-return]


def onnx_runtime_int8(file: str) -> Run:
    """The same with its matrix products quantised dynamically, weights by channel."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(file, f"{file}.int8", per_channel=True, weight_type=QuantType.QInt8)
    return onnx_runtime(f"{file}.int8")


def openvino(file: str, precision: str) -> Run:
    """The ONNX file in OpenVINO on all cores, `precision` f32 or bf16."""
    import openvino as ov

    settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    compiled = ov.Core().compile_model(file, "CPU", {**settings, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda inputs: np.array(request.infer(inputs)[0])


def forms(artifact: str, folder: str) -> dict[str, Callable[[], Any]]:
    """By name, a call that makes the student in that form."""
    file = export(load_student(artifact)[0].backbone, folder)

    def in_torch(dtype: torch.dtype, is_compiled: bool) -> Any:
        student = load_student(artifact)[0].eval()
        student.backbone.to(dtype)
        if is_compiled:
            student.backbone = torch.compile(student.backbone, dynamic=True)
        return student

    def elsewhere(make: Callable[..., Run], *words: Any) -> Any:
        student = load_student(artifact)[0].eval()
        other = copy.copy(student)
        other._modules = {**student._modules, "backbone": Encoder(student.backbone, make(file, *words))}
        return other

    return {
        PLAIN: lambda: in_torch(torch.float32, False),
        "torch.compile, float32": lambda: in_torch(torch.float32, True),
        "ONNX Runtime, float32": lambda: elsewhere(onnx_runtime),
        "OpenVINO, float32": lambda: elsewhere(openvino, "f32"),
        "Scorer, float32": lambda: Scorer(artifact, "float32", "cpu").student,
        "PyTorch, bfloat16": lambda: in_torch(torch.bfloat16, False),
        "torch.compile, bfloat16": lambda: in_torch(torch.bfloat16, True),
        "OpenVINO, bfloat16": lambda: elsewhere(openvino, "bf16"),
        "Scorer, bfloat16": lambda: Scorer(artifact, "bfloat16", "cpu").student,
        "ONNX Runtime, int8": lambda: elsewhere(onnx_runtime_int8),
        "Scorer, int8": lambda: Scorer(artifact, "int8", "cpu").student,
    }


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", required=True, help="run directory of jobs.distill")
    parser.add_argument("--num_pairs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    words = parser.parse_args()
    load_before = os.getloadavg()[0]
    source, pairs = read_pairs(words.num_pairs)
    scorer = Scorer(f"{words.student}/model", device="cpu")
    tokens = scorer.tokenise(pairs)
    students, probs, making_s = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name, make in forms(f"{words.student}/model", folder).items():
            started_s = time.perf_counter()
            students[name] = make()
            probs[name] = predict_probs(students[name], scorer.tokenizer, tokens)
            making_s[name] = time.perf_counter() - started_s
            print(f"{name}: ready after {making_s[name]:.1f} s", flush=True)
        seconds: dict[str, list[float]] = {name: [] for name in students}
        for _ in range(words.repeats):
            for name, student in students.items():
                started_s = time.perf_counter()
                predict_probs(student, scorer.tokenizer, scorer.tokenise(pairs))
                seconds[name].append(time.perf_counter() - started_s)
    record = {
        **provenance(
            f"PYTHONPATH=RUNTIMES python -m benchmarks.student_runtimes --student RUN --num_pairs {words.num_pairs} "
            f"--repeats {words.repeats}"
        ),
        "load_before": load_before,
        "runtimes": {name: metadata.version(name) for name in RUNTIMES},
        "source": source,
        "num_pairs": len(pairs),
        "mean_tokens": float(tokens.lengths_N.mean()),
        "making_s": making_s,
        "seconds": seconds,
        "quality": quality(probs, PLAIN, scorer.spec.label_schema, [pair["gold"] for pair in pairs]),
    }
    write_result(RESULT, record, report(record))


def report(record: dict[str, Any]) -> str:
    """The result as Markdown."""
    seconds = {name: np.array(taken) for name, taken in record["seconds"].items()}
    lines = [
        "# The student's encoder in the runtimes of a CPU",
        "",
        describe(record, "torch", "transformers"),
        f"{', '.join(f'{name} {version}' for name, version in record['runtimes'].items())}. {record['num_pairs']} "
        f"pairs of {record['source']}, {record['mean_tokens']:.1f} tokens on average; MiniLM-L6; "
        f"{len(seconds[PLAIN])} alternating rounds, the same batches for all. `ready`: seconds to make the form and to "
        "score all pairs once.",
        "",
        "| encoder | pairs/s | times PyTorch, float32 | ready, s | largest difference of a probability "
        "| changed labels | macro-F1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, taken_R in seconds.items():
        rate_R, times_R = record["num_pairs"] / taken_R, seconds[PLAIN] / taken_R
        facts = record["quality"][name]
        macro_f1 = f"{100 * facts['macro_f1']:.2f}" if "macro_f1" in facts else ""
        lines.append(
            f"| {name} | {np.median(rate_R):.0f} [{rate_R.min():.0f}, {rate_R.max():.0f}] | {np.median(times_R):.2f} "
            f"[{times_R.min():.2f}, {times_R.max():.2f}] | {record['making_s'][name]:.1f} | "
            f"{facts['max_difference']:.1e} | {facts['changed_labels']} | {macro_f1} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
