"""Hold: what an attempt takes of its limits, and what providers report about those limits.

The first attempt of a job run comes with its hold. Each further attempt asks for one here. If there
is none at once, the job leaves: jobs wait in Redis, never in a worker.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from headgate.shared.admission.grant import (
    CallerTerms,
    Cheaper,
    Held,
    ModelDown,
    OverBudget,
    TooLarge,
    decode,
)
from headgate.shared.admission.ticket import Ticket
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import (
    Command,
    Word,
    compose,
    compose_joinable,
    text_of,
)
from headgate.workers.clients.delayed_report import DelayedReport, Report
from headgate.workers.clients.redis_batcher import RedisBatcher
from headgate.workers.errors import AttemptError
from headgate.workers.policy import refusal
from headgate.workers.policy.refusal import Refusal
from headgate.workers.provider import RateSeen

log = logging.getLogger("headgate.limits")

OBSERVE_S = 0.1
"""The headers of a pool are reported this often: those of its latest request."""

QUIET_S = 60.0
"""Refusals of a pool, and odd waits, are logged this often: all calls under way meet the same."""

CHANGES = {
    "limited": "a limit is reached there, so no call goes to it for a moment",
    "slow": "it asks us to slow down: its rate is halved, and grows by half in 15 minutes",
    "overloaded": "it is overloaded: fewer calls go to it at once for a minute",
    "money": "no money is left there: no call goes to it, but one in five minutes tests it",
    "flex": "it has no flex capacity: no flex call goes to it for a while",
}
"""What each kind of refusal changes for its pool."""

ReadHeaders = Callable[[Mapping[str, str]], Sequence[RateSeen]]


@dataclass(frozen=True, slots=True)
class Later:
    """A limit has no capacity now, or others wait for it: the job has to join the waiting queue."""


Reserved: TypeAlias = Held | OverBudget | Cheaper | TooLarge | ModelDown | Later


class Holds:
    """The holds of this worker's jobs. `read` gets the limits out of a provider's headers.

    `retry_after_max_ms`: the longest wait that a provider may ask for.
    """

    def __init__(
        self, batcher: RedisBatcher, keys: Keys, read: ReadHeaders, *,
        retry_after_max_ms: float = 3_600_000,
    ) -> None:  # fmt: skip
        self._batcher = batcher
        self._keys = keys
        self._read = read
        self._retry_after_max_ms = retry_after_max_ms
        self._logged_at: dict[tuple[str, str, str], float] = {}
        self._seen: dict[tuple[str, str], tuple[Held, Mapping[str, str]]] = {}
        self._report = DelayedReport(OBSERVE_S, self._reports)

    async def reserve(self, job_id: str, attempt: str, ticket: Ticket) -> Reserved:
        """Take a hold for this attempt, if there is one now and nobody waits for it."""
        answer = await self._batcher.run(
            reserve(self._keys, job_id=job_id, attempt=attempt, ticket=ticket.encode())
        )
        if isinstance(answer, str):
            grant = decode(answer)
            if isinstance(grant, Held | OverBudget | Cheaper):
                return grant
            raise TypeError(f"reserve.lua answered with {type(grant).__name__}")
        if answer >= 0:
            return Later()
        terms = CallerTerms(ticket.tier, ticket.paid)
        if answer == -1:
            return TooLarge(ticket.model, terms)
        return ModelDown(ticket.model, -1 - answer, ticket.waits, terms)

    async def settle(
        self, job_id: str, hold: Held, used: tuple[int, int] | None,
        cost_pico_usd: int | None = None,
    ) -> None:  # fmt: skip
        """End the hold at the tokens of input and output used; None: nothing was sent.

        `cost_pico_usd` None: nobody knows the cost, and budgets count the upper bound.
        """
        await self._batcher.run(
            settle(
                self._keys, job_id=job_id, grant=hold.text, used=used, cost_pico_usd=cost_pico_usd,
            )
        )  # fmt: skip

    def answered(self, hold: Held, headers: Mapping[str, str]) -> None:
        """Report soon what these headers of an answer say; they belong to this hold's request."""
        place = (hold.pool, hold.key)
        before = self._seen.get(place)
        if before is None or before[0].granted_at_ms <= hold.granted_at_ms:
            self._seen[place] = (hold, headers)
        self._report.schedule()

    async def refused(self, hold: Held, error: AttemptError) -> None:
        """Report what a failure says about limits, before this worker asks again."""
        if odd := refusal.odd_wait(error, self._retry_after_max_ms):
            self._log(hold, "odd wait", odd)
        found = refusal.refusal(error, self._retry_after_max_ms)
        if found is not None:
            self._log(hold, found.kind, f"HTTP {error.http_status}: {CHANGES[found.kind]}")
            await self._observe(hold, error.headers, found)

    def _log(self, hold: Held, what: str, words: str) -> None:
        place, now_s = (hold.pool, hold.key, what), time.monotonic()
        if now_s - self._logged_at.get(place, -QUIET_S) >= QUIET_S:
            self._logged_at[place] = now_s
            log.warning("%s (%s): %s", hold.pool, hold.key, words)

    def close(self) -> None:
        """Report nothing more. The answers of the next worker tell what the last headers said."""
        self._report.close()

    def _reports(self) -> Iterator[Report]:
        seen, self._seen = self._seen, {}
        for hold, headers in seen.values():
            yield self._observe(hold, headers, Refusal("ok", -1))

    async def _observe(self, hold: Held, headers: Mapping[str, str], found: Refusal) -> None:
        seen = [replace(one, total=hold.totals.get(one.measure)) for one in self._read(headers)]
        await self._batcher.run(
            observe(
                self._keys, pool=hold.pool, key=hold.key, kind=found.kind, wait_ms=found.wait_ms,
                asked_ms=found.asked_ms, granted_at_ms=hold.granted_at_ms, seen=seen,
                tokens=hold.tokens,
            )
        )  # fmt: skip


def reserve(keys: Keys, *, job_id: str, attempt: str, ticket: str) -> Command[str | int]:
    """Take a hold for one more attempt of a running job: a grant, or a number.

    0 or more: the ms to wait; the job has to go to the waiting queue of its pool. -1: the request
    is too large for a limit. Below: the model is down; -1 less the ms until a probe may go.
    """

    def read(reply: Any) -> str | int:
        return int(reply) if isinstance(reply, int) else text_of(reply)

    return compose("reserve", (), (keys.prefix, job_id, attempt, ticket), read)


def settle(
    keys: Keys, *, job_id: str, grant: str, used: tuple[int, int] | None,
    cost_pico_usd: int | None = None,
) -> Command[bool]:  # fmt: skip
    """End a hold at the tokens of input and output that it took; None: nothing was sent.

    `cost_pico_usd` None: nobody knows the cost, and budgets count the upper bound as spent.
    """
    cost = -1 if cost_pico_usd is None else cost_pico_usd
    words = (job_id, grant, *(used or (-1, -1)), cost)
    return compose_joinable("settle", (keys.prefix,), words, bool)


def observe(
    keys: Keys, *, pool: str, key: str, kind: str, wait_ms: int = -1, asked_ms: int = -1,
    granted_at_ms: int = 0, seen: Sequence[RateSeen] = (), tokens: tuple[int, int] = (0, 0),
) -> Command[bool]:  # fmt: skip
    """Let the buckets and the gate of a pool follow its provider; kinds: see the script.

    `wait_ms` and `asked_ms`: see `Refusal`. `tokens`: those of input and output that the request
    held.
    """
    args: list[Word] = [keys.prefix, pool, key, kind, wait_ms, granted_at_ms, asked_ms]
    asked = {"tpm": sum(tokens), "input_tpm": tokens[0], "output_tpm": tokens[1]}
    for one in seen:
        total = -1 if one.total is None else one.total
        args += [one.measure, one.limit, one.remaining, one.grain, total, asked.get(one.measure, 1)]
        args += [-1, 0, 0]
        if (reset := one.reset) is not None:
            args[-3:] = [reset.after_s * 1000, reset.grain_s * 1000, int(reset.of_answer)]
    return compose("limits_observe", (), args, bool)
