"""What a token costs: the rates of a model, from the catalog's own prices, else from genai-prices.

A vendor serves a call in a service tier that the reply names, and the bill follows the reply
(OpenAI: flex and batch at half price, priority at a price of its own; Anthropic: batch at half).
What a tier costs stands in the catalog: `prices.<model>.tiers`, else `providers.<name>.factors`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, TierPrice
from headgate.shared.job.result import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TimeOfDateConstraint

_ZERO = Decimal(0)

#: How vendors call the tier without a price of its own, in requests and in replies.
STANDARD = frozenset({"", "default", "standard", "standard_only", "auto", "on_demand"})


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """What a bill depends on beside the tokens of a Usage, as the reply told it.

    `service_tier`: its name in the reply; empty if none. `in_us`: computed in the US only.
    `hour_write_tokens`: the part of `cache_write_tokens` that the vendor keeps for an hour.
    `searches`: on the web, by the vendor. `unpriced`: a part of the bill has another price that
    nobody told, as sound has.
    """

    service_tier: str = ""
    in_us: bool = False
    hour_write_tokens: int = 0
    searches: int = 0
    unpriced: bool = False


PLAIN = BillingTerms()


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per token (request, search), for prompts of more than `above_tokens` tokens."""

    above_tokens: int
    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    hour_write: Decimal
    output: Decimal
    reasoning: Decimal
    request: Decimal = _ZERO
    search: Decimal = _ZERO

    def cost(self, usage: Usage, terms: BillingTerms = PLAIN) -> Decimal:
        """USD for this usage; a vendor that counts more cached than input is not paid back."""
        cached, written = usage.cached_input_tokens, usage.cache_write_tokens
        thought = usage.reasoning_tokens
        fresh = max(usage.input_tokens - cached - written, 0)
        total = self.input * fresh + self.output * max(usage.output_tokens - thought, 0)
        if cached:
            total += self.cached_input * cached
        if written:
            kept = min(terms.hour_write_tokens, written)
            total += self.cache_write * (written - kept) + self.hour_write * kept
        if thought:
            total += self.reasoning * thought
        if terms.searches:
            total += self.search * terms.searches
        return total + self.request if self.request else total

    def times(self, factor: Decimal) -> Rate:
        """All of it by this factor, but for what is not sold by the token."""
        per_token = (f.name for f in fields(self)[1:-2])
        return replace(self, **{name: getattr(self, name) * factor for name in per_token})

    def dearest_input(self, hour_writes: bool) -> Decimal:
        """The most that a token of input can cost; `hour_writes`: it may be kept for an hour."""
        dearest = max(self.input, self.cached_input, self.cache_write)
        return max(dearest, self.hour_write) if hour_writes else dearest


@dataclass(frozen=True, slots=True)
class PriceSheet:
    """The rates of one model while `when` holds, those for the longest prompts first."""

    rates: tuple[Rate, ...]
    when: StartDateConstraint | TimeOfDateConstraint | None = None

    def cost(self, usage: Usage, terms: BillingTerms = PLAIN) -> Decimal:
        """USD for this usage: the whole of it at the rate that the length of the prompt asks."""
        for rate in self.rates:
            if usage.input_tokens > rate.above_tokens:
                return rate.cost(usage, terms)
        return self.rates[-1].cost(usage, terms)


def in_force(sheets: tuple[PriceSheet, ...], at: datetime) -> PriceSheet:
    """The sheet that holds at this moment."""
    for sheet in sheets:
        if sheet.when is None or sheet.when.active(at):
            return sheet
    return sheets[-1]


def from_now_on(sheets: tuple[PriceSheet, ...], now: datetime) -> Iterator[PriceSheet]:
    """The sheets that hold now or may hold later: those that newer ones have replaced are gone."""
    from genai_prices.types import StartDateConstraint

    for sheet in sheets:
        yield sheet
        if sheet.when is None or (
            isinstance(sheet.when, StartDateConstraint) and sheet.when.active(now)
        ):
            return


def sheets_of(model: Model, catalog: Catalog, service_tier: str = "") -> tuple[PriceSheet, ...]:
    """The model's price sheets, the one that takes precedence first; empty when unknown."""
    if service_tier in STANDARD:
        return _standard(model, catalog)
    own = catalog.prices.get(model.name)
    tariff = own.tiers.get(service_tier) if own else None
    if tariff is None:
        tariff = catalog.provider(model).factors.get(service_tier)
    if tariff is None:
        return ()
    if isinstance(tariff, TierPrice):
        return (PriceSheet((_own_rate(tariff),)),)
    return tuple(times(sheet, tariff) for sheet in _standard(model, catalog))


def times(sheet: PriceSheet, factor: Decimal) -> PriceSheet:
    """The sheet with all its rates by this factor."""
    return replace(sheet, rates=tuple(rate.times(factor) for rate in sheet.rates))


def _standard(model: Model, catalog: Catalog) -> tuple[PriceSheet, ...]:
    own = catalog.prices.get(model.name)
    if own is not None and own.standard is not None:
        return (PriceSheet((_own_rate(own.standard),)),)
    provider = catalog.provider(model)
    listed = _listed(provider.name, provider.base_url, model.provider_name)
    if listed is None:
        return ()
    if not isinstance(listed.prices, list):
        return (PriceSheet(_rates(listed.prices)),)
    # genai-prices: the last price whose condition holds counts; if none holds, the first.
    first, *later = listed.prices
    return (
        *(PriceSheet(_rates(entry.prices), entry.constraint) for entry in reversed(later)),
        PriceSheet(_rates(first.prices)),
    )


def _own_rate(own: TierPrice) -> Rate:
    cached = own.input if own.cached_input is None else own.cached_input
    written = own.input if own.cache_write is None else own.cache_write
    hour = written if own.cache_write_1h is None else own.cache_write_1h
    amounts = own.input, cached, written, hour, own.output, own.output
    return Rate(-1, *(amount.scaleb(-6) for amount in amounts))


@lru_cache(maxsize=1024)
def _listed(provider: str, base_url: str, model: str) -> ModelInfo | None:
    """What genai-prices knows of this provider's model; a model of another vendor is never meant.

    Imported here: the package takes longer to load than all else that a client needs.
    """
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for by in ((provider, None), (None, base_url)):
        try:
            return snapshot.find_provider_model(model, None, *by)[1]
        except LookupError:
            continue
    return None


def _rates(prices: ModelPrice) -> tuple[Rate, ...]:
    """The rates by length of prompt, longest first; a part without a price counts as its whole."""
    from genai_prices.types import TieredPrices

    units = [
        getattr(prices, f"{unit}_mtok")
        for unit in (
            "input",
            "cache_read",
            "cache_write",
            "output",
            "output_reasoning",
            "cache_write_1h",
        )
    ]
    steps = {-1}
    for unit in units:
        if isinstance(unit, TieredPrices):
            steps.update(tier.start for tier in unit.tiers)
    return tuple(_rate(prices, units, step) for step in sorted(steps, reverse=True))


def _rate(prices: ModelPrice, units: list[object], above: int) -> Rate:
    from genai_prices.types import TieredPrices

    def per_token(unit: object, otherwise: Decimal) -> Decimal:
        if isinstance(unit, TieredPrices):
            met = [tier.price for tier in unit.tiers if tier.start <= above]
            unit = met[-1] if met else unit.base
        return unit.scaleb(-6) if isinstance(unit, Decimal) else otherwise

    fresh = per_token(units[0], _ZERO)
    output = per_token(units[3], _ZERO)
    cached, written = per_token(units[1], fresh), per_token(units[2], fresh)
    hour, thought = per_token(units[5], written), per_token(units[4], output)
    counted = (getattr(prices, f"{unit}_kcount", None) for unit in ("requests", "web_searches"))
    each = (count.scaleb(-3) if isinstance(count, Decimal) else _ZERO for count in counted)
    return Rate(above, fresh, cached, written, hour, output, thought, *each)
