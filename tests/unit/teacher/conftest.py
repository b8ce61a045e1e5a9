import pytest

from raylib.labels import LabelSchema
from raylib.prompts import PERSPECTIVES, format_answer, format_pair, load_perspective
from raylib.teacher.encoding import load_tokenizer
from raylib.teacher.scratch import train_tokenizer


def make_traces(count: int, schema: str = "marketplace6") -> list[dict]:
    names = LabelSchema.load(schema).names
    return [
        {
            "schema": schema,
            "perspective": PERSPECTIVES[i % 2],
            "query": f"red shoes {i}",
            "locale": "en",
            "title": f"blue boots {i * 7}",
            "brand": None,
            "category": None,
            "attributes": "color=blue",
            "rationale": f"asked red shoes {i}, found blue.",
            "label": names[i % len(names)],
        }
        for i in range(count)
    ]


@pytest.fixture(scope="session")
def traces() -> list[dict]:
    return make_traces(60)


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory, traces):
    path = tmp_path_factory.mktemp("tokenizer")
    texts = [format_pair(row) + "\n" + format_answer(row["rationale"], row["label"]) for row in traces]
    schema = LabelSchema.load("marketplace6")
    texts += [load_perspective(name).prefix(schema, "en", 0)[0]["content"] for name in PERSPECTIVES]
    train_tokenizer(texts, 900, 512, path)
    return load_tokenizer(str(path))
