"""The server that benchmarks/serving.py compares with: Infinity, run by an interpreter that has infinity-emb.

    PYTHON benchmarks/serving_infinity.py MODEL_FOLDER PORT NUM_THREADS

Its own command line does not start with the click of today, so the application is built as that command builds it.
Float32 and its defaults, but for BetterTransformer, which current transformers no longer have.
"""

import sys

import torch
import uvicorn
from infinity_emb.args import EngineArgs
from infinity_emb.infinity_server import create_server

if __name__ == "__main__":
    folder, port, num_threads = sys.argv[1:]
    torch.set_num_threads(int(num_threads))
    arguments = EngineArgs(
        model_name_or_path=folder,
        engine="torch",
        device="cpu",
        dtype="float32",
        bettertransformer=False,
        served_model_name="peer",
    )
    uvicorn.run(create_server(engine_args_list=[arguments]), host="127.0.0.1", port=int(port), log_level="warning")
