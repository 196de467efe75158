"""Submit requests of different callers together: each is let in or refused by itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from headgate.producer.errors import IdempotencyConflict, SubmitInterrupted
from headgate.producer.installation import Installation
from headgate.producer.submit import admission, idempotency
from headgate.producer.submit.enqueue import QueueEntry, enqueue_entries, entry_of
from headgate.producer.submit.fields import RequestFields
from headgate.producer.submit.prepare import Prepared, Submitter
from headgate.shared.errors import HeadgateError, InvalidRequest, place_of

log = logging.getLogger("headgate.client")

Outcome = str | HeadgateError
"""The id of a request's job, or why it has none."""


def submit_each(
    at: Installation, submitter: Submitter, requests: Sequence[RequestFields], samples: int = 1
) -> list[Outcome]:
    """Put the requests on record and on their queues; return what became of each, in order.

    With several `samples` these are all samples of the first request, then those of the second.

    A request whose idempotency key has a job already gets the id of that job. The caller has just
    asked whether Redis takes writes. Raises RedisError and DBAPIError with nothing on record.
    """
    outcomes, prepared = _prepared(submitter, requests, samples)
    entries = {place: entry_of(*job) for place, job in prepared.items()}
    for place, outcome in _taken(at, entries).items():
        outcomes[place] = outcome
        del entries[place]
    asking = {p: prepared[p] for p in entries if admission.asks(prepared[p])}
    for place, refusal in admission.refusals(at, asking, together=False).items():
        outcomes[place] = refusal
        del entries[place], asking[place]
    ids = _enqueue(at, list(entries.values()))
    for place, (row, *_) in entries.items():
        outcomes[place] = ids[row["id"]]
    twice = [job for place, job in asking.items() if outcomes[place] != job.envelope.id]
    if twice:  # another program queued them at the same moment
        with suppress(RedisError):  # the jobs are on record: nobody may submit them again
            admission.give_back(at, twice)
    return outcomes


def _prepared(
    submitter: Submitter, requests: Sequence[RequestFields], samples: int
) -> tuple[list[Outcome], dict[int, Prepared]]:
    """Return what became of each sample so far, and the jobs of the good ones, by their places."""
    outcomes: list[Outcome] = [HeadgateError()] * (len(requests) * samples)
    prepared: dict[int, Prepared] = {}
    for n, fields in enumerate(requests):
        places = range(n * samples, (n + 1) * samples)
        try:
            prepared.update(zip(places, submitter.prepare_samples(fields, samples), strict=True))
            continue
        except InvalidRequest as error:
            outcome: Outcome = error
        except (HeadgateError, RedisError, SQLAlchemyError, OSError):  # a server, so for all
            raise
        except Exception as error:  # a fault of ours with one request is none of the others
            log.error("a fault in one of %d requests: %s", len(requests), place_of(error))
            outcome = HeadgateError()
        outcomes[places.start : places.stop] = [outcome] * samples
    return outcomes, prepared


def _taken(at: Installation, entries: dict[int, QueueEntry]) -> dict[int, Outcome]:
    """Return the jobs that have the keys of some requests already, by place, or the conflicts."""
    wanted = {place: key for place, (*_, key) in entries.items() if key is not None}
    if not wanted:
        return {}
    owners = idempotency.look(at.engine, list(wanted.values()))
    found: dict[int, Outcome] = {}
    of_this_call = {one.job_id for one in wanted.values()}
    for place, key in wanted.items():
        owner = owners.get(key.job_id)
        if owner is None or owner.job_id in of_this_call:
            continue  # the transaction of the rows decides between requests of one call
        conflict = IdempotencyConflict(key.key, owner.job_id)
        found[place] = owner.job_id if owner.is_same else conflict
    return found


def _enqueue(at: Installation, entries: list[QueueEntry]) -> dict[str, Outcome]:
    """Write and send the jobs; return what became of each, by the id that it was given."""
    outcomes: dict[str, Outcome] = {row["id"]: row["id"] for row, *_ in entries}
    try:
        owners = enqueue_entries(
            at.engine, at.redis, at.keys, entries, refuse=False, is_checked=True
        )
    except SubmitInterrupted as error:
        return _interrupted(at, outcomes, error)
    keys = {row["id"]: key for row, *_, key in entries}
    for job_id, owner in owners.items():
        key = keys[job_id]
        conflict = IdempotencyConflict(key.key if key else "", owner.job_id)
        outcomes[job_id] = owner.job_id if owner.is_same else conflict
    return outcomes


def _interrupted(
    at: Installation, outcomes: dict[str, Outcome], error: SubmitInterrupted
) -> dict[str, Outcome]:
    """Return which jobs stay on record, and the error for the others."""
    cause = error.__cause__ or error
    server = at.redis_name if isinstance(cause, RedisError) else at.database_name
    stay, unsure = set(error.job_ids), set(error.unsure_ids)
    reason = at.reason(cause)
    return {
        job_id: outcome
        if job_id in stay
        else SubmitInterrupted(server, reason, [], [job_id] if job_id in unsure else [])
        for job_id, outcome in outcomes.items()
    }
