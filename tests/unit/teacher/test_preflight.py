from raylib.teacher.preflight import Probe, Seen, find_problems

MASTER = ("10.0.0.1", 29500)
FINE = Seen("10.0.0.1", [], 64 << 30)


def test_nothing_is_said_where_nothing_is_wrong():
    assert find_problems([FINE, FINE], [None, None], MASTER, 32 << 30, use_gpu=False) == []


def test_each_rank_with_a_problem_is_named_with_the_remedy():
    seen = [FINE, Seen("10.0.0.2", ["/models/qwen"], 64 << 30), Seen("10.0.0.3", [], 64 << 30)]
    missing, unreached = find_problems(seen, [None, None, "timed out"], MASTER, 1, use_gpu=True)
    assert missing.startswith("rank 1 on 10.0.0.2 does not see /models/qwen: put the model on a path")
    assert unreached.startswith("rank 2 on 10.0.0.3 cannot reach rank 0 at 10.0.0.1:29500 (timed out): open the ports")


def test_workers_on_a_host_share_its_memory_and_not_a_gpus():
    seen = [FINE, FINE, FINE]
    (first, *_) = found = find_problems(seen, [None] * 3, MASTER, 30 << 30, use_gpu=False)
    assert len(found) == 3
    assert "has 21.3 GiB free" in first
    assert "need 30.0 GiB" in first
    assert find_problems(seen, [None] * 3, MASTER, 30 << 30, use_gpu=True) == []


def test_a_probe_reaches_a_port_that_listens_and_says_why_not():
    probe = Probe()
    _, port = probe.listen()
    assert Probe().reach("127.0.0.1", port) is None
    probe._listening.close()
    assert "refused" in str(Probe().reach("127.0.0.1", port))
