"""How the providers are reached: keys, addresses and proxies, checked before the first call."""

from __future__ import annotations

import hashlib
import ipaddress
import unicodedata
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from headgate.shared import settings
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.catalog.schema import ProviderConfig
from headgate.shared.errors import SettingError, WrongUse
from headgate.shared.job.request import KEY_DIGITS
from headgate.shared.settings import Settings, masked

PROXIES = ("http", "https")
"""The kinds of proxies that aiohttp speaks to."""


def check(in_force: Settings, catalog: Catalog) -> None:
    """Raise WrongUse if a provider's key or address, or the proxy to it, cannot be used.

    Providers without a key are not checked, because nobody calls them.
    """
    if in_force.simulator_url is not None:
        proxy_of(in_force.simulator_url)
        return
    for provider in catalog.providers.values():
        if keys_of(in_force, provider):
            proxy_of(checked_address(provider.name, base_url_of(in_force, provider)))


def keys_of(in_force: Settings, provider: ProviderConfig) -> list[str]:
    """Return the provider's API keys; none if no variable of it is set.

    Raises SettingError, which names the variable and not the key, for a key that no header holds.
    """
    if in_force.simulator_url is not None:
        return ["simulated"]
    found = []
    for variable in provider.api_key_env:
        secret = settings.secret(variable)
        if secret is not None:
            found.append(checked_key(variable, secret.get_secret_value()))
    return found or (["none"] if provider.api_key_optional else [])


SHORTEST_SECRET = 16
"""Shorter keys are those of local servers. A digest of one could be guessed, so they have none."""


def digest_of(key: str) -> str:
    """Return 16 hexadecimal digits by which a key is known, without telling it."""
    if len(key) < SHORTEST_SECRET:
        return "0" * KEY_DIGITS
    return hashlib.sha256(key.encode()).hexdigest()[:KEY_DIGITS]


def no_keys(catalog: Catalog, wanted: Sequence[str] = ()) -> str:
    """Say in one line that no provider has a key, and the three ways on.

    `wanted`: the variables of the provider that is to be asked, named first.
    """
    every = (name for one in catalog.providers.values() for name in one.api_key_env)
    names = list(dict.fromkeys([*wanted, *every]))
    first, more = names[0] if names else "a key", len(names) - 1
    others = f" (or another of {more} providers' keys)" if more > 0 else ""
    return (
        f"no provider has a key: set {first}{others}, or try without one by "
        "`headgate up --simulate`, or name a local server in the catalog ([providers.custom])"
    )


def checked_key(variable: str, key: str) -> str:
    """Return the key without blanks around it; raises SettingError if no header can hold it."""
    key = key.strip()
    odd = next((mark for mark in key if not (mark.isascii() and mark.isprintable())), None)
    if odd is None:
        return key
    what = "a line break" if odd in "\r\n" else f"the character U+{ord(odd):04X}"
    name = unicodedata.name(odd, "")
    what += f" ({name})" if name else ""
    remedy = f"it has {what} in it, but a key is one line of plain ASCII; copy the key again"
    raise SettingError(variable, "***", remedy)


def checked_address(provider: str, url: str) -> str:
    """Return the provider's address; raises WrongUse if it holds a user or a password."""
    if "@" not in urlsplit(url).netloc:
        return url
    remedy = "take user and password out of the address; only the key is sent"
    raise WrongUse(f"the base URL of {provider}", masked(url), remedy)


def base_url_of(in_force: Settings, provider: ProviderConfig) -> str:
    """Return the provider's address: the simulator's, the setting's, or the catalog's."""
    if in_force.simulator_url is not None:
        return in_force.simulator_url + ("/v1" if provider.dialect == "openai" else "")
    if provider.name == "openai" and in_force.openai_base_url:
        return in_force.openai_base_url
    if provider.name == "anthropic" and in_force.anthropic_base_url:
        return in_force.anthropic_base_url
    return provider.base_url


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for this address; None if there is none.

    NO_PROXY is obeyed, and this machine is always reached directly. A proxy without a scheme is an
    HTTP proxy. Raises SettingError for a proxy of another kind, such as SOCKS.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host or _is_this_machine(host) or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    named = getproxies()
    kind = parts.scheme if named.get(parts.scheme) else "all"
    address = named.get(kind)
    if not address:
        return None
    if "://" not in address:
        address = f"http://{address}"
    if address.partition("://")[0].lower() in PROXIES and urlsplit(address).hostname:
        return address
    names = (name for name in settings.environment() if name.lower() == f"{kind}_proxy")
    remedy = (
        f"only http:// and https:// proxies can be used; name one, or add {host} to NO_PROXY, "
        "to reach it directly"
    )
    raise SettingError(next(names, f"{kind}_proxy".upper()), masked(address), remedy)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
