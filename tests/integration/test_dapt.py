import pytest
from teacher_cases import SIZE, answer

from jobs.dapt import DaptConfig, run
from raylib import tables
from raylib.ray_session import ray_session


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    import pyarrow as pa

    path = tmp_path_factory.mktemp("dapt")
    rows = [
        {
            "schema": "marketplace6",
            "perspective": ("user_intent", "business_rule")[i % 2],
            "query": f"shoes {i}",
            "locale": "en",
            "title": f"boots {i}",
            "rationale": answer(i, True).split("\n")[0],
            "label": answer(i, True).split("Label: ")[1],
        }
        for i in range(120)
    ]
    table = pa.Table.from_pylist(rows)
    tables.write_parquet(f"{path}/traces/part.parquet", table.schema, [table])
    texts = pa.table({"text": [f"red boots {i} for winter" for i in range(200)] + [" "]})
    tables.write_parquet(f"{path}/texts/part.parquet", texts.schema, [texts])
    with ray_session(num_cpus=2):
        yield path


def train(path, name, **settings):
    workers = {"num_workers": 2, "micro_batch": 1, "zero_stage": 0, "precision": "bfloat16"}
    values = {"output": str(path / name), "max_length": 1024, "global_batch": 4, "workers": workers, **settings}
    return run(DaptConfig.from_mapping(values, "test"))


@pytest.fixture(scope="module")
def scratch(path):
    size = {**SIZE.model_dump(), "vocab_size": 600}
    settings = {
        "corpus": str(path / "traces"),
        "scratch": size,
        "learning_rate": 1e-2,
        "num_epochs": 3.0,
        "is_answers_only": True,
    }
    return settings, train(path, "first", **settings)


def test_same_command_gives_the_same_weights(path, scratch):
    settings, metrics = scratch
    again = train(path, "again", **settings)
    assert again["loss_curve"] == metrics["loss_curve"]
    first, second = (path / name / "model" / "model.safetensors" for name in ("first", "again"))
    assert first.read_bytes() == second.read_bytes()


def test_new_model_learns_and_accounts_for_every_trace(scratch):
    _, metrics = scratch
    assert (metrics["rows_in"], metrics["rows_out"]) == (120, 120)
    assert metrics["loss_last"] < metrics["loss_first"] - 0.2


@pytest.mark.usefixtures("scratch")
def test_going_on_from_a_model_on_texts(path):
    import torch
    from transformers import AutoModelForCausalLM

    metrics = train(path, "second", corpus=str(path / "texts"), model=str(path / "first" / "model"), max_length=64)
    assert metrics["rejected"] == {"blank_text": 1}
    before = load_file_bf16(path / "first")
    after = load_file_bf16(path / "second")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    model = AutoModelForCausalLM.from_pretrained(path / "second" / "model")
    assert model.dtype == torch.bfloat16


def load_file_bf16(run_directory):
    from safetensors.torch import load_file as load_torch

    return load_torch(run_directory / "model" / "model.safetensors")
