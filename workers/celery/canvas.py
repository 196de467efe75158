"""Sends what follows a job in Celery: links, the rest of a chain, a chord's body, errbacks.

Celery's own canvas code does it, in an app of its own. Every task that it sends has an id that
follows from the job's id. So a job that ends twice, as after a crash, sends the same tasks again.
The code blocks on Redis, so it runs in a thread that does nothing else.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery import Celery, Task, group, states
from celery._state import _task_stack  # type: ignore[attr-defined]  # not in its stubs
from celery.app.task import Context
from celery.backends import redis as celery_redis
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.canvas import maybe_signature
from kombu.compression import encoders
from kombu.exceptions import OperationalError
from kombu.serialization import registry  # type: ignore[attr-defined]  # not in its stubs
from redis.exceptions import RedisError, ResponseError

from headgate.shared.broker.queues import TASK, queue_name
from headgate.shared.errors import UnreadableMessage
from headgate.shared.servers.redis_check import refuses_for_now
from headgate.shared.servers.servers import Servers
from headgate.workers.celery import config
from headgate.workers.clients.callbacks import BodyUnderWay, EndedCall, NotSent

IDS = uuid.UUID("5f1c5ac0-5f0e-4f1a-9d2c-0b1f6a7c9d3e")
"""The namespace of the ids of callbacks. It must never change."""

BACKEND = "headgate.workers.celery.canvas:open_backend"


LOGGERS = ("celery.backends.base", "celery.backends.redis")
"""Where Celery logs failed chords with the text of the error, which may quote a request."""


def without_words(record: logging.LogRecord) -> bool:
    """Leave of each exception in this log record only the name of its class."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            type(one).__name__ if isinstance(one, BaseException) else one for one in record.args
        )
    record.exc_info = None
    return True


# Reading: before the job is asked.


def prepared(canvas: Mapping[str, Any], job_id: str) -> dict[str, Any]:
    """Return the canvas with an id for each task that has none. The ids follow from the job's id.

    Raises UnreadableMessage for a signature that cannot be sent.
    """
    found = dict(canvas)
    try:
        for name in ("callbacks", "errbacks", "chain"):
            if name in found:
                found[name] = [
                    _identified(one, job_id, f"{name}.{n}") for n, one in enumerate(found[name])
                ]
        if "chord" in found:
            found["chord"] = _identified(found["chord"], job_id, "chord")
    except RecursionError:
        raise UnreadableMessage("its callbacks are nested too deep") from None
    return found


def _identified(sig: object, job_id: str, path: str) -> dict[str, Any]:
    """Return the serialized signature with ids for itself and for what it consists of."""
    if not isinstance(sig, dict) or not isinstance(sig.get("task"), str) or not sig["task"]:
        raise UnreadableMessage(f"embed.{path} is not a signature")
    options, kwargs = sig.get("options") or {}, sig.get("kwargs") or {}
    if not isinstance(options, dict) or not isinstance(kwargs, dict):
        raise UnreadableMessage(f"embed.{path} has options or kwargs that are no objects")
    _refuse_encoding(options, path)
    options, kwargs = dict(options), dict(kwargs)
    kind = sig.get("subtask_type")
    if kind in ("group", "chain"):
        kwargs["tasks"] = _members(kwargs.get("tasks"), job_id, f"{path}.tasks")
    if kind == "chord":
        header = kwargs.get("header")
        one = _identified if isinstance(header, dict) else _members
        kwargs["header"] = one(header, job_id, f"{path}.header")
        kwargs["body"] = _identified(kwargs.get("body"), job_id, f"{path}.body")
    if kind != "chain":  # a chain is known by the id of its last task
        options.setdefault("task_id", str(uuid.uuid5(IDS, f"{job_id}/{path}")))
    return {**sig, "options": options, "kwargs": kwargs}


def _members(tasks: object, job_id: str, path: str) -> list[dict[str, Any]]:
    if not isinstance(tasks, list):
        raise UnreadableMessage(f"embed.{path} is not a list of signatures")
    return [_identified(task, job_id, f"{path}.{n}") for n, task in enumerate(tasks)]


def _refuse_encoding(options: Mapping[str, Any], path: str) -> None:
    serializer, compression = options.get("serializer"), options.get("compression")
    if serializer is not None:
        if serializer == "pickle":
            raise UnreadableMessage(f"embed.{path} is to be pickled; nothing is ever pickled")
        if serializer not in registry.name_to_type:
            raise UnreadableMessage(f"embed.{path} has a serializer that is not installed here")
    if compression is not None and compression not in encoders():
        raise UnreadableMessage(f"embed.{path} has a compression that is not installed here")


# Sending: after the job's end is on record.


class JobCall(Context):
    """The request of a job that has ended, as the task that runs it would see it."""


class NoWaiting(celery_redis.ResultConsumer):  # type: ignore[name-defined, misc]  # no stubs
    """Never subscribes to results: nobody here waits for callbacks.

    A subscription ends when its AsyncResult is collected as garbage. That blocks the thread in
    which it happens, which may be the one of the jobs.
    """

    def consume_from(self, task_id: str) -> None:
        """Do nothing."""

    def cancel_for(self, task_id: str) -> None:
        """Do nothing."""


class _JobBackend:
    """What the backends for one Redis and for sentinels share.

    They leave the results of jobs alone, because the job's own stage stores these.
    """

    ResultConsumer = NoWaiting

    def store_result(self, task_id: Any, result: Any, state: Any, **others: Any) -> Any:
        """Store the state of a task that is no job: of one that a failed chain never reaches."""
        if isinstance(others.get("request"), JobCall):
            return result
        return super().store_result(task_id, result, state, **others)  # type: ignore[misc]  # Celery's

    def is_body_under_way(self: Any, chord: str) -> bool:
        """Return whether all parts of the chord are in and another worker sends its body.

        That worker may have died. Its claim then ends after some seconds.
        """
        names = (".c", ".s", ".t")
        claim, size, more = self.client.mget([self.get_key_for_group(chord, n) for n in names])
        if size is None or claim in (None, b"done"):
            return False
        parts = self.client.zcard(self.get_key_for_group(chord, ".j"))
        return int(parts) == int(size) + int(more or 0)


class JobBackend(_JobBackend, RedisBackend):  # type: ignore[misc]  # it has no stubs for all
    """For one Redis."""


class SentinelJobBackend(_JobBackend, SentinelBackend):  # type: ignore[misc]  # the same
    """For the Redis that the sentinels name."""


def open_backend(app: Celery, url: str | None = None, **options: Any) -> RedisBackend:
    """Return the backend for the Redis at this URL. Celery calls it."""
    kind = SentinelJobBackend if (url or "").startswith("sentinel:") else JobBackend
    return kind(app=app, url=url or None, **options)


class Parent(Task):  # type: ignore[type-arg]  # generic only in its stubs
    """Stands for the job's own task while Celery sends what follows it."""

    name = TASK


class Canvas:
    """Celery's canvas on one Redis. All calls must come from one thread."""

    def __init__(self, servers: Servers) -> None:
        in_force = servers.settings
        found = config.settings_for(servers.address, in_force.key_prefix, in_force.sub_lists)
        found["result_backend"] = f"{BACKEND}+{servers.address.celery_url()}"
        self._app = Celery("headgate.canvas", set_as_current=False)
        self._app.conf.update(
            **found,
            task_default_queue=in_force.celery_queue,
            task_routes={TASK: {"queue": queue_name("standard", "fast")}},
            task_serializer="json",
            accept_content=["json"],
            result_expires=in_force.result_ttl_s,
            enable_utc=True,
            timezone="UTC",
        )
        self._app.set_current()  # in this thread: parts of a canvas ask for the current app
        for name in LOGGERS:
            logging.getLogger(name).addFilter(without_words)
        Parent.bind(self._app)
        self._parent = Parent()
        self._client = servers.redis_client()

    def close(self) -> None:
        """Close the connections, but for those in kombu's pools, which belong to the process."""
        self._client.close()
        self._backend.client.close()
        self._app.close()

    @property
    def _backend(self) -> Any:
        return self._app.backend

    def send(self, ended: EndedCall) -> None:
        """Store the job's result, and send all that follows it, in Celery's order.

        Raises NotSent for what Celery cannot send, BodyUnderWay, and RedisError and OSError if
        Redis does not take it now.
        """
        try:
            with self._as_parent(ended) as request:
                self._send(ended, request)
        except BodyUnderWay:
            raise
        except (OperationalError, RedisError, OSError) as error:
            cause = error.__cause__ if isinstance(error, OperationalError) else error
            if isinstance(cause, ResponseError) and not refuses_for_now(cause):
                raise NotSent(f"Redis refused a callback: {cause}") from error
            raise OSError(str(error)) from error
        except Exception as error:
            raise NotSent(f"{type(error).__name__} in Celery's canvas") from error

    def _send(self, ended: EndedCall, request: Any) -> None:
        backend, job_id = self._backend, ended.envelope.id
        if ended.state == states.SUCCESS:
            self._dispatch(ended.value, request)
        ended.store(self._client, [one.as_tuple() for one in request.children])
        if ended.state == states.SUCCESS:
            backend.mark_as_done(job_id, ended.value, request, store_result=False)
        elif ended.state == states.REVOKED:
            reason = ended.value["exc_message"][0]
            backend.mark_as_revoked(job_id, reason, request, store_result=False)
        else:
            failure = backend.exception_to_python(ended.value)
            stored = not ended.envelope.ignore_result
            backend.mark_as_failure(job_id, failure, request=request, store_result=stored)
        if ended.again and request.chord and backend.is_body_under_way(request.group):
            raise BodyUnderWay

    def _dispatch(self, value: Any, request: Any) -> None:
        """Send links and the next task of a chain, as `celery.app.trace` does for any task."""
        signatures = [self._signature(one) for one in request.callbacks or ()]
        first = [one for one in signatures if isinstance(one, group)]
        others = [one for one in signatures if not isinstance(one, group)]
        if len(others) > 1:
            gid = str(uuid.uuid5(IDS, f"{request.id}/callbacks"))
            others = [group(others, app=self._app, task_id=gid)]
        origin = {"parent_id": request.id, "root_id": request.root_id or request.id}
        for one in (*first, *others):
            one.apply_async((value,), **origin)
        if request.chain:
            *rest, following = request.chain  # the last is the next
            self._signature(following).apply_async((value,), chain=rest, **origin)

    def _signature(self, serialized: dict[str, Any]) -> Any:
        return maybe_signature(serialized, app=self._app)

    @contextmanager
    def _as_parent(self, ended: EndedCall) -> Iterator[JobCall]:
        """Make the job the current task of this thread: Celery takes parent and children of it."""
        envelope = ended.envelope
        canvas = dict(envelope.canvas or {})
        priority = canvas.pop("priority", None)
        request = JobCall(
            **canvas, id=envelope.id, task=TASK, args=(), kwargs={}, group=envelope.group,
            parent_id=envelope.parent_id, called_directly=False,
            delivery_info={"priority": priority},
        )  # fmt: skip
        _task_stack.push(self._parent)
        self._parent.request_stack.push(request)
        try:
            yield request
        finally:
            self._parent.request_stack.pop()
            _task_stack.pop()
