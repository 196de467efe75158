"""Which parts of a job's metadata lists find it by."""

from __future__ import annotations

from headgate.shared.database.job_metadata import MAX_PAIRS, pairs_of


def test_plain_values_are_found_and_all_others_stay_in_the_request() -> None:
    metadata = {
        "run": 7, "share": 0.5, "on": True, "off": False, "name": "Ada", "empty": "",
        "none": None, "list": [1], "object": {"a": 1}, "nul": "a\0b", "a\0b": 1,
        "long": "x" * 257, "fits": "x" * 256, "k" * 129: 1, "k" * 128: 1,
    }  # fmt: skip
    assert pairs_of(metadata) == (
        ("run", "7"), ("share", "0.5"), ("on", "true"), ("off", "false"), ("name", "Ada"),
        ("empty", ""), ("fits", "x" * 256), ("k" * 128, "1"),
    )  # fmt: skip


def test_a_job_has_a_bounded_number_of_pairs() -> None:
    assert len(pairs_of({str(n): n for n in range(1000)})) == MAX_PAIRS
