"""An A/B test on the marketplace: users who search, two rankers of different skill, clicks by the market's model.

Users differ in how much they search and how readily they click, and are alike before and during the experiment: the
clicks of one user are not independent, which is what a test by rows instead of users gets wrong. The truth is known:
`true_ctr` is what each arm tends to. U users, S searches, K shown items.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from raylib import tables
from raylib.market.catalogue import gold_labels
from raylib.market.draws import Floats
from raylib.market.search_logs import ATTRACTION, EXAMINATION, NUM_COMPETITORS, NUM_SHOWN, RANKER_NOISE, Market

NUM_PAGES = 4_000  # result pages from which searches are drawn; ours
SEARCHES_A_DAY = 0.5  # of a user on average; ours
ACTIVITY_SHAPE, READINESS_SPREAD = 1.0, 0.5  # gamma shape of activity, log-normal spread of readiness to click; ours
REVENUE_OF_CLICK = 0.2  # mean, exponential; ours


@dataclass(frozen=True)
class Experiment:
    """Arms with the skill of their ranker, on one market."""

    market: Market
    skills: Mapping[str, float]  # arm -> weight of relevance in the ranking; the market's own engine has 0.5
    num_days_before: int = 14
    num_days: int = 14

    @cached_property
    def pages(self) -> dict[str, Floats]:
        """Probability of a click on each place of each page by arm, [S, K]; the same searches for all arms."""
        generator = np.random.default_rng([self.market.seed, 7])
        query_S = np.searchsorted(self.market.zipf_cumulative, generator.random(NUM_PAGES), side="right")
        asked_S, pattern_S = self.market.queries(query_S)
        rows = np.repeat(np.arange(NUM_PAGES), NUM_COMPETITORS)
        asked = asked_S.take(rows)
        competitor = np.tile(np.arange(NUM_COMPETITORS), NUM_PAGES)
        item, _ = self.market.competitors(query_S[rows], asked, pattern_S[rows], competitor)
        attraction_SP = ATTRACTION[gold_labels(asked, item)].reshape(NUM_PAGES, -1)
        noise_SP = RANKER_NOISE * generator.random(attraction_SP.shape)
        found = {}
        for arm, skill in self.skills.items():
            order_SK = np.argsort(-(skill * attraction_SP + noise_SP), axis=1)[:, :NUM_SHOWN]
            found[arm] = EXAMINATION * np.take_along_axis(attraction_SP, order_SK, axis=1)
        return found

    @property
    def true_ctr(self) -> dict[str, float]:
        """Clicks by impressions that each arm tends to."""
        return {arm: float(page_SK.mean()) for arm, page_SK in self.pages.items()}

    def events(self, arm_U: np.ndarray, before: str, generator: np.random.Generator) -> pa.Table:
        """One event a user and day with searches, from `num_days_before` days before to `num_days` after the start.

        Before the start every user sees the ranker of the arm `before`. Times are days since the epoch.
        """
        num_users, num_days = len(arm_U), self.num_days_before + self.num_days
        activity_U = generator.gamma(ACTIVITY_SHAPE, SEARCHES_A_DAY / ACTIVITY_SHAPE, num_users)
        # at most about 2: the probabilities of a page stay below 1
        readiness_U = np.minimum(generator.lognormal(-(READINESS_SPREAD**2) / 2, READINESS_SPREAD, num_users), 2.0)
        searches_UD = generator.poisson(activity_U[:, None], (num_users, num_days))
        user_S, day_S = (np.repeat(part.ravel(), searches_UD.ravel()) for part in np.indices(searches_UD.shape))
        page_S = generator.integers(0, NUM_PAGES, len(user_S))
        is_during_S = day_S >= self.num_days_before
        probability_SK = self.pages[before][page_S]
        for arm, page_SK in self.pages.items():
            is_here_S = is_during_S & (arm_U[user_S] == arm)
            probability_SK[is_here_S] = page_SK[page_S[is_here_S]]
        clicks_S = (generator.random(probability_SK.shape) < probability_SK * readiness_U[user_S, None]).sum(1)
        revenue_S = generator.gamma(np.maximum(clicks_S, 1), REVENUE_OF_CLICK) * (clicks_S > 0)
        cell_S = user_S * num_days + day_S
        size = num_users * num_days
        clicks_C, revenue_C = np.bincount(cell_S, clicks_S, size), np.bincount(cell_S, revenue_S, size)
        cells = np.flatnonzero(searches_UD.ravel())
        user_E, day_E = cells // num_days, cells % num_days
        arms = arm_U.astype(object)[user_E]
        arms[day_E < self.num_days_before] = None
        columns = {
            "user_id": pa.array(np.char.add("u", user_E.astype(str))),
            "arm": pa.array(arms, pa.string()),
            "time": pa.array(day_E * np.timedelta64(1, "D") + np.datetime64(0, "D")).cast(pa.timestamp("us", "UTC")),
            "impressions": pa.array(NUM_SHOWN * searches_UD.ravel()[cells].astype(np.int64)),
            "clicks": pa.array(clicks_C[cells].astype(np.int64)),
            "revenue": pa.array(revenue_C[cells]),
            "rating": pa.nulls(len(cells), pa.float64()),
        }
        return pa.table(columns).cast(tables.EVENTS)
