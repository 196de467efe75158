"""Samples: several jobs for one line of a batch, each with an answer of its own."""

from __future__ import annotations

from typing import Any

from headgate.producer.submit.prepare import checked_samples

SAMPLED_LINES = 2**24
"""Samples are for lines below this number: line and sample share 31 bits in the database."""


def place_of(number: int, sample: int) -> int:
    """Return the number by which the batch knows the job of this line and sample.

    That of the first sample is the line's own, as for lines without samples. Those of the others
    are negative, so that no line has them.
    """
    return number if sample == 1 else -((sample - 2) * SAMPLED_LINES + number)


def line_and_sample(place: int) -> tuple[int, int]:
    """Return the line and the sample of a job from its place."""
    if place >= 0:
        return place, 1
    before, number = divmod(-place, SAMPLED_LINES)
    return number, before + 2


def take_samples(parsed: dict[str, Any], default: int) -> int:
    """Take `samples` out of an input line, or out of its body; return it, else the default.

    Raises InvalidRequest for what is no number of samples.
    """
    body = parsed.get("body")
    own = [part.pop("samples") for part in (parsed, body) if isinstance(part, dict)
           and "samples" in part]  # fmt: skip
    given = next((value for value in own if value is not None), None)
    return default if given is None else checked_samples(given)
