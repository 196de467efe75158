"""The circuit breaker of each model and provider key, which all workers share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis

from headgate.shared.admission.limits import parsed
from headgate.shared.broker.figures import SLOT_MS, SLOTS
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, text_of

Verdict = Literal["opened", "closed", "open", ""]


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens, and for how long.

    It opens after `failures` failed calls in a row (0: never), or if `share` of at least 20 calls
    within a minute fail. Times are in seconds.
    """

    failures: int = 5
    share: float = 0.5
    open_s: float = 60
    healthy_s: float = 300


@dataclass(frozen=True, slots=True)
class BreakerAfterReport:
    """The breaker after a report.

    `verdict` is what the report did: `opened` or `closed`, or `open` if it was and is open.
    `wait_ms` is the time until a probe may go.
    """

    verdict: Verdict
    wait_ms: int

    @property
    def is_open(self) -> bool:
        """Whether only a probe may go."""
        return self.verdict in ("opened", "open")


def report(
    keys: Keys, model: str, key: str, rules: BreakerRules, *, answered: int = 0, took_ms: int = 0,
    failed: int = 0, probe: str = "", fault: str = "",
) -> Command[BreakerAfterReport]:  # fmt: skip
    """Report calls to `model` (provider/model) with this key: how many succeeded, then failed.

    `took_ms` is the sum of the answers' latencies. `probe` is the mark of the probe's grant.
    `fault`: the code and the message of the failure, for people; it is shown to all callers.
    """

    def read(reply: Sequence[Any]) -> BreakerAfterReport:
        return BreakerAfterReport(text_of(reply[0]), int(reply[1]))  # type: ignore[arg-type]  # its own word

    names = (keys.breaker(model, key), keys.breakers())
    return compose(
        "breaker_report", names,
        (
            keys.prefix, f"{model}#{key}", answered, took_ms, failed, probe, rules.failures,
            rules.share, round(rules.open_s * 1000), round(rules.healthy_s * 1000), fault,
        ),
        read,
    )  # fmt: skip


def close(client: redis.Redis, keys: Keys, model: str, key: str) -> bool:
    """Close the breaker and forget the failures; return whether it was open."""
    name = keys.breaker(model, key)
    slots = [f"slot{n}" for n in range(6)]
    marks = (
        "shut_at", "retry_at", "probe", "probe_until", "row", "fault_at", "healthy_at", "fault",
        "down_at",
    )  # fmt: skip
    with client.pipeline(transaction=True) as pipe:
        pipe.hdel(name, "state")
        pipe.hdel(name, *marks, *slots)
        was_open, _ = pipe.execute()
    return bool(was_open)


State = Literal["healthy", "degraded", "down"]

FAILING, FAILING_CALLS = 0.1, 10
"""A model is degraded if this share of at least so many calls fails."""

SLOW_TIMES, SLOW_MS = 3.0, 1000.0
"""It is also degraded if its mean latency is above SLOW_MS and SLOW_TIMES that of its last hour."""


@dataclass(frozen=True, slots=True)
class ModelHealth:
    """The health of one model on one key.

    `calls`, `failures` and `latency_ms` (mean) are those of the last minute. `breaker` is
    `half-open` once a probe may go. `closed_to_all` means that no call may go now, not even a
    probe. `why` is a text for people, empty for a healthy model. `fault`: code and message of the
    last failure, while it matters. `down_since_ms`: server ms since when the breaker is open.
    """

    model: str
    key: str
    state: State
    breaker: Literal["closed", "open", "half-open"]
    calls: int
    failures: int
    latency_ms: float | None
    fault_age_s: float | None
    retry_in_s: float | None
    closed_to_all: bool
    why: str
    fault: str | None = None
    down_since_ms: int | None = None


def states(client: redis.Redis, keys: Keys) -> list[ModelHealth]:
    """Return the health of every model and key that was called within a day."""
    names: Any = client.zrange(keys.breakers(), 0, -1)
    places = sorted(text_of(name).rpartition("#")[::2] for name in names)
    with client.pipeline(transaction=False) as pipe:
        pipe.time()
        for model, key in places:
            pipe.hgetall(keys.breaker(model, key))
        (seconds, micros), *found = pipe.execute()
    now_ms = int(seconds) * 1000 + int(micros) / 1000
    return [
        health_of(model, key, {text_of(n): text_of(v) for n, v in fields.items()}, now_ms)
        for (model, key), fields in zip(places, found, strict=True)
        if fields
    ]


def server_ms(client: redis.Redis) -> int:
    """Return the time of the Redis server in Unix ms."""
    seconds, micros = client.time()
    return int(seconds) * 1000 + int(micros) // 1000


def window_of(at_ms: int) -> tuple[int, int]:
    """Return the minute whose calls `states` counts at this time: its start and its end."""
    return (at_ms // SLOT_MS - SLOTS + 1) * SLOT_MS, at_ms


def down_models(client: redis.Redis, keys: Keys) -> set[str]:
    """Return the models (provider/model) that no call may go to now, with any key.

    A model that waits for a probe is not among them, because a job must become that probe.
    """
    shut: dict[str, int] = {}
    for one in states(client, keys):
        shut[one.model] = shut.get(one.model, 0) + one.closed_to_all
    shut = {model: times for model, times in shut.items() if times}
    if not shut:
        return set()
    counts: Any = client.hmget(keys.limits(), [f"keys/{m.partition('/')[0]}" for m in shut])
    of_keys = (int(parsed(text_of(n)).get("n") or 1) if n else 1 for n in counts)
    return {model for (model, times), n in zip(shut.items(), of_keys, strict=True) if times >= n}


def health_of(model: str, key: str, fields: Mapping[str, str], now_ms: float) -> ModelHealth:
    """Return the health that these fields of a breaker give at `now_ms` of the server. Pure."""
    answers, failures, took_ms = map(sum, zip((0, 0, 0), *_window(fields, now_ms), strict=True))
    latency_ms = took_ms / answers if answers else None
    breaker: Literal["closed", "open", "half-open"] = "closed"
    retry_in_s = None
    is_probing = False
    if fields.get("state") == "open":
        left_ms = float(fields.get("retry_at", 0)) - now_ms
        breaker = "open" if left_ms > 0 else "half-open"
        retry_in_s = max(0.0, left_ms / 1000)
        is_probing = "probe" in fields and float(fields.get("probe_until", 0)) > now_ms
    why = _why(fields, answers + failures, failures, latency_ms, now_ms)
    state: State = "degraded" if why else "healthy"
    if breaker != "closed":
        state, why = "down", "a probe is under way" if is_probing else "its breaker is open"
    fault_at = fields.get("fault_at")
    return ModelHealth(
        model, key, state, breaker, answers + failures, failures, latency_ms,
        None if fault_at is None else max(0.0, (now_ms - float(fault_at)) / 1000),
        retry_in_s, breaker == "open" or is_probing, why,
        fields.get("fault") if state != "healthy" else None,
        int(float(fields["down_at"])) if breaker != "closed" and "down_at" in fields else None,
    )  # fmt: skip


def _why(
    fields: Mapping[str, str], calls: int, failures: int, latency_ms: float | None, now_ms: float
) -> str:
    if calls >= FAILING_CALLS and failures >= FAILING * calls:
        return f"{failures / calls:.0%} of its calls fail"
    hour = fields.get("hour", "").split()
    usual_ms = float(hour[1]) / float(hour[0]) if len(hour) == 3 and float(hour[0]) else None
    if latency_ms and usual_ms and latency_ms > max(SLOW_MS, SLOW_TIMES * usual_ms):
        return f"it is {latency_ms / usual_ms:.1f} times as slow as in the last hour"
    if now_ms < float(fields.get("healthy_at", 0)):
        return "it has failed recently"
    return ""


def _window(fields: Mapping[str, str], now_ms: float) -> Iterator[tuple[int, int, int]]:
    slot = int(now_ms // SLOT_MS)
    for n in range(SLOTS):
        words = fields.get(f"slot{n}", "").split()
        if len(words) == 4 and slot - SLOTS < int(words[0]) <= slot:
            yield int(words[1]), int(words[2]), int(words[3])
