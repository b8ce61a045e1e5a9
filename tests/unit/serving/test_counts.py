from prometheus_client.parser import text_string_to_metric_families

from raylib.serving.counts import SILENT_S, Counts, Ledger


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


def samples(ledger):
    families = text_string_to_metric_families(ledger.exposition().decode())
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_the_ledger_adds_up_replicas_and_keeps_what_the_ended_ones_counted():
    clock = Clock()
    ledger = Ledger(clock)
    one, two = Counts(), Counts()
    one.observe("/v1/score", 200, 0.03)
    one.observe("/v1/score", 503, 0.001)
    two.observe("/v1/score", 200, 20.0)
    two.add("items", "main", amount=7)
    ledger.post("one", one.report({"waiting_tokens": 5.0, "replicas": 1.0}))
    clock.now_s = SILENT_S + 1
    ledger.post("two", two.report({"waiting_tokens": 2.0, "replicas": 1.0}))
    found = samples(ledger)
    assert found["tricot_requests_total", "/v1/score", "200"] == 2
    assert found["tricot_requests_total", "/v1/score", "503"] == 1
    assert found["tricot_items_total", "main"] == 7
    assert found["tricot_request_seconds_bucket", "/v1/score", "0.05"] == 2
    assert found["tricot_request_seconds_bucket", "+Inf", "/v1/score"] == 3
    assert found["tricot_request_seconds_count", "/v1/score"] == 3
    assert found["tricot_waiting_tokens",] == 2.0  # of those that still report
    assert found["tricot_replicas",] == 1
    assert ledger.heard().keys() == {"two"}


def test_a_later_report_replaces_the_earlier_one():
    ledger, counts = Ledger(Clock()), Counts()
    for _ in range(3):
        counts.add("batches", "main")
        ledger.post("one", counts.report({}))
    assert samples(ledger)["tricot_batches_total", "main"] == 3
