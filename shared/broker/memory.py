"""What takes the memory of Redis, estimated from a sample of its keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headgate.shared.broker.keys import Keys
from headgate.shared.broker.queues import lists_of
from headgate.shared.broker.script import Command, compose, text_of

FULL_SHARE = 0.9
"""From this share of its memory on Redis counts as nearly full."""

SAMPLE = 500
"""Keys that are looked at; Redis does nothing else for about 1 ms meanwhile."""

REMEDY = "raise its maxmemory, or lower HEADGATE_RESULTS_MB and HEADGATE_CACHE_MB"
MB = 1024 * 1024

JOBS, RESULTS, ANSWERS = "queued and running jobs", "results", "cached answers"
PIECES, LETTERS = "streamed pieces", "dead letters"
BOOKS, FOREIGN = "limits, budgets and estimates", "keys of other programs"


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """How full Redis is. `takes`: bytes by what takes them, the largest first, estimated.

    `limit`: its `maxmemory`, or the machine's memory if it has none (`is_set` is False then).
    """

    used: int
    limit: int
    is_set: bool
    takes: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """How much of its memory is used: 1 is all."""
        return self.used / self.limit if self.limit else 0.0

    @property
    def is_full(self) -> bool:
        """Whether it is nearly full."""
        return self.share >= FULL_SHARE

    def __str__(self) -> str:
        of = "its maxmemory" if self.is_set else "the machine's memory"
        share = f"{self.share:.0%}".replace("%", " %")
        return f"{share} of {of} ({self.used / MB:,.1f} of {self.limit / MB:,.1f} MB)"

    @property
    def takers(self) -> str:
        """What takes the memory, as a text; what takes less than 1 % is left out."""
        shown = [
            f"{what} {size / MB:,.1f} MB"
            for what, size in self.takes.items()
            if size >= 0.01 * self.used
        ]
        return ", ".join(shown) or "not known"


def use_of(facts: Mapping[str, Any]) -> MemoryUse:
    """Return how full Redis is, from its INFO."""
    limit = int(facts.get("maxmemory", 0))
    used = int(facts.get("used_memory", 0))
    return MemoryUse(used, limit or int(facts.get("total_system_memory", 0)), limit > 0)


def takers(keys: Keys, queues: Iterable[str]) -> Command[dict[str, int]]:
    """Estimate how many bytes what takes; the reply has the largest first."""
    measured = _single_keys(keys, queues)
    prefixes = _prefixes(keys)

    def read(reply: Sequence[Any]) -> dict[str, int]:
        count, rest = int(reply[0]), reply[1 + len(measured) :]
        sizes: Counter[str] = Counter()
        for name, size in zip(rest[::2], rest[1::2], strict=True):
            sizes[_kind(text_of(name), prefixes)] += int(size)
        scale = max(1.0, (count - len(measured)) / max(1, len(rest) // 2))
        found = Counter({what: int(size * scale) for what, size in sizes.items()})
        for what, size in zip(measured.values(), reply[1:], strict=False):
            found[what] += int(size)
        return dict(found.most_common())

    return compose("memory", measured, (SAMPLE,), read)


def _single_keys(keys: Keys, queues: Iterable[str]) -> dict[str, str]:
    """Return the keys that can be large by themselves, with what they count as."""
    lists = [key for queue in queues for key in lists_of(keys, queue)]
    jobs = (keys.messages(), keys.present(), keys.leases(), keys.owners(), keys.tickets(),
            keys.holds(), keys.due(), keys.followers(), *lists)  # fmt: skip
    answers = (keys.cached(), keys.cache_uses(), keys.cache_ends())
    return {
        **dict.fromkeys(jobs, JOBS), **dict.fromkeys(answers, ANSWERS),
        keys.results(): RESULTS, keys.dead(): LETTERS, keys.learned(): BOOKS,
    }  # fmt: skip


def _prefixes(keys: Keys) -> tuple[tuple[str, str], ...]:
    return (
        (keys.result(""), RESULTS),
        (keys.cache(""), ANSWERS),
        (keys.deltas(""), PIECES),
        (keys.letter(""), LETTERS),
        (f"{keys.prefix}headgate:room:", JOBS),
        (f"{keys.prefix}headgate:users:", JOBS),
        (f"{keys.prefix}headgate:line:", JOBS),
        (f"{keys.prefix}headgate:flight:", JOBS),
        (f"{keys.prefix}headgate.", JOBS),
        (f"{keys.prefix}headgate:", BOOKS),
    )


def _kind(name: str, prefixes: Iterable[tuple[str, str]]) -> str:
    return next((what for begin, what in prefixes if name.startswith(begin)), FOREIGN)
