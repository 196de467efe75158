"""What one attempt cost, exactly, and the most that one can cost.

Money is a Decimal in USD. Tables store it as a whole number of 1e-12 USD ("pico"), the smallest
amount that a price of six digits after the point per million tokens can make.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.rates import (
    PLAIN,
    BillingTerms,
    PriceSheet,
    from_now_on,
    in_force,
    sheets_of,
    times,
)
from headgate.shared.job.result import Usage

PICO_DIGITS = 12
_PICO_IN_ONE = 10**12
_PICO = Decimal(1).scaleb(-PICO_DIGITS)
#: The largest whole number that SQLite and PostgreSQL store, 9.2 million USD.
_MOST_PICO = 2**63 - 1


def price(
    usage: Usage,
    model: Model,
    catalog: Catalog,
    at: datetime | None = None,
    terms: BillingTerms = PLAIN,
) -> Decimal | None:
    """USD for one attempt with this usage; None when nobody knows the model's price.

    `model` is one of `catalog`. `at`: when the request was made (now, if None); only few models
    have prices that depend on it. A factor may make parts of a pico: they are rounded up.
    """
    if terms.unpriced:
        return None
    sheets = _sheets(model, catalog, terms.service_tier, terms.in_us)
    if not sheets:
        return None
    sheet = sheets[0] if len(sheets) == 1 else in_force(sheets, at or datetime.now(UTC))
    cost = sheet.cost(usage, terms)
    return cost if terms is PLAIN else cost.quantize(_PICO, ROUND_CEILING)


def worst_price(
    input_tokens: int,
    output_tokens: int,
    model: Model,
    catalog: Catalog,
    *,
    service_tier: str = "",
    in_us: bool = False,
    hour_writes: bool = False,
) -> Decimal | None:
    """The most USD that one attempt of up to so many tokens can cost; None if nobody knows.

    All input at its dearest rate (read, kept or neither; kept for an hour only with
    `hour_writes`), all output at its dearest, at the dearest length of prompt up to
    `input_tokens`, and at the dearest hour of the day. A vendor may serve a call in the standard
    tier that asked for another: so this is never less than what the standard tier costs.
    """
    steps = worst_steps(model, catalog, service_tier, in_us, hour_writes)
    if steps is None:
        return None
    return from_pico(worst_pico(steps, input_tokens, output_tokens))


Steps = tuple[tuple[int, int, int, int], ...]
"""For prompts of more tokens than the first: pico USD of a token in, a token out, a request."""


def worst_pico(steps: Steps, input_tokens: int, output_tokens: int) -> int:
    """The most that so many tokens cost at these steps, in 1e-12 USD."""
    return max(
        input_tokens * per_input + output_tokens * per_output + each
        for above, per_input, per_output, each in steps
        if input_tokens > above
    )


def worst_steps(
    model: Model, catalog: Catalog, service_tier: str, in_us: bool, hour_writes: bool
) -> Steps | None:
    """The model's dearest rates as whole picos, rounded up; None where no price is known."""
    known = (catalog.digest, model.name, service_tier, in_us, hour_writes)
    if known not in _known_steps:
        _bounded(_known_steps)
        _known_steps[known] = _steps(model, catalog, service_tier, in_us, hour_writes)
    return _known_steps[known]


def _steps(
    model: Model, catalog: Catalog, service_tier: str, in_us: bool, hour_writes: bool
) -> Steps | None:
    now, steps = datetime.now(UTC), set()
    for tier in {"", service_tier}:
        sheets = _sheets(model, catalog, tier, in_us)
        if not sheets:
            return None
        for rate in (rate for sheet in from_now_on(sheets, now) for rate in sheet.rates):
            dearest = (
                rate.dearest_input(hour_writes),
                max(rate.output, rate.reasoning),
                rate.request,
            )
            steps.add((rate.above_tokens, *(math.ceil(usd * _PICO_IN_ONE) for usd in dearest)))
    return tuple(sorted(steps))  # type: ignore[arg-type]


def _sheets(
    model: Model, catalog: Catalog, service_tier: str, in_us: bool
) -> tuple[PriceSheet, ...]:
    known = (catalog.digest, model.name, service_tier, in_us)
    sheets = _known_sheets.get(known)
    if sheets is None:
        sheets = sheets_of(model, catalog, service_tier)
        if in_us:
            factor = catalog.provider(model).factors.get("us")
            sheets = () if factor is None else tuple(times(sheet, factor) for sheet in sheets)
        _bounded(_known_sheets)
        _known_sheets[known] = sheets
    return sheets


#: By catalog, model and terms: resolving takes 100 times as long as computing.
_known_sheets: dict[tuple[str, str, str, bool], tuple[PriceSheet, ...]] = {}
_known_steps: dict[tuple[str, str, str, bool, bool], Steps | None] = {}


def _bounded(known: dict[Any, Any]) -> None:
    if len(known) > 10_000:  # many reloads of the catalog
        known.clear()


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


def usd_text(pico: int) -> str:
    """Return a whole number of 1e-12 USD as decimal text in USD, such as "0.0000222"."""
    return text(from_pico(pico))
