"""kombu's Redis transport, except that the Fetcher consumes the jobs, with leases.

kombu still does remote control, events and publishing. If it consumed jobs it would lose messages
on SIGKILL, run jobs twice after a lost connection, and die when the server restarts.
"""

from __future__ import annotations

from kombu.transport import redis
from redis.exceptions import ResponseError

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
