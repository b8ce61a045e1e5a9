"""The page at / in a real browser, on the application of one replica."""

import asyncio
import shutil
import socket
import subprocess
import threading
from pathlib import Path
from urllib.parse import urlencode

import pytest
import uvicorn

from raylib.serving.counts import Counts
from raylib.serving.rules import Rule
from raylib.serving.service import Service
from raylib.serving.settings import MAIN, ModelRef, Policy, ServerSettings, artifact_fingerprint
from raylib.serving.students import Students
from raylib.serving.web import build_app
from raylib.student.artifact import save_student

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def url(tmp_path, make_student, tokenizer):
    """A server with two students and a rule."""
    models = {}
    for seed, name in enumerate((MAIN, "other")):
        save_student(make_student(seed=seed), tokenizer, tmp_path / name)
        models[name] = ModelRef(str(tmp_path / name), artifact_fingerprint(tmp_path / name))
    rule = Rule.model_validate({"name": "recalled", "when": {"brand": ["acme"]}, "max_tier": 0})
    settings, counts = ServerSettings("127.0.0.1", 0), Counts()
    students = Students(settings, counts)
    students.load(models, None)
    service = Service(settings, students, counts, Policy((rule,)))
    asyncio.run(service.refresh())

    async def exposition() -> bytes:
        return b""

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(build_app(service, exposition), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        server.should_exit = True
        thread.join()
    service.close()


def shown(url: str, profile: Path) -> str:
    """What stands on the page once its scripts have run."""
    command = [str(BROWSER), *QUIET, f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_two_students_are_shown_side_by_side_and_titles_stay_text(url, tmp_path):
    items = "red shoe | acme\nblue boot <img src=x onerror=alert(1)>"
    asked = {"query": "red shoe", "locale": "en", "items": items, "model": MAIN, "other": "other"}
    found = shown(f"{url}#{urlencode(asked)}", tmp_path / "profile")
    answers = found[found.index('<div id="answers"') : found.index("<script>")]
    assert answers.count("<section>") == 2
    assert answers.count("recalled: score") == 2
    assert answers.count('class="filtered"') >= 2
    assert answers.count("&lt;img src=x onerror=alert(1)&gt;") == 2
    wrong = shown(f"{url}#{urlencode({**asked, 'locale': 'english'})}", tmp_path / "profile")
    assert "422 invalid_request" in wrong
