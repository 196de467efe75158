"""Choose the way of a client: to Redis and the database, or to a gateway over HTTP."""

from __future__ import annotations

from headgate.producer.client.arguments import checked_settings
from headgate.producer.client.direct.blocking import Direct
from headgate.producer.client.direct.in_loops import AsyncDirect
from headgate.producer.client.http.address import GatewayAddress
from headgate.producer.client.operations import Operations
from headgate.producer.client.transport import AsyncTransport, BlockingTransport
from headgate.shared.errors import WrongUse
from headgate.shared.settings import Settings, load, read

BASE_URL = "HEADGATE_BASE_URL"


class Way:
    """Where a client goes: `settings` of servers, or the address of a gateway and a key there.

    The arguments are those of `Client`. Raises WrongUse and SettingError.
    """

    def __init__(
        self, settings: Settings | str | None, base_url: str | None, api_key: str | None
    ) -> None:
        if settings is not None and base_url is not None:
            raise WrongUse("base_url", base_url, "give it without settings, or settings alone")
        self._settings = known = checked_settings(settings)
        self._base_url = base_url
        key: object = api_key
        if known is None and (base_url is not None or read(BASE_URL)[0]):
            known = load()
        # The URL of a Redis is the way, whatever the environment says.
        if known is not None and not isinstance(settings, str):
            self._base_url = base_url or known.base_url
            key = known.api_key if key is None else key
        if api_key is not None and self._base_url is None:
            raise WrongUse("api_key", "***", "it is for a gateway; give its base_url, too")
        if self._base_url is not None:
            self._address = GatewayAddress.of(self._base_url, key)

    def blocking(self) -> BlockingTransport:
        """Return the way of a `Client`."""
        if self._base_url is None:
            return Direct(Operations(self._settings))
        # Imported here: a program on Redis need not wait for the libraries of HTTP.
        from headgate.producer.client.http.blocking import Http
        from headgate.producer.client.http.in_loops import AsyncHttp

        return Http(AsyncHttp(self._address))

    def in_loops(self) -> AsyncTransport:
        """Return the way of an `AsyncClient`."""
        if self._base_url is None:
            return AsyncDirect(Operations(self._settings))
        from headgate.producer.client.http.in_loops import AsyncHttp

        return AsyncHttp(self._address)
