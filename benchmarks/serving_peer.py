"""The plain server that benchmarks/serving.py compares with: sentence-transformers' CrossEncoder behind FastAPI.

    python -m benchmarks.serving_peer MODEL_FOLDER PORT NUM_THREADS

As most teams write it: one worker, the model in a thread, a request a batch.
"""

import sys

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import CrossEncoder


class Request(BaseModel):
    """As text-embeddings-inference has it."""

    query: str
    texts: list[str]


def build(folder: str) -> FastAPI:
    model = CrossEncoder(folder, max_length=128, device="cpu")
    app = FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/rerank")
    def rerank(request: Request) -> list[dict[str, float]]:
        pairs = [(request.query, text) for text in request.texts]
        scores = model.predict(pairs, batch_size=32, show_progress_bar=False)
        return [{"index": index, "score": float(score)} for index, score in enumerate(scores)]

    return app


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    uvicorn.run(build(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
