"""The bill of an answer: what its usage costs as the provider reported it, and what counts. Pure.

A provider may report a usage that cannot be true. The ledger records it as reported, with a note.
Budgets and limits count the upper bound instead, so one wrong number locks out nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal

from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import Model
from headgate.shared.cost.price import price, to_pico, usd_text
from headgate.shared.cost.rates import BillingTerms
from headgate.shared.cost.tokens import answers
from headgate.shared.cost.upper_bound import (
    input_bound,
    output_bound,
    runs_vendor_tools,
    sent_bound,
)
from headgate.shared.job.request import Request
from headgate.shared.job.result import Reply, Usage

IMPLAUSIBLE = "implausible_usage"
"""The code of an attempt in the ledger whose usage cannot be true."""

TIMES = 2
"""A usage up to this many times the catalog's figures is believed: the catalog may be outdated."""

MOST_TURNS = 100
"""A vendor that runs tools itself counts the prompt again in each of its turns. Neither vendor
publishes a maximum; Anthropic pauses a turn after 10 by default."""

MOST_SEARCHES = 1_000
"""The most web searches of one answer that are believed. No vendor publishes a maximum."""


@dataclass(frozen=True, slots=True)
class AnswerBill:
    """What one answer costs.

    `cost_pico_usd`: as reported; None if no price is known, or if it exceeds 64 bits. `counted` and
    `counted_pico_usd`: what budgets and limits count. `note`: why they count something else than
    what was reported; None if they do not.
    """

    cost_pico_usd: int | None
    counted: Usage
    counted_pico_usd: int | None
    note: str | None = None


def bill_of(
    reply: Reply, terms: BillingTerms, request: Request, model: Model, catalog: Catalog
) -> AnswerBill:
    """Return the bill of this reply to the request."""
    told = _cost(reply.usage, terms, model, catalog)
    counted, counted_terms, doubts = _believed(reply, terms, request, model)
    if not doubts:
        return AnswerBill(told, reply.usage, told)
    cost = _cost(counted, counted_terms, model, catalog)
    note = f"the provider reported {' and '.join(doubts)}"
    if cost is not None:
        note += f"; budgets count {usd_text(cost)} USD"
    return AnswerBill(told, counted, cost, note)


def counted_in(note: str | None) -> int:
    """Return the pico-USD that budgets count for an attempt with this note; 0 if it names none."""
    found = re.search(r"; budgets count ([0-9.]+) USD$", note or "")
    return to_pico(Decimal(found[1])) if found else 0


def _cost(usage: Usage, terms: BillingTerms, model: Model, catalog: Catalog) -> int | None:
    cost = price(usage, model, catalog, terms=terms)
    try:
        return None if cost is None else to_pico(cost)
    except ValueError:  # over 9.2 million USD: no column holds it
        return None


def _believed(
    reply: Reply, terms: BillingTerms, request: Request, model: Model
) -> tuple[Usage, BillingTerms, list[str]]:
    """Return the usage and terms with each count that cannot be true at its bound, and words."""
    usage, doubts = reply.usage, list[str]()
    turns = MOST_TURNS if runs_vendor_tools(request.params) else 1
    if usage.input_tokens > TIMES * turns * model.context_tokens and (
        usage.input_tokens > turns * sent_bound(request, model)
    ):
        bound = turns * input_bound(request, model)
        doubts.append(f"{usage.input_tokens} input tokens, and the request holds at most {bound}")
        usage = replace(
            usage,
            input_tokens=bound,
            cached_input_tokens=min(usage.cached_input_tokens, bound),
            cache_write_tokens=min(usage.cache_write_tokens, bound),
        )
    figure = answers(request.params) * (model.max_output_tokens or model.context_tokens)
    if usage.output_tokens > TIMES * turns * figure and usage.output_tokens > _received_bytes(
        reply
    ):
        bound = turns * output_bound(request, model)
        doubts.append(f"{usage.output_tokens} output tokens, and an answer has at most {bound}")
        thought = min(usage.reasoning_tokens, bound)
        usage = replace(usage, output_tokens=bound, reasoning_tokens=thought)
    if terms.searches > MOST_SEARCHES:
        bound = MOST_SEARCHES if turns > 1 else 0
        doubts.append(f"{terms.searches} web searches, and at most {bound} are believed")
        terms = replace(terms, searches=bound)
    return usage, terms, doubts


def _received_bytes(reply: Reply) -> int:
    """Return the bytes of the answer: a token has at least one, except those of reasoning."""
    text = f"{reply.content or ''}{reply.tool_calls or ''}"
    return len(text.encode("utf-8", "surrogatepass"))
