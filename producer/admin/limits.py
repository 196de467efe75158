"""Changes limits at run time, and pauses what an operator names: in force everywhere at once.

Limits that are set here lie over the catalog's, measure by measure, until they are unset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import redis

from headgate.producer.installation import Installation
from headgate.shared import settings
from headgate.shared.admission import limits, scopes
from headgate.shared.admission.limits import (
    Amounts,
    ResumeOutcome,
    resume_command,
    user_named,
    user_scope,
)
from headgate.shared.admission.scopes import quoted
from headgate.shared.admission.scopes import shown as shown
from headgate.shared.broker.queues import all_queues
from headgate.shared.broker.script import fields_of, run
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.faults import hint
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import WrongUse

Kind = Literal["pool", "tenant", "queue"]

SCOPES = (
    "global, provider/NAME, pool/PROVIDER/NAME, tenant/NAME, tenant/*, user/TENANT/NAME, "
    "tier/NAME or tier/NAME/MODEL"
)

CALLER_MOST = 128
"""Characters of a tenant's and of a user's name, as in a request."""


def pools_of(catalog: Catalog) -> list[str]:
    """Every pool that the catalog has a model or a limit for."""
    return sorted({model.pool_key for model in catalog.models.values()} | set(catalog.pools))


def is_set(at: Installation) -> list[str]:
    """All scopes for which an operator has set limits."""
    return list(fields_of(_hash(at, at.keys.overrides())))


def scope_of(text: str, catalog: Catalog, *, to_unset: Collection[str] = ()) -> str:
    """The scope that an operator wrote, as the scripts name it; raises WrongUse.

    `to_unset`: scopes that are known, also where the catalog has them no more.
    """
    if text in to_unset:
        return text
    kind, _, name = text.partition("/")
    match kind:
        case "global" if not name:
            return limits.GLOBAL
        case "provider" if name:
            return f"provider/{_known('provider', text, name, list(catalog.providers))}"
        case "pool" if name:
            return f"pool/{_known('pool', text, name, pools_of(catalog))}"
        case "tenant" if name:
            return limits.EVERY_TENANT if name == "*" else f"tenant/{quoted(_caller(text, name))}"
        case "user" if name.count("/") == 1 and all(name.split("/")):
            tenant, user = user_named(name)
            return user_scope(_caller(text, tenant), _caller(text, user))
        case "user":
            raise WrongUse("SCOPE", text, "write user/TENANT/NAME; a / in a name as %2F")
        case "tier" if name:
            tier, _, model = name.partition("/")
            _known("tier", text, tier, list(catalog.tiers))
            if not model:
                return scopes.tier_scope(tier)
            return scopes.tier_scope(tier, _known("model", text, model, list(catalog.models)))
    raise WrongUse("SCOPE", text, f"no such scope; use {SCOPES}")


def _known(kind: str, text: str, name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    nearest = hint(name, known, "; ")
    ends = [one for one in known if one.endswith(f"/{name}")]
    if not nearest and len(ends) == 1:
        nearest = f"; did you mean {ends[0]}?"
    raise WrongUse("SCOPE", text, f"the catalog has no {kind} {name}{nearest}")


def _caller(text: str, name: str) -> str:
    if not name or len(name) > CALLER_MOST or "\0" in name:
        raise WrongUse("SCOPE", text, f"a name has 1 to {CALLER_MOST} characters, without NUL")
    return name


def amounts_of(scope: str, words: Sequence[str]) -> Amounts:
    """The amounts of `MEASURE=VALUE` words for a scope, checked; raises WrongUse."""
    amounts: Amounts = {}
    for word in words:
        measure, equals, value = word.partition("=")
        if not equals:
            raise WrongUse("MEASURE=VALUE", word, "write for example rpm=600, or rpm=none")
        if measure in amounts:
            raise WrongUse(measure, value, "is given twice; give it once")
        amounts[measure] = limits.amount_of(measure, value)
        if measure in limits.MONEY and scope.partition("/")[0] not in ("global", "tenant", "user"):
            raise WrongUse(measure, value, "only global, tenant/NAME and user/TENANT/NAME have it")
        if measure == "weight" and not scope.startswith("tenant/"):
            raise WrongUse(measure, value, "only a tenant has a weight: tenant/NAME weight=2")
    if not amounts:
        raise WrongUse("MEASURE=VALUE", "", "give at least one, such as rpm=600")
    return amounts


def change(at: Installation, scope: str, amounts: Amounts) -> Amounts:
    """These limits are in force for the scope; returns all that is set for it now."""
    return _replace(at, scope, lambda before: {**before, **amounts})


def undo(at: Installation, scope: str, measures: Sequence[str]) -> Amounts:
    """The catalog's limits are in force again, for these measures or for all; what is left set."""
    for measure in measures:
        if measure not in limits.MEASURES:
            known = ", ".join(limits.MEASURES)
            raise WrongUse("MEASURE", measure, f"no such limit; use one of {known}")
    gone = measures or limits.MEASURES
    return _replace(at, scope, lambda was: {k: v for k, v in was.items() if k not in gone})


def _replace(at: Installation, scope: str, replaced: Any) -> Amounts:
    key = at.keys.overrides()
    after: Amounts = {}

    def act(pipe: redis.client.Pipeline) -> None:
        # Read under WATCH: two operators who set other measures of one scope both get theirs.
        found: Any = pipe.hget(key, scope)
        after.clear()
        after.update(replaced(limits.parsed(found.decode()) if found else {}))
        pipe.multi()
        if after:
            pipe.hset(key, scope, limits.written(after))
        else:
            pipe.hdel(key, scope)

    at.redis.transaction(act, key)
    run(at.redis, resume_command(at.keys))
    return after


def member_of(at: Installation, kind: Kind, name: str) -> str:
    """What stands for this pool, tenant or queue where pauses are kept; raises WrongUse."""
    paused = paused_members(at)
    if kind == "tenant":
        return f"tenant/{quoted(_caller(name, name))}"
    member = f"{kind}/{name}"
    if member in paused:
        return member  # also one that the catalog has no more
    if kind == "pool":
        known = pools_of(at.catalog)
        _named("NAME", name, known, "the catalog has no such pool")
        return member
    waiting = {field.split(" ")[0] for field in fields_of(_hash(at, at.keys.waiting_queues()))}
    queues = all_queues(at.catalog.classes)
    if name not in waiting and at.redis.type(at.keys.queue(name)) != b"list":
        _named("NAME", name, queues, "no such queue")
    return member


def _named(field: str, name: str, known: Sequence[str], words: str) -> None:
    if name not in known:
        ends = [one for one in known if one.endswith((f"/{name}", f".{name}"))]
        nearest = f"; did you mean {ends[0]}?" if len(ends) == 1 else hint(name, known, "; ")
        raise WrongUse(field, name, words + nearest)


def pause(at: Installation, member: str) -> bool:
    """No worker starts a job of it; those that run go on. False if it was paused before."""
    return at.redis.sadd(at.keys.paused(), member) == 1


def resume(at: Installation, member: str) -> ResumeOutcome:
    """Its jobs start again; of a pool also where it was shut for want of money."""
    return run(at.redis, resume_command(at.keys, member))


def paused_members(at: Installation) -> list[str]:
    """All that is paused, as the scripts name it."""
    found: Any = at.redis.smembers(at.keys.paused())
    return sorted(member.decode() for member in found)


def reload(at: Installation) -> int:
    """The catalog of the file is in force in all processes within a second; its number.

    The file has been read and checked when the installation was opened.
    """
    in_force: Mapping[str, str] = fields_of(_hash(at, at.keys.limits()))

    def keys_of(provider: ProviderConfig) -> int:
        # Workers have the keys, not the operator's shell: what they said of them stands.
        known = limits.parsed(in_force.get(f"keys/{provider.name}", "")).get("n")
        here = sum(settings.secret(name) is not None for name in provider.api_key_env)
        return int(known or here)

    limits.write(at.redis, at.keys, at.catalog, keys_of, reload=True)
    run(at.redis, resume_command(at.keys))
    found: Any = at.redis.get(at.keys.version())
    return int(found or 0)


def _hash(at: Installation, key: str) -> Any:
    return at.redis.hgetall(key)
