"""kombu's Redis transport, except that the Fetcher consumes the jobs, with leases.

kombu still does remote control, events and publishing. If it consumed jobs it would lose messages
on SIGKILL, run jobs twice after a lost connection, and die when the server restarts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from kombu.transport import redis, virtual
from redis.exceptions import ResponseError

from headgate.workers.delivery.message import Arrival

REPLIES = ".pidbox"
"""Names of queues for replies of remote control end with this. All other queues hold jobs, also
those that an operator adds by name: kombu would lose their messages, or log them whole."""


class _NamesOnly(redis.Channel):
    """Registers consumers of job queues by name only. No BRPOP is ever sent for them."""

    do_restore = False

    @property
    def active_queues(self) -> set[str]:
        """The queues that kombu itself reads: replies of remote control, never jobs."""
        return {queue for queue in super().active_queues if queue.endswith(REPLIES)}

    @property
    def job_queues(self) -> list[str]:
        """The job queues consumed from, in the order in which they were added."""
        others = super().active_queues
        return [q for q in self._active_queues if q in others and not q.endswith(REPLIES)]

    def _size(self, queue: str) -> int:
        """Return the number of messages in the queue.

        0 if the key is no list: that must not end the worker.
        """
        try:
            return int(super()._size(queue))
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                return 0
            raise


class Channel(_NamesOnly):
    """A channel to one Redis."""


class SentinelChannel(_NamesOnly, redis.SentinelChannel):
    """A channel to the Redis that the sentinels name."""


class Transport(redis.Transport):
    """The transport of redis://, rediss:// and redis+socket://."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """The transport of sentinel://."""

    Channel = SentinelChannel


class JobMessage(virtual.Message):
    """An arrival as a message of Celery: already decoded, acknowledged through `on_ack`."""

    def __init__(self, arrival: Arrival, on_ack: Callable[[int], None]) -> None:
        headers = arrival.content.headers
        properties = {
            "correlation_id": headers["id"],
            "delivery_tag": arrival.tag,
            "priority": arrival.content.priority,
            "expires_at_ms": arrival.content.expires_at_ms,
            "delivery_info": {
                "exchange": "",
                "routing_key": arrival.queue,
                "redelivered": arrival.crashes > 0,
                "crashes": arrival.crashes,
                "grant": arrival.grant,
            },
        }
        super(virtual.Message, self).__init__(
            body="",
            channel=_Acks(on_ack),
            delivery_tag=cast(str, arrival.tag),  # kombu only hands it back, so any value will do
            content_type="application/json",
            content_encoding="utf-8",
            headers=headers,
            properties=properties,
            delivery_info=properties["delivery_info"],
        )
        self._decoded_cache: Any = arrival.content.body


class _Acks:
    """The part of a channel that a message needs to be acknowledged."""

    no_ack_consumers = None

    def __init__(self, on_ack: Callable[[int], None]) -> None:
        self._on_ack = on_ack

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self._on_ack(delivery_tag)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        # The pipeline has recorded how the job ended before Celery learns of it.
        self._on_ack(delivery_tag)
