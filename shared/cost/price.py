"""The exact price of an attempt, and the upper bound of what one can cost.

Money is a Decimal in USD, or a whole number of pico-USD (1e-12 USD) in tables and scripts. A price
per million tokens with six decimals makes no smaller amount than a pico-USD.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any, overload

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.rates import (
    PLAIN,
    BillingTerms,
    PriceList,
    from_now_on,
    in_force,
    price_lists_of,
    times,
)
from headgate.shared.job.result import Usage

PICO_DIGITS = 12
_PICO_IN_ONE = 10**12
_PICO = Decimal(1).scaleb(-PICO_DIGITS)
#: The largest whole number that SQLite and PostgreSQL store: 9.2 million USD.
_MAX_PICO = 2**63 - 1


def price(
    usage: Usage,
    model: Model,
    catalog: Catalog,
    at: datetime | None = None,
    terms: BillingTerms = PLAIN,
) -> Decimal | None:
    """Return the USD of one attempt with this usage; None if no price is known.

    `model` is one of `catalog`. `at` is the time of the request (default: now); only few models
    have prices that depend on it. Parts of a pico-USD, which a factor can make, are rounded up.
    """
    if terms.unpriced:
        return None
    lists = _price_lists(model, catalog, terms.service_tier, terms.in_us)
    if not lists:
        return None
    prices = lists[0] if len(lists) == 1 else in_force(lists, at or datetime.now(UTC))
    cost = prices.cost(usage, terms)
    return cost if terms is PLAIN else cost.quantize(_PICO, ROUND_CEILING)


Steps = tuple[tuple[int, int, int, int], ...]
"""Prices by length of prompt. Each step holds for prompts of more tokens than its first number.

Then come the pico-USD of an input token, of an output token and of a request.
"""


def pico_at(steps: Steps, input_tokens: int, output_tokens: int) -> int:
    """Return the highest price of these tokens at any step that applies, in pico-USD."""
    return max(
        input_tokens * per_input + output_tokens * per_output + each
        for above, per_input, per_output, each in steps
        if input_tokens > above
    )


def upper_bound_steps(
    model: Model, catalog: Catalog, service_tier: str, in_us: bool, hour_writes: bool
) -> Steps | None:
    """Return the model's highest rates in whole pico-USD, rounded up; None if no price is known.

    They are the highest of input (cached, written to the cache or neither; written for an hour only
    with `hour_writes`), of output, and of all hours of the day. A vendor may serve a request in the
    standard tier that asked for another, so the rates of both tiers count.
    """
    key = (catalog.digest, model.name, service_tier, in_us, hour_writes)
    if key not in _steps_by_terms:
        _clear_if_full(_steps_by_terms)
        _steps_by_terms[key] = _steps(model, catalog, service_tier, in_us, hour_writes)
    return _steps_by_terms[key]


def _steps(
    model: Model, catalog: Catalog, service_tier: str, in_us: bool, hour_writes: bool
) -> Steps | None:
    now, steps = datetime.now(UTC), set()
    for tier in {"", service_tier}:
        lists = _price_lists(model, catalog, tier, in_us)
        if not lists:
            return None
        for rate in (rate for prices in from_now_on(lists, now) for rate in prices.rates):
            highest = (
                rate.highest_input(hour_writes),
                max(rate.output, rate.reasoning),
                rate.request,
            )
            steps.add((rate.above_tokens, *(math.ceil(usd * _PICO_IN_ONE) for usd in highest)))
    return tuple(sorted(steps))  # type: ignore[arg-type]


def _price_lists(
    model: Model, catalog: Catalog, service_tier: str, in_us: bool
) -> tuple[PriceList, ...]:
    key = (catalog.digest, model.name, service_tier, in_us)
    lists = _lists_by_terms.get(key)
    if lists is None:
        lists = price_lists_of(model, catalog, service_tier)
        if in_us:
            factor = catalog.provider(model).factors.get("us")
            lists = () if factor is None else tuple(times(prices, factor) for prices in lists)
        _clear_if_full(_lists_by_terms)
        _lists_by_terms[key] = lists
    return lists


#: By catalog, model and terms. Finding the rates takes 100 times as long as computing with them.
_lists_by_terms: dict[tuple[str, str, str, bool], tuple[PriceList, ...]] = {}
_steps_by_terms: dict[tuple[str, str, str, bool, bool], Steps | None] = {}


def _clear_if_full(found: dict[Any, Any]) -> None:
    if len(found) > 10_000:  # after many reloads of the catalog
        found.clear()


def to_pico(amount: Decimal) -> int:
    """Return the USD in pico-USD, exactly; raises ValueError if that is no whole 64-bit number."""
    try:
        numerator, denominator = amount.as_integer_ratio()
    except (ValueError, OverflowError):
        raise ValueError(f"{amount} is no amount of money") from None
    pico, rest = divmod(numerator * _PICO_IN_ONE, denominator)
    if rest or abs(pico) > _MAX_PICO:
        raise ValueError(f"{amount} USD is no whole number of 1e-12 USD within 64 bits")
    return pico


def from_pico(pico: int) -> Decimal:
    """Return the pico-USD in USD, exactly."""
    return Decimal(pico).scaleb(-PICO_DIGITS)


@overload
def usd_text(pico: int) -> str: ...
@overload
def usd_text(pico: None) -> None: ...


def usd_text(pico: int | None) -> str | None:
    """Return the pico-USD as the decimal text that results and reports show; None for None."""
    if pico is None:
        return None
    whole, rest = divmod(abs(pico), _PICO_IN_ONE)
    digits = f"{whole}.{rest:0{PICO_DIGITS}}".rstrip("0").rstrip(".")
    return f"-{digits}" if pico < 0 else digits


def text(amount: Decimal) -> str:
    """Return the amount without exponent and trailing zeros: "0.0000222", "0"."""
    plain = format(amount, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain == "-0" else plain
