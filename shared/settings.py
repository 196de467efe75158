"""The settings: the only reader of the environment. Frozen, checked, secrets masked.

Each field is the variable `HEADGATE_<NAME>`; the vendors' variables keep their own names. A `.env`
file in the current folder is read too; the environment wins.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from headgate.shared import redis_url as redis_urls
from headgate.shared.errors import SettingError
from headgate.shared.redis_url import masked

__all__ = ["Settings", "environment", "load", "masked", "read", "secret", "variable"]

DOTENV = ".env"

DATABASE_SCHEMES = ("postgresql", "sqlite")


def _redis_url(url: str) -> str:
    redis_urls.read(url)
    return url


def _check_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("the port must be a number from 0 to 65535") from None


def _database_url(url: str) -> str:
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme not in DATABASE_SCHEMES or "://" not in url:
        raise ValueError("start it with postgresql:// or sqlite:///")
    if scheme == "sqlite":
        file = url.partition("://")[2].removeprefix("/").partition("?")[0]
        if not file or file == ":memory:":
            raise ValueError(
                "name a file: workers and commands share it; sqlite:////path/to/file.db"
            )
        if not Path(file).absolute().parent.is_dir():
            raise ValueError(f"the folder {Path(file).absolute().parent} does not exist; make it")
    else:
        _check_port(url)
    if url.partition("://")[0] not in (scheme, "postgresql+psycopg"):
        raise ValueError(f"write {scheme}://; which driver is used is fixed")
    return url


def _key_prefix(prefix: str) -> str:
    # Celery adds `_` to a prefix that ends otherwise, and would not find our results.
    if len(prefix) > 64 or not re.fullmatch(r"([A-Za-z0-9_.:-]*[:_.-])?", prefix):
        raise ValueError(
            "use letters, digits and : _ . - (at most 64), with one of : _ . - at its end"
        )
    return prefix


def _http_url(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise ValueError("give a URL such as https://api.example.com/v1")
    return url.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]


def _tier_source(chosen: str) -> str:
    if chosen not in ("catalog", "table") and not re.fullmatch(r"[\w.]+:\w+", chosen):
        raise ValueError("use catalog, table or module:function")
    return chosen


def _logins(logins: SecretStr) -> SecretStr:
    for login in logins.get_secret_value().split(","):
        user, _, password = login.partition(":")
        if not user.strip() or not password.strip():
            raise ValueError("give user:password, or several with commas between them")
    return logins


class Settings(BaseSettings):
    """All settings in force. Units are in the names; every default is the contract's or ours."""

    model_config = SettingsConfigDict(
        env_prefix="HEADGATE_",
        env_file=DOTENV,
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
    )

    home: Path = Field(
        default=Path(".headgate"),
        description="data of the embedded servers, SQLite, logs, pid files",
    )
    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        default=None,
        description="broker, limits, cache, results; unset: an embedded Valkey in the home",
    )
    database_url: Annotated[str, AfterValidator(_database_url)] | None = Field(
        default=None, description="the record; unset: SQLite in the home"
    )
    database_timeout_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=3600)] = Field(
        default=20, description="longest wait for the database to answer one statement"
    )
    key_prefix: Annotated[str, AfterValidator(_key_prefix)] = Field(
        default="", description="put before every key, to share one Redis; ends in one of : _ . -"
    )
    catalog: Path | None = Field(
        default=None, description="a TOML file laid over the built-in catalog"
    )
    tiers: Annotated[str, AfterValidator(_tier_source)] = Field(
        default="catalog",
        description="who knows the tiers of callers: catalog, table or module:function",
    )
    concurrency: Annotated[int, Field(ge=1, le=20_000)] = Field(
        default=500, description="jobs in flight in one worker process"
    )
    in_flight_mb: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="megabytes of messages in flight in one worker; it needs 2.4 times that",
    )
    model: Annotated[str, Field(min_length=1)] = Field(
        default="auto", description="the model of a request that names none; auto: chosen for each"
    )
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="max_tokens of a request that names none"
    )
    temperature: Annotated[float, Field(allow_inf_nan=False, ge=0, le=2)] | None = Field(
        default=None, description="temperature of a request that names none"
    )
    timeout_s: Annotated[float, Field(allow_inf_nan=False, gt=0, le=86_400)] = Field(
        default=120, description="longest wait for one answer of a provider"
    )
    lease_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=3600)] = Field(
        default=15, description="a worker silent for this long loses its jobs to the others"
    )
    standard_wait_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)] = Field(
        default=300,
        description="a standard job that has waited this long ranks with interactive ones",
    )
    bulk_wait_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)] = Field(
        default=900, description="a bulk job that has waited this long ranks with interactive ones"
    )
    max_deliveries: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="workers that may die over one job before it is given up"
    )
    drain_s: Annotated[float, Field(allow_inf_nan=False, ge=0, le=86_400)] = Field(
        default=30, description="after SIGTERM: running jobs may finish for this long, then go back"
    )
    sweep_s: Annotated[float, Field(allow_inf_nan=False, ge=0.1, le=3600)] = Field(
        default=10, description="how often jobs are looked for that the broker lost"
    )
    dead_letters: Annotated[int, Field(ge=1)] = Field(
        default=10_000, description="dead letters that are kept; the oldest go first"
    )
    dead_mb: Annotated[int, Field(ge=1)] = Field(
        default=1024, description="megabytes of dead letters that are kept"
    )
    result_ttl_s: Annotated[int, Field(ge=1)] = Field(
        default=7 * 86_400, description="how long results are kept; the audit line stays"
    )
    cache_ttl_s: Annotated[int, Field(ge=1)] = Field(
        default=1800,
        description="how long an answer serves equal requests where no rule says otherwise",
    )
    cache_mb: Annotated[int, Field(ge=1)] = Field(
        default=256,
        description="megabytes of answers that are kept; those not used for longest go first",
    )
    cache_temperature: Annotated[float, Field(allow_inf_nan=False, ge=0, le=2)] = Field(
        default=0.7,
        description="above this temperature, without a seed, an answer is kept only if asked",
    )
    share_cost: Literal["leader", "even"] = Field(
        default="leader",
        description="who pays a call that equal requests share: leader, or all evenly",
    )
    breaker_failures: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5,
        description="failures in a row that open a model's circuit breaker; 0: none ever opens",
    )
    breaker_share: Annotated[float, Field(allow_inf_nan=False, gt=0, le=1)] = Field(
        default=0.5,
        description="share of failed calls within a minute (of 20 or more) that opens it, too",
    )
    breaker_open_s: Annotated[float, Field(allow_inf_nan=False, ge=0.1, le=3600)] = Field(
        default=60, description="how long a breaker stays open until one probe may go"
    )
    healthy_s: Annotated[float, Field(allow_inf_nan=False, ge=1, le=86_400)] = Field(
        default=300,
        description="a model that failed counts as healthy again after this long without",
    )
    retry_share: Annotated[float, Field(allow_inf_nan=False, ge=0, le=10)] = Field(
        default=0.1, description="retries at a provider, as a share of its traffic"
    )
    alert_url: HttpUrl | None = Field(
        default=None, description="a webhook that is told when a budget is at 80, 90 and 100 %"
    )
    max_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5, description="attempts at one model"
    )
    max_attempts_per_job: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=8, description="attempts at all models of a chain together"
    )
    backoff_s: Annotated[float, Field(allow_inf_nan=False, gt=0)] = Field(
        default=1, description="upper bound of the first wait before a retry; doubles with each"
    )
    backoff_max_s: Annotated[float, Field(allow_inf_nan=False, gt=0)] = Field(
        default=30, description="upper bound of any wait before a retry"
    )
    under_reserve: Annotated[float, Field(allow_inf_nan=False, ge=0.001, le=0.5)] = Field(
        default=0.05,
        description="the chance that an answer takes more tokens than were held for it",
    )
    simulator_url: HttpUrl | None = Field(
        default=None, description="ask a simulated provider in place of every real one"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="DEBUG, INFO, WARNING or ERROR"
    )
    openai_api_key: SecretStr | None = Field(
        default=None, validation_alias="OPENAI_API_KEY", description="OpenAI's key"
    )
    openai_base_url: HttpUrl | None = Field(
        default=None, validation_alias="OPENAI_BASE_URL", description="another address for OpenAI"
    )
    openai_org_id: str | None = Field(
        default=None, validation_alias="OPENAI_ORG_ID", description="OpenAI's organisation"
    )
    openai_project_id: str | None = Field(
        default=None, validation_alias="OPENAI_PROJECT_ID", description="OpenAI's project"
    )
    anthropic_api_key: SecretStr | None = Field(
        default=None, validation_alias="ANTHROPIC_API_KEY", description="Anthropic's key"
    )
    anthropic_base_url: HttpUrl | None = Field(
        default=None,
        validation_alias="ANTHROPIC_BASE_URL",
        description="another address for Anthropic",
    )
    flower_basic_auth: Annotated[SecretStr, AfterValidator(_logins)] | None = Field(
        default=None,
        validation_alias="FLOWER_BASIC_AUTH",
        description="logins of Flower: user:password",
    )

    @property
    def home_path(self) -> Path:
        """The home as an absolute path."""
        return Path(self.home).expanduser().absolute()


def variable(field: str) -> str:
    """The environment variable of a field of Settings."""
    name = field.upper()
    return name if name.startswith(("OPENAI_", "ANTHROPIC_", "FLOWER_")) else f"HEADGATE_{name}"


def _dotenv() -> dict[str, str]:
    try:
        return {k: v for k, v in dotenv_values(DOTENV).items() if v is not None}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(DOTENV, str(error), "make it a readable UTF-8 file") from None


def read(name: str) -> tuple[str | None, str]:
    """A variable's value and where it comes from: `environment`, `.env` or `default`.

    An empty value counts as not set, as compose files write it.
    """
    for source, place in (("environment", os.environ), (DOTENV, _dotenv())):
        if value := place.get(name):
            return value, source
    return None, "default"


def secret(name: str) -> SecretStr | None:
    """The secret in the variable `name`, which a catalog names as `api_key_env`."""
    value, _ = read(name)
    return SecretStr(value) if value else None


def load() -> Settings:
    """The settings in force; raises SettingError with the variable, its value and a remedy."""
    known = {variable(field) for field in Settings.model_fields}
    for name in {**_dotenv(), **os.environ}:
        if name.startswith("HEADGATE_") and name not in known:
            raise SettingError(name, "set", f"no such setting; known: {', '.join(sorted(known))}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0]).lower().removeprefix("headgate_")
        value = "***" if field.endswith(("_key", "_auth")) else masked(str(first["input"]))
        remedy = first["msg"].removeprefix("Value error, ")
        raise SettingError(variable(field), value, remedy) from None


def environment() -> dict[str, str]:
    """A copy of the whole environment, to start a child process with."""
    return dict(os.environ)
