"""The gateway that a client asks: its address and the caller's key, both checked at once."""

from __future__ import annotations

import ipaddress
import logging
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from pydantic import SecretStr

from headgate.shared.errors import WrongUse
from headgate.shared.redis_url import masked

log = logging.getLogger("headgate.client")

SHOWN_KEY = "***"
"""What errors show in place of a key."""

URL_REMEDY = "give the address of the gateway, such as https://llm.example.com"


@dataclass(frozen=True, slots=True)
class GatewayAddress:
    """Where the gateway is, and with which key it is asked.

    `url`: the address without /v1 and without a slash at its end. `proxy`: the HTTP proxy on the
    way, as the environment names it.
    """

    url: str
    key: SecretStr | None = None
    proxy: str | None = field(default=None, repr=False)  # its URL may have a password

    @classmethod
    def of(cls, base_url: object, api_key: object = None) -> GatewayAddress:
        """Return the checked address; raise WrongUse.

        A key that travels without encryption to another machine is warned of.
        """
        url, key = _checked_url(base_url), _checked_key(api_key)
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_here = _is_loopback(host)
        if key is not None and parts.scheme == "http" and not is_here:
            log.warning("the key is sent to %s without encryption; use https if you can", url)
        by_proxy = not is_here and not proxy_bypass(host)
        return cls(url, key, _proxy_for(parts.scheme) if by_proxy else None)

    @property
    def name(self) -> str:
        """The gateway as errors name it."""
        return f"the gateway at {self.url}"

    def headers(self) -> dict[str, str]:
        """Return the header with the key; nothing without a key."""
        key = self.key
        return {} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"}


def job_path(job_id: str, *rest: str) -> str:
    """Return the path of a job's address."""
    return "/".join(["/v1/jobs", quote(job_id, safe=""), *rest])


def _proxy_for(scheme: str) -> str | None:
    """Return the URL of the proxy that the environment names, if any; raise WrongUse."""
    found = getproxies().get(scheme)
    if not found:
        return None
    url = found if "://" in found else f"http://{found}"
    if urlsplit(url).scheme not in ("http", "https"):
        remedy = "only proxies of HTTP are known; name one, or the gateway's host in NO_PROXY"
        raise WrongUse(f"{scheme}_proxy", masked(found), remedy)
    return url


def _checked_url(given: object) -> str:
    if not isinstance(given, str):
        raise WrongUse("base_url", given, URL_REMEDY)
    text = given.strip()
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        raise WrongUse("base_url", masked(text), URL_REMEDY) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WrongUse("base_url", masked(text), URL_REMEDY)
    if parts.username is not None or parts.password is not None:
        remedy = "leave out the name and the password; give the key as api_key"
        raise WrongUse("base_url", masked(text), remedy)
    if parts.query or parts.fragment or not text.isascii() or not text.isprintable():
        raise WrongUse("base_url", masked(text), URL_REMEDY)
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path}"


def _checked_key(given: object) -> SecretStr | None:
    text = given.get_secret_value() if isinstance(given, SecretStr) else given
    if text is None or text == "":
        return None
    if not isinstance(text, str):
        raise WrongUse("api_key", SHOWN_KEY, "give the key as text, or leave it out")
    text = text.strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        remedy = "a key has only ASCII letters, digits and signs; copy it again"
        raise WrongUse("api_key", SHOWN_KEY, remedy)
    return SecretStr(text)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
