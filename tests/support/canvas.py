"""A user's Celery app that sends canvases to Headgate, read without any worker process."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from celery import Celery
from kombu import pools

from headgate.shared.job.envelope import SECOND_VERSION, Envelope
from headgate.shared.job.ids import now_ms
from headgate.shared.job.request import request_from
from headgate.workers.celery.canvas import prepared
from headgate.workers.delivery import message
from headgate.workers.delivery.stock_call import request_fields
from tests.support.rig import STANDARD

MINE = "mine"
"""The queue of the user's own tasks."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A task as it stands in a queue."""

    id: str
    task: str
    args: list[Any]
    kwargs: dict[str, Any]
    headers: dict[str, Any]
    embed: dict[str, Any]


@contextmanager
def user_app(url: str, **conf: Any) -> Iterator[Celery]:
    """A stock app on this Redis; it has no tasks, since signatures name them."""
    app = Celery("user", broker=url, backend=url, set_as_current=False)
    app.conf.update(conf)
    yield app
    backend: Any = app.backend
    backend.result_consumer.stop()
    # Results that are collected later must not look for a server that has gone.
    backend.result_consumer.cancel_for = lambda _task_id: None
    backend.client.close()
    app.close()
    pools.reset()


def ask(app: Celery, prompt: str | None = "hello", **fields: Any) -> Any:
    """The signature of a job."""
    request = {"model": "alpha", **fields}
    if prompt is not None:
        request["prompt"] = prompt
    return app.signature("headgate.run", kwargs=request, queue=STANDARD)


def mine(app: Celery, name: str, *args: Any, queue: str | None = MINE, **options: Any) -> Any:
    """The signature of a task of the user's."""
    found = app.signature(f"mine.{name}", args=args, **options)
    return found.set(queue=queue) if queue else found


def sent_to(client: redis.Redis, queue: str = MINE) -> list[Sent]:
    """The tasks in this queue, the oldest first."""
    raws: Any = client.lrange(queue, 0, -1)
    return [_sent(json.loads(raw)) for raw in reversed(raws)]


def _sent(fields: dict[str, Any]) -> Sent:
    args, kwargs, embed = json.loads(base64.b64decode(fields["body"]))
    headers = fields["headers"]
    return Sent(headers["id"], headers["task"], args, kwargs, headers, embed)


def take_jobs(client: redis.Redis, queue: str = STANDARD) -> list[Envelope]:
    """Take all jobs from the queue; return them as a worker makes them of their messages."""
    jobs = []
    while (raw := client.rpop(queue)) is not None:
        found = message.read(raw)  # type: ignore[arg-type]  # bytes
        headers, (args, kwargs, _) = found.headers, found.body
        canvas = headers.get("canvas")
        jobs.append(
            Envelope(
                v=SECOND_VERSION,
                id=headers["id"],
                group=headers["group"],
                parent_id=headers["parent_id"],
                ignore_result=headers.get("result_ignored", False),
                canvas=None if canvas is None else prepared(canvas, headers["id"]),
                request=request_from(request_fields(args, kwargs)),
                model="alpha",
                model_class="fast",
                submitted_at_ms=now_ms(),
            )
        )
    return jobs
