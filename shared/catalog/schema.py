"""The form of a catalog file: the keys of each table, with their types and ranges.

The head of `catalog.toml` explains each key. Everything here is frozen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from headgate.shared.job.request import AnswerKind

STATIC = "static:"
#: Defaults of a budget: the shares at which bulk jobs stop and all jobs stop, the shares at which
#: alerts are sent, and what happens at the first of them.
SOFT, HARD, ALERTS, WAIT = 1.0, 1.2, (0.8, 0.9, 1.0), "wait"
#: Built-in classes: a worker serves their queues even if the catalog has no model of the class.
CLASSES = ("fast", "smart", "reasoning", "embedding")

#: How a stream tells its usage: if `stream_options` ask for it, always, or never.
StreamUsage = Literal["option", "always", "never"]
Dialect = Literal["openai", "anthropic"]
Capability = Literal[
    "vision", "tools", "json", "reasoning", "temperature", "embeddings", "moderation"
]


def _money(value: object) -> Decimal:
    """Return USD per million tokens, exactly; six decimals of it are 1e-12 USD a token."""
    if not isinstance(value, str):
        raise ValueError(f'write it as a string, such as "{1 if value is True else value}"')
    try:
        amount = Decimal(value)
    except InvalidOperation:
        amount = Decimal(-1)
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -6 or not 0 <= amount <= 1_000_000:
        raise ValueError(
            "give USD per million tokens, 0 to 1000000, at most six digits after the point"
        )
    return amount


def _budget_usd(value: object) -> str:
    """Return USD as the user wrote it: scripts read budgets from such a text."""
    if not isinstance(value, str):
        raise ValueError(f'write it as a string, such as "{10 if value is True else value}"')
    if not re.fullmatch(r"[0-9]{1,7}(\.[0-9]{1,6})?", value) or Decimal(value) > 1_000_000:
        raise ValueError("give USD, 0 to 1000000, at most six digits after the point")
    return value


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _web_address(value: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]+\S*", value):
        raise ValueError("give an address that starts with https:// or http://")
    return value.rstrip("/")


def _factor(value: object) -> Decimal:
    """Return the exact factor by which a price is multiplied."""
    try:
        factor = Decimal(value) if isinstance(value, str) else None
    except InvalidOperation:
        factor = None
    if factor is None or not (factor.is_finite() and 0 <= factor <= 100):
        raise ValueError('write it as a string from "0" to "100", such as "0.5"')
    return factor


Money = Annotated[Decimal, BeforeValidator(_money)]
Factor = Annotated[Decimal, BeforeValidator(_factor)]
Usd = Annotated[str, BeforeValidator(_budget_usd)]
Share = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000_000)]
Tokens = Annotated[int, Field(ge=1, le=100_000_000)]
#: At most a million calls a second: more is a typing error.
Calls = Annotated[int, Field(ge=1, le=100_000_000)]
AtOnce = Annotated[int, Field(ge=1, le=1_000_000)]
Burst = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=1_000)]
#: Capitals only: an API key written here by mistake is refused, not taken for a variable's name.
Variable = Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,63}$")]
#: A class becomes part of a queue's name.
ClassName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
Named = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$")]
#: A tenant, or tenant/user: two names of a request and the slash.
Caller = Annotated[str, Field(min_length=1, max_length=257, pattern=r"^[^\x00]*$")]


class CatalogModel(BaseModel):
    """The base of all tables: refuses unknown keys, wrong types and changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StaticText(CatalogModel):
    """A fixed answer at the end of a fallback chain."""

    text: str


class Limits(CatalogModel):
    """Requests a minute, tokens a minute, requests a day; None does not bind."""

    rpm: Calls | None = None
    tpm: Count | None = None
    rpd: Count | None = None


class CallerLimits(Limits):
    """Limits of one caller; `concurrent` is the number of requests under way."""

    concurrent: AtOnce | None = None


class WideLimits(CallerLimits):
    """Limits over many callers; a bucket holds at most `burst_s` seconds of its rate."""

    input_tpm: Count | None = None
    output_tpm: Count | None = None
    burst_s: Burst | None = None


class ProviderConfig(CatalogModel):
    """Where models are served, and in which dialect. Without `api_key_env` no key is sent.

    `limits` hold for all pools of one key together. `stream_usage` is None for servers that nobody
    knows; Anthropic's dialect always tells it. `factors` are the prices of service tiers
    relative to the standard one, by the tier's name in the vendor's replies. The factor `us` is for
    replies that were computed in the US only. `responses`: it also has OpenAI's `POST /responses`.
    """

    name: str
    dialect: Dialect
    base_url: Annotated[str, AfterValidator(_web_address)]
    api_key_env: Annotated[
        tuple[Variable, ...], BeforeValidator(_one_or_many), Field(strict=False)
    ] = ()
    api_key_optional: bool = False
    limits: WideLimits = WideLimits()
    stream_usage: StreamUsage | None = None
    responses: bool = False
    factors: Mapping[str, Factor] = {}

    @property
    def streams_whole(self) -> bool:
        """Whether a stream is known to bring all of an answer, with its usage."""
        known = self.stream_usage or ("always" if self.dialect == "anthropic" else "never")
        return known != "never"


class Model(CatalogModel):
    """One language model; the head of `catalog.toml` explains each key."""

    name: Named
    provider: str
    provider_name: Text = Field(default_factory=lambda known: str(known["name"]))
    model_class: ClassName = Field(alias="class")
    pool: Named = Field(default_factory=lambda known: str(known["name"]))
    context_tokens: Tokens
    max_output_tokens: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    capabilities: Annotated[frozenset[Capability], Field(strict=False)] = frozenset()
    fallback: Annotated[tuple[str, ...], Field(strict=False)] = ()
    timeout_s: Seconds | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] | None = None
    backoff_s: Seconds | None = None
    backoff_max_s: Seconds | None = None
    quality: Annotated[int, Field(ge=1, le=10)] | None = None
    tokens_per_s: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)] | None = None
    source: Text
    checked: date

    # Read some ten times for each job. A cached property is a plain attribute, and costs a tenth of
    # one of pydantic's private attributes.

    @cached_property
    def dialect(self) -> Dialect:
        """The dialect of its provider, as the catalog has set it."""
        return "openai"

    @cached_property
    def has_responses(self) -> bool:
        """Whether its provider has OpenAI's `POST /responses`, as the catalog has set it."""
        return False

    @cached_property
    def variant_of(self) -> str:
        """The model that the catalog lists, if this is a snapshot or a fine-tune of it; or empty.

        The limits of a tier for that model hold for this one, too.
        """
        return ""

    def served_by(self, provider: ProviderConfig) -> Model:
        """Set what it has of its provider; the catalog does so once."""
        self.__dict__["dialect"] = provider.dialect
        self.__dict__["has_responses"] = provider.responses
        return self

    def variant(self, name: str) -> Model:
        """Return its snapshot or fine-tune of this name."""
        found = self.model_copy(update={"name": name, "provider_name": name})
        found.__dict__["variant_of"] = self.name
        return found

    @property
    def embeds(self) -> bool:
        """Whether this is an embedding model, which returns vectors, not text."""
        return "embeddings" in self.capabilities

    @property
    def answer_kind(self) -> AnswerKind:
        """What the model answers with: text, embeddings, or the verdicts of a moderation."""
        if self.embeds:
            return "embeddings"
        return "moderation" if "moderation" in self.capabilities else "text"

    @property
    def pool_key(self) -> str:
        """The pool that its limits are counted on: provider/pool."""
        return f"{self.provider}/{self.pool}"


class Pool(WideLimits):
    """A pool: the models that a provider counts one limit for.

    `ramp_from`: above so many tokens a minute use grows by at most half in 15 minutes.
    """

    key: str
    ramp_from: Count | Literal["off"] | None = None


class Tier(CallerLimits):
    """Limits of each user of the tier: over all models, and in `models` lower ones for some.

    `lockout_after` refusals within a minute lock the user out for `lockout_s`; 0 never does.
    """

    name: Named
    lockout_s: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] = 0
    lockout_after: Annotated[int, Field(ge=1, le=1_000)] = 3
    models: Mapping[str, Limits] = {}


class Budget(CatalogModel):
    """The USD that may be spent in a UTC day and a UTC month; None does not bind.

    `soft`, `hard` and `alerts` are shares of it. From `soft` on bulk jobs wait, or go to the model
    that `at_soft` names. At `hard` nothing more is spent. At each of `alerts` an alert is sent.
    None means the default: SOFT, HARD, ALERTS and WAIT.
    """

    usd_per_day: Usd | None = None
    usd_per_month: Usd | None = None
    soft: Share | None = None
    hard: Share | None = None
    alerts: Annotated[tuple[Share, ...], Field(strict=False, max_length=10)] | None = None
    at_soft: Named | None = None


class Tenant(CallerLimits):
    """What holds for a tenant as a whole; `weight` is its share of a pool with too little left."""

    name: Caller
    weight: Annotated[float, Field(ge=0.01, le=1_000, allow_inf_nan=False)] | None = None
    tier: str | None = None
    budget: Budget = Budget()


class User(CallerLimits):
    """What holds for one user of a tenant."""

    name: Caller
    tier: str | None = None
    budget: Budget = Budget()


class TierPrice(CatalogModel):
    """USD per million tokens.

    A kind of input without a price costs as much as `input`, and `cache_write_1h` without a price
    as much as `cache_write`.
    """

    input: Money
    cached_input: Money | None = None
    cache_write: Money | None = None
    cache_write_1h: Money | None = None
    output: Money = Decimal(0)


class Price(CatalogModel):
    """USD per million tokens, overriding genai-prices; without `input` genai-prices still holds.

    `tiers` are the prices of the vendor's service tiers, as a factor or in full.
    """

    input: Money | None = None
    cached_input: Money | None = None
    cache_write: Money | None = None
    cache_write_1h: Money | None = None
    output: Money | None = None
    tiers: Mapping[str, TierPrice | Factor] = {}

    @model_validator(mode="after")
    def _require_input(self) -> Price:
        if self.input is None and self.model_fields_set - {"tiers"}:
            raise ValueError("give input too; parts without a price cost as much as input")
        return self

    @property
    def standard(self) -> TierPrice | None:
        """The prices of the standard tier; None if they are not given."""
        given = self.model_dump(exclude={"tiers"}, exclude_none=True)
        return TierPrice.model_construct(**given) if self.input is not None else None


MAX_TTL_S = 30 * 86_400
"""The same maximum as a caller's `cache.ttl_s`."""


def _keyword(value: str) -> str:
    words = re.findall(r"\w+", value)
    if not words or "*" in value[:-1] or "^" in value[1:]:
        raise ValueError("give words; put ^ only before the first and * only after the last")
    if value.endswith("*") and (not re.search(r"\w\*$", value) or len("".join(words)) < 3):
        raise ValueError("give at least three letters, with * directly after the last")
    return value


class CacheRule(CatalogModel):
    """How many seconds to keep answers to requests with one of these words or templates.

    0 keeps none.
    """

    ttl_s: Annotated[int, Field(ge=0, le=MAX_TTL_S)]
    keywords: Annotated[
        tuple[Annotated[Text, AfterValidator(_keyword)], ...],
        BeforeValidator(_one_or_many),
        Field(strict=False),
    ] = ()
    templates: Annotated[tuple[Text, ...], BeforeValidator(_one_or_many), Field(strict=False)] = ()


class CacheRules(CatalogModel):
    """The cache rules by name."""

    rules: Mapping[Named, CacheRule] = {}
