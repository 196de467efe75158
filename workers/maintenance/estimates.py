"""Learns from answers how long the next ones will be, and how far input estimates are off.

Each answer is noted in this process; every two seconds the notes are added to the counts that all
workers share, and what follows from them is written where the scripts read it. It watches jobs and
can change none: a fault in here is logged, and jobs go on with what was learned before.
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
"""Groups in one call of the script, for which Redis does nothing else."""

ROUND = 64
"""Groups of answers that are taken up at once."""

ROUNDS = 4
"""Rounds in a row: with thousands of tenants a worker learns of each a little later."""

LEAST, MOST = 0.1, 10.0
"""A ratio of true to estimated input beyond these counts as these: a vendor's word is not safe."""


@dataclass(slots=True)
class _Notes:
    """What was seen of one group since the last flush. `told`: what was promised of it then."""

    told: int | None
    tally: EstimateCounts = field(default_factory=EstimateCounts)


class EstimateUpkeep:
    """`saw` notes an answer; `keep` shares the notes for as long as the worker runs.

    `miss`: the chance of an answer that takes more than was held for it. `half_life` in answers.
    """

    def __init__(
        self,
        lane: RedisBatcher,
        keys: Keys,
        *,
        miss: float = 0.05,
        half_life: float = HALF_LIFE,
        groups: int = MOST_GROUPS,
        every_s: float = EVERY_S,
    ) -> None:
        self._lane = lane
        self._keys = keys
        self._miss = miss
        self._half_life = half_life
        self._groups = groups
        self._every_s = every_s
        self._noted: dict[tuple[str, str, str], _Notes] = {}
        self._told: dict[tuple[str, str | None, str], int] = {}
        self._calls = 0
        self._name = uuid.uuid4().hex
        self._at_fault = False

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
        """An answered attempt is noted.

        `estimated_input`: as the ticket says, before any correction. `held_output`: tokens held for
        the answer; 0 or None where the vendor's rule held none, which is judged by what would have
        been held. `ceiling`: the most that the answer could take; 0 for an embedding.
        """
        name = (model, tenant, template)
        notes = self._noted.get(name)
        if notes is None:
            if len(self._noted) >= self._groups:
                return
            notes = self._noted[name] = _Notes(self._told_of(name))
        tally = notes.tally
        tally.answers += 1
        if input_tokens > 0 and estimated_input > 0:
            ratio = input_tokens / estimated_input
            tally.ratio.add(min(MOST, max(LEAST, ratio)), estimated_input)
        if ceiling <= 0:
            return
        taken = min(output_tokens, ceiling)
        tally.output.add(taken)
        if notes.told is not None:
            tally.judged += 1
            tally.under += taken > (held_output or min(notes.told, ceiling))

    async def keep(self) -> None:
        """Notes are shared every two seconds, until this is cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
                self._at_fault = False
            except Exception:
                if not self._at_fault:
                    log.exception("what was learned cannot be shared; jobs go on")
                self._at_fault = True

    async def flush(self) -> None:
        """The oldest notes are shared now; waits for as long as Redis does not answer."""
        for _ in range(ROUNDS):
            names = list(islice(self._noted, ROUND))
            if not names:
                return
            found: dict[EstimateGroup, EstimateCounts] = {}
            for name in names:
                noted = self._noted.pop(name).tally
                own, *wider = EstimateGroup(*name).widened()
                for group in wider:
                    found.setdefault(group, EstimateCounts()).merge(noted)
                if own in found:
                    found[own].merge(noted)
                else:
                    found[own] = noted
            new = list(found.items())
            for start in range(0, len(new), LARGEST):
                await self._share(new[start : start + LARGEST])

    async def _share(self, new: list[tuple[EstimateGroup, EstimateCounts]]) -> None:
        self._calls += 1
        shared = await self._lane.run(
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
                self._tell(group, known)
        if any(one.words() for one in lessons):
            await self._lane.run(store_estimates(self._keys, lessons))

    def _told_of(self, name: tuple[str, str, str]) -> int | None:
        """What was promised of such an answer: by its own group, else by a wider one."""
        told = self._told.get(name)
        return told if told is not None else _first(self._told.get(n) for n in _wider(*name))

    def _tell(self, group: EstimateGroup, tokens: int) -> None:
        name = (group.model, group.tenant, group.template)
        self._told.pop(name, None)
        self._told[name] = tokens
        if len(self._told) > self._groups:
            del self._told[next(iter(self._told))]


def _wider(model: str, tenant: str, template: str) -> tuple[tuple[str, str | None, str], ...]:
    return (model, None, template), (model, tenant, ""), (model, None, "")


def _first(found: Iterable[int | None]) -> int | None:
    return next((one for one in found if one is not None), None)
