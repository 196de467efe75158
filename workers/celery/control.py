"""Celery's commands of remote control that mean something else here, or nothing.

All others are Celery's own. A slot is no process or thread, so the number of slots can change at
run time. With fewer slots than jobs the jobs end, and no new ones come until a slot is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from celery.utils.functional import maybe_list
from celery.worker import control as stock
from celery.worker import state as worker_state
from celery.worker.control import control_command, inspect_command

from headgate.shared.broker.queues import TASK
from headgate.shared.job.ids import rfc3339
from headgate.workers.celery.running_job import bears

MOST_SLOTS = 100_000
"""A larger number is taken for a typing error; 1,000 jobs in flight take 35 MB."""


MOST_SHOWN = 1000
"""How many jobs `inspect scheduled` lists at most."""


@control_command(args=[("n", int)], signature="[N=1]")
def pool_grow(state: Any, n: Any = 1, **_: Any) -> dict[str, str]:
    """Let N more jobs run at once."""
    return _resized(state, n, 1)


@control_command(args=[("n", int)], signature="[N=1]")
def pool_shrink(state: Any, n: Any = 1, **_: Any) -> dict[str, str]:
    """Let N fewer jobs run at once."""
    return _resized(state, n, -1)


@control_command(args=[("max", int), ("min", int)], signature="[max [min]]")
def autoscale(state: Any, **_: Any) -> dict[str, str]:
    """Refuse: a slot without a job costs nothing."""
    return _refused("a slot without a job costs nothing; use pool_grow and pool_shrink")


@control_command()
def pool_restart(state: Any, **_: Any) -> dict[str, str]:
    """Refuse: stop the worker instead, and its jobs go on elsewhere."""
    return _refused("end this worker with SIGTERM and start another; no job is lost")


@control_command(
    args=[("task_name", str), ("rate_limit", str)], signature="<task_name> <rate_limit>"
)
def rate_limit(state: Any, **_: Any) -> dict[str, str]:
    """Refuse: a worker would hold the jobs back in its memory, with their leases."""
    return _refused("limits hold for all workers together; use: headgate limits set")


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: Any, task_id: Any, terminate: bool = False, **_: Any) -> dict[str, str]:
    """Cancel jobs that wait. With `terminate`, cancel also those that this worker runs.

    Celery's own command stores REVOKED also of jobs that another worker runs, and nothing else.
    """
    ids = [str(job_id) for job_id in maybe_list(task_id) or ()]
    worker_state.revoked.update(ids)  # first: a job that begins now looks there, or is among `here`
    wanted = set(ids)
    here = {job.id: job for job in state.consumer.pool.jobs if job.id in wanted}
    if others := [job_id for job_id in ids if job_id not in here]:
        state.consumer.revoke(others)
    if not terminate:
        return {"ok": f"tasks {', '.join(ids)} flagged as revoked"}
    for job in here.values():
        job.terminate(state.consumer.pool)
    return {"ok": f"terminate: {', '.join(here) or 'tasks unknown'}"}


@control_command(variadic="headers", signature="[key1=value1 [key2=value2 [... [keyN=valueN]]]]")
def revoke_by_stamped_headers(
    state: Any, headers: Any, terminate: bool = False, **_: Any
) -> dict[str, str]:
    """Cancel jobs with these stamps that come. With `terminate`, cancel also those that run here.

    Celery's own command would miss a job that begins between its two looks.
    """
    if not isinstance(headers, Mapping):
        headers = dict(one.split("=", 1) for one in headers)
    reply: dict[str, str] = stock.revoke_by_stamped_headers(state, headers)  # type: ignore[attr-defined]  # no stub
    if not terminate:
        return reply
    here = [job for job in state.consumer.pool.jobs if bears(job.stamps, headers)]
    for job in here:
        job.terminate(state.consumer.pool)
    return {"ok": f"headers {headers} {'revoked' if here else 'were not terminated'}"}


@control_command(
    variadic="task_id", args=[("signal", str)], signature="<signal> [id1 [id2 [... [idN]]]]"
)
def terminate(state: Any, signal: str, task_id: Any, **_: Any) -> dict[str, str]:
    """Cancel jobs that wait or that this worker runs. The signal does not matter."""
    reply: dict[str, str] = revoke(state, task_id, terminate=True)
    return reply


@control_command()
def election(state: Any, **_: Any) -> dict[str, str]:
    """Refuse: workers share no state by Celery's gossip."""
    return _refused("workers elect nobody; maintenance is done by one of them in turn")


@inspect_command(alias="dump_schedule")
def scheduled(state: Any, **_: Any) -> list[dict[str, Any]]:
    """List the next jobs that wait for a moment: their `eta`, a retry, a provider that is down.

    They wait in Redis for any worker, so each worker lists the same ones.
    """
    servers = state.app.servers
    with closing(servers.redis_client()) as client:
        due = client.zrange(servers.keys.due(), 0, MOST_SHOWN - 1, withscores=True)
    return [
        {
            "eta": rfc3339(int(at_ms)),
            "priority": 0,
            "request": {"id": job_id.decode(), "name": TASK, "args": "", "kwargs": ""},
        }
        for job_id, at_ms in due
    ]


def _resized(state: Any, n: Any, sign: int) -> dict[str, str]:
    consumer = state.consumer
    running = int(consumer.pool.num_processes)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        return _refused(f"N is {n!r}; give a whole number from 1 on")
    slots = running + sign * n
    if not 1 <= slots <= MOST_SLOTS:
        return _refused(f"N is {n}, of {running} slots; leave at least 1 and at most {MOST_SLOTS}")
    consumer.resize(slots)
    return {"ok": f"up to {slots} jobs run at once, until the worker ends"}


def _refused(remedy: str) -> dict[str, str]:
    return {"error": f"refused: {remedy}"}
