"""Compares the tokens that were reserved for answers with the tokens that they took."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from headgate.shared.admission.estimates import EstimateCounts, EstimateGroup
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, run, text_of


def recall(keys: Keys, groups: Sequence[EstimateGroup]) -> Command[list[EstimateCounts | None]]:
    """Return the command that reads the counts of these groups; None for one without counts."""

    def read(reply: list[bytes]) -> list[EstimateCounts | None]:
        return [EstimateCounts.decode(counts) if counts else None for counts in reply]

    return compose("estimates_read", (keys.sketch(group.encode()) for group in groups), (), read)


@dataclass(frozen=True, slots=True)
class EstimateReport:
    """The promised and the observed figures of one group.

    `promised` and `seen`: share of answers that take more than was held. `held_output`: tokens held
    for the next answer; None while a wider group decides. `input_error_p50` and `input_error_p95`:
    the largest error for 50 % and 95 % of the input tokens, as a share of the true number.
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


CHUNK = 20
"""How many groups are read in one round trip."""


def reports(
    client: redis.Redis, keys: Keys, wanted: Callable[[EstimateGroup], bool] = lambda _: True
) -> Iterator[EstimateReport]:
    """Yield the report of each wanted group that has counts, the latest answer first."""
    found: Any = client.zrange(keys.sketches(), 0, -1, desc=True, withscores=True)
    named = [(EstimateGroup.decode(text_of(name)), int(ms)) for name, ms in found]
    named = [(group, ms) for group, ms in named if wanted(group)]
    for start in range(0, len(named), CHUNK):
        chunk = named[start : start + CHUNK]
        groups = [group for group, _ in chunk]
        names = [f"out|{group.encode()}" for group in groups]
        names += [f"in|{group.model}" for group in groups]
        values: Any = client.hmget(keys.learned(), names)
        learned = [None if value is None else float(value) for value in values]
        found_counts = run(client, recall(keys, groups))
        for (group, ms), counts, held, ratio in zip(
            chunk, found_counts, learned[: len(chunk)], learned[len(chunk) :], strict=True
        ):
            if counts is not None:
                yield _report(group, ms, counts, held, ratio)


def _report(
    group: EstimateGroup, ms: int, counts: EstimateCounts, held: float | None, ratio: float | None
) -> EstimateReport:
    factor = 1.0 if ratio is None else ratio
    return EstimateReport(
        group,
        counts.answers,
        promised=counts.miss,
        seen=counts.seen(),
        held_output=None if held is None else int(held),
        mean_output=counts.output.mean() if counts.output.weights else None,
        input_ratio=ratio,
        input_error_p50=counts.input_error(factor, 0.5),
        input_error_p95=counts.input_error(factor, 0.95),
        last_answer_ms=ms,
    )
