"""What one attempt cost, exactly: from the catalog's own prices, else from genai-prices.

Money is a Decimal in USD. Tables store it as a whole number of 1e-12 USD ("pico"), the smallest
amount that a price of six digits after the point per million tokens can make.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING

from shared.catalog import Catalog, Model, Price
from shared.envelope import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, StartDateConstraint, TimeOfDateConstraint

PICO_DIGITS = 12
_PICO_IN_ONE = 10**12
_ZERO = Decimal(0)
#: The largest whole number that SQLite and PostgreSQL store, 9.2 million USD.
_MOST_PICO = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per token (and per request), for prompts of more than `above_tokens` tokens."""

    above_tokens: int
    input: Decimal
    cached_input: Decimal
    cache_write: Decimal
    output: Decimal
    reasoning: Decimal
    request: Decimal = _ZERO

    def cost(self, usage: Usage) -> Decimal:
        """USD for this usage; a vendor that counts more cached than input is not paid back."""
        cached, written = usage.cached_input_tokens, usage.cache_write_tokens
        thought = usage.reasoning_tokens
        fresh = max(usage.input_tokens - cached - written, 0)
        total = self.input * fresh + self.output * max(usage.output_tokens - thought, 0)
        if cached:
            total += self.cached_input * cached
        if written:
            total += self.cache_write * written
        if thought:
            total += self.reasoning * thought
        return total + self.request if self.request else total


@dataclass(frozen=True, slots=True)
class Sheet:
    """The rates of one model while `when` holds, those for the longest prompts first."""

    rates: tuple[Rate, ...]
    when: StartDateConstraint | TimeOfDateConstraint | None = None

    def cost(self, usage: Usage) -> Decimal:
        """USD for this usage: the whole of it at the rate that the length of the prompt asks."""
        for rate in self.rates:
            if usage.input_tokens > rate.above_tokens:
                return rate.cost(usage)
        return self.rates[-1].cost(usage)


def price(
    usage: Usage, model: Model, catalog: Catalog, at: datetime | None = None
) -> Decimal | None:
    """USD for one attempt with this usage; None when nobody knows the model's price.

    `model` is one of `catalog`. `at`: when the request was made (now, if None); only few models
    have prices that depend on it.
    """
    sheets = _known_sheets.get((catalog.digest, model.name))
    if sheets is None:
        if len(_known_sheets) > 10_000:  # many reloads of the catalog
            _known_sheets.clear()
        sheets = _known_sheets[catalog.digest, model.name] = sheets_of(model, catalog)
    if not sheets:
        return None
    if len(sheets) == 1:
        return sheets[0].cost(usage)
    moment = at or datetime.now(UTC)
    for sheet in sheets:
        if sheet.when is None or sheet.when.active(moment):
            return sheet.cost(usage)
    return sheets[-1].cost(usage)


#: By catalog and model: resolving takes 100 times as long as computing.
_known_sheets: dict[tuple[str, str], tuple[Sheet, ...]] = {}


def sheets_of(model: Model, catalog: Catalog) -> tuple[Sheet, ...]:
    """The model's price sheets, the one that takes precedence first; empty when unknown."""
    own = catalog.prices.get(model.name)
    if own is not None:
        return (Sheet((_own_rate(own),)),)
    provider = catalog.provider(model)
    listed = _listed(provider.name, provider.base_url, model.provider_name)
    if listed is None:
        return ()
    if not isinstance(listed.prices, list):
        return (Sheet(_rates(listed.prices)),)
    # genai-prices: the last price whose condition holds counts; if none holds, the first.
    first, *later = listed.prices
    return (
        *(Sheet(_rates(entry.prices), entry.constraint) for entry in reversed(later)),
        Sheet(_rates(first.prices)),
    )


def _own_rate(own: Price) -> Rate:
    given = own.cached_input, own.cache_write
    cached, written = (own.input if amount is None else amount for amount in given)
    return Rate(
        -1, *(amount.scaleb(-6) for amount in (own.input, cached, written, own.output, own.output))
    )


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
        for unit in ("input", "cache_read", "cache_write", "output", "output_reasoning")
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
    request = getattr(prices, "requests_kcount", None)
    each = request.scaleb(-3) if isinstance(request, Decimal) else _ZERO
    return Rate(above, fresh, cached, written, output, per_token(units[4], output), each)


def to_pico(amount: Decimal) -> int:
    """The same amount in 1e-12 USD, exactly; ValueError if it has no such whole number."""
    try:
        numerator, denominator = amount.as_integer_ratio()
    except (ValueError, OverflowError):
        raise ValueError(f"{amount} is no amount of money") from None
    pico, rest = divmod(numerator * _PICO_IN_ONE, denominator)
    if rest or abs(pico) > _MOST_PICO:
        raise ValueError(f"{amount} USD is no whole number of 1e-12 USD within 64 bits")
    return pico


def from_pico(pico: int) -> Decimal:
    """The amount in USD of a whole number of 1e-12 USD, exactly."""
    return Decimal(pico).scaleb(-PICO_DIGITS)


def text(amount: Decimal) -> str:
    """The amount in plain notation, without exponent and trailing zeros: "0.0000222", "0"."""
    plain = format(amount, "f")
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain == "-0" else plain
