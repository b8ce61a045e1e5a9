"""Class probabilities of an answer, read from the log-probabilities of the tokens that spell its label.

Where the label begins, the model's alternatives for each next token tell how much probability went to the classes it
did not write. The walk is over texts, not token ids, so that it is the same for every tokenizer and for endpoints.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from raylib.prompts import label_start

NUM_ALTERNATIVES = 20  # the most that vLLM and the endpoints tell without being started for more
LABEL_TOKENS = 32  # from the end of an answer, among which the label line lies


class TokenChoice(NamedTuple):
    """One generated token and the likeliest tokens at its place."""

    text: str
    alternatives: Sequence[tuple[str, float]]  # text and log-probability; the generated one is among them


def label_probs(tokens: Sequence[TokenChoice], classes: Sequence[str]) -> list[float] | None:
    """Probabilities of `classes` given the rationale, in their order; they add up to 1.

    A token that begins several classes is followed where it was generated; where it was not, its probability is shared
    equally among them, since nobody knows how the model would have gone on. Tokens that begin no class are left out,
    and so is what lies beyond the alternatives that the engine told. None where no label is found at a token's start,
    or where the generated one is no class.
    """
    start = _first_label_token(tokens)
    if start is None:
        return None
    mass = 1.0
    written = ""
    probs = dict.fromkeys(classes, 0.0)
    alive = list(classes)
    for token in tokens[start:]:
        choices = dict(token.alternatives)
        for text, logprob in choices.items():
            begun = _begun(written + text, alive)
            if text != token.text:
                for name in begun:
                    probs[name] += mass * math.exp(logprob) / len(begun)
        mass *= math.exp(choices.get(token.text, -math.inf))
        written += token.text
        alive = _begun(written, alive)
        if len(alive) <= 1:
            break
    for name in alive:
        probs[name] += mass / len(alive)
    total = sum(probs.values())
    return [probs[name] / total for name in classes] if alive and total > 0 else None


def _begun(text: str, classes: Sequence[str]) -> list[str]:
    """The classes that may still come of a text: those it begins, else the one that it holds and then ends."""
    text = text.lstrip().casefold()
    begun = [name for name in classes if text and name.casefold().startswith(text)]
    if begun:
        return begun
    held = [name for name in classes if text.startswith(name.casefold())]
    longest = max(held, key=len, default="")
    rest = text[len(longest) :].partition("\n")[0].lstrip()
    return [longest] if held and not rest[:1].isalnum() else []


def _first_label_token(tokens: Sequence[TokenChoice]) -> int | None:
    """Number of the token with which the last line's label begins; its leading space may belong to it."""
    tail = ""
    for i in range(len(tokens) - 1, -1, -1):
        tail = tokens[i].text + tail
        start = label_start(tail)
        if start is None:
            continue
        end = 0
        for j in range(i, len(tokens)):
            begin, end = end, end + len(tokens[j].text)
            if end > start:
                return j if not tail[begin:start].strip() else None
    return None
