"""Report what was reserved for answers and what they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from headgate.shared.admission.estimates import EstimateCounts, EstimateGroup
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, run, text_of


def recall(keys: Keys, groups: Sequence[EstimateGroup]) -> Command[list[EstimateCounts | None]]:
    """The counts of these groups; None for one that has none."""

    def read(reply: list[bytes]) -> list[EstimateCounts | None]:
        return [EstimateCounts.decode(told) if told else None for told in reply]

    return compose("estimates_read", (keys.sketch(group.encode()) for group in groups), (), read)


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """What is promised of a group, and what was seen.

    `promised` and `seen`: share of answers that take more than was held. `held_output`: tokens that
    are held now, None while a wider group speaks for this one. Errors are shares of the true input,
    of half and of 95 % of the tokens.
    """

    group: EstimateGroup
    answers: int
    promised: float | None
    seen: float | None
    held_output: int | None
    mean_output: float | None
    input_ratio: float | None
    input_error_p50: float | None
    input_error_p95: float | None
    last_answer_ms: int


ALIKE = 20
"""Groups that are read in one round trip."""


def standings(
    client: redis.Redis, keys: Keys, wanted: Callable[[EstimateGroup], bool] = lambda _: True
) -> Iterator[EstimateReport]:
    """The groups of which there are counts, that of the last answer first."""
    found: Any = client.zrange(keys.sketches(), 0, -1, desc=True, withscores=True)
    named = [(EstimateGroup.decode(text_of(name)), int(ms)) for name, ms in found]
    named = [(group, ms) for group, ms in named if wanted(group)]
    for start in range(0, len(named), ALIKE):
        some = named[start : start + ALIKE]
        groups = [group for group, _ in some]
        asked = [f"out|{group.encode()}" for group in groups]
        asked += [f"in|{group.model}" for group in groups]
        values: Any = client.hmget(keys.learned(), asked)
        told = [None if value is None else float(value) for value in values]
        tallies = run(client, recall(keys, groups))
        for (group, ms), tally, held, ratio in zip(
            some, tallies, told[: len(some)], told[len(some) :], strict=True
        ):
            if tally is not None:
                yield _standing(group, ms, tally, held, ratio)


def _standing(
    group: EstimateGroup, ms: int, tally: EstimateCounts, held: float | None, ratio: float | None
) -> EstimateReport:
    by = 1.0 if ratio is None else ratio
    return EstimateReport(
        group,
        tally.answers,
        promised=tally.miss,
        seen=tally.seen(),
        held_output=None if held is None else int(held),
        mean_output=tally.output.mean() if tally.output.weights else None,
        input_ratio=ratio,
        input_error_p50=tally.input_error(by, 0.5),
        input_error_p95=tally.input_error(by, 0.95),
        last_answer_ms=ms,
    )
