"""The scripts of holds: one more attempt, what it really used, what its provider said of limits.

The first hold of a job comes with its message (`scripts.fetch`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, Word, compose, text_of


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
class Told:
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
    told: Sequence[Told] = (),
) -> Command[bool]:  # fmt: skip
    """Buckets and gate of a pool follow what its provider said (kinds: see the script)."""
    args: list[Word] = [keys.prefix, pool, key, kind, wait_ms, granted_at_ms]
    for one in told:
        total = -1 if one.total is None else one.total
        args += [one.measure, one.limit, one.remaining, one.grain, total]
    return compose("limits_observe", (), args, bool)
