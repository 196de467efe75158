"""Remote control of a worker's slots by Celery's own commands, as far as this pool can do them.

A slot is no process or thread, so the number of slots can change at run time. With fewer slots than
jobs the jobs end, and no new ones come until a slot is free.
"""

from __future__ import annotations

from typing import Any

from celery.worker.control import control_command

MOST_SLOTS = 100_000
"""A larger number is taken for a typing error; 1,000 jobs in flight take 35 MB."""


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
