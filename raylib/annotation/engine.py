"""The file that starts vLLM: an in-process engine that answers a stream of requests.

Requests are drawn from the stream as earlier ones finish (continuous batching over all units of a task), so the
engine drains only at the end of the stream. Traps met on real runs stand beside the settings below.
"""

import gc
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from raylib.annotation.label_probs import LABEL_TOKENS, NUM_ALTERNATIVES, TokenChoice, label_probs
from raylib.annotation.requests import Answer, Outcome, Prompt, Request, Sampling, TooLongError, request_seed
from raylib.annotation.truncation import truncating_processor
from raylib.prompts import encode_prompt

if TYPE_CHECKING:
    from vllm import CompletionOutput, RequestOutput

CPU_KV_CACHE_BYTES = 512 << 20  # without a figure vLLM asks for a share of the machine and fails where little is free
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # the only values vLLM takes


@dataclass(frozen=True)
class EngineSettings:
    """How one engine is started."""

    model: str
    adapter: str | None
    num_gpus: float
    num_cpus: float
    tensor_parallel_size: int
    dtype: str
    max_model_len: int | None
    max_num_seqs: int
    kv_cache_memory_bytes: int | None
    enforce_eager: bool

    def start(self, sampling: Sampling) -> "Engine":
        """Start the engine in this process."""
        return Engine(self, sampling)


class Engine:
    """One vLLM engine in this process."""

    def __init__(self, settings: EngineSettings, sampling: Sampling) -> None:
        """Start the engine: seconds on a CPU with `enforce_eager`, minutes for a large model."""
        # Read at import: in-process saves two processes, 20 s and 2 GB; unbound threads let engines share the cores.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        if settings.num_gpus == 0:
            os.environ["OMP_NUM_THREADS"] = str(max(1, int(settings.num_cpus)))
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        # vLLM truncates for itself on a GPU, and where there is no k that would spare it the sort.
        self._truncates = settings.num_gpus == 0 and sampling.top_k > 0 and sampling.temperature > 0
        processors = [truncating_processor(sampling.top_k, sampling.top_p)] if self._truncates else None
        self._llm = LLM(**engine_arguments(settings), logits_processors=processors)
        self._engine = self._llm.llm_engine
        self._adapter = LoRARequest("adapter", 1, settings.adapter) if settings.adapter else None
        self._sampling = sampling
        self._num_sent = 0
        # As many waiting as running, so that a slot that falls free is filled in the same step.
        self._max_in_flight = 2 * settings.max_num_seqs
        # What the imports and the model made stays: the collector need not visit it again at every full collection.
        gc.collect()
        gc.freeze()
        self.tokenizer: Any = self._llm.get_tokenizer()
        self.max_model_len: int = self._llm.model_config.max_model_len

    def prompt(self, messages: Sequence[dict[str, str]]) -> Prompt:
        """Encode a conversation; raises TooLongError when it and an answer are longer than the model takes."""
        ids = encode_prompt(self.tokenizer, messages)
        needed = len(ids) + self._sampling.max_tokens
        if needed > self.max_model_len:
            raise TooLongError(f"{needed} tokens with the answer's, the model takes {self.max_model_len}")
        return Prompt(messages, ids)

    def stream(self, next_request: Callable[[], Request | None]) -> Iterator[list[Outcome]]:
        """Yield after each step of the engine the requests that it finished, possibly none.

        `next_request` is asked whenever there is room, also after it returned None: an answer may bring a new
        request. Ends when nothing runs and nothing more comes.
        """
        running: dict[str, Request] = {}
        while True:
            while len(running) < self._max_in_flight and (request := next_request()):
                running[self._send(request)] = request
            if not running:
                return
            outputs = cast("list[RequestOutput]", self._engine.step())
            yield [self._answer(running.pop(output.request_id), output) for output in outputs if output.finished]

    def _send(self, request: Request) -> str:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        sampling = self._sampling
        params = SamplingParams(
            temperature=sampling.temperature,
            top_p=1.0 if self._truncates else sampling.top_p,
            top_k=0 if self._truncates else sampling.top_k,
            max_tokens=sampling.max_tokens,
            seed=request_seed(request.pair_id, request.perspective, request.sample, sampling.seed, request.attempt),
            logprobs=NUM_ALTERNATIVES if sampling.classes else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        self._num_sent += 1
        request_id = str(self._num_sent)
        prompt = tokens_input(list(request.prompt.ids or ()))
        self._engine.add_request(request_id, prompt, params, lora_request=self._adapter)
        return request_id

    def _answer(self, request: Request, output: "RequestOutput") -> Answer:
        (text,) = output.outputs
        return Answer(
            request=request,
            text=text.text,
            finish_reason=text.finish_reason or "unknown",
            prompt_tokens=len(request.prompt.ids or ()),
            cached_tokens=output.num_cached_tokens or 0,
            generated_tokens=len(text.token_ids),
            label_probs=label_probs(_choices(text), self._sampling.classes) if self._sampling.classes else None,
        )


def _choices(text: "CompletionOutput") -> list[TokenChoice]:
    """The last tokens of an answer with the likeliest ones at their place."""
    choices = []
    for token_id, found in list(zip(text.token_ids, text.logprobs or (), strict=True))[-LABEL_TOKENS:]:
        alternatives = [(one.decoded_token or "", one.logprob) for one in found.values()]
        choices.append(TokenChoice(found[token_id].decoded_token or "", alternatives))
    return choices


def engine_arguments(settings: EngineSettings) -> dict[str, Any]:
    """Keyword arguments of `vllm.LLM`."""
    is_cpu = settings.num_gpus == 0
    arguments: dict[str, Any] = {
        "model": settings.model,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "enforce_eager": settings.enforce_eager,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "distributed_executor_backend": "uni" if settings.tensor_parallel_size == 1 else "mp",
        "enable_prefix_caching": True,
        "use_tqdm_on_load": False,
        "seed": 0,
        "generation_config": "vllm",  # else the model's own defaults (e.g. a repetition penalty) join our sampling
    }
    kv_cache_bytes = settings.kv_cache_memory_bytes or (CPU_KV_CACHE_BYTES if is_cpu else None)
    if kv_cache_bytes:
        arguments["kv_cache_memory_bytes"] = kv_cache_bytes
    if is_cpu:
        arguments["block_size"] = 32  # the default of 128 finds no shared prefix in short prompts
        # A prompt that is prefilled in two steps takes back one draw of its own seed, which vLLM's CPU generator cannot
        # do ("CPU Generator does not use offset": the engine dies), so every prompt is prefilled whole.
        arguments["enable_chunked_prefill"] = False
    if settings.adapter:
        arguments |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": _lora_rank(settings.adapter)}
    return arguments


def _lora_rank(adapter: str) -> int:
    rank = json.loads((Path(adapter) / "adapter_config.json").read_text())["r"]
    return next(allowed for allowed in LORA_RANKS if allowed >= rank)
