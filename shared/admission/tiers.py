"""Which tier a caller has: as the catalog says, as a table of the record, or as your function says.

The catalog is beneath the others: it answers for callers whom they do not know, and when a
function fails. So `tenants."*".tier` is what holds for strangers and on bad days.
"""

from __future__ import annotations

import importlib
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
from headgate.shared.errors import SettingError, place_of, shown

log = logging.getLogger("headgate.tiers")

TierOf = Callable[[str, str | None], str | None]
"""From a tenant and perhaps its user to the name of a tier, or None: no limits."""

KEPT_S = 1.0
"""How long an answer of a table or a function holds."""

MOST_KEPT = 10_000

FUNCTION_TIMEOUT_S = 2.0
"""How long a function may take; a submit waits for it."""

MOST_STUCK = 8
"""Calls of a function that may hang at once; beyond, the catalog is asked straight away."""

TOLD_EVERY_S = 60.0


def source(chosen: str, catalog: Catalog, engine: Callable[[], Engine]) -> TierOf:
    """What HEADGATE_TIERS names; raises SettingError for a function that cannot be found.

    `engine` is asked for when a caller is looked up in the table.
    """
    beneath = by_catalog(catalog)
    if chosen == "catalog":
        return beneath
    asked = _by_table(engine) if chosen == "table" else BoundedTierSource(_function(chosen), chosen)
    return CachedTierSource(asked, chosen, beneath, catalog)


def by_catalog(catalog: Catalog) -> TierOf:
    """The tiers of the catalog's tables `users` and `tenants`, the nearer one first."""
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


def _function(chosen: str) -> TierOf:
    module, _, name = chosen.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), name)
    except Exception as error:
        remedy = f"cannot be imported ({place_of(error)}: {error}); name a function on the path"
        raise SettingError("HEADGATE_TIERS", chosen, remedy) from error
    if not callable(found):
        remedy = f"is {type(found).__name__}, not a function of tenant and user"
        raise SettingError("HEADGATE_TIERS", chosen, remedy)
    return found  # type: ignore[no-any-return]  # what it gives is checked when it is asked


class TierSourceFailed(Exception):
    """A source gave no answer; its words say why, and quote nothing."""


class BoundedTierSource:
    """Asks a function, but waits `timeout_s` at most; raises TierSourceFailed however it fails."""

    def __init__(
        self, function: TierOf, name: str, *, timeout_s: float = FUNCTION_TIMEOUT_S
    ) -> None:
        self._function, self._name, self._timeout_s = function, name, timeout_s
        self._stuck: list[threading.Event] = []

    def __call__(self, tenant: str, user: str | None) -> str | None:
        """What the function says."""
        self._stuck = [ended for ended in self._stuck if not ended.is_set()]
        if len(self._stuck) >= MOST_STUCK:
            raise TierSourceFailed(f"{MOST_STUCK} calls of it hang")
        ended = threading.Event()
        said: list[Any] = []

        def ask() -> None:
            try:
                said.append(self._function(tenant, user))
            except Exception as error:
                said.append(TierSourceFailed(f"it raised {place_of(error)}"))
            finally:
                ended.set()

        # A thread that hangs must not keep the process from ending.
        threading.Thread(target=ask, name=f"tier of {self._name}", daemon=True).start()
        if not ended.wait(self._timeout_s):
            self._stuck.append(ended)
            raise TierSourceFailed(f"it took over {self._timeout_s:g} s")
        answer = said[0] if said else TierSourceFailed("it ended its thread")
        if isinstance(answer, TierSourceFailed):
            raise answer
        if answer is not None and not isinstance(answer, str):
            raise TierSourceFailed(
                f"it gave {type(answer).__name__}, not the name of a tier or None"
            )
        return answer or None


class CachedTierSource:
    """Asks a source once a second for each caller, and the catalog where it has no good answer."""

    def __init__(
        self,
        asked: TierOf,
        name: str,
        beneath: TierOf,
        catalog: Catalog,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._asked, self._name, self._beneath = asked, name, beneath
        self._tiers, self._clock = catalog.tiers, clock
        self._kept: dict[tuple[str, str | None], tuple[float, str | None]] = {}
        self._told_at: dict[str, float] = {}

    def __call__(self, tenant: str, user: str | None) -> str | None:
        """The caller's tier, no older than a second."""
        kept = self._kept.get((tenant, user))
        if kept is not None and self._clock() < kept[0]:
            return kept[1]
        tier = self._answer(tenant, user) or self._beneath(tenant, user)
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[tenant, user] = (self._clock() + KEPT_S, tier)
        return tier

    def _answer(self, tenant: str, user: str | None) -> str | None:
        try:
            tier = self._asked(tenant, user)
        except TierSourceFailed as fault:
            self._tell(str(fault))
            return None
        if tier is not None and tier not in self._tiers:
            self._tell(f"it names the tier {shown(tier)}, which the catalog does not have")
            return None
        return tier

    def _tell(self, fault: str) -> None:
        now = self._clock()
        if now - self._told_at.get(fault, -TOLD_EVERY_S) >= TOLD_EVERY_S:
            if len(self._told_at) >= MOST_KEPT:
                self._told_at.clear()
            self._told_at[fault] = now
            log.warning("tiers by %s: %s; the catalog decides", self._name, fault)
