import asyncio

import numpy as np
import pytest

from raylib.serving.settings import MAIN, ModelRef, Policy, ServerSettings, artifact_fingerprint


@pytest.fixture(scope="session")
def artifacts(make_student, tokenizer, tmp_path_factory):
    """Folders of two tiny students that answer differently, by name."""
    import torch

    from raylib.student.artifact import save_student

    folders = {}
    for seed, name in enumerate(("one", "two")):
        student = make_student(seed=seed)
        with torch.no_grad():
            student.head.weight.mul_(8.0)
        folders[name] = tmp_path_factory.mktemp("students") / name
        save_student(student, tokenizer, folders[name])
    return folders


@pytest.fixture
def ref():
    """What names a student to a server."""
    return lambda folder: ModelRef(str(folder), artifact_fingerprint(folder))


@pytest.fixture
def make_service(artifacts, ref):
    """The service and its students, the first one and others by name; `service.students.load` exchanges them."""
    from raylib.serving.counts import Counts
    from raylib.serving.service import Service
    from raylib.serving.students import Students

    made = []

    def make(others=None, parity_file=None, policy=None, **changes):
        settings, counts = ServerSettings("127.0.0.1", 0, **changes), Counts()
        students = Students(settings, counts)
        models = {MAIN: "one", **(others or {})}
        students.load({name: ref(artifacts[student]) for name, student in models.items()}, parity_file)
        made.append(Service(settings, students, counts, policy or Policy()))
        made[-1].students = students
        asyncio.run(made[-1].refresh())
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
def offline(artifacts):
    """Probabilities [N, C] of (query, title) as the first student scores them offline."""
    from raylib.student.inference import Scorer

    scorer = Scorer(artifacts["one"])
    return lambda pairs: np.asarray(scorer.score([{"query": query, "title": title} for query, title in pairs]))
