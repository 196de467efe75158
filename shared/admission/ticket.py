"""The ticket: what an attempt of a job will take, and the job's place in the waiting queue.

It stands before the message, and the fetch script reads nothing else of a message. It is a text of
fields with `|` between them. Callers' names are percent-encoded, so that no name holds a `|`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headgate.shared.admission.charge import Charge, charge
from headgate.shared.admission.scopes import quoted, unquoted
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.cache.ttl import CachePolicy
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.cost import tokens
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.envelope import Envelope
from headgate.shared.job.request import KEY_ID, Request

FLEX = "~flex"
"""Added to a pool's name for the flex tier, which has gates of its own and the pool's buckets."""

PRIORITY = {"interactive": "i", "standard": "s", "bulk": "b"}
_PRIORITY_OF = {letter: priority for priority, letter in PRIORITY.items()}


@dataclass(slots=True)  # never changed; frozen, its 21 fields would take 2 us more
class Ticket:
    """What one attempt of a job will take, and the job's place in the waiting queue.

    * `rule`: how the vendor counts tokens, `o` for OpenAI's rule, `a` for Anthropic's.
    * `input_tokens` and `output_tokens` are estimates; with the rule `a` the latter is a ceiling.
    * `arrival_ms` and `deadline_ms` are Unix ms.
    * `cached_as`: the fingerprint under which the answer may be kept, or empty.
    * `paid`: the caller's limits were taken at submit.
    * `replaceable`: another model may answer.
    * `alone`: the job never joins an equal request in flight; `followed`: it has joined one.
    * `upper_bound_pico_usd`: the most that the attempt can cost, None if no price is known.
    * `waits`: the job waits for a breaker to close; its tries do not count meanwhile.
    * `step`: the priority with which Celery sent it, from 0 (most urgent) to 9.
    * `key_id`: the gateway key that the job came with, or empty.
    * `pinned_key`: the only key of the provider that serves the job, as buckets name it
      (`key1`), or empty. Workers know it, producers do not.
    * `variant_of`: the model of the catalog of which `model` is a snapshot or a fine-tune,
      or empty. The limits of a tier for that model count, too.
    """

    pool: str
    model: str
    priority: str
    tenant: str
    user: str
    tier: str
    rule: Literal["o", "a"]
    input_tokens: int
    output_tokens: int
    arrival_ms: int
    deadline_ms: int
    cached_as: str = ""
    paid: bool = False
    replaceable: bool = False
    alone: bool = False
    followed: bool = False
    upper_bound_pico_usd: int | None = None
    waits: bool = False
    variant_of: str = ""
    step: int = 0
    key_id: str = ""
    pinned_key: str = ""

    def encode(self) -> str:
        """Return the ticket as text, as messages and waiting queues hold it."""
        flags = str(self.step or "") + "".join(
            letter
            for letter, is_set in (
                ("p", self.paid), ("r", self.replaceable), ("n", self.alone), ("f", self.followed),
                ("w", self.waits),
            )
            if is_set
        )  # fmt: skip
        if self.variant_of:  # capital digits, so that none of them is a flag
            flags += f"~{self.variant_of.encode().hex().upper()}"
        if self.key_id:
            flags += f"@{self.key_id.removeprefix(KEY_ID).upper()}"
        if self.pinned_key:
            flags += f"%{self.pinned_key.removeprefix('key')}"
        if self.upper_bound_pico_usd is not None:
            flags += f"${self.upper_bound_pico_usd}"
        return (
            f"{self.pool}|{self.model}|{PRIORITY.get(self.priority, 's')}|{quoted(self.tenant)}|"
            f"{quoted(self.user)}|{self.tier}|{self.rule}|{self.input_tokens}|{self.output_tokens}|"
            f"{self.arrival_ms}|{self.deadline_ms}|{self.cached_as}|{flags}"
        )

    @classmethod
    def decode(cls, text: str) -> Ticket:
        """Return the ticket from its text; raises UnreadableMessage."""
        try:
            pool, model, letter, tenant, user, tier, rule, *rest = text.split("|")
            held_in, held_out, arrival_ms, deadline_ms, cached_as, flags = rest
            bound = re.search(r"\$(\d+)", flags)
            listed = re.search(r"~([0-9A-F]+)", flags)
            key = re.search(r"@([0-9A-F]+)", flags)
            pinned = re.search(r"%(\d+)", flags)
            return cls(
                pool=pool,
                model=model,
                priority=_PRIORITY_OF[letter],
                tenant=unquoted(tenant),
                user=unquoted(user),
                tier=tier,
                rule="a" if rule == "a" else "o",
                input_tokens=int(held_in),
                output_tokens=int(held_out),
                arrival_ms=int(arrival_ms),
                deadline_ms=int(deadline_ms),
                cached_as=cached_as,
                paid="p" in flags,
                replaceable="r" in flags,
                alone="n" in flags,
                followed="f" in flags,
                upper_bound_pico_usd=int(bound[1]) if bound else None,
                waits="w" in flags,
                variant_of=bytes.fromhex(listed[1]).decode() if listed else "",
                step=int(flags[0]) if flags[:1].isdigit() else 0,
                key_id=f"{KEY_ID}{key[1].lower()}" if key else "",
                pinned_key=f"key{pinned[1]}" if pinned else "",
            )
        except (ValueError, KeyError):
            raise UnreadableMessage("its ticket has a form that is not known here") from None


NO_CACHE_RULES = CachePolicy()
"""The cache policy of a catalog without cache rules, with the default settings."""


def ticket_for(
    envelope: Envelope,
    model: Model,
    catalog: Catalog,
    *,
    tier: str = "",
    paid: bool = False,
    input_tokens: int | None = None,
    chain: Sequence[Model | StaticText] = (),
    cache_policy: CachePolicy = NO_CACHE_RULES,
) -> Ticket:
    """Return the ticket of this job for an attempt at `model`.

    `input_tokens` saves the estimate if it is known already. `chain` has all models that may
    answer. `cache_policy` decides whether the answer may be kept, and so be shared.
    """
    request = envelope.request
    dialect = catalog.provider(model).dialect
    held = _charge_of(request, model, dialect, input_tokens)
    return Ticket(
        pool=_pool_of(request, model),
        model=model.name,
        priority=request.priority,
        tenant=request.tenant,
        user=request.user or "",
        tier=tier,
        rule="a" if dialect == "anthropic" else "o",
        input_tokens=held.input_tokens,
        output_tokens=held.output_tokens,
        arrival_ms=envelope.submitted_at_ms,
        deadline_ms=envelope.waits_until_ms,
        cached_as=_cached_as(envelope, model, cache_policy),
        paid=paid,
        replaceable=len(chain) > 1 and chain[-1] is not model,
        alone=not request.share,
        upper_bound_pico_usd=upper_bound_pico_usd(request, model, catalog),
        variant_of=model.variant_of,
        step=envelope.step,
        key_id=request.key_id or "",
    )


def _charge_of(request: Request, model: Model, dialect: str, input_tokens: int | None) -> Charge:
    if input_tokens is None:
        input_tokens = tokens.input_tokens(request, model)
    ceiling = tokens.output_ceiling(request.asked_tokens, model)
    return charge(dialect, request, input_tokens=input_tokens, ceiling=ceiling)


def _cached_as(envelope: Envelope, model: Model, policy: CachePolicy) -> str:
    request = envelope.request
    return fingerprint(request, model.name, envelope.sample) if policy.keeps(request) else ""


def _pool_of(request: Request, model: Model) -> str:
    return model.pool_key + (FLEX if request.params.get("service_tier") == "flex" else "")
