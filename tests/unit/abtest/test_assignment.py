from collections import Counter

import pytest

from raylib.abtest.assignment import assign, check_shares

SHARES = {"student": 0.1, "lrkd": 0.1, "control": 0.8}
USERS = [f"user-{n}" for n in range(20_000)]


def test_a_user_stays_in_an_arm_and_arms_have_their_shares():
    arms = [assign(user, "spring", SHARES) for user in USERS]
    assert arms == [assign(user, "spring", SHARES) for user in USERS]
    counts = Counter(arms)
    for arm, share in SHARES.items():
        assert counts[arm] / len(USERS) == pytest.approx(share, abs=0.01)


def test_another_experiment_mixes_the_users_anew():
    both = Counter((assign(user, "spring", SHARES), assign(user, "summer", SHARES)) for user in USERS)
    assert both["lrkd", "lrkd"] / len(USERS) == pytest.approx(0.01, abs=0.003)


def test_splitting_the_last_arm_leaves_the_others_where_they_are():
    split = {"student": 0.1, "lrkd": 0.1, "new": 0.3, "control": 0.5}
    for user in USERS[:2000]:
        before, after = assign(user, "spring", SHARES), assign(user, "spring", split)
        assert before == after or (before == "control" and after == "new")


@pytest.mark.parametrize("shares", [{"a": 1.0}, {"a": 0.5, "b": 0.4}, {"a": 1.0, "b": 0.0}, {"a": 1.5, "b": -0.5}])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(ValueError, match="two arms or more, each above 0, together 1"):
        check_shares(shares)
