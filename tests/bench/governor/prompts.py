"""Prompts whose true size and whose estimate are both chosen: exact, or wrong by a factor.

The simulated provider counts characters, three to a token; our estimate counts 0.22 tokens for a
small letter and 0.7 for a digit. So the share of digits sets the estimate of a prompt of any size.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import Any

from headgate.shared.cost import tokens as estimate
from headgate.shared.job.request import Request

CHARS_PER_TOKEN = 3
MEDIAN_TOKENS, SIGMA, FEWEST_TOKENS, MOST_TOKENS = 80, 0.5, 48, 400
"""Input tokens are lognormal. Below 48 there is no text with an estimate that is 20 % too low."""

DIGIT, LETTER = 0.70, 0.22


def lengths(chance: random.Random) -> Iterator[int]:
    """Input tokens of one prompt after the other."""
    while True:
        drawn = round(chance.lognormvariate(0, SIGMA) * MEDIAN_TOKENS)
        yield min(MOST_TOKENS, max(FEWEST_TOKENS, drawn))


def mean_tokens() -> float:
    """Of many prompts."""
    drawn = lengths(random.Random(1))  # noqa: S311  repeatable, not secret
    return sum(next(drawn) for _ in range(20_000)) / 20_000


def prompt(number: int, tokens: int, estimated: int) -> str:
    """A text unlike that of any other number, of `tokens` for the provider, `estimated` for us."""
    chars = tokens * CHARS_PER_TOKEN
    beside = estimate.MESSAGE_TOKENS + estimate.ANSWER_TOKENS
    digits = max(0, round((estimated - 0.5 - beside - LETTER * chars) / (DIGIT - LETTER)))
    name = _word(number)
    text = f"{name} {'7' * digits} ".ljust(chars, "a")[:chars]
    told = estimate.input_tokens(Request(prompt=text))
    if told != estimated:
        raise ValueError(f"a prompt of {tokens} tokens is estimated at {told}, not {estimated}")
    return text


def requests(
    count: int, *, model: str, max_tokens: int, off: tuple[float, ...] = (1.0,), **fields: Any
) -> list[Any]:
    """Submittable requests. `off`: true size over estimate, one of these by chance for each."""
    chance = random.Random(7)  # noqa: S311  repeatable, not secret
    sizes = lengths(chance)
    made = []
    for number in range(count):
        tokens = next(sizes)
        text = prompt(number, tokens, round(tokens / chance.choice(off)))
        made.append(
            {
                "prompt": text, "model": model, "params": {"max_tokens": max_tokens},
                "fallback": False, "cache": {"mode": "off"}, **fields,
            }
        )  # fmt: skip
    return made


def _word(number: int) -> str:
    """A number in letters, which our estimate counts like the rest of the text."""
    letters = ""
    while number or not letters:
        number, rest = divmod(number, 26)
        letters += string.ascii_lowercase[rest]
    return letters
