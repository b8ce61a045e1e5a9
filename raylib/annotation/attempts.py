"""Which units were begun and by how many engines: how a request that kills its engine is found.

A unit leaves a small file while it is worked on. When engines have died over it, its pairs are asked one at a time and
the file names the one that is in flight; a pair in flight at several deaths is given up with the reason `engine`, and
the others get their answers. Deaths count within one driver only: when the driver dies, its engines die with it, and
no pair is to blame.
"""

import contextlib
import json
from dataclasses import asdict, dataclass, field

from raylib import tables

DEATHS_BEFORE_ISOLATION = 2
DEATHS_OF_A_PAIR = 3


@dataclass
class Attempt:
    """What is known of the attempts at one unit."""

    driver: str
    begun: int = 0  # engines that have begun it
    deaths: dict[str, int] = field(default_factory=dict)  # by pair_id, of engines that had it alone in flight

    @property
    def is_isolated(self) -> bool:
        """Whether its pairs are to be asked one at a time."""
        return self.begun > DEATHS_BEFORE_ISOLATION

    def is_hopeless(self, pair_id: str) -> bool:
        """Whether a pair is given up."""
        return self.deaths.get(pair_id, 0) >= DEATHS_OF_A_PAIR


def begin(output: str, unit_name: str, driver: str) -> Attempt:
    """Count one more attempt at a unit and return what the earlier ones left."""
    uri = _uri(output, unit_name)
    attempt = Attempt(driver)
    if tables.exists(uri):
        with contextlib.suppress(ValueError):  # empty after a power cut
            earlier = Attempt(**json.loads(tables.read_text(uri)))
            attempt = earlier if earlier.driver == driver else attempt
    attempt.begun += 1
    write(output, unit_name, attempt)
    return attempt


def write(output: str, unit_name: str, attempt: Attempt) -> None:
    """Store an attempt, atomically; after a power cut the driver is another one, and nobody reads it."""
    tables.write_text(_uri(output, unit_name), json.dumps(asdict(attempt)), is_durable=False)


def end(output: str, unit_name: str) -> None:
    """Forget a unit that is done."""
    uri = _uri(output, unit_name)
    if tables.exists(uri):
        tables.delete(uri)


def _uri(output: str, unit_name: str) -> str:
    return f"{output}/attempts/{unit_name}.json"
