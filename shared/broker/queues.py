"""Names on the broker, and how jobs get onto it as plain Celery messages (protocol 2).

We compose messages by hand, because Celery's own publishing costs 20 times as much. A stock Celery
worker can read them, and our workers read a stock `send_task("headgate.run", ...)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

import orjson
import redis

from headgate.shared.broker import jobs as broker_jobs
from headgate.shared.broker import script
from headgate.shared.broker.keys import Keys
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import PRIORITIES

TASK = "headgate.run"
ORIGIN = "headgate"
"""The header `origin` of our own messages."""

MESSAGES_PER_CALL = 500
"""Messages in one call of the send script, which then holds the server for about 1 ms."""


Ready = tuple[Envelope, bytes] | tuple[Envelope, bytes, str]


def queue_name(priority: str, model_class: str) -> str:
    """Return the name of the queue of a priority and a model class."""
    return f"headgate.{priority}.{model_class}"


def all_queues(model_classes: Iterable[str]) -> list[str]:
    """List every queue in the order in which a worker looks into them: urgent first."""
    classes = list(model_classes)
    return [queue_name(priority, name) for priority in PRIORITIES for name in classes]


def lists_of(keys: Keys, queue: str) -> list[str]:
    """Return the keys of all lists of this queue, in the order in which kombu empties them."""
    return [keys.queue(queue) + ending for ending in ("", *keys.sub_lists.endings)]


def in_turn(queues: Iterable[str], turn: int) -> list[str]:
    """Rotate the classes of each priority, so that no class always waits for another."""
    by_priority: dict[str, list[str]] = {}
    for queue in queues:
        by_priority.setdefault(queue.rpartition(".")[0], []).append(queue)
    return [
        names[(place + turn) % len(names)]
        for names in by_priority.values()
        for place in range(len(names))
    ]


def queue_of(envelope: Envelope) -> str:
    """Return the name of the queue that this job belongs to."""
    return queue_name(envelope.request.priority, envelope.model_class)


def message(envelope: Envelope, encoded: bytes, ticket: str = "") -> bytes:
    """Return the Celery message of a job. `encoded` is `envelope.encode()`.

    The fetch script reads the job's id and its ticket from the first keys, `hg` and `at`, without
    parsing the rest. Without a ticket a worker has to read the message first. `argsrepr` is empty
    so that no prompt reaches logs, events or Flower.
    """
    quoted_id = f'"{envelope.id}"'
    queue = queue_of(envelope)
    body = orjson.dumps(
        (b"[[" + encoded + b'],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]')
        .decode()
    )  # fmt: skip
    at = f'"at":"{ticket}",' if ticket else ""
    head = f'{{"hg":{quoted_id},{at}"body":'
    tail = (
        ',"content-encoding":"utf-8","content-type":"application/json","headers":{"lang":"py",'
        f'"task":"{TASK}","id":{quoted_id},"root_id":{quoted_id},"parent_id":null,"group":null,'
        '"shadow":null,"eta":null,"expires":null,"retries":0,"timelimit":[null,null],'
        f'"argsrepr":"","kwargsrepr":"","origin":"{ORIGIN}","ignore_result":true}},'
        f'"properties":{{"correlation_id":{quoted_id},"reply_to":"","delivery_mode":2,'
        f'"delivery_info":{{"exchange":"","routing_key":"{queue}"}},"priority":{envelope.step},'
        f'"delivery_tag":{quoted_id}}}}}'
    )
    return head.encode() + body + tail.encode()


def send(client: redis.Redis, keys: Keys, jobs: Iterable[Ready]) -> int:
    """Put every job on its queue; return how many were new to the broker.

    `jobs` are envelopes with their encoded form and, where it is known, their ticket. It is safe to
    repeat the call after an error: a job that the broker has already is not put again. Raise
    RedisError.
    """
    waiting: dict[str, list[tuple[str, bytes]]] = {}
    for envelope, encoded, *known in jobs:
        pair = envelope.id, message(envelope, encoded, *known)
        waiting.setdefault(queue_of(envelope), []).append(pair)
    put = 0
    for queue, pairs in waiting.items():
        rest = iter(pairs)
        while chunk := list(islice(rest, MESSAGES_PER_CALL)):
            put += script.run(client, broker_jobs.send(keys, queue, chunk))
    return put
