"""Estimates from answers how long the next ones will be, and how far input estimates are off.

Answers are counted in this process. Every two seconds the counts are added to those that all
workers share, and the new estimates are written where the scripts read them. Nothing here changes
a job: a fault is logged, and jobs go on with the old estimates.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from headgate.shared.admission.estimates import (
    HALF_LIFE,
    MOST_GROUPS,
    EstimateCounts,
    EstimateGroup,
    add_counts,
    estimate_from,
    store_estimates,
)
from headgate.shared.broker.keys import Keys
from headgate.workers.clients.redis_batcher import RedisBatcher

log = logging.getLogger("headgate.learning")

EVERY_S = 2.0

LARGEST = 8
"""Most groups in one call of the script. Redis does nothing else meanwhile."""

ROUND = 64
"""Groups in one round of `flush`."""

ROUNDS = 4
"""Most rounds in a `flush`. With thousands of tenants some counts are shared a little later."""

LEAST, MOST = 0.1, 10.0
"""Bounds of the ratio of true to estimated input: what a vendor reports may be wrong."""


@dataclass(slots=True)
class _GroupCounts:
    """The answers of one group since the last flush. `estimate`: output tokens expected then."""

    estimate: int | None
    counts: EstimateCounts = field(default_factory=EstimateCounts)


class EstimateUpkeep:
    """`saw` counts an answer; `keep` shares the counts for as long as the worker runs.

    `miss`: the chance of an answer that takes more than was held for it. `half_life` in answers.
    """

    def __init__(
        self,
        batcher: RedisBatcher,
        keys: Keys,
        *,
        miss: float = 0.05,
        half_life: float = HALF_LIFE,
        groups: int = MOST_GROUPS,
        every_s: float = EVERY_S,
    ) -> None:
        self._batcher = batcher
        self._keys = keys
        self._miss = miss
        self._half_life = half_life
        self._groups = groups
        self._every_s = every_s
        self._counted: dict[tuple[str, str, str], _GroupCounts] = {}
        self._estimates: dict[tuple[str, str | None, str], int] = {}
        self._calls = 0
        self._name = uuid.uuid4().hex
        self._is_failing = False

    def saw(
        self,
        model: str,
        tenant: str,
        template: str,
        *,
        estimated_input: int,
        input_tokens: int,
        held_output: int | None,
        output_tokens: int,
        ceiling: int,
    ) -> None:
        """Count an answered attempt.

        `estimated_input`: tokens as in the ticket, before any correction. `held_output`: tokens
        held for the answer; 0 or None if the vendor's rule holds none, and then the estimate is
        judged. `ceiling`: the most tokens that the answer could take; 0 for an embedding.
        """
        name = (model, tenant, template)
        group = self._counted.get(name)
        if group is None:
            if len(self._counted) >= self._groups:
                return
            group = self._counted[name] = _GroupCounts(self._estimate_of(name))
        counts = group.counts
        counts.answers += 1
        if input_tokens > 0 and estimated_input > 0:
            ratio = input_tokens / estimated_input
            counts.ratio.add(min(MOST, max(LEAST, ratio)), estimated_input)
        if ceiling <= 0:
            return
        taken = min(output_tokens, ceiling)
        counts.output.add(taken)
        if group.estimate is not None:
            counts.judged += 1
            counts.under += taken > (held_output or min(group.estimate, ceiling))

    async def keep(self) -> None:
        """Share the counts every two seconds, until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
                self._is_failing = False
            except Exception:
                if not self._is_failing:
                    log.exception("new estimates cannot be shared; jobs go on with the old ones")
                self._is_failing = True

    async def flush(self) -> None:
        """Share the oldest counts now. Waits for as long as Redis does not answer."""
        for _ in range(ROUNDS):
            names = list(islice(self._counted, ROUND))
            if not names:
                return
            found: dict[EstimateGroup, EstimateCounts] = {}
            for name in names:
                counts = self._counted.pop(name).counts
                own, *wider = EstimateGroup(*name).widened()
                for group in wider:
                    found.setdefault(group, EstimateCounts()).merge(counts)
                if own in found:
                    found[own].merge(counts)
                else:
                    found[own] = counts
            new = list(found.items())
            for start in range(0, len(new), LARGEST):
                await self._share(new[start : start + LARGEST])

    async def _share(self, new: list[tuple[EstimateGroup, EstimateCounts]]) -> None:
        self._calls += 1
        shared = await self._batcher.run(
            add_counts(
                self._keys, name=f"{self._name}:{self._calls}", new=new, miss=self._miss,
                half_life=self._half_life, groups=self._groups,
            )
        )  # fmt: skip
        lessons = []
        for (group, _), known in zip(new, shared, strict=True):
            if isinstance(known, EstimateCounts):
                lessons.append(estimate_from(group, known, self._miss))
                known = lessons[-1].output_tokens
            if known is not None:
                self._remember(group, known)
        if any(one.words() for one in lessons):
            await self._batcher.run(store_estimates(self._keys, lessons))

    def _estimate_of(self, name: tuple[str, str, str]) -> int | None:
        """Return the output tokens to expect: by the answer's own group, else by a wider one."""
        own = self._estimates.get(name)
        return own if own is not None else _first(self._estimates.get(n) for n in _wider(*name))

    def _remember(self, group: EstimateGroup, tokens: int) -> None:
        """Remember the group's estimate, and drop the oldest if there are too many."""
        name = (group.model, group.tenant, group.template)
        self._estimates.pop(name, None)
        self._estimates[name] = tokens
        if len(self._estimates) > self._groups:
            del self._estimates[next(iter(self._estimates))]


def _wider(model: str, tenant: str, template: str) -> tuple[tuple[str, str | None, str], ...]:
    return (model, None, template), (model, tenant, ""), (model, None, "")


def _first(found: Iterable[int | None]) -> int | None:
    return next((one for one in found if one is not None), None)
