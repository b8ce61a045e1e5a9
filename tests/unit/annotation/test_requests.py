import json

from raylib.annotation.requests import Answer, Prompt, Rejection, Request, judge, rejected_row, request_seed
from raylib.labels import LabelSchema

SCHEMA = LabelSchema.load("esci")
REQUEST = Request(0, 0, "p1", 0, "user_intent", 3, Prompt((), (1, 2)))


def answer(text: str, finish_reason: str = "stop", request: Request = REQUEST) -> Answer:
    return Answer(request, text, finish_reason, prompt_tokens=2, cached_tokens=1, generated_tokens=7)


def test_every_answer_has_its_own_seed() -> None:
    seeds = {
        request_seed(pair, perspective, sample, run, attempt)
        for pair in ("a", "b")
        for perspective in ("x", "y")
        for sample in range(5)
        for run in (0, 1)
        for attempt in (1, 2)
    }
    assert len(seeds) == 2 * 2 * 5 * 2 * 2
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_an_answer_becomes_a_row_or_a_typed_rejection() -> None:
    row = judge(answer("same brand.\nLabel: Exact"), SCHEMA, "f")
    assert isinstance(row, dict)
    assert (row["label"], row["error"], row["generated_tokens"], row["fingerprint"]) == ("Exact", None, 7, "f")
    said = [("", "stop"), ("hm", "stop"), ("hm\nLabel: Great", "stop"), ("hm", "length")]
    judged = [judge(answer(text, finish), SCHEMA, "f") for text, finish in said]
    assert [one.reason for one in judged if isinstance(one, Rejection)] == [
        "empty", "no_label", "label_outside_schema", "truncated",
    ]  # fmt: skip


def test_rejects_name_their_request_their_attempt_and_what_was_said() -> None:
    row = rejected_row(Rejection(REQUEST.again().again(), "no_label", "finish reason stop", "hm ½"))
    assert json.loads(row["payload"]) == {"pair_id": "p1", "perspective": "user_intent", "sample": 3, "text": "hm ½"}
    assert (row["reason"], row["attempt"]) == ("no_label", 3)
