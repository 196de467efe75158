"""Ask, before a job is written, whether the limits of its caller let it in at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from headgate.producer.errors import TierLimit
from headgate.producer.installation import Installation
from headgate.producer.submit.checks import prompt_field
from headgate.producer.submit.prepare import Prepared
from headgate.shared import settings
from headgate.shared.admission import limits
from headgate.shared.admission.scopes import quoted, unquoted
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose, text_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import InvalidRequest, shown
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.ids import new_id

log = logging.getLogger("headgate.admit")

ASKED_AT_ONCE = 250
"""Requests of one call of the script: it keeps Redis busy for about 10 ms."""

Refusal = TierLimit | InvalidRequest

_MEASURES: Mapping[str, str] = {
    "rpm": "calls a minute",
    "tpm": "tokens a minute",
    "input_tpm": "input tokens a minute",
    "output_tpm": "output tokens a minute",
    "rpd": "calls a day",
}


def asks(job: Prepared) -> bool:
    """Return whether the caller would rather be refused than wait for a limit of its own."""
    return job.envelope.request.on_limit == "refuse"


def refusals(
    at: Installation, jobs: Mapping[int, Prepared], *, together: bool, call: str | None = None
) -> dict[int, Refusal]:
    """Take what the jobs need from their callers' limits; return the refused ones, by place.

    `jobs`: the jobs that ask, by their places among all. With `together`, either all jobs are let
    in or none, and only the first refused one is returned. `call` identifies the call, so that it
    may be repeated after an error and still counts once. Raises RedisError.
    """
    call = call or new_id()
    places = list(jobs)
    asked = [_admit_request(at.catalog, job) for job in jobs.values()]
    refused: dict[int, Refusal] = {}
    for first in range(0, len(asked), ASKED_AT_ONCE):
        chunk = asked[first : first + ASKED_AT_ONCE]
        answers = _ask(at, f"{call}:{first}", chunk, "together" if together else "each")
        for place, answer in zip(places[first:], answers, strict=False):
            if answer.way != "let in":
                refused[place] = _refusal(jobs[place][0], answer)
        if refused and together:
            for start in range(0, first, ASKED_AT_ONCE):
                let_in = asked[start : start + ASKED_AT_ONCE]
                _ask(at, f"{call}:{start}:back", let_in, "back")
            break
    return refused


def look(at: Installation, job: Prepared) -> Refusal | None:
    """Return the refusal that the job would meet now; None if it would be let in."""
    [answer] = _ask(at, new_id(), [_admit_request(at.catalog, job)], "look")
    return None if answer.way == "let in" else _refusal(job[0], answer)


def give_back(at: Installation, jobs: Sequence[Prepared]) -> None:
    """Give back what these jobs, which were let in, took from their callers' limits."""
    for first in range(0, len(jobs), ASKED_AT_ONCE):
        chunk = [_admit_request(at.catalog, job) for job in jobs[first : first + ASKED_AT_ONCE]]
        _ask(at, new_id(), chunk, "back")


def _ask(
    at: Installation, call: str, asked: Sequence[AdmitRequest], mode: Mode
) -> list[AdmitReply]:
    command = admit(at.keys, call=call, asked=asked, mode=mode)
    answers = script.run(at.redis, command)
    if answers is None:  # Redis is new or came back empty, and no worker has written the limits
        limits.write(at.redis, at.keys, at.catalog, _key_count)
        answers = script.run(at.redis, command) or []
    return answers


def numbered(place: int, refusal: Refusal) -> Refusal:
    """Return the refusal with the place of its request among many."""
    if isinstance(refusal, TierLimit):
        return TierLimit(refusal.limit, refusal.retry_after_s, place, locked_out=refusal.locked_out)
    field = f"requests[{place}].{refusal.field}"
    return InvalidRequest(field, refusal.value, refusal.remedy, refusal.code)


def _key_count(provider: ProviderConfig) -> int:
    return sum(settings.secret(name) is not None for name in provider.api_key_env)


def _admit_request(catalog: Catalog, job: Prepared) -> AdmitRequest:
    # The script counts the ticket as one whose caller has not paid: it pays with this call.
    ticket = replace(Ticket.decode(job.ticket), paid=False)
    tier = catalog.tiers.get(ticket.tier)
    if tier is None:
        return AdmitRequest(ticket)
    return AdmitRequest(ticket, tier.lockout_s, tier.lockout_after)


def _refusal(envelope: Envelope, answer: AdmitReply) -> Refusal:
    request, wait_s = envelope.request, answer.wait_ms / 1000
    if answer.way == "locked out":
        return TierLimit("locked out after too many refusals", wait_s, locked_out=True)
    limit = f"{answer.limit} {_MEASURES.get(answer.measure, answer.measure)} ({answer.who})"
    if answer.way == "too large":
        remedy = f"takes more than {limit} ever lets through; shorten it, or lower max_tokens"
        return InvalidRequest(prompt_field(request), "the request", remedy, "tier_limit")
    if answer.lockouts:
        log.warning(
            "tenant %s, user %s: locked out for %g s after too many refusals (%d within a day)",
            shown(request.tenant), shown(request.user), wait_s, answer.lockouts,
        )  # fmt: skip
        return TierLimit(f"over {limit}; locked out by so many refusals", wait_s, locked_out=True)
    return TierLimit(f"over {limit}", wait_s)


@dataclass(frozen=True, slots=True)
class AdmitRequest:
    """A job's ticket and the lockout of its tier.

    After `lockout_after` refusals the caller is locked out for `lockout_s` seconds; 0: never.
    """

    ticket: Ticket
    lockout_s: float = 0
    lockout_after: int = 3


@dataclass(frozen=True, slots=True)
class AdmitReply:
    """Whether a request is let in, and if not, which limit refused it.

    `wait_ms`: until the limit lets the request through. `who`, `measure` and `limit`: whose limit,
    of what, and its size. `lockouts`: if this refusal began a lockout, how many began in a day.
    """

    way: Literal["let in", "refused", "too large", "locked out"]
    wait_ms: int = 0
    who: str = ""
    measure: str = ""
    limit: int = 0
    lockouts: int = 0


LET_IN = AdmitReply("let in")


Mode = Literal["each", "together", "back", "look"]


def admit(
    keys: Keys, *, call: str, asked: Sequence[AdmitRequest], mode: Mode
) -> Command[list[AdmitReply] | None]:
    """Return the command that takes the requests from the buckets of their users and tiers.

    `call`: a new id for each call. `asked`: some hundreds at most. `mode`: "each" decides one by
    one; "together" lets in all or none, and the replies end with the first refusal; "back" gives
    back what was let in before; "look" only looks. The reply is None if Redis holds no limits.
    """

    def read(reply: list[Any] | None) -> list[AdmitReply] | None:
        if reply is None:
            return None
        return [_reply(words, one) for words, one in zip(reply, asked, strict=False)]

    args: list[Word] = [keys.prefix, call, mode]
    for one in asked:
        args += [one.ticket.encode(), round(one.lockout_s * 1000), one.lockout_after]
    return compose("admit", (), args, read)


def _reply(words: list[Any], asked: AdmitRequest) -> AdmitReply:
    match words:
        case [0]:
            return LET_IN
        case [3, wait_ms]:
            return AdmitReply("locked out", wait_ms)
        case [kind, wait_ms, bucket, measure, limit, *lockouts]:
            who = _who(text_of(bucket), asked.ticket)
            way: Literal["too large", "refused"] = "too large" if kind == 2 else "refused"
            return AdmitReply(way, wait_ms, who, text_of(measure), limit, *lockouts)
    raise ValueError(f"the reply of the admit script is unknown: {words!r}")


def _who(bucket: str, ticket: Ticket) -> str:
    """Say whose limit the bucket is, such as "tier free" or "user u1"."""
    kind, _, name = bucket.removesuffix("#").partition("/")
    if kind == "tier":
        caller = f"{ticket.tier}/{quoted(ticket.tenant)}/{quoted(ticket.user)}"
        of_model = f" for {name.removeprefix(f'{caller}/')}" if name != caller else ""
        return f"tier {ticket.tier}{of_model}"
    return f"{kind} {unquoted(name.rpartition('/')[2])}"
