"""The application of one replica as clients see it, without Ray and without a socket."""

import asyncio
import hashlib
import json
from dataclasses import replace

import httpx
import numpy as np
import pytest

from raylib import tables
from raylib.abtest.assignment import assign
from raylib.errors import InputError, ParityError
from raylib.serving.counts import Counts
from raylib.serving.decisions import DecisionSection
from raylib.serving.parity import ParitySample, save_sample
from raylib.serving.rules import Rule
from raylib.serving.settings import MAIN, SHADOW, Experiment, ModelRef, Policy, ServerSettings
from raylib.serving.students import Students
from raylib.serving.web import build_app

TITLES = ("red shoe", "blue boot lace", "phone case big")


def body(titles=TITLES, **changes):
    items = [{"item_id": str(number), "title": title} for number, title in enumerate(titles)]
    return {"query": "red shoe", "locale": "en", "items": items, **changes}


async def nothing():
    return b""


def ask(service, *requests, exposition=nothing):
    """The answers to requests (method, path, keyword arguments of httpx), one after the other."""

    async def inside():
        transport = httpx.ASGITransport(build_app(service, exposition))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answers = [await client.request(method, path, **rest) for method, path, rest in requests]
            while service._shadows:
                await asyncio.gather(*service._shadows)
            return answers

    return asyncio.run(inside())


def exchange(service, models, parity_file):
    """Have other students loaded, and the service notice."""
    service.students.load(models, parity_file)
    asyncio.run(service.refresh())


def score(service, request, **rest):
    (answer,) = ask(service, ("POST", "/v1/score", {"json": request, **rest}))
    return answer


def probs(answer):
    return np.array([list(item["probs"].values()) for item in answer.json()["items"]])


def test_scores_are_those_of_the_offline_path(make_service, offline):
    answer = score(make_service(), body())
    expected = offline([("red shoe", title) for title in TITLES])
    np.testing.assert_allclose(probs(answer), expected, atol=1e-6)
    assert [item["item_id"] for item in answer.json()["items"]] == ["0", "1", "2"]
    assert "explanation" not in answer.json()["items"][0]
    assert answer.json()["arm"] is None


def test_a_cached_answer_is_the_computed_one(make_service):
    service = make_service(cache_items=2)
    first, second = (score(service, body(TITLES[:2])) for _ in range(2))
    np.testing.assert_array_equal(probs(first), probs(second))
    tokens = service.counts.counters["tokens", (MAIN,)]
    mixed = score(service, body((TITLES[2], TITLES[1])))
    np.testing.assert_allclose(probs(mixed)[1], probs(first)[1], atol=1e-7)
    assert service.counts.counters["cache_hits", (MAIN,)] == 3
    assert service.counts.counters["cache_misses", (MAIN,)] == 3
    assert service.counts.counters["tokens", (MAIN,)] - tokens == 8  # [CLS] red shoe [SEP] phone case big [SEP]
    score(service, body(TITLES[:1]))  # was asked for longest ago, so it made room
    assert service.counts.counters["cache_misses", (MAIN,)] == 4


def test_the_latent_is_the_students(make_service, artifacts):
    from raylib.student.inference import Scorer, predict_with_latents

    scorer = Scorer(artifacts["one"])
    tokens = scorer.tokenise([{"query": "red shoe", "title": title} for title in TITLES])
    _, latents_NR = predict_with_latents(scorer.student, scorer.tokenizer, tokens)
    items = score(make_service(cache_items=10), body(latent=True)).json()["items"]
    np.testing.assert_allclose([item["latent"] for item in items], latents_NR, atol=1e-6)


def test_rules_change_score_and_tier_and_say_so(make_service):
    rules = [
        Rule.model_validate({"name": "ours", "when": {"brand": ["Acme"]}, "score_times": 0.5}),
        Rule.model_validate({"name": "recalled", "when": {"brand": ["acme"], "locale": ["en"]}, "max_tier": 1}),
        Rule.model_validate({"name": "elsewhere", "when": {"locale": ["ja"]}, "min_tier": 4}),
    ]
    service = make_service(policy=Policy(tuple(rules)))
    request = body(explain=True)
    request["items"][1]["brand"] = "ACME "
    plain, changed, _ = score(service, request).json()["items"]
    assert plain["explanation"] == {"score": plain["score"], "tier": plain["tier"], "rules": []}
    assert changed["score"] == pytest.approx(changed["explanation"]["score"] / 2)
    assert [one["rule"] for one in changed["explanation"]["rules"]] == ["ours", "recalled"]
    assert changed["tier"] <= 1
    assert changed["filtered"]
    counted = {
        labels: amount for (name, labels), amount in service.counts.counters.items() if name == "rule_applications"
    }
    assert counted == {("ours",): 1, ("recalled",): 1}
    service.adopt(Policy(tuple(rules[1:])))
    assert [one["rule"] for one in score(service, request).json()["items"][1]["explanation"]["rules"]] == ["recalled"]
    assert service.describe()["rules"] == ["recalled", "elsewhere"]


def test_users_keep_their_arm_and_the_shadow_answers_nobody(make_service, artifacts, ref, tmp_path):
    shares = {"new": 0.3, "old": 0.3, "rest": 0.4}
    experiment = Experiment("spring", shares, frozenset({"new"}))
    decisions = DecisionSection(folder=str(tmp_path / "log"))
    service = make_service({"new": "two", SHADOW: "two"}, experiment=experiment, decisions=decisions)
    users = [f"user {number}" for number in range(12)]
    answers = [score(service, body(user_id=user)).json() for user in users]
    assert [answer["arm"] for answer in answers] == [assign(user, "spring", shares) for user in users]
    prints = {"one": ref(artifacts["one"]).fingerprint, "two": ref(artifacts["two"]).fingerprint}
    for answer in answers:
        assert answer["fingerprint"] == prints["two" if answer["arm"] == "new" else "one"]
        assert answer["model"] == ("new" if answer["arm"] == "new" else MAIN)
    assert score(service, body(model=SHADOW)).json()["fingerprint"] == prints["two"]
    assert score(service, body(model="third")).json()["reason"] == "unknown_model"
    service.close()
    rows = tables.read_table(str(tmp_path / "log"), tables.DECISIONS).to_pylist()
    shown = [row for row in rows if not row["is_shadow"]]
    assert len(shown) == 3 * len(users)
    assert {row["user_id"] for row in shown} == set(users)
    assert {row["query"] for row in rows} == {None}
    assert {row["model"] for row in rows if row["is_shadow"]} == {prints["two"]}
    dropped = service.counts.counters["shadow", ("dropped",)]
    assert len(rows) - len(shown) == 3 * (len(users) - dropped) > 0


def test_only_a_student_that_scores_its_sample_is_served(make_service, artifacts, ref, offline, tmp_path):
    pairs = [{"pair_id": str(n), "query": "red shoe", "locale": "en", "title": title} for n, title in enumerate(TITLES)]
    probs_NC = offline([("red shoe", title) for title in TITLES])
    sample = ParitySample(pairs, {str(n): probs_C.tolist() for n, probs_C in enumerate(probs_NC)}, {}, 0)
    save_sample(sample, tmp_path / "sample.json")
    service = make_service(parity_file=str(tmp_path / "sample.json"))
    assert service.describe()["parity"]["num_rows"] == 3
    assert service.describe()["parity"]["max_abs_difference"] < 1e-6
    exchange(service, {MAIN: ref(artifacts["two"])}, str(tmp_path / "sample.json"))
    assert "not ready" in service.describe()["load_error"]
    assert score(service, body()).json()["fingerprint"] == ref(artifacts["one"]).fingerprint
    with pytest.raises(ParityError, match="differ by up to"):
        make_service({MAIN: "two"}, parity_file=str(tmp_path / "sample.json"))
    exchange(service, {MAIN: ref(artifacts["two"])}, None)
    assert service.describe()["load_error"] is None
    assert score(service, body()).json()["fingerprint"] == ref(artifacts["two"]).fingerprint


def test_an_artifact_that_changes_or_is_half_written_is_not_taken(make_service, artifacts, ref, tmp_path):
    service = make_service()
    exchange(service, {MAIN: replace(ref(artifacts["two"]), fingerprint="0" * 16)}, None)
    assert "was replaced" in service.describe()["load_error"]
    half = tmp_path / "half"
    half.mkdir()
    (half / "student.json").write_bytes((artifacts["two"] / "student.json").read_bytes())
    exchange(service, {MAIN: replace(ref(artifacts["two"]), path=str(half))}, None)
    assert "no whole student artifact" in service.describe()["load_error"]
    assert score(service, body()).status_code == 200
    with pytest.raises(InputError, match="no whole student artifact"):  # nobody else can answer
        Students(ServerSettings("127.0.0.1", 0), Counts()).load({MAIN: ModelRef(str(half), "0" * 16)}, None)


def test_without_a_key_only_probes_and_the_page_are_answered(make_service):
    digests = tuple(hashlib.sha256(key.encode()).digest() for key in ("first", "second"))
    service = make_service(policy=Policy(key_digests=digests))
    for path, status in (("/healthz", 200), ("/readyz", 200), ("/", 200), ("/v1/model", 401), ("/metrics", 401)):
        (answer,) = ask(service, ("GET", path, {}))
        assert answer.status_code == status, path
    for authorization in ("Bearer third", "Bearer", "first", "Basic first", f"Bearer {digests[0].hex()}"):
        answer = score(service, body(), headers={"authorization": authorization})
        assert (answer.status_code, answer.json()["reason"]) == (401, "unauthorized")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert score(service, body(), headers={"authorization": "bearer second"}).status_code == 200
    service.adopt(Policy(key_digests=digests[:1]))
    assert score(service, body(), headers={"authorization": "bearer second"}).status_code == 401


def test_browsers_from_elsewhere_are_let_in_only_by_name(make_service):
    origin = {"headers": {"origin": "https://shop.example", "access-control-request-method": "POST"}}
    for origins, allowed in (((), None), (("https://shop.example",), "https://shop.example")):
        (answer,) = ask(make_service(cors_origins=origins), ("OPTIONS", "/v1/score", origin))
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_the_description_names_what_is_served(make_service, artifacts, ref):
    (answer,) = ask(make_service({SHADOW: "two"}), ("GET", "/v1/model", {}))
    found = answer.json()
    assert found["models"] == {MAIN: ref(artifacts["one"]).fingerprint, SHADOW: ref(artifacts["two"]).fingerprint}
    assert found["classes"] == list(next(iter(score(make_service(), body()).json()["items"]))["probs"])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"locale": "english"}, "locale"),
        ({"locale": "../etc"}, "locale"),
        ({"query": "\u0000" * 1001}, "query"),
        ({"user_id": ""}, "user_id"),
        ({"items": [{"item_id": "1", "title": float("nan")}]}, "items.0.title"),
    ],
)
def test_wrong_fields_are_named(make_service, changes, field):
    content = json.dumps(body(**changes)).encode()
    answer = score_content(make_service(), content)
    assert (answer.status_code, answer.json()["reason"]) == (422, "invalid_request")
    assert field in [problem["field"] for problem in answer.json()["problems"]]


def score_content(service, content):
    header = {"content-type": "application/json"}
    (answer,) = ask(service, ("POST", "/v1/score", {"content": content, "headers": header}))
    return answer


def test_the_page_asks_nobody_but_this_server(make_service):
    (answer,) = ask(make_service(), ("GET", "/", {}))
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text.replace("http://www.w3.org", "")
    assert "https://" not in answer.text
    assert "innerHTML" not in answer.text
