"""Which arm of an experiment a user is in: a function of the user alone, so that it stays the same on every request."""

import hashlib
import math
from collections.abc import Mapping


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise ValueError unless there are two arms or more, all of positive share, that sum to 1."""
    if len(shares) < 2 or any(share <= 0 for share in shares.values()) or not math.isclose(sum(shares.values()), 1.0):
        raise ValueError(f"shares: {dict(shares)}: name two arms or more, each above 0, together 1")


def assign(user_id: str, experiment: str, shares: Mapping[str, float]) -> str:
    """The arm of a user; another `experiment` mixes the users anew.

    Arms are laid out in the order of `shares`, so that the users of the first ones stay when the last ones are split.
    """
    digest = hashlib.blake2b(f"{experiment}\0{user_id}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    end = 0.0
    for arm, share in shares.items():
        end += share
        if place < end:
            return arm
    return arm
