"""What a job waits for, in one form and in words."""

from dataclasses import replace

import pytest

from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import Result
from headgate.shared.job.waiting_for import WaitingFor, duration, ms_of

NOW = 1_763_700_000_123


def test_people_read_the_limit_the_time_so_far_and_the_time_to_come() -> None:
    found = WaitingFor(
        "limit", "pool/openai/gpt-4o", "tokens per minute, 450,000", rfc3339(NOW - 12_000),
        rfc3339(NOW + 40_000), "raise it",
    )  # fmt: skip
    assert found.in_words(NOW) == (
        "waiting for the limit of openai/gpt-4o (tokens per minute, 450,000) since 12 s, "
        "about 40 s more"
    )


def test_a_moment_that_has_passed_is_no_forecast() -> None:
    found = WaitingFor("due", "retry", until=rfc3339(NOW - 5_000))
    assert found.in_words(NOW) == "waiting for its retry"
    assert replace(found, help="nothing: it goes on").with_help(NOW) == "waiting for its retry"
    assert replace(found, help="do it").with_help(NOW) == "waiting for its retry; do it"


def test_a_kind_of_a_later_release_is_told_by_its_name() -> None:
    found = WaitingFor("moon_phase", "full")  # type: ignore[arg-type]  # not of this release
    assert found.in_words(NOW) == "waiting for moon_phase"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (3_540, "59 min"), (11_880, "3 h 18 min"),
     (7_200, "2 h"), (180_000, "2 days 2 h"), (172_800, "2 days")],
)  # fmt: skip
def test_durations_have_at_most_two_units(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_moment_survives_its_text_to_the_millisecond() -> None:
    assert all(ms_of(rfc3339(at)) == at for at in range(NOW, NOW + 1000))


def test_a_result_keeps_what_it_waits_for_and_skips_what_a_newer_writer_adds() -> None:
    waits = WaitingFor("no_worker", "headgate.standard.fast", "no worker runs", help="start one")
    result = Result("j", "queued", "gpt-4o", waiting_for=waits)
    fields = result.as_json()
    assert fields["waiting_for"]["kind"] == "no_worker"
    fields["waiting_for"]["colour"] = "red"
    assert Result.from_json(fields) == result
    assert Result("j", "running", "gpt-4o").as_json()["waiting_for"] is None
