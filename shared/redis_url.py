"""The forms of HEADGATE_REDIS_URL: each is read once, and checked, into one Address.

    redis://[user:password@]host[:6379][/database]
    rediss://...                                    the same over TLS, with ssl_* in the query
    redis+socket://[user:password@]/path/to.sock[?virtual_host=database]
    sentinel://[user:password@]host[:26379],host,...[/database]?master_name=NAME

Celery's own spelling of the last, `sentinel://host;sentinel://host/0`, is read too. The names in
the query are those of redis-py and Celery; others are refused by name. Nothing here connects.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

SCHEMES = ("redis", "rediss", "redis+socket", "sentinel")
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster", "cluster", "redis-cluster", "rediss-cluster")
DEFAULT_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379}

TLS_NAMES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname")
DATABASE_NAMES = ("db", "virtual_host")
SENTINEL_NAMES = ("master_name", "sentinel_username", "sentinel_password", "ssl", *TLS_NAMES)

_CERT_REQS = {"required": ssl.CERT_REQUIRED, "optional": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}


@dataclass(frozen=True, slots=True)
class Tls:
    """How a TLS connection is made, and what the server must show."""

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: str = "required"
    check_hostname: bool = True

    def options(self) -> dict[str, Any]:
        """The same as redis-py's and kombu's keyword arguments."""
        found = {
            "ssl_ca_certs": self.ca_certs,
            "ssl_certfile": self.certfile,
            "ssl_keyfile": self.keyfile,
            "ssl_cert_reqs": _CERT_REQS[self.cert_reqs],
            "ssl_check_hostname": self.check_hostname and self.cert_reqs != "none",
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Address:
    """Where Redis is. `hosts` are the sentinels where there is a `master_name`."""

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: Tls | None = None
    master_name: str | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def celery_url(self) -> str:
        """The URL as kombu and Celery read it; TLS and sentinel's words go by their options."""
        login = ""
        if self.username or self.password:
            login = f"{quote(self.username or '', safe='')}:{quote(self.password or '', safe='')}@"
        if self.path:
            return f"redis+socket://{login}{quote(self.path)}?virtual_host={self.database}"
        return ";".join(
            f"{self.scheme}://{login}{_bracketed(host)}:{port}/{self.database}"
            for host, port in self.hosts
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no log and no error may hold, as it is and as it stands in a URL."""
        found = [one for one in (self.password, self.sentinel_password) if one]
        return tuple(form for one in found for form in {one, quote(one, safe="")})


def read(url: str) -> Address:
    """The Address of a URL; raises ValueError that says what would be right, and no password."""
    scheme, sign, rest = url.partition("://")
    if scheme in CLUSTER_SCHEMES:
        raise ValueError("Celery has no transport for Redis Cluster; name a single Redis")
    if scheme not in SCHEMES or not sign:
        raise ValueError(f"start it with one of {', '.join(s + '://' for s in SCHEMES)}")
    if scheme == "sentinel":
        # Celery's spelling: whole URLs, or hosts, with `;` between them; the words after the last
        # host count for all.
        rest = _without_repeats(rest)
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    if "@" in path or ("@" in query and not at):
        raise ValueError("write / in a name or password as %2F, ? as %3F, # as %23, @ as %40")
    words = _words(scheme, query)
    username, colon, password = login.partition(":")
    common: dict[str, Any] = {
        "username": unquote(username) or None if at else None,
        "password": unquote(password) or None if colon else None,
    }
    if scheme == "redis+socket":
        if hosts or not path:
            raise ValueError("name the socket by its whole path: redis+socket:///path/to.sock")
        return Address(scheme, path=f"/{unquote(path)}", database=_database("", words), **common)
    address = Address(
        scheme,
        _hosts(scheme, hosts),
        database=_database(path, words),
        tls=_tls(words) if scheme == "rediss" or words.get("ssl") == "true" else None,
        **common,
    )
    return _of_sentinels(address, words) if scheme == "sentinel" else address


def without_secrets(text: str, url: str) -> str:
    """The text with the passwords of this URL replaced by `***`."""
    try:
        secrets = read(url).secrets
    except ValueError:
        secrets = ()
    for secret in secrets:
        text = text.replace(secret, "***")
    return text


_SECRET_WORD = re.compile(r"([?&][^=&#]*password=)[^&#;]*", re.IGNORECASE)


def masked(url: str) -> str:
    """The URL, of a database too, with its passwords replaced by `***`, fit for a log.

    Also of a URL that is wrong: what stands between the first `:` and the last `@` is hidden.
    """
    scheme, sign, rest = url.partition("://")
    if sign and not (rest.startswith("/") or scheme.startswith("sqlite")):
        again = f";{scheme}://"
        rest = again.join(_hidden(part) for part in rest.split(again))
    return _SECRET_WORD.sub(r"\1***", f"{scheme}{sign}{rest}")


def _hidden(part: str) -> str:
    login, at, place = part.rpartition("@")
    user, colon, _ = login.partition(":")
    return f"{user}:***@{place}" if at and colon else part


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_repeats(rest: str) -> str:
    """`u:p@a:1/0;sentinel://u:p@b:2/0?q` as `u:p@a:1,b:2/0?q`; raises ValueError."""
    first, *others = rest.split(";")
    if not others:
        return rest
    logins, hosts, path, query = set(), [], "", ""
    for part in [first, *others]:
        place, _, words = part.removeprefix("sentinel://").partition("?")
        place, _, database = place.partition("/")
        login, at, host = place.rpartition("@")
        if at:
            logins.add(login)
        hosts.append(host)
        path, query = database or path, words or query
    if len(logins) > 1:
        raise ValueError("give one name and password, of the Redis behind the sentinels")
    login = f"{logins.pop()}@" if logins else ""
    return f"{login}{','.join(hosts)}/{path}?{query}"


def _hosts(scheme: str, place: str) -> tuple[tuple[str, int], ...]:
    found = []
    for host in place.split(",") if scheme == "sentinel" else [place]:
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("the port must be a number from 0 to 65535") from None
        if not name and scheme == "sentinel":
            raise ValueError(
                "name the sentinels: sentinel://host1:26379,host2:26379/0?master_name="
            )
        found.append((unquote(name or "localhost"), port or DEFAULT_PORTS[scheme]))
    return tuple(found)


def _words(scheme: str, query: str) -> dict[str, str]:
    known = {
        "redis": (),
        "rediss": TLS_NAMES,
        "redis+socket": (),
        "sentinel": SENTINEL_NAMES,
    }[scheme] + DATABASE_NAMES
    words = dict(parse_qsl(query, keep_blank_values=True))
    for name in words:
        if name in TLS_NAMES and scheme == "redis":
            raise ValueError(f"{name} is for TLS: start the URL with rediss://")
        if name not in known:
            raise ValueError(f"{name} is not known here; use {', '.join(known)}")
    return words


def _database(path: str, words: dict[str, str]) -> int:
    named = path.strip("/") or words.get("db") or words.get("virtual_host") or "0"
    if not named.isdecimal():
        raise ValueError(f"the database after the host is a number from 0, not {named[:40]!r}")
    return int(named)


def _tls(words: dict[str, str]) -> Tls:
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if words.get(name) and not Path(words[name]).is_file():
            raise ValueError(f"{name}: there is no file {words[name]}")
    reqs = words.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if reqs not in _CERT_REQS:
        raise ValueError(f"ssl_cert_reqs is one of {', '.join(_CERT_REQS)}")
    return Tls(
        words.get("ssl_ca_certs") or None,
        words.get("ssl_certfile") or None,
        words.get("ssl_keyfile") or None,
        reqs,
        words.get("ssl_check_hostname", "true").lower() not in ("false", "0", "no", "f", "n"),
    )


def _of_sentinels(address: Address, words: dict[str, str]) -> Address:
    name = words.get("master_name")
    if not name:
        raise ValueError("say which master the sentinels watch: add ?master_name=NAME")
    if any(word in words for word in TLS_NAMES) and address.tls is None:
        raise ValueError("add ssl=true, which turns TLS on for the sentinels and the servers")
    if address.tls is None and words.get("ssl", "false") != "false":
        raise ValueError("ssl is true or false")
    return replace(
        address,
        master_name=name,
        sentinel_username=words.get("sentinel_username") or None,
        sentinel_password=words.get("sentinel_password") or None,
    )
