"""Limits as the scripts read them: from a scope, such as `tenant/acme`, to `rpm=600 tpm=90000`.

The scopes are:

* `global`, `provider/NAME`, `pool/PROVIDER/POOL`, `tenant/NAME` and `user/TENANT/NAME`;
* `tenant/*`, for every tenant without an entry of its own;
* `tier/NAME` and `tier/NAME/MODEL`, for each user of the tier;
* `keys/PROVIDER`, with the number of its API keys (`n=2`);
* `models/PROVIDER/POOL`, with the number of models that share the pool, if there are several.

Names of tenants and users are percent-encoded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import redis.asyncio

from headgate.shared.admission import budgets
from headgate.shared.admission.overrides import LIFTED
from headgate.shared.admission.scopes import (
    EVERY_TENANT,
    GLOBAL,
    tenant_scope,
    tier_scope,
    user_named,
    user_scope,
)
from headgate.shared.broker.keys import Keys
from headgate.shared.broker.script import Command, compose, text_of
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import CatalogModel, ProviderConfig
from headgate.shared.errors import WrongUse

MONEY = ("usd_per_day", "usd_per_month", "soft", "hard")
"""The figures of a budget that an operator may set (`shared/admission/budgets.py`)."""

MEASURES = (
    "rpm", "tpm", "input_tpm", "output_tpm", "rpd", "concurrent", "burst_s", "ramp_from", "weight",
    *MONEY,
)  # fmt: skip
"""What an operator may set for a scope; the head of `catalog.toml` explains each."""

SPANS: Mapping[str, tuple[float, float]] = {
    "rpm": (1, 100_000_000),
    "tpm": (1, 1_000_000_000_000),
    "input_tpm": (1, 1_000_000_000_000),
    "output_tpm": (1, 1_000_000_000_000),
    "rpd": (1, 1_000_000_000_000),
    "concurrent": (1, 1_000_000),
    "burst_s": (0.001, 3_600),
    "ramp_from": (1, 1_000_000_000_000),
    "weight": (0.01, 1_000),
    "usd_per_day": (0, 1_000_000),
    "usd_per_month": (0, 1_000_000),
    "soft": (0.01, 100),
    "hard": (0.01, 100),
}
"""The least and the greatest amount of each measure, the same as in the catalog's form."""

RAMP_OFF = 1_000_000_000_000.0
"""What `ramp_from = "off"` is to the scripts: above any limit, also for the release before."""

Amounts = dict[str, float | None]
"""Amounts by measure; None is a limit that an operator has lifted."""


def parsed(text: str) -> Amounts:
    """Return the amounts in the text of a scope; words without an amount are skipped."""
    amounts: Amounts = {}
    for word in text.split():
        measure, _, amount = word.partition("=")
        if amount == LIFTED:
            amounts[measure] = None
            continue
        try:
            amounts[measure] = float(amount)
        except ValueError:
            continue
    return amounts


def written(amounts: Mapping[str, float | None]) -> str:
    """Return the text of a scope, with the measures in the order of MEASURES and others last."""
    order = {measure: place for place, measure in enumerate(MEASURES)}
    names = sorted(amounts, key=lambda name: (order.get(name, len(order)), name))
    return " ".join(f"{name}={_number(amounts[name])}" for name in names)


def _number(amount: float | None) -> str:
    if amount is None:
        return LIFTED
    # Digits only, because the scripts read no exponents.
    return f"{amount:.0f}" if amount == int(amount) else f"{max(amount, 1e-6):.6f}".rstrip("0")


def amount_of(measure: str, text: str) -> float | None:
    """Return the amount that an operator wrote for a measure; None for `none`.

    Raises WrongUse for an unknown measure and for an amount out of range.
    """
    if measure not in SPANS:
        raise WrongUse(measure, text, f"no such limit; use one of {', '.join(MEASURES)}")
    if text.strip().lower() == LIFTED:
        return None
    if measure == "ramp_from" and text.strip().lower() == "off":
        return RAMP_OFF
    low, high = SPANS[measure]
    whole = measure not in ("burst_s", "weight", *MONEY)
    remedy = f"give {'a whole' if whole else 'a'} number from {low:g} to {high:.0f}, or {LIFTED}"
    if measure == "ramp_from":
        remedy += " or off"
    try:
        amount = float(text.replace("_", ""))
    except ValueError:
        raise WrongUse(measure, text, remedy) from None
    if not math.isfinite(amount) or not low <= amount <= high or (whole and amount % 1):
        raise WrongUse(measure, text, remedy)
    return amount


def scopes(catalog: Catalog, keys_of: Callable[[ProviderConfig], int]) -> dict[str, str]:
    """Return the texts of all scopes that the catalog limits.

    `keys_of` returns how many API keys a provider has.
    """
    found: dict[str, Amounts] = {GLOBAL: _amounts(catalog.limits)}
    for provider in catalog.providers.values():
        found[f"provider/{provider.name}"] = _amounts(provider.limits)
        found[f"keys/{provider.name}"] = {"n": float(max(1, keys_of(provider)))}
    for pool in catalog.pools.values():
        found[f"pool/{pool.key}"] = _amounts(pool)
    for pool_key, n in Counter(model.pool_key for model in catalog.models.values()).items():
        found[f"models/{pool_key}"] = {"n": float(n)} if n > 1 else {}
    every: Amounts = {}
    if "*" in catalog.tenants:
        every = found[EVERY_TENANT] = _amounts(catalog.tenants["*"])
    for tenant in catalog.tenants.values():
        own = _amounts(tenant)
        if tenant.name != "*" and own:
            found[tenant_scope(tenant.name)] = {**every, **own}
    for user in catalog.users.values():
        found[user_scope(*user_named(user.name))] = _amounts(user)
    for tier in catalog.tiers.values():
        found[tier_scope(tier.name)] = _amounts(tier)
        for model, limits in tier.models.items():
            found[tier_scope(tier.name, model)] = _amounts(limits)
    return {scope: written(amounts) for scope, amounts in found.items() if amounts}


def _amounts(entry: CatalogModel) -> Amounts:
    given = ((measure, getattr(entry, measure, None)) for measure in MEASURES)
    return {
        measure: RAMP_OFF if amount == "off" else float(amount)
        for measure, amount in given
        if amount is not None
    }


def write(
    client: redis.Redis, keys: Keys, catalog: Catalog, keys_of: Callable[[ProviderConfig], int],
    *, reload: bool = False,
) -> None:  # fmt: skip
    """Make the limits and budgets of this catalog hold, in one transaction; overrides stay.

    With `reload` workers and clients read their catalog files again.
    """
    with client.pipeline(transaction=True) as pipe:
        _queue_writes(pipe, keys, catalog, keys_of)
        if reload:
            pipe.incr(keys.version())
        pipe.execute()


async def write_async(
    client: redis.asyncio.Redis,
    keys: Keys,
    catalog: Catalog,
    keys_of: Callable[[ProviderConfig], int],
) -> None:
    """Do as `write`, over an asyncio client."""
    async with client.pipeline(transaction=True) as pipe:
        _queue_writes(pipe, keys, catalog, keys_of)
        await pipe.execute()


def _queue_writes(
    pipe: Any, keys: Keys, catalog: Catalog, keys_of: Callable[[ProviderConfig], int]
) -> None:
    pipe.delete(keys.limits(), keys.budgets())
    pipe.hset(keys.limits(), mapping=scopes(catalog, keys_of))
    pipe.hset(keys.budgets(), mapping=budgets.texts(catalog))


@dataclass(frozen=True, slots=True)
class OpenedGate:
    """A gate that was shut, and that an operator has opened.

    `why`: `limited`, `slow`, `flex` or `money`. `until_ms`: until when it was shut (Unix ms).
    `asked_ms`: the later moment that its provider had named, or None.
    """

    pool: str
    key: str
    why: str
    until_ms: int
    asked_ms: int | None


@dataclass(frozen=True, slots=True)
class ResumeOutcome:
    """What `resume` did: whether `member` was paused, and which gates it opened."""

    was_paused: bool
    opened: Sequence[OpenedGate] = ()


def resume_command(keys: Keys, member: str = "") -> Command[ResumeOutcome]:
    """Resume `member`, and let all jobs be tried again that were passed over (`resume.lua`)."""

    def read(reply: Any) -> ResumeOutcome:
        opened = []
        for one in reply[1]:
            pool, key, why, until, asked = map(text_of, one)
            asked_ms = int(float(asked)) if asked else None
            opened.append(OpenedGate(pool, key, why, int(float(until)), asked_ms))
        return ResumeOutcome(reply[0] == 1, opened)

    return compose("resume", (), (keys.prefix, member), read)
