"""A Celery app of one task, to try the local nodes of pytest-celery on something small.

Run as `celery -A tests.support.celery_nodes_app worker`; broker and backend come from the
variable that Celery itself reads, so nothing here does.
"""

from celery import Celery

app = Celery("celery_nodes_app")
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_transport_options={"visibility_timeout": 2},
    broker_connection_retry_on_startup=True,
)


@app.task(name="celery_nodes_app.double")
def double(number: int) -> int:
    """Twice the number."""
    return number * 2
