"""The figures of `/_stats`: what came, what was refused, what was billed."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from headgate.workers.simulator.billing import SimulatedUsage
from headgate.workers.simulator.throughput import PoolThroughput

TOP_REPEATED = 10


@dataclass(slots=True)
class SimulatorStats:
    """Counts since the start or the last reset. A reset keeps the requests that are open."""

    open_now: int = 0
    open_most: int = 0
    requests: int = 0
    accepted: int = 0
    answered: int = 0
    cancelled: int = 0
    undelivered: int = 0
    billed_usd: Decimal = Decimal(0)
    undelivered_usd: Decimal = Decimal(0)
    by_path: Counter[str] = field(default_factory=Counter)
    by_model: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    usd_by_model: defaultdict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))
    unpriced: Counter[str] = field(default_factory=Counter)
    seen: Counter[bytes] = field(default_factory=Counter)
    paid: Counter[bytes] = field(default_factory=Counter)
    throughput: defaultdict[str, PoolThroughput] = field(
        default_factory=lambda: defaultdict(PoolThroughput)
    )

    def opened(self, path: str) -> None:
        """Count a request that has come."""
        self.requests += 1
        self.by_path[path] += 1
        self.open_now += 1
        if self.open_now > self.open_most:
            self.open_most = self.open_now

    def bill(self, model: str, digest: bytes, usage: SimulatedUsage, usd: Decimal | None) -> None:
        """Bill an answer. `usd` is None if no price is known."""
        self.answered += 1
        self.paid[digest] += 1
        tokens = self.tokens
        tokens["input"] += usage.input_tokens
        tokens["output"] += usage.output_tokens
        if usage.cached_tokens:
            tokens["cached"] += usage.cached_tokens
        if usage.write_5m_tokens or usage.write_1h_tokens:
            tokens["cache_write"] += usage.write_5m_tokens + usage.write_1h_tokens
        if usd is None:
            self.unpriced[model] += 1
        else:
            self.billed_usd += usd
            self.usd_by_model[model] += usd

    def lost(self, usd: Decimal | None) -> None:
        """Count an answer that was billed but did not reach its client whole."""
        self.undelivered += 1
        self.undelivered_usd += usd or 0

    def cleared(self) -> "SimulatorStats":
        """Return new counts that keep the requests that are open now."""
        return SimulatorStats(open_now=self.open_now, open_most=self.open_now)

    def report(self) -> dict[str, Any]:
        """Return the figures as JSON values, with money as exact decimal text."""
        repeated = [(digest, count) for digest, count in self.seen.items() if count > 1]
        repeated.sort(key=lambda one: (-one[1], one[0]))
        return {
            "requests": self.requests,
            "by_path": dict(self.by_path),
            "by_model": dict(self.by_model),
            "accepted": self.accepted,
            "answered": self.answered,
            "refused": self.refusals.total(),
            "refusals": dict(self.refusals),
            "faulted": self.faults.total(),
            "faults": dict(self.faults),
            "cancelled": self.cancelled,
            "open_now": self.open_now,
            "open_most": self.open_most,
            "pools": {label: pool.report() for label, pool in self.throughput.items()},
            "tokens": {
                name: self.tokens[name]
                for name in ("charged", "input", "output", "cached", "cache_write")
            },
            "money": {
                "billed_usd": exact(self.billed_usd),
                "undelivered_usd": exact(self.undelivered_usd),
                "undelivered_answers": self.undelivered,
                "by_model_usd": {model: exact(usd) for model, usd in self.usd_by_model.items()},
                "unpriced_answers": dict(self.unpriced),
            },
            "prompts": {
                "distinct": len(self.seen),
                "seen_again": len(repeated),
                "repeats": sum(count - 1 for _, count in repeated),
                "paid_again": sum(count > 1 for count in self.paid.values()),
                "top": [
                    {"sha": digest.hex(), "seen": count, "paid": self.paid[digest]}
                    for digest, count in repeated[:TOP_REPEATED]
                ],
            },
        }


def exact(usd: Decimal) -> str:
    """Return `usd` in plain digits, without an exponent or trailing zeros."""
    text = f"{usd:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
