"""Bucket: what a job may take of its limits, and what providers say of them.

The first attempt of a run comes with its hold: fetching is admission. Another attempt in the same
run asks for one here, and leaves if there is none at once: jobs wait in Redis, never in a worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headgate.shared.admission.grant import Grant
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose, text_of
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.errors import AttemptError
from headgate.workers.stages import hold

OBSERVE_S = 0.1
"""Headers of a pool are handed on this often, those of the latest request."""


class Seen(Protocol):
    """What headers say of one measure: see `RateTold`."""

    @property
    def measure(self) -> str: ...
    @property
    def limit(self) -> float: ...
    @property
    def remaining(self) -> float: ...
    @property
    def grain(self) -> float: ...


Reader = Callable[[Mapping[str, str]], Sequence[Seen]]


@dataclass(frozen=True, slots=True)
class Later:
    """The job has to wait in line, for about `wait_ms`."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class TooLarge:
    """It takes more than its limit lets through in a minute; no waiting helps."""


@dataclass(frozen=True, slots=True)
class Broken:
    """Its model is down on every key that could serve it; one probe may go in `wait_ms`."""

    wait_ms: int


class Bucket:
    """The holds of this worker's jobs; `read` gets the limits out of a provider's headers."""

    def __init__(self, lane: RedisBatcher, keys: Keys, read: Reader) -> None:
        self._lane = lane
        self._keys = keys
        self._read = read
        self._heard: dict[tuple[str, str], tuple[Grant, Mapping[str, str]]] = {}
        self._telling: asyncio.TimerHandle | None = None

    async def reserve(
        self, job_id: str, attempt: str, ticket: Ticket
    ) -> Grant | Later | TooLarge | Broken:
        """A hold for this attempt, if there is one now and nobody waits for it.

        A grant of another way says which budget keeps it.
        """
        command = hold.reserve(self._keys, job_id=job_id, attempt=attempt, ticket=ticket.encode())
        answer = await self._lane.run(command)
        if isinstance(answer, str):
            return Grant.decode(answer)
        if answer < -1:
            return Broken(-1 - answer)
        return TooLarge() if answer < 0 else Later(answer)

    async def settle(
        self, job_id: str, grant: Grant, used: tuple[int, int] | None,
        cost_pico_usd: int | None = None,
    ) -> None:  # fmt: skip
        """The hold has ended at the tokens of input and output used; None: nothing was sent.

        `cost_pico_usd` None: nobody knows, and budgets count the worst price.
        """
        await self._lane.run(
            hold.settle(
                self._keys, job_id=job_id, grant=grant.text, used=used,
                cost_pico_usd=cost_pico_usd,
            )
        )  # fmt: skip

    def heard(self, grant: Grant, headers: Mapping[str, str]) -> None:
        """The buckets will follow these headers soon; they came with what was granted here."""
        place = (grant.pool, grant.key)
        before = self._heard.get(place)
        if before is None or before[0].granted_at_ms <= grant.granted_at_ms:
            self._heard[place] = (grant, headers)
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(OBSERVE_S, self._tell)

    def close(self) -> None:
        """Headers that were heard last are told by the next worker's answers."""
        if self._telling is not None:
            self._telling.cancel()

    async def refused(self, grant: Grant, error: AttemptError, kind: str, wait_ms: int) -> None:
        """Everyone has heard of the refusal before this worker asks again."""
        await self._observe(grant, error.headers, kind, wait_ms)

    def _tell(self) -> None:
        self._telling = None
        heard, self._heard = self._heard, {}
        for grant, headers in heard.values():
            task = asyncio.ensure_future(self._observe(grant, headers, "ok", -1))
            task.add_done_callback(_forget)

    async def _observe(
        self, grant: Grant, headers: Mapping[str, str], kind: str, wait_ms: int
    ) -> None:
        told = [
            RateTold(
                one.measure, one.limit, one.remaining, one.grain, grant.totals.get(one.measure)
            )
            for one in self._read(headers)
        ]
        await self._lane.run(
            hold.observe(
                self._keys, pool=grant.pool, key=grant.key, kind=kind, wait_ms=wait_ms,
                granted_at_ms=grant.granted_at_ms, told=told,
            )
        )  # fmt: skip


def _forget(task: asyncio.Task[None]) -> None:
    """What was not told is told with the next answer; a closing lane is no fault."""
    if not task.cancelled():
        task.exception()


def reserve(keys: Keys, *, job_id: str, attempt: str, ticket: str) -> Command[str | int]:
    """A hold for one more attempt of a job that runs: its grant, or the ms to wait, or -1: never.

    Below -1: its model is down; -1 less the ms until a probe may go. Whoever must wait has to
    leave: the job returns to the waiting room of its pool.
    """

    def read(reply: Any) -> str | int:
        return int(reply) if isinstance(reply, int) else text_of(reply)

    return compose("reserve", (), (keys.prefix, job_id, attempt, ticket), read)


def settle(
    keys: Keys, *, job_id: str, grant: str, used: tuple[int, int] | None,
    cost_pico_usd: int | None = None,
) -> Command[bool]:  # fmt: skip
    """Ends a hold at the tokens of input and output that it really took; None: nothing was sent.

    `cost_pico_usd` None: nobody knows, and of budgets the worst price counts as spent.
    """
    cost = -1 if cost_pico_usd is None else cost_pico_usd
    words = (keys.prefix, job_id, grant, *(used or (-1, -1)), cost)
    return compose("settle", (), words, bool)


@dataclass(frozen=True, slots=True)
class RateTold:
    """What a provider said of one measure: the limit, what remains, the rounding of that.

    `total`: what had been granted when the request was; None where that is not known.
    """

    measure: str
    limit: float
    remaining: float
    grain: float
    total: int | None


def observe(
    keys: Keys, *, pool: str, key: str, kind: str, wait_ms: int = -1, granted_at_ms: int = 0,
    told: Sequence[RateTold] = (),
) -> Command[bool]:  # fmt: skip
    """Buckets and gate of a pool follow what its provider said (kinds: see the script)."""
    args: list[Word] = [keys.prefix, pool, key, kind, wait_ms, granted_at_ms]
    for one in told:
        total = -1 if one.total is None else one.total
        args += [one.measure, one.limit, one.remaining, one.grain, total]
    return compose("limits_observe", (), args, bool)
