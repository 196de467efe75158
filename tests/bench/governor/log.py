"""What the provider itself saw: its log of calls, by the moment in which each arrived."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import orjson

from tests.bench.governor.vendors import Vendor


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `at_s`: Unix seconds of its arrival; tokens are 0 where it was refused."""

    at_s: float
    model: str
    accepted: bool
    refusal: str | None
    input_tokens: int
    output_tokens: int


def read(path: Path) -> list[Call]:
    """All calls of a simulator that logs, in the order of their arrival."""
    calls = []
    for line in path.read_bytes().splitlines():
        if not line.startswith(b'{"time"'):
            continue
        one = orjson.loads(line)
        if one["status"] is None:
            continue
        calls.append(
            Call(
                at_s=one["time"] - one["ms"] / 1000,
                model=one["model"] or "",
                accepted=one["status"] == 200,
                refusal=one["refusal"],
                input_tokens=one["input_tokens"] or 0,
                output_tokens=one["output_tokens"] or 0,
            )
        )
    return sorted(calls, key=lambda call: call.at_s)


def between(calls: Iterable[Call], first_s: float, last_s: float) -> list[Call]:
    """The calls that arrived from `first_s` on and before `last_s`."""
    return [call for call in calls if first_s <= call.at_s < last_s]


@dataclass(frozen=True, slots=True)
class Use:
    """Of one stretch of time, by the provider's own count.

    `share`: of the measure that was used most; `peak`: the most of it in any second, over what a
    second of the limit is; both 1 at the limit.
    """

    measure: str
    share: float
    peak: float
    accepted: int
    refused: int


def use(calls: list[Call], vendor: Vendor, first_s: float, last_s: float) -> Use:
    """How much of the limits was used between two moments."""
    seen = between(calls, first_s, last_s)
    fine = [call for call in seen if call.accepted]
    found: dict[str, float] = {}
    amounts: dict[str, list[tuple[float, int]]] = {}
    for measure, limit in vendor.limits.items():
        amounts[measure] = [
            (call.at_s, vendor.charged(measure, call.input_tokens, call.output_tokens))
            for call in fine
        ]
        total = sum(amount for _, amount in amounts[measure])
        found[measure] = total / (limit / 60 * (last_s - first_s))
    most = max(found, key=lambda measure: found[measure])
    peak = most_in_a_second(amounts[most]) / (vendor.limits[most] / 60)
    return Use(most, found[most], peak, len(fine), len(seen) - len(fine))


def most_in_a_second(amounts: Iterable[tuple[float, int]]) -> int:
    """The largest sum in any one second, wherever it begins; `amounts` in order of time."""
    most = held = 0
    inside: deque[tuple[float, int]] = deque()
    for at_s, amount in amounts:
        inside.append((at_s, amount))
        held += amount
        while inside[0][0] <= at_s - 1:
            held -= inside.popleft()[1]
        most = max(most, held)
    return most
