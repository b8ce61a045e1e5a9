"""Continued pre-training: tables of text, pairs or traces as documents of at most `max_length` tokens.

A trace is one pair judged from one perspective. Several of them share a document, as turns of one conversation under
one system prompt: the prompt costs its tokens once, and a question after answered ones is what few-shot use looks like.
The sources publish neither the corpus nor its form (arXiv 2510.11056 names the stage); these are our choices.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from raylib.errors import InputError
from raylib.labels import LabelSchema
from raylib.prompts import format_answer, format_pair, load_perspective, render
from raylib.teacher.datasets import Example, Rejected, rejected_row
from raylib.teacher.encoding import IGNORED, Message

TRACE_COLUMNS = ("schema", "perspective", "query", "locale", "title", "rationale", "label")
PAIR_COLUMNS = ("query", "locale", "title")
SYSTEM_EVERY = 50
TURN_TOKENS = 8  # upper bound of what a chat template adds to a message


def kind_of(columns: Iterable[str], uri: str) -> str:
    """`traces`, `text` or `pairs`, by the columns of a table; InputError when it is none of them."""
    found = set(columns)
    for kind, needed in (("traces", TRACE_COLUMNS), ("text", ("text",)), ("pairs", PAIR_COLUMNS)):
        if found.issuperset(needed):
            return kind
    raise InputError(
        f"{uri}: neither traces ({', '.join(TRACE_COLUMNS)}) nor texts (text) nor pairs ({', '.join(PAIR_COLUMNS)}); "
        f"columns found: {', '.join(sorted(found))}"
    )


def row_texts(kind: str, rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The texts of a table, for training a tokenizer.

    Of traces every 50th brings its system prompt: that is enough to rank its words without crowding out the rest.
    """
    for position, row in enumerate(rows):
        if kind == "text":
            yield str(row["text"] or "")
        elif kind == "pairs":
            yield format_pair(row)
        else:
            if position % SYSTEM_EVERY == 0:
                yield system_message(str(row["schema"]), str(row["perspective"]))["content"]
            yield format_pair(row) + "\n" + format_answer(str(row["rationale"]), str(row["label"]))


@cache
def system_message(schema: str, perspective: str) -> Message:
    """The system message with which annotation asks from this perspective."""
    pair = {"query": "", "title": "", "locale": "en"}
    return load_perspective(perspective).messages(LabelSchema.load(schema), pair, 0)[0]


class TraceDocuments:
    """Packs traces into conversations; memory holds one open document per (schema, perspective)."""

    def __init__(self, tokenizer: Any, max_length: int, is_answers_only: bool, rejected: list[Rejected]) -> None:
        """`is_answers_only` leaves system and user turns out of the loss; needs an end-of-turn token (ChatML)."""
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.is_answers_only = is_answers_only
        self.rejected = rejected
        self._open: dict[tuple[str, str], tuple[list[Message], int]] = {}

    def documents(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
        """One example per full conversation, in the order in which they fill up."""
        for row in rows:
            key = (str(row["schema"]), str(row["perspective"]))
            turns: list[Message] = [
                {"role": "user", "content": format_pair(row)},
                {"role": "assistant", "content": format_answer(str(row["rationale"]), str(row["label"]))},
            ]
            system = system_message(*key)
            size, base = self._size(turns), self._size([system])
            if base + size > self.max_length:
                detail = f"{base + size} tokens > max_length {self.max_length}"
                self.rejected.append(rejected_row("dapt", "too_long", detail, row))
                continue
            messages, used = self._open.get(key, ([system], base))
            if used + size > self.max_length:
                yield self._encode(messages)
                messages, used = [system], base
            self._open[key] = ([*messages, *turns], used + size)
        for messages, _ in self._open.values():
            yield self._encode(messages)
        self._open = {}

    def _size(self, messages: list[Message]) -> int:
        texts = [message["content"] for message in messages]
        ids = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return sum(len(text_ids) + TURN_TOKENS for text_ids in ids)

    def _encode(self, messages: list[Message]) -> Example:
        if not self.is_answers_only:
            ids = self.tokenizer(render(self.tokenizer, messages, False), add_special_tokens=False)["input_ids"]
            ids = ids[: self.max_length]
            return {"input_ids": ids, "labels": ids}
        input_ids: list[int] = []
        labels: list[int] = []
        for k in range(2, len(messages), 2):
            prompt = render(self.tokenizer, messages[:k], True)
            answered = render(self.tokenizer, messages[: k + 1], False)
            done = render(self.tokenizer, messages[: k - 1], False) if k > 2 else ""
            question = self.tokenizer(prompt[len(done) :], add_special_tokens=False)["input_ids"]
            answer = self.tokenizer(answered[len(prompt) :], add_special_tokens=False)["input_ids"]
            input_ids += question + answer
            labels += [IGNORED] * len(question) + answer
        return {"input_ids": input_ids[: self.max_length], "labels": labels[: self.max_length]}


def text_documents(
    tokenizer: Any, texts: Iterable[str], max_length: int, rejected: list[Rejected]
) -> Iterator[Example]:
    """Texts joined by the end token and cut into pieces of exactly `max_length` tokens; blank texts are rejected.

    A special token that is spelled out in a text is read as its characters.
    """
    waiting: list[int] = []
    for text in texts:
        if not text.strip():
            rejected.append(rejected_row("dapt", "blank_text", "no text", {"text": text}))
            continue
        ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        waiting += [*ids, tokenizer.eos_token_id]
        while len(waiting) >= max_length:
            yield {"input_ids": waiting[:max_length], "labels": waiting[:max_length]}
            waiting = waiting[max_length:]
    if waiting:
        yield {"input_ids": waiting, "labels": waiting}
