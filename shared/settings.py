"""The settings, checked and frozen; only this module reads the environment.

Each field is the variable `HEADGATE_<NAME>`; the vendors' variables keep their own names. A `.env`
file in the current folder is read too; the environment overrides it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from headgate.shared import dotenv_file as dotenv
from headgate.shared.dotenv_file import DOTENV
from headgate.shared.errors import SettingError
from headgate.shared.field_faults import remedy_of
from headgate.shared.gateway_settings import GatewaySettings
from headgate.shared.redis_url import masked
from headgate.shared.setting_types import (
    AuditDays,
    DatabaseUrl,
    FunctionName,
    HeaderText,
    HttpUrl,
    KeyPrefix,
    Logins,
    LogLevel,
    PrioritySep,
    PrioritySteps,
    RedisUrl,
    TierSource,
    unknown_setting,
)
from headgate.shared.sub_lists import SubLists
from headgate.shared.webhook_settings import WebhookSettings

__all__ = ["Settings", "environment", "load", "masked", "read", "secret", "variable"]


class Settings(GatewaySettings, WebhookSettings, BaseSettings):
    """All settings in force. The unit of a setting is in its name."""

    model_config = SettingsConfigDict(
        env_prefix="HEADGATE_",
        env_file=DOTENV,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: Any, *others: Any, **named: Any
    ) -> tuple[Any, ...]:
        """Return where values come from; raise SettingError for an argument that is no setting."""
        known = {*cls.model_fields, *map(variable, cls.model_fields)}
        for name, value in init_settings.init_kwargs.items():
            if name not in known:
                raise unknown_setting(name, value, known)
        return init_settings, *others, *named.values()

    home: Path = Field(
        default=Path(".headgate"),
        description="The folder for the embedded server's data, the SQLite file, logs and pid "
        "files (default: .headgate).",
    )
    redis_url: RedisUrl | None = Field(
        default=None,
        description="The URL of the Redis for queues, limits, cache and results (default: an "
        "embedded Valkey in the home).",
    )
    database_url: DatabaseUrl | None = Field(
        default=None,
        description="The URL of the database, postgresql:// or sqlite:/// (default: a SQLite file "
        "in the home).",
    )
    database_timeout_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=3600)] = Field(
        default=20,
        description="The maximum time in seconds to wait for one answer of the database (default: "
        "20).",
    )
    sqlite_shared: bool = Field(
        default=False,
        description="1: use a SQLite file with a Redis of another machine, which no other machine "
        "uses (default: refuse it).",
    )
    key_prefix: KeyPrefix = Field(
        default="",
        description="A prefix for all Redis keys, to share one Redis; it ends with one of : _ . - "
        "(default: none).",
    )
    celery_queue: str = Field(
        default="celery", description="The queue of callbacks that name none (default: celery)."
    )
    celery_priority_steps: PrioritySteps = Field(
        default="0,3,6,9",
        description="The option priority_steps of Celery apps (default: 0,3,6,9, as in Celery).",
    )
    celery_priority_sep: PrioritySep = Field(
        default=r"\x06\x16",
        description=r"The option sep of Celery apps, escaped (default: \x06\x16, as in Celery).",
    )
    catalog: Path | None = Field(
        default=None,
        description="A TOML file that overrides the built-in catalog (default: none).",
    )
    tiers: TierSource = Field(
        default="catalog",
        description="Where the tiers of callers are looked up: catalog, table or module:function "
        "(default: catalog).",
    )
    moderation: FunctionName | None = Field(
        default=None,
        description="Your function that judges moderations, as module:function (default: none).",
    )
    concurrency: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=500,
        description="The maximum number of jobs that one worker process runs at one time "
        "(default: 500).",
    )
    in_flight_mb: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="The maximum size in megabytes of all messages and answers in one worker; it "
        "needs several times as much memory (default: 256).",
    )
    response_mb: Annotated[int, Field(ge=1, le=256)] = Field(
        default=128,
        description="The maximum size in megabytes of one answer, decompressed; the call of a "
        "larger one is closed (default: 128).",
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        default="auto",
        description="The model of requests that name none; auto chooses one for each request "
        "(default: auto).",
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="The max_tokens of requests that set none (default: no limit of ours).",
    )
    temperature: Annotated[float, Field(allow_inf_nan=False, ge=0, le=2)] | None = Field(
        default=None,
        description="The temperature of requests that set none (default: the provider's).",
    )
    timeout_s: Annotated[float, Field(allow_inf_nan=False, gt=0, le=86_400)] = Field(
        default=120,
        description="The maximum time in seconds to wait for an answer, or for the next byte of a "
        "long one, of a model without timeout_s in the catalog (default: 120).",
    )
    lease_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=3600)] = Field(
        default=15,
        description="After so many seconds without a sign of life a worker loses its jobs to "
        "other workers (default: 15).",
    )
    standard_wait_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)] = Field(
        default=300,
        description="The handicap of standard jobs in seconds: after this wait they go ahead of "
        "newer interactive jobs (default: 300).",
    )
    bulk_wait_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)] = Field(
        default=900,
        description="The handicap of bulk jobs in seconds: after this wait they go ahead of newer "
        "interactive jobs (default: 900).",
    )
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5,
        description="How many workers may die while they run one job; then the job fails "
        "(default: 5).",
    )
    drain_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)] = Field(
        default=30,
        description="How many seconds running jobs may take to finish after SIGTERM; then they go "
        "back to their queues (default: 30).",
    )
    sweep_s: Annotated[float, Field(allow_inf_nan=False, ge=0.1, le=3600)] = Field(
        default=10,
        description="How often in seconds maintenance looks for jobs that the broker has lost "
        "(default: 10).",
    )
    dead_letters: Annotated[int, Field(ge=1)] = Field(
        default=10_000,
        description="The maximum number of dead letters to keep; the oldest are dropped first "
        "(default: 10000).",
    )
    dead_mb: Annotated[int, Field(ge=1)] = Field(
        default=1024,
        description="The maximum size in megabytes of all dead letters; the oldest are dropped "
        "first (default: 1024).",
    )
    result_ttl_s: Annotated[int, Field(ge=1)] = Field(
        default=86_400,
        description="How many seconds results stay in Redis; the database keeps them for longer "
        "(default: 86400, which is a day).",
    )
    results_mb: Annotated[int, Field(ge=1)] = Field(
        default=1024,
        description="The maximum size in megabytes of all results in Redis; the oldest are "
        "evicted first, and read from the database (default: 1024).",
    )
    keep_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        default=30,
        description="How many days ended jobs and batches are kept, with prompts and answers; 0 is "
        "for ever (default: 30).",
    )
    keep_audit_days: AuditDays = Field(
        default=400,
        description="How many days audit lines and attempts are kept, and at least as long as "
        "jobs; 0 is for ever (default: 400).",
    )
    cache_ttl_s: Annotated[int, Field(ge=1)] = Field(
        default=1800,
        description="How many seconds a cached answer serves equal requests, unless a rule or the "
        "request says otherwise (default: 1800).",
    )
    cache_mb: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="The maximum size in megabytes of all cached answers; the least recently used "
        "are evicted first (default: 256).",
    )
    cache_temperature: Annotated[float, Field(allow_inf_nan=False, ge=0, le=2)] = Field(
        default=0.7,
        description="Answers to requests above this temperature and without a seed are cached "
        "only on request (default: 0.7).",
    )
    share_cost: Literal["leader", "even"] = Field(
        default="leader",
        description="Who pays for a call that equal requests share: leader, or even for all the "
        "same (default: leader).",
    )
    breaker_failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5,
        description="How many failures in a row open a model's circuit breaker; 0 turns breakers "
        "off. It takes more where calls fail now and then (default: 5).",
    )
    breaker_share: Annotated[float, Field(allow_inf_nan=False, gt=0, le=1)] = Field(
        default=0.5,
        description="The share of failed calls among at least 20 within a minute that also opens "
        "it (default: 0.5).",
    )
    breaker_open_s: Annotated[float, Field(allow_inf_nan=False, ge=0.1, le=3600)] = Field(
        default=60,
        description="How many seconds a circuit breaker stays open before one probe is sent "
        "(default: 60).",
    )
    healthy_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=86_400)] = Field(
        default=300,
        description="After so many seconds without a failure a model counts as healthy again "
        "(default: 300).",
    )
    retry_share: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10)] = Field(
        default=0.2,
        description="How many retries a provider's first calls earn: 0.2 is one for every five "
        "(default: 0.2).",
    )
    retry_per_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10_000)] = Field(
        default=10,
        description="How many retries a second each worker may make at one provider besides "
        "(default: 10).",
    )
    retry_after_max_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=86_400)] = Field(
        default=3600,
        description="The longest wait in seconds that a provider may ask for; after it one call "
        "tests whether the provider answers again (default: 3600).",
    )
    alert_url: HttpUrl | None = Field(
        default=None,
        description="A webhook that is called when 80, 90 and 100 % of a budget are spent "
        "(default: none).",
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5,
        description="The maximum number of attempts of one job at one model (default: 5).",
    )
    max_attempts_per_job: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=8,
        description="The maximum number of attempts of one job at all models of its fallback "
        "chain together (default: 8).",
    )
    backoff_s: Annotated[float, Field(allow_inf_nan=False, gt=0)] = Field(
        default=1,
        description="The maximum first wait in seconds before a retry; it doubles with each retry "
        "(default: 1).",
    )
    backoff_max_s: Annotated[float, Field(allow_inf_nan=False, gt=0)] = Field(
        default=30,
        description="The maximum wait in seconds before a retry (default: 30).",
    )
    under_reserve: Annotated[float, Field(allow_inf_nan=False, ge=0.001, le=0.5)] = Field(
        default=0.05,
        description="The accepted share of answers that take more tokens than were reserved for "
        "them (default: 0.05).",
    )
    simulator_url: HttpUrl | None = Field(
        default=None,
        description="The URL of a simulated provider that replaces all real providers (default: "
        "none).",
    )
    log_level: LogLevel = Field(
        default="INFO",
        description="The log level: DEBUG, INFO, WARNING or ERROR (default: INFO).",
    )
    log_format: Literal["text", "json"] = Field(
        default="text",
        description="The form of a worker's log lines: text, or json for one JSON object a line "
        "(default: text).",
    )
    openai_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="OPENAI_API_KEY",
        description="The API key of OpenAI (default: none).",
    )
    openai_base_url: HttpUrl | None = Field(
        default=None,
        validation_alias="OPENAI_BASE_URL",
        description="Another base URL for OpenAI (default: https://api.openai.com/v1).",
    )
    openai_org_id: HeaderText = Field(
        default=None,
        validation_alias="OPENAI_ORG_ID",
        description="The organisation at OpenAI (default: none).",
    )
    openai_project_id: HeaderText = Field(
        default=None,
        validation_alias="OPENAI_PROJECT_ID",
        description="The project at OpenAI (default: none).",
    )
    anthropic_api_key: SecretStr | None = Field(
        default=None,
        validation_alias="ANTHROPIC_API_KEY",
        description="The API key of Anthropic (default: none).",
    )
    anthropic_base_url: HttpUrl | None = Field(
        default=None,
        validation_alias="ANTHROPIC_BASE_URL",
        description="Another base URL for Anthropic (default: https://api.anthropic.com).",
    )
    flower_basic_auth: Logins | None = Field(
        default=None,
        validation_alias="FLOWER_BASIC_AUTH",
        description="The logins of Flower as user:password, with commas between several (default: "
        "none).",
    )

    @property
    def home_path(self) -> Path:
        """The home as an absolute path."""
        return Path(self.home).expanduser().absolute()

    @property
    def sub_lists(self) -> SubLists:
        """Where messages wait that were sent with a `priority` of Celery's."""
        return SubLists.read(self.celery_priority_sep, self.celery_priority_steps)


def variable(field: str) -> str:
    """Return the environment variable of a field of Settings."""
    name = field.upper()
    return name if name.startswith(("OPENAI_", "ANTHROPIC_", "FLOWER_")) else f"HEADGATE_{name}"


def read(name: str) -> tuple[str | None, str]:
    """Return a variable's value and its source: `environment`, `.env` or `default`.

    An empty value counts as not set, because compose files write it so.
    """
    for source, place in (("environment", os.environ), (DOTENV, dotenv.read())):
        if value := place.get(name):
            return value, source
    return None, "default"


def secret(name: str) -> SecretStr | None:
    """Return the secret in a variable, as `api_key_env` names one, without blanks around it."""
    value = (read(name)[0] or "").strip()
    return SecretStr(value) if value else None


def load(**given: str) -> Settings:
    """Return the settings in force; raise SettingError with variable, value and remedy.

    `given`: settings that override the environment.
    """
    known = {variable(field) for field in Settings.model_fields}
    for name, value in {**dotenv.read(), **os.environ}.items():
        if name.startswith("HEADGATE_") and name not in known:
            raise unknown_setting(name, value, known)
    try:
        return Settings(**given)  # type: ignore[arg-type]  # checked by pydantic
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]).lower().removeprefix("headgate_")
        value = "***" if field.endswith(("_key", "_auth")) else masked(str(first["input"]))
        raise SettingError(variable(field), value, remedy_of(first)) from None


def environment() -> dict[str, str]:
    """Return a copy of the whole environment, to start a child process with."""
    return dict(os.environ)
