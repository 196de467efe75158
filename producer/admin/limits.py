"""Sets limits and pauses jobs at run time; changes are in force in all processes at once.

Limits that are set here override the catalog, measure by measure, until they are unset.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import redis

from headgate.producer.installation import Installation
from headgate.producer.waits.pauses import Pause, pause_of
from headgate.shared import settings
from headgate.shared.admission import limits, scopes
from headgate.shared.admission.limits import Amounts, ResumeOutcome, resume_command
from headgate.shared.admission.scopes import quoted, user_named, user_scope
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

LONGEST_NAME = 128
"""Most characters of the name of a tenant or a user, as in a request."""


def pools_of(catalog: Catalog) -> list[str]:
    """Return every pool for which the catalog has a model or a limit."""
    return sorted({model.pool_key for model in catalog.models.values()} | set(catalog.pools))


def overridden(at: Installation) -> list[str]:
    """Return all scopes for which an operator has set limits."""
    return list(fields_of(_hash(at, at.keys.overrides())))


def scope_of(text: str, catalog: Catalog, *, to_unset: Collection[str] = ()) -> str:
    """Return the scope that an operator wrote, as the scripts name it; raise WrongUse.

    `to_unset`: scopes that are accepted even if the catalog no longer has them.
    """
    if text in to_unset:
        return text
    kind, _, name = text.partition("/")
    match kind:
        case "global" if not name:
            return scopes.GLOBAL
        case "provider" if name:
            return f"provider/{_require('provider', text, name, list(catalog.providers))}"
        case "pool" if name:
            return f"pool/{_require('pool', text, name, pools_of(catalog))}"
        case "tenant" if name:
            if name == "*":
                return scopes.EVERY_TENANT
            return f"tenant/{quoted(_require_name('SCOPE', text, name))}"
        case "user" if name.count("/") == 1 and all(name.split("/")):
            tenant, user = (_require_name("SCOPE", text, part) for part in user_named(name))
            return user_scope(tenant, user)
        case "user":
            raise WrongUse("SCOPE", text, "write user/TENANT/NAME; write a / in a name as %2F")
        case "tier" if name:
            tier, _, model = name.partition("/")
            _require("tier", text, tier, list(catalog.tiers))
            if not model:
                return scopes.tier_scope(tier)
            return scopes.tier_scope(tier, _require("model", text, model, list(catalog.models)))
    raise WrongUse("SCOPE", text, f"no such scope; use {SCOPES}")


def _require(kind: str, text: str, name: str, known: Sequence[str]) -> str:
    if name not in known:
        remedy = f"the catalog has no {kind} {name}{suggestion(name, known)}"
        raise WrongUse("SCOPE", text, remedy)
    return name


def suggestion(name: str, known: Collection[str]) -> str:
    """Return `; did you mean ...?` for a name that is unknown; empty if nothing is similar.

    A name whose last part is `name` counts as similar: `openai/gpt-4o` for `gpt-4o`.
    """
    ends = [one for one in known if one.endswith((f"/{name}", f".{name}"))]
    return f"; did you mean {ends[0]}?" if len(ends) == 1 else hint(name, known, "; ")


def _require_name(field: str, text: str, name: str) -> str:
    if not name or len(name) > LONGEST_NAME or "\0" in name:
        raise WrongUse(field, text, f"a name has 1 to {LONGEST_NAME} characters and no NUL")
    return name


def amounts_of(scope: str, words: Sequence[str]) -> Amounts:
    """Return the amounts in `MEASURE=VALUE` words, checked for the scope; raise WrongUse."""
    amounts: Amounts = {}
    for word in words:
        measure, equals, value = word.partition("=")
        if not equals:
            raise WrongUse("MEASURE=VALUE", word, "write for example rpm=600 or rpm=none")
        if measure in amounts:
            raise WrongUse(measure, value, "is given twice; give it once")
        amounts[measure] = limits.amount_of(measure, value)
        if measure in limits.MONEY and scope.partition("/")[0] not in ("global", "tenant", "user"):
            raise WrongUse(measure, value, "use it with global, tenant/NAME or user/TENANT/NAME")
        if measure == "ramp_from" and not scope.startswith("pool/"):
            raise WrongUse(
                measure, value, "only pools have a ramp: pool/PROVIDER/NAME ramp_from=1000000"
            )
        if measure == "weight" and not scope.startswith("tenant/"):
            raise WrongUse(measure, value, "only tenants have a weight: tenant/NAME weight=2")
    if not amounts:
        raise WrongUse("MEASURE=VALUE", "", "give at least one, such as rpm=600")
    return amounts


def change(at: Installation, scope: str, amounts: Amounts) -> Amounts:
    """Set these limits of the scope at once; return all that is set for it now."""
    return _replace(at, scope, lambda before: {**before, **amounts})


def unset(at: Installation, scope: str, measures: Sequence[str]) -> Amounts:
    """Return to the catalog's limits, for these measures or for all; return what stays set."""
    for measure in measures:
        if measure not in limits.MEASURES:
            known = ", ".join(limits.MEASURES)
            raise WrongUse("MEASURE", measure, f"no such limit; use one of {known}")
    gone = measures or limits.MEASURES
    return _replace(at, scope, lambda before: {k: v for k, v in before.items() if k not in gone})


def _replace(at: Installation, scope: str, replaced: Any) -> Amounts:
    key = at.keys.overrides()
    after: Amounts = {}

    def act(pipe: redis.client.Pipeline) -> None:
        # Read under WATCH: if two operators set different measures at once, both are kept.
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
    """Return the member of the set of pauses for this pool, tenant or queue; raise WrongUse."""
    if kind == "tenant":
        return f"tenant/{quoted(_require_name('NAME', name, name))}"
    member = f"{kind}/{name}"
    if member in paused_members(at):
        return member  # the catalog may no longer have it
    if kind == "pool":
        pools = pools_of(at.catalog)
        if name not in pools:
            remedy = f"the catalog has no such pool{suggestion(name, pools)}"
            raise WrongUse("NAME", name, remedy)
        return member
    waiting = {field.split(" ")[0] for field in fields_of(_hash(at, at.keys.waiting_queues()))}
    queues = all_queues(at.catalog.classes)
    is_used = name in waiting or at.redis.type(at.keys.queue(name)) == b"list"
    if not is_used and name not in queues:
        raise WrongUse("NAME", name, f"no such queue{suggestion(name, queues)}")
    return member


def pause(at: Installation, member: str) -> bool:
    """Pause the member: workers start none of its jobs. Return False if it was paused already.

    Who paused it is noted for those who wait: the user and the machine of this process.
    """
    found: Any = at.redis.time()
    if at.redis.sadd(at.keys.paused(), member) != 1:
        return False
    # The release before leaves the note where it resumes: it is written anew.
    note = f"{int(found[0]) * 1000 + int(found[1]) // 1000} {operator()}"
    at.redis.hset(at.keys.pauses(), member, note)
    return True


def operator() -> str:
    """Return who runs this process, as `user@machine`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def resume(at: Installation, member: str) -> ResumeOutcome:
    """Start jobs of the member again; open the gates of a pool that its provider had shut."""
    return run(at.redis, resume_command(at.keys, member))


def paused_members(at: Installation) -> list[str]:
    """Return all that is paused, as the scripts name it."""
    found: Any = at.redis.smembers(at.keys.paused())
    return sorted(member.decode() for member in found)


def pauses(at: Installation) -> dict[str, Pause]:
    """Return all that is paused, as the scripts name it, with who paused it and when."""
    notes = fields_of(_hash(at, at.keys.pauses()))
    return {member: pause_of(notes.get(member, "")) for member in paused_members(at)}


def reload(at: Installation) -> int:
    """Make all processes read the catalog's file again, within 1 s; return the new version.

    This process read and checked the file when it opened the installation.
    """
    in_force: Mapping[str, str] = fields_of(_hash(at, at.keys.limits()))

    def keys_of(provider: ProviderConfig) -> int:
        # The workers have the keys, the operator's shell may not: use the number they recorded.
        recorded = limits.parsed(in_force.get(f"keys/{provider.name}", "")).get("n")
        here = sum(settings.secret(name) is not None for name in provider.api_key_env)
        return int(recorded or here)

    limits.write(at.redis, at.keys, at.catalog, keys_of, reload=True)
    run(at.redis, resume_command(at.keys))
    found: Any = at.redis.get(at.keys.version())
    return int(found or 0)


def _hash(at: Installation, key: str) -> Any:
    return at.redis.hgetall(key)
