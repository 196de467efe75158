"""How fast a batch goes, and what it has cost so far: the figures beside its bar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Pool
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.waiting_for import duration

WINDOW_S = 30.0
"""Rates are those of so many seconds: long enough not to jump, short enough to show a change."""


class _Written(NamedTuple):
    at: float
    lines: int
    tokens: int


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """The figures at one moment. `tokens_limit`: of all pools that answered; None if one has none.

    `usd` is the sum of the known costs; `unpriced` says that there are others. `running` is None
    until it was counted.
    """

    done: int
    failed: int
    left: int
    running: int | None
    answers_per_s: float
    tokens_per_min: float
    tokens_limit: int | None
    usd: Decimal
    unpriced: bool
    elapsed_s: float
    remaining_s: float | None

    def in_words(self) -> str:
        """Return the figures as one line of text."""
        running = "" if self.running is None else f"{self.running:,} running, "
        limit = "" if self.tokens_limit is None else f" of {self.tokens_limit:,}"
        more = " and answers without a price" if self.unpriced else ""
        return (
            f"{running}{self.left:,} left, {self.answers_per_s:,.1f} answers/s, "
            f"{self.tokens_per_min:,.0f}{limit} tokens/min, {self.usd:,.4f} USD{more}, "
            f"{self.clocks()}"
        )

    def clocks(self) -> str:
        """Return how long the command has run, and how long it will."""
        passed = f"{duration(self.elapsed_s)} passed"
        return (
            passed
            if self.remaining_s is None
            else (f"{passed}, about {duration(self.remaining_s)} to go")
        )


class Pace:
    """Counts the lines of output as they are written; `now` is in seconds of any clock.

    `usd`: what the lines have cost that were written before. `pool_of`: returns the pool of a
    model; None if the catalog does not have it.
    """

    def __init__(
        self, total: int, pool_of: Callable[[str], Pool | None], now: float,
        usd: Decimal = Decimal(0),
    ) -> None:  # fmt: skip
        self._total, self._pool_of = total, pool_of
        self._began_at = now
        self._usd, self._unpriced = usd, False
        self._window: deque[_Written] = deque()
        self._pools: dict[str, Pool | None] = {}
        self.running: int | None = None

    def add(self, now: float, results: Sequence[Mapping[str, Any]]) -> None:
        """Count the results of lines that were written now."""
        tokens = 0
        for result in results:
            usage = result.get("usage") or {}
            tokens += usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
            cost = result.get("cost_usd")
            if cost is None:
                self._unpriced = True
            else:
                self._usd += Decimal(cost)
            model = result.get("model_used")
            if model is not None and result.get("cached") is None and model not in self._pools:
                self._pools[model] = self._pool_of(model)
        self._window.append(_Written(now, len(results), tokens))

    def figures(self, now: float, *, done: int, failed: int) -> BatchFigures:
        """Return the figures at this moment."""
        while self._window and self._window[0].at < now - WINDOW_S:
            self._window.popleft()
        elapsed_s = now - self._began_at
        seconds = max(1.0, min(WINDOW_S, elapsed_s))
        rate = sum(one.lines for one in self._window) / seconds
        left = self._total - done
        return BatchFigures(
            done, failed, left, self.running, rate,
            sum(one.tokens for one in self._window) / seconds * 60, self._tokens_limit(),
            self._usd, self._unpriced, elapsed_s, left / rate if rate and left else None,
        )  # fmt: skip

    def _tokens_limit(self) -> int | None:
        pools = {None if pool is None else pool.key: pool for pool in self._pools.values()}
        limits = [_tpm(pool) for pool in pools.values()]
        known = [limit for limit in limits if limit is not None]
        return sum(known) if known and len(known) == len(limits) else None


def _tpm(pool: Pool | None) -> int | None:
    if pool is None:
        return None
    return pool.tpm or ((pool.input_tpm or 0) + (pool.output_tpm or 0)) or None


def pool_finder(catalog: Catalog) -> Callable[[str], Pool | None]:
    """Return a function that finds the pool of a model in this catalog."""

    def pool_of(model: str) -> Pool | None:
        try:
            return catalog.pool(catalog.model(model))
        except InvalidRequest:
            return None  # the catalog no longer has it

    return pool_of
