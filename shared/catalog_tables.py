"""The tables of a catalog that have passed the check, before they become a Catalog."""

from __future__ import annotations

from dataclasses import dataclass, field

from headgate.shared.catalog_form import (
    Budget,
    CacheRules,
    Model,
    Pool,
    Price,
    Provider,
    Tenant,
    Tier,
    User,
    WideLimits,
)
from headgate.shared.catalog_routing import Routing
from headgate.shared.templates import Template


@dataclass
class Tables:
    """The entries that have passed, by name."""

    providers: dict[str, Provider] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    pools: dict[str, Pool] = field(default_factory=dict)
    tiers: dict[str, Tier] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    tenants: dict[str, Tenant] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    limits: WideLimits = field(default_factory=WideLimits)
    budget: Budget = field(default_factory=Budget)
    cache: CacheRules = field(default_factory=CacheRules)
    routing: Routing = field(default_factory=Routing)
