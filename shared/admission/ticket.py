"""What the governor must know of a job, written before its message: its ticket; and its grant.

The fetch script reads the ticket and nothing else of a message. Both are texts of fields with `|`
between them; callers' names are percent-encoded, so that none can hold one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from headgate.shared.admission.charge import charge
from headgate.shared.admission.scopes import quoted, unquoted
from headgate.shared.cache.fingerprint import fingerprint
from headgate.shared.cache.ttl import CachePolicy
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model, StaticText
from headgate.shared.cost import tokens
from headgate.shared.cost.upper_bound import upper_bound_pico_usd
from headgate.shared.errors import UnreadableMessage
from headgate.shared.job.envelope import Envelope

FLEX = "~flex"
"""What is added to a pool's name for the flex tier: gates of its own, the same buckets."""

PRIORITY = {"interactive": "i", "standard": "s", "bulk": "b"}


@dataclass(frozen=True, slots=True)
class Ticket:
    """What one attempt of a job will take, and where the job stands in line.

    `rule`: how the vendor counts, `o` for OpenAI, `a` for Anthropic. Tokens are estimates;
    `output_tokens` is a ceiling where the rule is `a`. Times in Unix ms. `cached_as`: the
    fingerprint under which its answer may be kept, or empty. `paid`: its caller's limits were taken
    at submit. `replaceable`: another model may answer. `alone`: never joins an equal request in
    flight. `followed`: it has joined one. `upper_bound_pico_usd`: the most that the attempt can cost;
    None where no price is known. `waits`: for a breaker to close; its tries do not count then.
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

    def encode(self) -> str:
        """As it stands in messages and lines."""
        flags = "".join(
            letter
            for letter, is_set in (
                ("p", self.paid), ("r", self.replaceable), ("n", self.alone), ("f", self.followed),
                ("w", self.waits),
            )
            if is_set
        )  # fmt: skip
        if self.upper_bound_pico_usd is not None:
            flags += f"${self.upper_bound_pico_usd}"
        return (
            f"{self.pool}|{self.model}|{PRIORITY.get(self.priority, 's')}|{quoted(self.tenant)}|"
            f"{quoted(self.user)}|{self.tier}|{self.rule}|{self.input_tokens}|{self.output_tokens}|"
            f"{self.arrival_ms}|{self.deadline_ms}|{self.cached_as}|{flags}"
        )

    @classmethod
    def decode(cls, text: str) -> Ticket:
        """The ticket again; raises UnreadableMessage."""
        try:
            pool, model, letter, tenant, user, tier, rule, *rest = text.split("|")
            held_in, held_out, arrival_ms, deadline_ms, cached_as, flags = rest
            worst = re.search(r"\$(\d+)", flags)
            return cls(
                pool=pool,
                model=model,
                priority={v: k for k, v in PRIORITY.items()}[letter],
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
                upper_bound_pico_usd=int(worst[1]) if worst else None,
                waits="w" in flags,
            )
        except (ValueError, KeyError):
            raise UnreadableMessage("its ticket is not of the form that is known here") from None

    def on(self, other: Ticket) -> Ticket:
        """The ticket of the same job for another model: its place in line and its tier are kept."""
        return replace(other, tier=self.tier, paid=self.paid, arrival_ms=self.arrival_ms)


KEEPING = CachePolicy()
"""Where nobody names the rules of the cache: there are none."""


def ticket_for(
    envelope: Envelope,
    model: Model,
    catalog: Catalog,
    *,
    tier: str = "",
    paid: bool = False,
    input_tokens: int | None = None,
    chain: Sequence[Model | StaticText] = (),
    keeping: CachePolicy = KEEPING,
) -> Ticket:
    """The ticket of this job for an attempt at `model`; `chain`: what else may answer it.

    `keeping`: decides whether its answer may be kept, and so shared.
    """
    request = envelope.request
    dialect = catalog.provider(model).dialect
    if input_tokens is None:
        input_tokens = tokens.input_tokens(request, model)
    held = charge(
        dialect,
        request,
        input_tokens=input_tokens,
        ceiling=tokens.output_ceiling(request.params, model),
    )
    flex = FLEX if request.params.get("service_tier") == "flex" else ""
    last = bool(chain) and chain[-1] == model
    return Ticket(
        pool=model.pool_key + flex,
        model=model.name,
        priority=request.priority,
        tenant=request.tenant,
        user=request.user or "",
        tier=tier,
        rule="a" if dialect == "anthropic" else "o",
        input_tokens=held.input_tokens,
        output_tokens=held.output_tokens,
        arrival_ms=envelope.submitted_at_ms,
        deadline_ms=envelope.deadline_at_ms,
        cached_as=fingerprint(request, model.name) if keeping.keeps(request) else "",
        paid=paid,
        replaceable=len(chain) > 1 and not last,
        alone=not request.share,
        upper_bound_pico_usd=upper_bound_pico_usd(request, model, catalog),
    )
