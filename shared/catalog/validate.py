"""Checks a catalog as a whole: each entry against its form, then entries against each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from headgate.shared.catalog.faults import (
    HIDDEN,
    MISSING,
    OTHER_KIND,
    CatalogErrors,
    Path,
    dotted,
    fault_from,
    hint,
    keys_of,
    unknown,
)
from headgate.shared.catalog.routing_rules import Routing
from headgate.shared.catalog.schema import (
    HARD,
    SOFT,
    STATIC,
    WAIT,
    Budget,
    CacheRules,
    Model,
    Pool,
    Price,
    ProviderConfig,
    Tenant,
    Tier,
    User,
    WideLimits,
)
from headgate.shared.catalog.templates import Template
from headgate.shared.catalog.variants import variant
from headgate.shared.errors import CatalogError

F = TypeVar("F", bound=BaseModel)


def check(file: str, content: Mapping[str, Any], own: Mapping[str, Any]) -> Tables:
    """Return the tables of a catalog; raises CatalogError, or CatalogErrors for several faults.

    `own` is the part of `content` that comes from `file`: a circle of fallbacks is reported there.
    """
    checker = _Checker(file, content, own)
    checker.run()
    if len(checker.faults) > 1:
        raise CatalogErrors(checker.faults)
    if checker.faults:
        raise checker.faults[0]
    return checker.tables


class _Checker:
    def __init__(self, file: str, content: Mapping[str, Any], own: Mapping[str, Any]) -> None:
        self.file = file
        self.content = content
        self.own = own
        self.tables = Tables()
        self.faults: list[CatalogError] = []

    def fault(self, parts: Path, value: object, remedy: str) -> None:
        # Users sometimes write the API key itself instead of the name of its variable.
        if parts[0] == "providers" and "key" in str(parts[2:]).lower():
            value = HIDDEN
        self.faults.append(CatalogError(self.file, dotted(parts), value, remedy))

    def run(self) -> None:
        """Fill `tables`, and put every fault into `faults`."""
        known = tuple(vars(self.tables))
        for key, value in self.content.items():
            if key not in known:
                self.fault([key], value, unknown(key, known))
        self.parse_tables()
        # A table that is no table names nothing: what refers to it would be reported wrongly.
        if all(isinstance(self.content.get(table, {}), Mapping) for table in known):
            self.check_references()

    def parse_tables(self) -> None:
        """Check each entry against its form."""
        tables = self.tables
        tables.providers = self.parsed("providers", ProviderConfig, lambda name: {"name": name})
        tables.models = self.parsed("models", Model, lambda name: {"name": name})
        tables.pools = self.parsed("pools", Pool, lambda name: {"key": name})
        tables.tiers = self.parsed("tiers", Tier, lambda name: {"name": name})
        tables.prices = self.parsed("prices", Price, lambda _: {})
        tables.tenants = self.parsed("tenants", Tenant, lambda name: {"name": name})
        tables.users = self.parsed("users", User, lambda name: {"name": name})
        tables.templates = self.parsed("templates", Template, lambda name: {"name": name})
        tables.limits = self.one("limits", WideLimits) or tables.limits
        tables.budget = self.one("budget", Budget) or tables.budget
        tables.cache = self.one("cache", CacheRules) or tables.cache
        tables.routing = self.one("routing", Routing) or tables.routing

    def check_references(self) -> None:
        """Check the entries against each other."""
        tables = self.tables
        for provider in tables.providers.values():
            if provider.responses and provider.dialect != "openai":
                remedy = "only a provider of OpenAI's dialect has Responses; leave it out"
                self.fault(["providers", provider.name, "responses"], True, remedy)
        for model in tables.models.values():
            self.check_model(model)
            self.check_fallback(model)
        for n, rule in enumerate(tables.routing.rules):
            self.check_listed_model(["routing", "rules", n, "model"], rule.model)
        self.check_circles()
        self.check_pools()
        for name in self.entries("prices"):
            self.check_model_name(["prices", name], name)
        for template in tables.templates.values():
            if template.model not in (None, "auto"):
                self.check_model_name(["templates", template.name, "model"], template.model)
        for tier in tables.tiers.values():
            for name in tier.models:
                self.check_model_name(["tiers", tier.name, "models", name], name)
        self.check_callers()
        self.check_budgets()
        self.check_cache()

    def entries(self, table: str) -> Mapping[str, Any]:
        found = self.content.get(table, {})
        return found if isinstance(found, Mapping) else {}

    def parsed(self, table: str, form: type[F], given: Any) -> dict[str, F]:
        content = self.content.get(table, {})
        if not isinstance(content, Mapping):
            self.fault([table], content, f"give a table: [{table}.<name>]")
            return {}
        passed: dict[str, F] = {}
        for name, entry in content.items():
            if not isinstance(entry, Mapping):
                self.fault([table, name], entry, "give a table")
                continue
            own = given(name)
            for key in own.keys() & entry.keys():
                self.fault([table, name, key], entry[key], unknown(key, keys_of(form)))
            try:
                passed[name] = form.model_validate({**entry, **own})
            except ValidationError as error:
                for detail in error.errors(include_url=False):
                    if detail["type"] != "default_factory_not_called":
                        self.fault(*fault_from(form, own, [table, name], detail))
        return passed

    def one(self, table: str, form: type[F]) -> F | None:
        """Return a table that has no entries of its own; None if it has faults."""
        content = self.content.get(table, {})
        if not isinstance(content, Mapping):
            self.fault([table], content, f"give a table: [{table}]")
            return None
        try:
            return form.model_validate(content)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self.fault(*fault_from(form, {}, [table], detail))
            return None

    def check_cache(self) -> None:
        templates = self.entries("templates")
        for name, rule in self.tables.cache.rules.items():
            for i, template in enumerate(rule.templates):
                if template not in templates:
                    remedy = "the catalog has no such template" + hint(template, templates, "; ")
                    self.fault(["cache", "rules", name, "templates", i], template, remedy)

    def check_callers(self) -> None:
        for user in self.tables.users.values():
            tenant, _, name = user.name.partition("/")
            if not tenant or not name:
                self.fault(["users", user.name], user.name, 'write "tenant/user"')
            elif "*" in (tenant, name):
                remedy = "name one user; for limits of every user of a tenant, use a tier"
                self.fault(["users", user.name], user.name, remedy)
        tiers = self.entries("tiers")
        for table in ("tenants", "users"):
            for caller in getattr(self.tables, table).values():
                if caller.tier is not None and caller.tier not in tiers:
                    remedy = f"no such tier; use one of {', '.join(tiers)}, or add it"
                    remedy += hint(caller.tier, tiers, "; ")
                    self.fault([table, caller.name, "tier"], caller.tier, remedy)

    def check_budgets(self) -> None:
        tables = self.tables
        every = tables.tenants["*"].budget if "*" in tables.tenants else Budget()
        self.check_budget(["budget"], tables.budget, Budget())
        for tenant in tables.tenants.values():
            at = ["tenants", tenant.name, "budget"]
            self.check_budget(at, tenant.budget, Budget() if tenant.name == "*" else every)
        for user in tables.users.values():
            self.check_budget(["users", user.name, "budget"], user.budget, Budget())

    def check_budget(self, at: list[str], own: Budget, below: Budget) -> None:
        given = {**below.model_dump(exclude_none=True), **own.model_dump(exclude_none=True)}
        if own != Budget() and not given.keys() & {"usd_per_day", "usd_per_month"}:
            remedy = "this budget has no amount; add usd_per_day or usd_per_month, as a string"
            self.fault([*at, "usd_per_day"], MISSING, remedy)
        if own.soft is not None or own.hard is not None:
            soft, hard = given.get("soft", SOFT), given.get("hard", HARD)
            if soft > hard:
                key, value = ("soft", soft) if own.soft is not None else ("hard", hard)
                remedy = f"soft ({soft:g}) must not be above hard ({hard:g}); change one of them"
                self.fault([*at, key], value, remedy)
        if own.at_soft not in (None, WAIT):
            self.check_listed_model([*at, "at_soft"], own.at_soft)
            other = self.tables.models.get(own.at_soft)
            if other and other.answer_kind != "text":
                remedy = "it answers no chat, so it cannot replace a chat model; "
                remedy += "name another model"
                self.fault([*at, "at_soft"], own.at_soft, remedy)

    def check_model(self, model: Model) -> None:
        at = ["models", model.name]
        providers = self.entries("providers")
        if model.name == "auto":
            self.fault(at, model.name, "the name auto means routing; use another name")
        if model.provider not in providers:
            remedy = f"no such provider; use one of {', '.join(providers)}, or add it"
            remedy += hint(model.provider, providers, "; ")
            self.fault([*at, "provider"], model.provider, remedy)
        kind = model.answer_kind
        if kind != "text" and (len(model.capabilities) > 1 or model.max_output_tokens):
            remedy = f"a model with {kind} has no max_output_tokens and no other capability"
            self.fault([*at, "capabilities"], sorted(model.capabilities), remedy)
        if kind == "text" and not 1 <= model.max_output_tokens <= model.context_tokens:
            remedy = f"give 1 to context_tokens ({model.context_tokens})"
            self.fault([*at, "max_output_tokens"], model.max_output_tokens or MISSING, remedy)
        if model.backoff_s and model.backoff_max_s and model.backoff_s > model.backoff_max_s:
            remedy = f"give at most backoff_max_s ({model.backoff_max_s:g})"
            self.fault([*at, "backoff_s"], model.backoff_s, remedy)

    def check_fallback(self, model: Model) -> None:
        for i, name in enumerate(model.fallback):
            at: Path = ("models", model.name, "fallback", i)
            if name.startswith(STATIC):
                if name == STATIC:
                    self.fault(at, name, "write the answer after static:")
                if model.answer_kind != "text":
                    self.fault(
                        at, name, "a fixed text cannot replace vectors or verdicts; remove it"
                    )
                if i + 1 < len(model.fallback):
                    remedy = f"this is never reached: {STATIC} at [{i}] always answers; "
                    remedy += "put the fixed text last"
                    self.fault((*at[:-1], i + 1), model.fallback[i + 1], remedy)
                return
            if not self.check_model_name(at, name):
                continue
            other = self.tables.models.get(name) or variant(name, self.tables.models.values())
            if other and other.answer_kind != model.answer_kind:
                self.fault(at, name, OTHER_KIND)

    def check_model_name(self, at: Path, name: str) -> bool:
        """Report a name that is neither listed nor a snapshot or fine-tune of a listed model."""
        if variant(name, self.tables.models.values()) is not None:
            return True
        return self.check_listed_model(at, name)

    def check_listed_model(self, at: Path, name: str) -> bool:
        models = self.entries("models")
        if name not in models:
            remedy = "no such model in the catalog; use one of its names, or add it"
            self.fault(at, name, remedy + hint(name, models, "; "))
        return name in models

    def check_circles(self) -> None:
        """Report each circle of fallbacks once, at the step that the user's file has written."""
        done: set[str] = set()
        reported: set[tuple[str, str]] = set()
        for start in self.tables.models:
            for circle in self.circles([start], done):
                steps = list(pairwise(circle))
                blamed = next((step for step in steps if self.writes_fallback(step[0])), steps[-1])
                if blamed in reported:
                    continue
                reported.add(blamed)
                name, following = blamed
                at = self.tables.models[name].fallback.index(following)
                remedy = f"these fallbacks form a circle: {' -> '.join(circle)}; remove one of them"
                self.fault(["models", name, "fallback", at], following, remedy)

    def writes_fallback(self, name: str) -> bool:
        models = self.own.get("models")
        return isinstance(models, Mapping) and "fallback" in models.get(name, {})

    def circles(self, path: list[str], done: set[str]) -> Iterator[list[str]]:
        model = self.tables.models.get(path[-1])
        if model is None or model.name in done:
            return
        for name in model.fallback:
            if name in path:
                yield [*path[path.index(name) :], name]
            else:
                yield from self.circles([*path, name], done)
        done.add(model.name)

    def check_pools(self) -> None:
        # A model with faults may own the pool: then only those faults are reported.
        if self.tables.models.keys() != self.entries("models").keys():
            return
        known = {model.pool_key for model in self.tables.models.values()}
        for key in self.entries("pools"):
            if key not in known:
                remedy = "no model has this pool; give provider/pool" + hint(key, known, "; ")
                self.fault(["pools", key], key, remedy)


@dataclass
class Tables:
    """The entries without faults, by name."""

    providers: dict[str, ProviderConfig] = field(default_factory=dict)
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
