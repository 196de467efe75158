"""The fields of a request as a type, so that editors complete them and type checkers check them.

A test holds RequestFields against `headgate.shared.job.request.Request`: names and types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Literal, TypedDict

from headgate.shared.job.request import AskedForm, CacheWish, Kind, Pin, Priority, Request


class CacheFields(TypedDict, total=False):
    """How to use the cache for one request.

    `mode`: "exact" reads and keeps the answer, "off" does neither. Without a mode the settings and
    the catalog decide. `ttl_s`: how many seconds to keep the answer, at most 30 days.
    """

    mode: Literal["off", "exact"] | None
    ttl_s: int | None


class PinFields(TypedDict):
    """What binds a job to one key of one provider; `key` is its digest, not the key."""

    provider: str
    key: str


class RequestFields(TypedDict, total=False):
    """The fields of a request, as `submit`, `route` and `submit_many` take them.

    Give exactly one of `prompt`, `messages`, `input` and `template`. All other fields are optional.

    prompt: the text of one user message.
    messages: a conversation in the form of `dialect`.
    input: a text or a list of texts to embed, or the same as tokens. In the dialect "responses" it
        is the input of OpenAI's Responses: a text or a list of items. In the dialect "moderations"
        it is a text, a list of texts, or a list of parts to judge.
    instructions: the system prompt of a request in the form of Responses, which it makes it.
    template, variables: a prompt of the catalog by name, and the values to put into it.
    model: a name from the catalog, or "auto". Default: HEADGATE_MODEL.
    params: parameters in the vendor's own form, sent as they are: max_tokens, tools, user, ...
    dialect: whose form messages and params have: "openai" (default) or "anthropic". "responses" is
        that of OpenAI's Responses: `input`, and the other fields of its body as `params`.
        "moderations" makes it a moderation.
    priority: "interactive", "standard" (default) or "bulk".
    tenant, user: whose request it is; usage, limits and budgets are counted by them. Never sent.
    tier: the tier of the caller. Default: as HEADGATE_TIERS says.
    key_id: the gateway key whose limits count, too. The gateway sets it.
    pinned: the provider and key that alone may answer, as an attempt names them. The gateway sets
        it for a request that goes on from what a vendor has on record.
    deadline_s: seconds from now after which the answer is worthless. Default 86,400.
    cache: whether and how long to keep the answer; "off" and "exact" stand for their mode.
    fallback: whether other models may answer (default: yes), or a list of them in order.
    same_provider: only fall back to models of the same provider.
    share: whether an equal request under way may give its answer (default: yes).
    stream: make the pieces of the answer readable by `stream` while it is made.
    events: with stream, make the vendor's events readable, too, as the gateway does.
    task: with model="auto", what the request is about.
    prefer: with model="auto", what matters: "cost" (default), "speed" or "quality".
    max_usd_per_million: with model="auto", the highest price of a million tokens, in USD.
    max_cost_usd: the most that the job may cost, in USD.
    idempotency_key: the same key and request within a day is the same job.
    on_limit: at a limit of the caller "wait" (default), or "refuse": raise TierLimit at once.
    on_unknown: "retry" (default) or "fail" after a crash that may have lost a billed answer.
    webhook_url: the URL to call when the job has ended. Default: the tenant's, if it has one.
    metadata: what you want to find again in the result. Never sent.
    """

    prompt: str | None
    messages: list[dict[str, Any]] | None
    input: str | list[str] | list[int] | list[list[int]] | list[dict[str, Any]] | None
    instructions: str | None
    model: str | None
    params: dict[str, Any]
    dialect: AskedForm
    priority: Priority
    tenant: str
    user: str | None
    tier: str | None
    key_id: str | None
    pinned: PinFields | Pin | None
    deadline_s: float
    cache: CacheFields | CacheWish | Literal["off", "exact"]
    fallback: bool | list[str]
    same_provider: bool
    share: bool
    stream: bool
    events: bool
    task: Kind | None
    prefer: Literal["speed", "quality", "cost"]
    max_usd_per_million: str | int | float | Decimal | None
    max_cost_usd: str | int | float | Decimal | None
    template: str | None
    variables: Mapping[str, str | int | float | bool]
    idempotency_key: str | None
    on_limit: Literal["wait", "refuse"]
    on_unknown: Literal["retry", "fail"]
    webhook_url: str | None
    metadata: dict[str, Any]


NO_CACHE: RequestFields = {"cache": {"mode": "off"}, "share": False}
"""The fields with which a request is a call of its own: no cached answer, no shared call."""

RequestForm = str | RequestFields | Request
"""A request as `submit_many` takes it; a text is a prompt."""

Requests = Iterable[RequestForm]
