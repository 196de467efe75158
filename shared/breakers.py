"""The circuit breaker of each model and provider key: how calls went, told to all workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from headgate.shared.keys import Keys
from headgate.shared.scripts import Command, compose, text_of

Verdict = Literal["opened", "closed", "open", ""]


@dataclass(frozen=True, slots=True)
class Rules:
    """When a breaker opens, and for how long; `failures` in a row, 0: none ever opens.

    `share` of the calls within a minute (of 20 or more) that failed.
    """

    failures: int = 5
    share: float = 0.5
    open_s: float = 60
    healthy_s: float = 300


@dataclass(frozen=True, slots=True)
class Standing:
    """What a report has done to the breaker; `open`: it was. `wait_ms` until a probe may go."""

    verdict: Verdict
    wait_ms: int

    @property
    def is_open(self) -> bool:
        """Whether no call but a probe may go."""
        return self.verdict in ("opened", "open")


def report(
    keys: Keys, model: str, key: str, rules: Rules, *, answered: int = 0, took_ms: int = 0,
    failed: int = 0, probe: str = "",
) -> Command[Standing]:  # fmt: skip
    """Calls to `provider/model` with this key went so; `probe`: the mark of its grant."""

    def read(reply: Sequence[Any]) -> Standing:
        return Standing(text_of(reply[0]), int(reply[1]))  # type: ignore[arg-type]  # its own word

    names = (keys.breaker(model, key), keys.breakers(), keys.rooms())
    return compose(
        "report", names,
        (
            keys.prefix, f"{model}#{key}", answered, took_ms, failed, probe, rules.failures,
            rules.share, round(rules.open_s * 1000), round(rules.healthy_s * 1000),
        ),
        read,
    )  # fmt: skip


def close(client: redis.Redis, keys: Keys, model: str, key: str) -> bool:
    """All may ask the model with this key again, as if it had never failed; whether it was open."""
    name = keys.breaker(model, key)
    slots = [f"slot{n}" for n in range(6)]
    marks = ("shut_at", "retry_at", "probe", "probe_until", "row", "fault_at", "healthy_at")
    with client.pipeline(transaction=True) as pipe:
        pipe.hdel(name, "state")
        pipe.hdel(name, *marks, *slots)
        was_open, _ = pipe.execute()
    return bool(was_open)
