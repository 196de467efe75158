"""Errors as our own addresses say them, and the same errors again in a client over HTTP.

The field `headgate` beside OpenAI's fields of an error has the kind of the error and its facts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headgate.producer.callers.refused import KeyRefused
from headgate.producer.dialects.fields import Fields, fields_of
from headgate.producer.errors import (
    IdempotencyConflict,
    JobTimeout,
    ResultExpired,
    StreamBroken,
    SubmitInterrupted,
    TierLimit,
    UnknownJob,
)
from headgate.shared.errors import (
    CatalogError,
    HeadgateError,
    InvalidRequest,
    JobFailed,
    SettingError,
    Unreachable,
    WrongUse,
    shown,
)
from headgate.shared.job.encoding import dumps
from headgate.shared.job.result import known_fields
from headgate.shared.job.waiting_for import WaitingFor

MOST_BYTES = 1000
"""A value that is longer as JSON is sent as the beginning of its text."""

AWAY = {"server": "Redis or the database", "reason": "it does not answer", "remedy": "try again"}
"""What a caller learns of servers that are away: their own words may name an address."""

_FACTS: Mapping[type[HeadgateError], tuple[str, ...]] = {
    IdempotencyConflict: ("key", "job_id", "on_record"),
    InvalidRequest: ("field", "value", "remedy", "code"),
    WrongUse: ("field", "value", "remedy"),
    SubmitInterrupted: ("job_ids", "unsure_ids"),
    Unreachable: (),
    TierLimit: ("limit", "retry_after_s", "index", "locked_out"),
    UnknownJob: ("job_id",),
    JobTimeout: ("job_id", "timeout_s", "waiting_for"),
    ResultExpired: ("job_id", "status", "finished_at"),
    StreamBroken: ("job_id",),
    JobFailed: ("message", "code", "job_id", "status", "error"),
    KeyRefused: ("http_status", "code", "message", "retry_after_s"),
}
"""By kind, the facts of an error. A kind stands before the one that it is a special case of."""


def error_facts(error: HeadgateError) -> Fields:
    """Return the kind of the error and its facts, as plain JSON values.

    What is no fault of the caller has none.
    """
    if isinstance(error, CatalogError | SettingError):
        return {"kind": "HeadgateError"}
    for kind, names in _FACTS.items():
        if isinstance(error, kind):
            facts = {name: _plain(getattr(error, name)) for name in names}
            away = AWAY if issubclass(kind, Unreachable) else {}
            return {"kind": kind.__name__, **away, **facts}
    return {"kind": "HeadgateError"}


def error_from(body: object) -> HeadgateError:
    """Return the error that a gateway's answer tells of; `body`: the decoded JSON.

    What it does not say, or says in a newer form, is a plain HeadgateError with its message.
    """
    error = fields_of(fields_of(body).get("error"))
    facts = dict(fields_of(error.get("headgate")))
    made = _MAKERS.get(str(facts.pop("kind", "")))
    message = str(error.get("message") or "the gateway gave no reason")
    try:
        return HeadgateError(message) if made is None else made(facts)
    except (KeyError, TypeError, ValueError):
        return HeadgateError(message)


def _plain(value: object) -> object:
    """Return the value as it is sent: plain JSON, and not long unless it is a list of ids."""
    if isinstance(value, WaitingFor):
        return value.as_json()
    if isinstance(value, tuple):
        return list(value)
    try:
        is_short = len(dumps(value)) <= MOST_BYTES
    except (TypeError, ValueError, RecursionError):
        is_short = False
    return value if is_short else shown(value, MOST_BYTES)


def _timeout(facts: dict[str, Any]) -> JobTimeout:
    given = facts["waiting_for"]
    waiting_for = None if given is None else WaitingFor(**known_fields(WaitingFor, given))
    return JobTimeout(facts["job_id"], facts["timeout_s"], waiting_for)


def _interrupted(facts: dict[str, Any]) -> SubmitInterrupted:
    return SubmitInterrupted(
        facts["server"], facts["reason"], facts["job_ids"], facts["unsure_ids"]
    )


def _by_name(kind: Callable[..., HeadgateError], *names: str) -> Callable[[Any], HeadgateError]:
    """Return what makes an error of the facts with these names."""
    return lambda facts: kind(**{name: facts[name] for name in names})


_MAKERS: Mapping[str, Callable[[dict[str, Any]], HeadgateError]] = {
    "IdempotencyConflict": _by_name(IdempotencyConflict, "key", "job_id", "on_record"),
    "InvalidRequest": _by_name(InvalidRequest, "field", "value", "remedy", "code"),
    "WrongUse": _by_name(WrongUse, "field", "value", "remedy"),
    "SubmitInterrupted": _interrupted,
    "Unreachable": _by_name(Unreachable, "server", "reason", "remedy"),
    "TierLimit": _by_name(TierLimit, "limit", "retry_after_s", "index", "locked_out"),
    "UnknownJob": _by_name(UnknownJob, "job_id"),
    "JobTimeout": _timeout,
    "ResultExpired": _by_name(ResultExpired, "job_id", "status", "finished_at"),
    "StreamBroken": _by_name(StreamBroken, "job_id"),
    "JobFailed": _by_name(JobFailed, "message", "code", "job_id", "status", "error"),
    "KeyRefused": _by_name(KeyRefused, "http_status", "code", "message", "retry_after_s"),
}
