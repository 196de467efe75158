"""OpenAI's clients on our queue: each call is a job, and no gateway is asked."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import httpx2
import openai

from headgate.producer.client.arguments import checked_settings
from headgate.producer.sdk.app_call import HOST
from headgate.producer.sdk.transports import AsyncQueueTransport, QueueTransport
from headgate.shared.errors import WrongUse
from headgate.shared.job.request import Priority
from headgate.shared.settings import Settings, load

BASE_URL = f"http://{HOST}/v1"
"""No such address is dialled; the transport below answers for it."""

NO_KEY = "headgate"
"""OpenAI's classes want a key. It goes nowhere: the workers have the vendors' keys."""


_on_the_queue: weakref.WeakSet[httpx2.Client | httpx2.AsyncClient] = weakref.WeakSet()
"""What was made here. Any other client of HTTP would send prompts to OpenAI itself."""


class OpenAI(openai.OpenAI):
    """`openai.OpenAI` on our queue.

        from headgate.openai import OpenAI

        client = OpenAI(tenant="acme")
        print(client.chat.completions.create(model="gpt-4o-mini", messages=[...]))

    settings: Settings, or the URL of a Redis. Default: from the environment.
    tenant, user, priority: whose jobs they are, and how urgent. Default: "interactive", as at the
        gateway. Single calls say it in `extra_headers` and `extra_body`, as at the gateway.
    options: `timeout`, `max_retries` and others of OpenAI's class.

    It opens its servers at the first use. Close it, or use it as a context manager. Many threads
    may use one; a forked child opens servers of its own.
    """

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        tenant: str | None = None,
        user: str | None = None,
        priority: Priority | None = None,
        default_headers: Mapping[str, str] | None = None,
        http_client: httpx2.Client | None = None,
        **options: Any,
    ) -> None:
        headers = {**_named(tenant, user, priority), **(default_headers or {})}
        if http_client is None:  # else it is a copy, by `with_options`
            _refuse_addresses(options)
            options |= {"base_url": BASE_URL, "api_key": NO_KEY}
            transport = QueueTransport(checked_settings(settings) or load())
            http_client = httpx2.Client(transport=transport, trust_env=False)
            _on_the_queue.add(http_client)
        _require_ours(http_client)
        super().__init__(default_headers=headers, http_client=http_client, **options)


class AsyncOpenAI(openai.AsyncOpenAI):
    """`openai.AsyncOpenAI` on our queue; see OpenAI. Several event loops may use one."""

    def __init__(
        self,
        settings: Settings | str | None = None,
        *,
        tenant: str | None = None,
        user: str | None = None,
        priority: Priority | None = None,
        default_headers: Mapping[str, str] | None = None,
        http_client: httpx2.AsyncClient | None = None,
        **options: Any,
    ) -> None:
        headers = {**_named(tenant, user, priority), **(default_headers or {})}
        if http_client is None:  # else it is a copy, by `with_options`
            _refuse_addresses(options)
            options |= {"base_url": BASE_URL, "api_key": NO_KEY}
            transport = AsyncQueueTransport(checked_settings(settings) or load())
            http_client = httpx2.AsyncClient(transport=transport, trust_env=False)
            _on_the_queue.add(http_client)
        _require_ours(http_client)
        super().__init__(default_headers=headers, http_client=http_client, **options)


def _named(tenant: str | None, user: str | None, priority: Priority | None) -> dict[str, str]:
    """Return the headers that name the caller of all calls."""
    given = {"tenant": tenant, "user": user, "priority": priority}
    return {f"x-headgate-{name}": value for name, value in given.items() if value is not None}


def _require_ours(http_client: httpx2.Client | httpx2.AsyncClient) -> None:
    """Raise WrongUse for a client of HTTP that does not lead to the queue."""
    if http_client not in _on_the_queue:
        remedy = (
            "leave it out: calls go to the queue; for a gateway use openai.OpenAI(base_url=...)"
        )
        raise WrongUse("http_client", type(http_client).__name__, remedy)


def _refuse_addresses(options: Mapping[str, Any]) -> None:
    """Raise WrongUse for an address or a key: they would lead nowhere."""
    if "base_url" in options:
        remedy = "there is no address here; for a gateway use openai.OpenAI(base_url=...)"
        raise WrongUse("base_url", options["base_url"], remedy)
    for name in ("api_key", "admin_api_key"):
        if name in options:
            remedy = "leave it out: the workers have the keys; name the caller by tenant and user"
            raise WrongUse(name, "***", remedy)
