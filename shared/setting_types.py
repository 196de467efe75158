"""The types of settings: what a value must look like, and what to write instead of a bad one."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from headgate.shared import redis_url as redis_urls
from headgate.shared.errors import SettingError
from headgate.shared.field_faults import closest

LEAST_AUDIT_DAYS = 32
"""A month and a day: what was spent this month is added up from the attempts on record."""

DATABASE_SCHEMES = ("postgresql", "sqlite")

_SECRETS = re.compile("KEY|AUTH|TOKEN|SECRET|PASS|LOGIN")
"""Parts of the names of variables whose values are never shown."""


def unknown_setting(name: str, value: object, known: Collection[str]) -> SettingError:
    """Return the error for a name that is no setting, with a similar one."""
    shown = "***" if _SECRETS.search(name.upper()) else redis_urls.masked(str(value))
    return SettingError(name, shown, f"no such setting; {closest(name, known)}")


def _redis_url(url: str) -> str:
    redis_urls.read(url)
    return url


RedisUrl = Annotated[str, AfterValidator(_redis_url)]


def _check_port(url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("the port must be a number from 0 to 65535") from None


def _database_url(url: str) -> str:
    if url.startswith("postgres://"):  # as Heroku and others write it
        url = "postgresql://" + url.removeprefix("postgres://")
    scheme = url.partition("://")[0].partition("+")[0]
    if scheme not in DATABASE_SCHEMES or "://" not in url:
        raise ValueError("must start with postgresql:// or sqlite:///")
    if scheme == "sqlite":
        file = unquote(url.partition("://")[2].removeprefix("/").partition("?")[0])
        if not file or file == ":memory:":
            raise ValueError(
                "name a file, because workers and commands share it: sqlite:////path/to/file.db"
            )
        if not Path(file).absolute().parent.is_dir():
            raise ValueError(f"the folder {Path(file).absolute().parent} does not exist; create it")
    else:
        _check_port(url)
    if url.partition("://")[0] not in (scheme, "postgresql+psycopg"):
        raise ValueError(f"use {scheme}://; the driver cannot be chosen")
    return url


DatabaseUrl = Annotated[str, AfterValidator(_database_url)]


def _key_prefix(prefix: str) -> str:
    # Celery adds `_` to a prefix without such an end, and would not find our results.
    if len(prefix) > 64 or not re.fullmatch(r"([A-Za-z0-9_.:-]*[:_.-])?", prefix):
        raise ValueError(
            "use at most 64 letters, digits and : _ . - with one of : _ . - at its end"
        )
    return prefix


KeyPrefix = Annotated[str, AfterValidator(_key_prefix)]


def _priority_steps(text: str) -> str:
    steps = [int(word) if re.fullmatch(r"\s*\d\s*", word) else -1 for word in text.split(",")]
    if steps[0] != 0 or steps != sorted(set(steps)):
        raise ValueError("use rising numbers from 0 to 9 with commas between them, 0 first")
    return ",".join(map(str, steps))


PrioritySteps = Annotated[str, AfterValidator(_priority_steps)]
"""The option `priority_steps` of producers, as text."""


def _separator(text: str) -> str:
    found = text.encode().decode("unicode_escape") if text.isascii() else ""
    if not 0 < len(found) <= 16 or not found.isascii() or set("\n\r\0 ") & {*found}:
        raise ValueError("use 1 to 16 ASCII characters without blanks, such as \\x06\\x16 or :")
    if found[-1].isdigit():
        raise ValueError("its last character must not be a digit: a number follows it")
    return text


PrioritySep = Annotated[str, AfterValidator(_separator)]
"""The option `sep` of producers; control characters are written as in Python."""


def _http_url(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
        raise ValueError("use a URL such as https://api.example.com/v1")
    return url.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]


def _header_text(value: str | None) -> str | None:
    text = (value or "").strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("use one line of plain ASCII; it is sent in a header")
    return text or None


HeaderText = Annotated[str | None, AfterValidator(_header_text)]


def _tier_source(chosen: str) -> str:
    if chosen not in ("catalog", "table") and not re.fullmatch(r"[\w.]+:\w+", chosen):
        raise ValueError("use catalog, table or module:function")
    return chosen


TierSource = Annotated[str, AfterValidator(_tier_source)]


def _function_name(chosen: str) -> str:
    if not re.fullmatch(r"[\w.]+:\w+", chosen):
        raise ValueError("use module:function, such as myapp.checks:moderate")
    return chosen


FunctionName = Annotated[str, AfterValidator(_function_name)]


def _audit_days(days: int) -> int:
    if 0 < days < LEAST_AUDIT_DAYS:
        least = f"use at least {LEAST_AUDIT_DAYS}, or 0 for ever"
        raise ValueError(f"{least}: the budgets of this month are added up from the attempts")
    return days


AuditDays = Annotated[int, Field(ge=0, le=36_500), AfterValidator(_audit_days)]


def _logins(logins: SecretStr) -> SecretStr:
    for login in logins.get_secret_value().split(","):
        user, _, password = login.partition(":")
        if not user.strip() or not password.strip():
            raise ValueError("use user:password, or several with commas between them")
    return logins


Logins = Annotated[SecretStr, AfterValidator(_logins)]

LogLevel = Annotated[
    Literal["DEBUG", "INFO", "WARNING", "ERROR"],
    BeforeValidator(lambda level: level.strip().upper() if isinstance(level, str) else level),
]


def _networks(text: str) -> str:
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            ip_network(part, strict=False)
        except ValueError:
            raise ValueError("give addresses or networks such as 10.0.0.0/8") from None
    return text


Networks = Annotated[str, AfterValidator(_networks)]
"""Addresses and networks, with commas between several."""


def _origins(text: str) -> str:
    for part in filter(None, map(str.strip, text.split(","))):
        url = urlsplit(part)
        if url.scheme not in ("http", "https") or part != f"{url.scheme}://{url.netloc}":
            raise ValueError("give origins such as https://app.example.com, without a path")
    return text


Origins = Annotated[str, AfterValidator(_origins)]
"""Origins of web pages, with commas between several."""
