"""The tier of a caller: from the catalog, from the table `callers`, or from your own function.

If the table or the function has no answer, or fails, the catalog's tier is used. So
`tenants."*".tier` is the default for unknown callers and during faults.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine, select

from headgate.shared.admission.scopes import user_named
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.database.engine import reading
from headgate.shared.database.tables import callers
from headgate.shared.errors import place_of, shown
from headgate.shared.named_function import named_function

log = logging.getLogger("headgate.tiers")

TierOf = Callable[[str, str | None], str | None]
"""Returns the name of a tier for a tenant and its user (or None); None means no limits."""

CACHED_S = 1.0
"""How long an answer of the table or the function is used."""

MAX_CACHED = 10_000
"""Callers whose tiers are cached, and faults that are remembered."""

FUNCTION_TIMEOUT_S = 2.0
"""How long a function may take; a submit waits for it."""

MAX_STUCK = 8
"""How many calls of a function may hang at once; with more, the catalog decides at once."""

LOG_EVERY_S = 60.0
"""How often the same fault is logged at most."""


def source(chosen: str, catalog: Catalog, engine: Callable[[], Engine]) -> TierOf:
    """Return the source of tiers that HEADGATE_TIERS names.

    `engine` is called when the table is read. Raises SettingError for a function that cannot be
    imported.
    """
    default = by_catalog(catalog)
    if chosen == "catalog":
        return default
    asked = (
        _by_table(engine)
        if chosen == "table"
        else BoundedTierSource(named_function("HEADGATE_TIERS", chosen, "tenant and user"), chosen)
    )
    return CachedTierSource(asked, chosen, default, catalog)


def by_catalog(catalog: Catalog) -> TierOf:
    """Return the source of the catalog's own tiers: a user's first, then its tenant's."""
    users = {user_named(user.name): user.tier for user in catalog.users.values()}
    tenants = {tenant.name: tenant.tier for tenant in catalog.tenants.values()}
    every = tenants.pop("*", None)

    def tier_of(tenant: str, user: str | None) -> str | None:
        own = users.get((tenant, user)) if user is not None else None
        return own or tenants.get(tenant) or every

    return tier_of


def _by_table(engine: Callable[[], Engine]) -> TierOf:
    def tier_of(tenant: str, user: str | None) -> str | None:
        its = callers.c.user_id.in_([user or "", ""])
        query = select(callers.c.tier).where(callers.c.tenant == tenant, its)
        with reading(engine()) as connection:
            return connection.execute(query.order_by(callers.c.user_id.desc()).limit(1)).scalar()

    return tier_of


class TierSourceFailed(Exception):
    """A source of tiers has failed; the text says why, and quotes no value."""


class BoundedTierSource:
    """Calls a function, and waits at most `timeout_s` for it."""

    def __init__(
        self, function: TierOf, name: str, *, timeout_s: float = FUNCTION_TIMEOUT_S
    ) -> None:
        self._function, self._name, self._timeout_s = function, name, timeout_s
        self._stuck: list[threading.Event] = []

    def __call__(self, tenant: str, user: str | None) -> str | None:
        """Return the tier that the function gives; raises TierSourceFailed however it fails."""
        self._stuck = [ended for ended in self._stuck if not ended.is_set()]
        if len(self._stuck) >= MAX_STUCK:
            raise TierSourceFailed(f"{MAX_STUCK} calls of it hang")
        ended = threading.Event()
        answers: list[Any] = []

        def ask() -> None:
            try:
                answers.append(self._function(tenant, user))
            except Exception as error:
                answers.append(TierSourceFailed(f"it raised {place_of(error)}"))
            finally:
                ended.set()

        # A thread that hangs must not keep the process from ending.
        threading.Thread(target=ask, name=f"tier of {self._name}", daemon=True).start()
        if not ended.wait(self._timeout_s):
            self._stuck.append(ended)
            raise TierSourceFailed(f"it took over {self._timeout_s:g} s")
        answer = answers[0] if answers else TierSourceFailed("it ended its thread")
        if isinstance(answer, TierSourceFailed):
            raise answer
        if answer is not None and not isinstance(answer, str):
            raise TierSourceFailed(
                f"it returned {type(answer).__name__}, not the name of a tier or None"
            )
        return answer or None


class CachedTierSource:
    """Asks a source at most once a second for each caller; the catalog decides without an answer.

    `asked` is the source and `name` its name in the log; `default` are the catalog's own tiers.
    """

    def __init__(
        self,
        asked: TierOf,
        name: str,
        default: TierOf,
        catalog: Catalog,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked, self._name, self._default = asked, name, default
        self._tiers, self._clock = catalog.tiers, clock
        self._cached: dict[tuple[str, str | None], tuple[float, str | None]] = {}
        self._logged_at: dict[str, float] = {}

    def __call__(self, tenant: str, user: str | None) -> str | None:
        """Return the caller's tier, at most a second old."""
        cached = self._cached.get((tenant, user))
        if cached is not None and self._clock() < cached[0]:
            return cached[1]
        tier = self._answer(tenant, user) or self._default(tenant, user)
        if len(self._cached) >= MAX_CACHED:
            self._cached.clear()
        self._cached[tenant, user] = (self._clock() + CACHED_S, tier)
        return tier

    def _answer(self, tenant: str, user: str | None) -> str | None:
        try:
            tier = self._asked(tenant, user)
        except TierSourceFailed as fault:
            self._log(str(fault))
            return None
        if tier is not None and tier not in self._tiers:
            self._log(f"it names the tier {shown(tier)}, which the catalog does not have")
            return None
        return tier

    def _log(self, fault: str) -> None:
        now = self._clock()
        if now - self._logged_at.get(fault, -LOG_EVERY_S) >= LOG_EVERY_S:
            if len(self._logged_at) >= MAX_CACHED:
                self._logged_at.clear()
            self._logged_at[fault] = now
            log.warning("tiers by %s: %s; the catalog's tier is used", self._name, fault)
