"""What Celery's commands and heartbeats know of the running jobs.

Celery would count each job at its beginning and at its end. Here its counts are brought up to date
when a command or a heartbeat reads them. When its connection breaks it would take the jobs for its
own requests, and set attributes of them: they are forgotten first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.worker import state
from celery.worker.pidbox import Pidbox

from headgate.shared.broker.queues import TASK
from headgate.workers.celery.running_job import RunningJob


def show(jobs: Sequence[RunningJob], begun: int) -> None:
    """Bring Celery's counts of running and begun jobs up to date."""
    state.active_requests.clear()
    state.active_requests |= set(jobs)
    state.total_count[TASK] = state.all_total_count[0] = begun


def forget() -> None:
    """Show no running job until the next command or heartbeat."""
    state.active_requests.clear()
    state.reserved_requests.clear()


class Mailbox(Pidbox):
    """Celery's mailbox of remote control. Each command finds the jobs that run when it comes."""

    c: Any

    def on_message(self, body: Any, message: Any) -> None:
        """Obey the command."""
        jobs = self.c.pool.jobs
        show(jobs, self.c.pool.begun)
        state.requests.update({job.id: job for job in jobs})
        try:
            super().on_message(body, message)
        finally:
            state.requests.clear()  # it would hold the messages of jobs that have ended
