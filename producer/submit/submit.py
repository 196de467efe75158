"""Submit jobs: prepare them, refuse conflicts, ask the limits of their callers, enqueue them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from redis.exceptions import RedisError

from headgate.producer.errors import SubmitInterrupted
from headgate.producer.installation import Installation
from headgate.producer.submit import admission, idempotency
from headgate.producer.submit.enqueue import (
    ROWS_PER_COMMIT,
    QueueEntry,
    enqueue_entries,
    entry_of,
)
from headgate.producer.submit.fields import RequestForm
from headgate.producer.submit.idempotency import KeyOwner
from headgate.producer.submit.model_status import ModelStatuses
from headgate.producer.submit.prepare import Prepared, Submitter
from headgate.shared.admission import tiers

Asking = Mapping[int, Prepared]
"""Jobs that would rather be refused than wait for a limit, by their places among all."""


def submit(
    at: Installation,
    submitter: Submitter,
    requests: Iterable[RequestForm],
    *,
    many: bool,
    samples: int = 1,
) -> list[str]:
    """Put the requests on record and on their queues; return the ids of their jobs, in order.

    Each request becomes as many jobs as there are `samples`. Without `many` there is one request,
    and the caller has just asked whether Redis takes writes.

    All requests are checked before the first is written: a refusal means that nothing was queued.
    A request whose idempotency key has a job already gets the id of that job. With `many`, errors
    name the request at fault as `requests[i]`.

    Raises InvalidRequest, IdempotencyConflict, TierLimit and SubmitInterrupted.
    """
    jobs = submitter.prepare_many(requests, samples) if many else map(submitter.prepare, requests)
    entries, asking = _entries(jobs)
    asking = _refuse_conflicts(at, entries, asking)
    _admit(at, asking, samples if many else None)
    owners = _enqueue(at, entries, is_checked=not many)
    _give_back(at, asking, owners)
    ids = [row["id"] for row, *_ in entries]
    return [owners[i].job_id if i in owners else i for i in ids] if owners else ids


def submitter_for(at: Installation) -> Submitter:
    """Return a Submitter with the settings and the catalog of the installation.

    Make it once for a catalog: it caches what it reads of tiers and model statuses for a second.
    """
    tier_of = tiers.source(at.settings.tiers, at.catalog, lambda: at.engine)
    statuses = ModelStatuses(at.redis, at.keys, at.settings, at.catalog)
    return Submitter(at.settings, at.catalog, tier_of, statuses)


def _entries(jobs: Iterable[Prepared]) -> tuple[list[QueueEntry], Asking]:
    entries: list[QueueEntry] = []
    asking: dict[int, Prepared] = {}
    for job in jobs:
        if admission.asks(job):
            asking[len(entries)] = job
        entries.append(entry_of(*job))
    return entries, asking


def _refuse_conflicts(at: Installation, entries: Sequence[QueueEntry], asking: Asking) -> Asking:
    """Raise IdempotencyConflict if a key belongs to another request; return the new ones that ask.

    Only needed if something happens before the keys are taken: limits are asked, or other rows are
    committed. Else the transaction of the rows refuses conflicts itself.
    """
    wanted = [key for *_, key in entries if key is not None]
    if not wanted or not (asking or len(entries) > ROWS_PER_COMMIT):
        return asking
    owners = idempotency.look(at.engine, wanted)
    idempotency.refuse_conflicts(wanted, owners)
    return {place: job for place, job in asking.items() if job.envelope.id not in owners}


def _admit(at: Installation, asking: Asking, samples: int | None) -> None:
    """Take what the jobs need from the limits of their callers; raise the first refusal.

    It names the request at fault, which has so many `samples`; None: there is only one request.
    """
    refused = admission.refusals(at, asking, together=True)
    if refused:
        place, refusal = next(iter(refused.items()))
        raise refusal if samples is None else admission.numbered(place // samples, refusal)


def _enqueue(
    at: Installation, entries: Sequence[QueueEntry], *, is_checked: bool
) -> dict[str, KeyOwner]:
    """Write the rows and send the messages; name the server without a password if one is lost."""
    try:
        return enqueue_entries(at.engine, at.redis, at.keys, entries, is_checked=is_checked)
    except SubmitInterrupted as error:
        cause = error.__cause__ or error
        server = at.redis_name if isinstance(cause, RedisError) else at.database_name
        raise SubmitInterrupted(
            server, at.reason(cause), error.job_ids, error.unsure_ids
        ) from cause


def _give_back(at: Installation, asking: Asking, owners: Mapping[str, KeyOwner]) -> None:
    """Return to the limits what jobs took that another program queued at the same moment."""
    twice = [job for job in asking.values() if job.envelope.id in owners]
    if twice:
        admission.give_back(at, twice)
