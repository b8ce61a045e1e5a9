import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raylib.errors import InputError
from raylib.prompts import format_answer
from raylib.teacher.corpus import TraceDocuments, kind_of, system_message, text_documents
from raylib.teacher.encoding import IGNORED


def documents(tokenizer, traces, max_length, is_answers_only, rejected=None):
    packer = TraceDocuments(tokenizer, max_length, is_answers_only, [] if rejected is None else rejected)
    return list(packer.documents(traces))


@pytest.mark.parametrize("is_answers_only", [True, False])
def test_documents_fit_and_hold_every_trace_once(tokenizer, traces, is_answers_only):
    found = documents(tokenizer, traces, 512, is_answers_only)
    assert max(len(example["input_ids"]) for example in found) <= 512
    text = "".join(tokenizer.decode(example["input_ids"]) for example in found)
    for row in traces:
        assert text.count(f'query: "{row["query"]}"\n') == 1
    assert text.count("<|im_start|>system") == len(found) < len(traces) / 2


def test_a_document_keeps_to_one_perspective(tokenizer, traces):
    for example in documents(tokenizer, traces, 512, False):
        text = tokenizer.decode(example["input_ids"])
        queries = {row["query"]: row["perspective"] for row in traces}
        inside = {name for query, name in queries.items() if f'"{query}"' in text}
        assert len(inside) == 1
        assert system_message("marketplace6", inside.pop())["content"] in text


def test_answers_only_counts_exactly_the_answers(tokenizer, traces):
    counted = ""
    for example in documents(tokenizer, traces, 512, True):
        counted += tokenizer.decode([token for token in example["labels"] if token != IGNORED])
    answers = sorted(format_answer(row["rationale"], row["label"]) for row in traces)
    assert sorted(counted.removesuffix("<|im_end|>\n").split("<|im_end|>\n")) == answers


def test_both_losses_see_the_same_tokens(tokenizer, traces):
    masked, whole = (documents(tokenizer, traces, 512, flag) for flag in (True, False))
    assert [example["input_ids"] for example in masked] == [example["input_ids"] for example in whole]


def test_trace_longer_than_a_document_is_rejected(tokenizer, traces):
    rejected = []
    long = {**traces[0], "title": "boots " * 600}
    found = documents(tokenizer, [long, traces[1]], 512, True, rejected)
    assert len(found) == 1
    assert [row["reason"] for row in rejected] == ["too_long"]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(st.text(min_size=0, max_size=40), max_size=12))
def test_texts_are_cut_without_loss(tokenizer, texts):
    rejected = []
    found = list(text_documents(tokenizer, texts, 16, rejected))
    kept = [text for text in texts if text.strip()]
    expected = [[*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id] for text in kept]
    assert list(itertools.chain(*(example["input_ids"] for example in found))) == list(itertools.chain(*expected))
    assert all(len(example["input_ids"]) == 16 for example in found[:-1])
    assert len(rejected) == len(texts) - len(kept)


def test_unknown_table_names_its_columns():
    with pytest.raises(InputError, match="columns found: a, b"):
        kind_of(["a", "b"], "runs/x")
