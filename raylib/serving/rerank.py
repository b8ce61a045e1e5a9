"""POST /rerank in the shapes that clients of text-embeddings-inference and of Infinity send and expect.

The first sends `texts` and gets a list, the second (like Cohere's clients) sends `documents` and gets an object. Both
get the expected gain as the score, best first. What else they send (`model`, `truncate`, `raw_scores`, ...) is ignored.
"""

import time
import uuid
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from raylib.serving.schemas import TEXT_CHARS, Query

Texts = Annotated[list[Annotated[str, StringConstraints(max_length=TEXT_CHARS)]], Field(min_length=1)]


class RerankRequest(BaseModel):
    """A query and the texts to order for it."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    query: Query
    texts: Texts | None = Field(None, description="as text-embeddings-inference has them")
    documents: Texts | None = Field(None, description="as Infinity has them")
    return_text: bool = Field(False, description="with `texts`: give each text back")
    return_documents: bool = Field(False, description="with `documents`: give each document back")
    top_n: int | None = Field(None, ge=1, description="with `documents`: so many best ones; null: all")

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.texts is None) == (self.documents is None):
            raise ValueError("send either texts or documents")
        return self

    @property
    def candidates(self) -> list[str]:
        """The texts, whatever they are called."""
        return self.texts if self.texts is not None else self.documents or []


def ranked(request: RerankRequest, scores: list[float], model: str, num_tokens: int) -> Any:
    """The answer in the shape of the request; of equal scores the earlier text comes first."""
    texts = request.candidates
    order = sorted(range(len(texts)), key=lambda index: -scores[index])
    if request.texts is not None:
        return [
            {"index": index, "score": scores[index], **({"text": texts[index]} if request.return_text else {})}
            for index in order
        ]
    results = [
        {
            "index": index,
            "relevance_score": scores[index],
            **({"document": texts[index]} if request.return_documents else {}),
        }
        for index in order[: request.top_n]
    ]
    return {
        "object": "rerank",
        "results": results,
        "model": model,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        "id": f"rerank-{uuid.uuid4()}",
        "created": int(time.time()),
    }
