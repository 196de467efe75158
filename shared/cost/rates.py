"""The rates of a model: from the catalog's own prices, or else from the package genai-prices.

The reply names the service tier that served a request, and the bill follows the reply. OpenAI bills
flex and batch at half price and priority at its own price; Anthropic bills batch at half. The
catalog holds the price of a tier in `prices.<model>.tiers`, or else in `providers.<name>.factors`.
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
from headgate.shared.catalog.variants import FINE_TUNED
from headgate.shared.job.result import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TimeOfDateConstraint

_ZERO = Decimal(0)

#: The vendors' names for the tier without a price of its own, in requests and replies.
STANDARD = frozenset({"", "default", "standard", "standard_only", "auto", "on_demand"})


@dataclass(frozen=True, slots=True)
class BillingTerms:
    """What a bill depends on beside the tokens of a Usage, read from the reply.

    `service_tier` is its name in the reply, or empty. `in_us` says that the reply was computed in
    the US only. `hour_write_tokens` is the part of `cache_write_tokens` that the vendor keeps for
    an hour. `searches` is the number of web searches of the vendor. `unpriced` says that a part of
    the bill, such as audio, has an unknown price.
    """

    service_tier: str = ""
    in_us: bool = False
    hour_write_tokens: int = 0
    searches: int = 0
    unpriced: bool = False


PLAIN = BillingTerms()


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per token, per request and per search, for prompts of more than `above_tokens` tokens."""

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
        """Return the USD of this usage.

        A vendor may report more cached tokens than input. The rest of the input then counts as 0,
        never as a negative number.
        """
        cached, written = usage.cached_input_tokens, usage.cache_write_tokens
        reasoning = usage.reasoning_tokens
        uncached = max(usage.input_tokens - cached - written, 0)
        total = self.input * uncached + self.output * max(usage.output_tokens - reasoning, 0)
        if cached:
            total += self.cached_input * cached
        if written:
            for_an_hour = min(terms.hour_write_tokens, written)
            total += self.cache_write * (written - for_an_hour) + self.hour_write * for_an_hour
        if reasoning:
            total += self.reasoning * reasoning
        if terms.searches:
            total += self.search * terms.searches
        return total + self.request if self.request else total

    def times(self, factor: Decimal) -> Rate:
        """Return the rates multiplied by this factor, except those per request and per search."""
        per_token = (f.name for f in fields(self)[1:-2])
        return replace(self, **{name: getattr(self, name) * factor for name in per_token})

    def highest_input(self, hour_writes: bool) -> Decimal:
        """Return the highest USD of an input token.

        With `hour_writes` the vendor may keep it in its cache for an hour.
        """
        highest = max(self.input, self.cached_input, self.cache_write)
        return max(highest, self.hour_write) if hour_writes else highest


@dataclass(frozen=True, slots=True)
class PriceList:
    """The rates of one model while `when` holds, the rate for the longest prompts first."""

    rates: tuple[Rate, ...]
    when: StartDateConstraint | TimeOfDateConstraint | None = None

    def cost(self, usage: Usage, terms: BillingTerms = PLAIN) -> Decimal:
        """Return the USD of this usage: all of it at the rate for the length of the prompt."""
        for rate in self.rates:
            if usage.input_tokens > rate.above_tokens:
                return rate.cost(usage, terms)
        return self.rates[-1].cost(usage, terms)


def in_force(lists: tuple[PriceList, ...], at: datetime) -> PriceList:
    """Return the price list that holds at this time."""
    for prices in lists:
        if prices.when is None or prices.when.active(at):
            return prices
    return lists[-1]


def from_now_on(lists: tuple[PriceList, ...], now: datetime) -> Iterator[PriceList]:
    """Yield the price lists that hold now or may hold later, without those that are replaced."""
    from genai_prices.types import StartDateConstraint

    for prices in lists:
        yield prices
        if prices.when is None or (
            isinstance(prices.when, StartDateConstraint) and prices.when.active(now)
        ):
            return


def price_lists_of(model: Model, catalog: Catalog, service_tier: str = "") -> tuple[PriceList, ...]:
    """Return the model's price lists in order of precedence; empty if no price is known."""
    if service_tier in STANDARD:
        return _standard(model, catalog)
    own = catalog.prices.get(model.name)
    tier = own.tiers.get(service_tier) if own else None
    if tier is None:
        tier = catalog.provider(model).factors.get(service_tier)
    if tier is None:
        return ()
    if isinstance(tier, TierPrice):
        return (PriceList((_own_rate(tier),)),)
    return tuple(times(prices, tier) for prices in _standard(model, catalog))


def times(prices: PriceList, factor: Decimal) -> PriceList:
    """Return the price list with its rates multiplied by this factor."""
    return replace(prices, rates=tuple(rate.times(factor) for rate in prices.rates))


def _standard(model: Model, catalog: Catalog) -> tuple[PriceList, ...]:
    own = catalog.prices.get(model.name)
    if own is not None and own.standard is not None:
        return (PriceList((_own_rate(own.standard),)),)
    provider = catalog.provider(model)
    listed = _listed(provider.name, provider.base_url, model.provider_name)
    if listed is None:
        return ()
    if not isinstance(listed.prices, list):
        return (PriceList(_rates(listed.prices)),)
    # The rule of genai-prices: the last price whose condition holds counts, or else the first.
    first, *later = listed.prices
    return (
        *(PriceList(_rates(entry.prices), entry.constraint) for entry in reversed(later)),
        PriceList(_rates(first.prices)),
    )


def _own_rate(own: TierPrice) -> Rate:
    cached = own.input if own.cached_input is None else own.cached_input
    written = own.input if own.cache_write is None else own.cache_write
    hour = written if own.cache_write_1h is None else own.cache_write_1h
    amounts = own.input, cached, written, hour, own.output, own.output
    return Rate(-1, *(amount.scaleb(-6) for amount in amounts))


@lru_cache(maxsize=1024)
def _listed(provider: str, base_url: str, model: str) -> ModelInfo | None:
    """Return what genai-prices knows of this provider's model; None if it does not know it.

    It never takes a model of another vendor that has the same name.
    """
    # Imported here because genai-prices takes longer to load than all else that a client needs.
    from genai_prices.data_snapshot import get_snapshot

    snapshot = get_snapshot()
    for by in ((provider, None), (None, base_url)):
        try:
            found = snapshot.find_provider_model(model, None, *by)[1]
        except LookupError:
            continue
        # A fine-tune has a price of its own: some of its entries are those of the model it is of.
        tuned = model.startswith(FINE_TUNED) and not found.id.startswith(FINE_TUNED)
        return None if tuned else found
    return None


def _rates(prices: ModelPrice) -> tuple[Rate, ...]:
    """Return the rates by length of prompt, the longest first.

    A part without a price costs as much as its whole: cached input as input, reasoning as output.
    """
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

    uncached = per_token(units[0], _ZERO)
    output = per_token(units[3], _ZERO)
    cached, written = per_token(units[1], uncached), per_token(units[2], uncached)
    hour, reasoning = per_token(units[5], written), per_token(units[4], output)
    per_thousand = (getattr(prices, f"{u}_kcount", None) for u in ("requests", "web_searches"))
    each = (usd.scaleb(-3) if isinstance(usd, Decimal) else _ZERO for usd in per_thousand)
    return Rate(above, uncached, cached, written, hour, output, reasoning, *each)
