"""Submit jobs: refuse conflicts, ask the callers' limits, enqueue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from redis.exceptions import RedisError

from headgate.producer.errors import SubmitInterrupted
from headgate.producer.installation import Installation
from headgate.producer.submit import admission, idempotency
from headgate.producer.submit.enqueue import Written, put, written
from headgate.producer.submit.prepare import Prepared


def _submitted(at: Installation, requests: Iterable[Prepared], *, numbered: bool) -> list[str]:
    """The ids of the jobs, all of them checked before the first is put: a fault means none was."""
    ready: list[Written] = []
    asking: dict[int, Prepared] = {}
    for job in requests:
        if admission.asks(job):
            asking[len(ready)] = job
        ready.append(written(*job))
    claims = [claim for *_, claim in ready if claim is not None]
    if claims and (numbered or asking):
        before = idempotency.look(at.engine, claims)
        idempotency.refuse_conflicts(claims, before)
        asking = {place: job for place, job in asking.items() if job[0].id not in before}
    for place, refusal in admission.refusals(at, asking, together=True).items():
        raise admission.numbered(place, refusal) if numbered else refusal
    known = _put(at, ready)
    if twice := [job for job in asking.values() if job[0].id in known]:
        admission.give_back(at, twice)  # another program has queued them at the same moment
    ids = [row["id"] for row, *_ in ready]
    return [known[i].job_id if i in known else i for i in ids] if known else ids


def _put(at: Installation, ready: Sequence[Written]) -> dict[str, idempotency.KeyOwner]:
    try:
        return put(at.engine, at.redis, at.keys, ready)
    except SubmitInterrupted as error:
        cause = error.__cause__ or error
        server = at.redis_name if isinstance(cause, RedisError) else at.database_name
        raise SubmitInterrupted(
            server, at.reason(cause), error.job_ids, error.unsure_ids
        ) from cause
