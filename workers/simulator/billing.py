"""Works out exactly what an answer costs, with prices of genai-prices or with given ones."""

from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class SimulatedUsage:
    """Tokens of one answer. `input_tokens` counts all input, also what is cached or written."""

    input_tokens: int
    output_tokens: int = 0
    cached_tokens: int = 0
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0


@dataclass(frozen=True, slots=True)
class SimulatedPrice:
    """Prices in USD per token."""

    input: Decimal
    output: Decimal
    cached: Decimal
    write_5m: Decimal
    write_1h: Decimal


@dataclass(frozen=True, slots=True)
class Unpriced:
    """No price of the model is known. Its answers cost nothing and are counted apart."""


@dataclass(frozen=True, slots=True)
class Tiered:
    """The price depends on the size of the request, so each request is worked out by itself."""

    vendor: str | None


def cost_usd(price: SimulatedPrice, usage: SimulatedUsage) -> Decimal:
    """Return the exact cost of `usage` at `price`."""
    plain = usage.input_tokens - usage.cached_tokens - usage.write_5m_tokens - usage.write_1h_tokens
    total = plain * price.input + usage.output_tokens * price.output
    if usage.cached_tokens:
        total += usage.cached_tokens * price.cached
    if usage.write_5m_tokens or usage.write_1h_tokens:
        total += usage.write_5m_tokens * price.write_5m + usage.write_1h_tokens * price.write_1h
    return total


def bill_usd(
    vendor: str, model: str, usage: SimulatedUsage, given: dict[str, SimulatedPrice]
) -> Decimal | None:
    """Return the cost of `usage`, by the `given` prices first; None if no price is known."""
    price = given.get(model) or price_of(vendor, model)
    match price:
        case SimulatedPrice():
            return cost_usd(price, usage)
        case Tiered(vendor=known):
            return _calculated(known, model, usage)
        case Unpriced():
            return None


def parse_price(spec: str) -> tuple[str, SimulatedPrice]:
    """Parse `MODEL:input=0.15,output=0.60,cached_input=0.075,cache_write=0.15`.

    Prices are in USD per million tokens, with the names of the catalog. Cached input and cache
    writes cost as much as input by default.
    """
    model, _, rest = spec.rpartition(":")
    parts: dict[str, Decimal] = {}
    for one in rest.split(","):
        name, _, amount = one.partition("=")
        if name not in ("input", "output", "cached_input", "cache_write"):
            raise ValueError(f"price {spec!r}: unknown part {name!r}")
        try:
            parts[name] = Decimal(amount) / MILLION
        except ArithmeticError:
            raise ValueError(f"price {spec!r}: {amount!r} is not a number") from None
    if not model or "input" not in parts:
        raise ValueError(f"price {spec!r}: expected MODEL:input=..,output=..")
    write = parts.get("cache_write", parts["input"])
    return model, SimulatedPrice(
        input=parts["input"],
        output=parts.get("output", Decimal(0)),
        cached=parts.get("cached_input", parts["input"]),
        write_5m=write,
        write_1h=write,
    )


@lru_cache(maxsize=1024)
def price_of(vendor: str, model: str) -> SimulatedPrice | Tiered | Unpriced:
    """Return the price of `model` in genai-prices: the vendor's own, else any provider's."""
    from genai_prices import Usage as Counted
    from genai_prices import calc_price
    from genai_prices.types import TieredPrices

    for provider in (vendor, None):
        try:
            found = calc_price(Counted(input_tokens=1), model, provider_id=provider)
        except LookupError:
            continue
        if any(isinstance(part, TieredPrices) for part in vars(found.model_price).values()):
            return Tiered(provider)
        return SimulatedPrice(
            input=_calculated(provider, model, SimulatedUsage(1)),
            output=_calculated(provider, model, SimulatedUsage(0, output_tokens=1)),
            cached=_calculated(provider, model, SimulatedUsage(1, cached_tokens=1)),
            write_5m=_calculated(provider, model, SimulatedUsage(1, write_5m_tokens=1)),
            write_1h=_calculated(provider, model, SimulatedUsage(1, write_1h_tokens=1)),
        )
    return Unpriced()


def _calculated(vendor: str | None, model: str, usage: SimulatedUsage) -> Decimal:
    from genai_prices import Usage as Counted
    from genai_prices import calc_price

    counted = Counted(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_tokens,
        cache_write_tokens=usage.write_5m_tokens + usage.write_1h_tokens,
        cache_write_1h_tokens=usage.write_1h_tokens,
    )
    return calc_price(counted, model, provider_id=vendor).total_price
