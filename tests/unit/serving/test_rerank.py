import pytest
from pydantic import ValidationError

from raylib.serving.rerank import RerankRequest, ranked

TEXTS = ["boot", "red shoe", "shoe"]
SCORES = [0.1, 0.9, 0.1]


def test_texts_get_the_answer_of_text_embeddings_inference():
    request = RerankRequest(query="red shoe", texts=TEXTS, truncate=True, raw_scores=False)
    assert ranked(request, SCORES, "m", 12) == [
        {"index": 1, "score": 0.9},
        {"index": 0, "score": 0.1},
        {"index": 2, "score": 0.1},
    ]
    request = RerankRequest(query="red shoe", texts=TEXTS, return_text=True)
    assert ranked(request, SCORES, "m", 12)[0] == {"index": 1, "score": 0.9, "text": "red shoe"}


def test_documents_get_the_answer_of_infinity():
    request = RerankRequest(query="red shoe", documents=TEXTS, top_n=2, return_documents=True, model="any")
    answer = ranked(request, SCORES, "m", 12)
    assert answer["results"] == [
        {"index": 1, "relevance_score": 0.9, "document": "red shoe"},
        {"index": 0, "relevance_score": 0.1, "document": "boot"},
    ]
    assert (answer["object"], answer["model"], answer["usage"]["total_tokens"]) == ("rerank", "m", 12)
    assert "document" not in ranked(RerankRequest(query="q", documents=TEXTS), SCORES, "m", 1)["results"][0]


@pytest.mark.parametrize(
    "fields",
    [{}, {"texts": TEXTS, "documents": TEXTS}, {"texts": []}, {"texts": [3]}, {"documents": TEXTS, "top_n": 0}],
)
def test_wrong_requests_are_refused(fields):
    with pytest.raises(ValidationError):
        RerankRequest.model_validate({"query": "shoe", **fields})
