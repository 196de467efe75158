"""The soak in its short form: full rate, and everything is killed in turn, but for one worker."""

import secrets

import pytest

from tests.soak.__main__ import soak


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_under_kills_nothing_is_lost_the_bill_adds_up_and_memory_stays_flat() -> None:
    """On one of both databases by chance. What was done is printed with its seed: `python -m
    tests.soak --minutes 0.75 --seed N --database D` does the same again.
    """
    database = secrets.choice(("sqlite", "postgresql"))
    assert soak(0.75, secrets.randbelow(10_000), database) == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_twenty_minutes_of_kills_on_postgresql() -> None:
    """As above, with a kill each minute, and of PostgreSQL as well."""
    assert soak(20, secrets.randbelow(10_000), "postgresql") == []
