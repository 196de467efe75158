"""An error of the library, sent by a gateway and made again by a client, is the same error."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.dialects.own_errors import error_facts, error_from
from headgate.producer.errors import (
    IdempotencyConflict,
    JobTimeout,
    ResultExpired,
    StreamBroken,
    SubmitInterrupted,
    TierLimit,
    UnknownJob,
)
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.calls.own_faults import own_error
from headgate.shared.errors import (
    CatalogError,
    HeadgateError,
    InvalidRequest,
    JobFailed,
    Unfit,
    Unreachable,
    WrongUse,
)
from headgate.shared.job.waiting_for import WaitingFor

WAIT = WaitingFor("limit", "pool/openai/gpt-4o", "600 rpm", None, None, "raise the limit")

SAME = [
    InvalidRequest("model", "gpt-5o", "did you mean gpt-4o?", "unknown_model"),
    IdempotencyConflict("k", "0197", ["0198"]),
    WrongUse("pool", "x", "use another"),
    TierLimit("over 5 calls a minute", 2.5, 3, locked_out=True),
    UnknownJob("0197"),
    JobTimeout("0197", 30.0, None),
    JobTimeout("0197", 30.0, WAIT),
    ResultExpired("0197", "failed", "2026-11-30T00:00:00Z"),
    StreamBroken("0197"),
    JobFailed("no", "timeout", "0197", "failed", {"code": "timeout"}),
    KeyRefused(429, "key_limit", "slow down", 3.0),
]


def over_the_wire(error: HeadgateError) -> HeadgateError:
    """The error that a client makes of a gateway's answer."""
    return error_from(orjson.loads(orjson.dumps({"error": own_error(error)})))


@pytest.mark.parametrize("error", SAME, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_way_with_its_facts(error: HeadgateError) -> None:
    made = over_the_wire(error)
    assert type(made) is type(error)
    assert str(made) == str(error)
    assert vars(made) == vars(error)


@pytest.mark.parametrize("kind", [Unreachable, Unfit])
def test_a_server_that_is_away_is_not_named(kind: type[Unreachable]) -> None:
    made = over_the_wire(kind("Redis at redis://10.0.0.7", "timed out", "see /srv/redis.log"))
    assert type(made) is Unreachable
    assert "10.0.0.7" not in str(made)
    assert "/srv" not in str(made)


def test_jobs_of_a_submit_that_broke_off_are_told_without_the_server() -> None:
    given = SubmitInterrupted("Redis at redis://10.0.0.7", "gone", ["0197"], ["0198"])
    made = over_the_wire(given)
    assert isinstance(made, SubmitInterrupted)
    assert (made.job_ids, made.unsure_ids) == (("0197",), ("0198",))
    assert "10.0.0.7" not in str(made)


def test_a_key_of_the_caller_is_told_as_the_caller_gave_it() -> None:
    made = over_the_wire(IdempotencyConflict("hgk_0a1b2c3d4e5f/mine", "0197"))
    assert isinstance(made, IdempotencyConflict)
    assert made.key == "mine"


@pytest.mark.parametrize("value", [{1: 2}, object(), "x" * 10_000, float("nan"), 10**400])
def test_a_value_that_cannot_be_sent_is_told_in_words(value: object) -> None:
    facts = error_facts(InvalidRequest("a", value, "b"))
    assert len(orjson.dumps(facts)) < 2_000
    assert isinstance(over_the_wire(InvalidRequest("a", value, "b")), InvalidRequest)


@pytest.mark.parametrize("error", [HeadgateError(), CatalogError("/srv/c.toml", "a", 1, "b")])
def test_what_is_no_fault_of_the_caller_tells_nothing(error: HeadgateError) -> None:
    assert "/srv" not in str(over_the_wire(error)) + str(own_error(error))


@pytest.mark.parametrize(
    "body",
    [
        None, [], "x", {}, {"error": "x"}, {"error": {"headgate": "x"}},
        {"error": {"message": "new", "headgate": {"kind": "OfALaterRelease", "a": 1}}},
        {"error": {"message": "new", "headgate": {"kind": "UnknownJob"}}},
        {"error": {"message": "new", "headgate": {"kind": "JobTimeout", "job_id": 1,
                                                  "timeout_s": 1, "waiting_for": {"kind": "x"}}}},
    ],
)  # fmt: skip
def test_an_answer_of_another_release_is_a_plain_error(body: Any) -> None:
    assert type(error_from(body)) is HeadgateError


def test_what_the_gateway_refuses_by_itself_keeps_its_words() -> None:
    made = over_the_wire(CallRefused("request_too_large", "the body is larger than 10 MB"))
    assert str(made) == "the body is larger than 10 MB"
