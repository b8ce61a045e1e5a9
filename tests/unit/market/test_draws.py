import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from raylib.market import draws


@given(st.lists(st.integers(0, 2**62), min_size=2, max_size=50), st.integers(0, 2**63))
def test_a_draw_depends_on_its_key_alone(values, seed):
    together = draws.uniform(draws.keyed(np.array(values), seed, 1), 5)
    alone = [draws.uniform(draws.keyed(np.array([value]), seed, 1), 5)[0] for value in values]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


def test_draws_are_uniform_and_independent_over_salts_seeds_and_purposes():
    values = np.arange(100_000)
    columns = [draws.uniform(draws.keyed(values, seed, purpose), salt) for seed in (1, 2) for purpose in (0, 1)
               for salt in (1, 2)]  # fmt: skip
    for column in columns:
        counts, _ = np.histogram(column, bins=20, range=(0, 1))
        assert abs(counts - 5_000).max() < 350  # 5 standard deviations
    correlation = np.corrcoef(columns)
    assert np.abs(correlation - np.eye(len(columns))).max() < 0.02


def test_choices_follow_their_weights():
    chosen = draws.choices(draws.keyed(np.arange(50_000), 1, 0), 1, [1, 0, 3])
    np.testing.assert_allclose(np.bincount(chosen, minlength=3) / 50_000, [0.25, 0, 0.75], atol=0.01)
