"""Run LLM jobs through a queue, as fast as your rate limits allow.

    from headgate import Client

    with Client() as client:
        job = client.submit("Summarise ...", model="gpt-4o-mini")
        print(job.result(timeout_s=30).content)

`AsyncClient` has the same methods as coroutines. Every error is a `HeadgateError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.producer.client.client import AsyncClient, Client
    from headgate.producer.client.handle import AsyncJob, Job
    from headgate.producer.errors import (
        IdempotencyConflict,
        JobTimeout,
        ResultExpired,
        StreamBroken,
        SubmitInterrupted,
        TierLimit,
        UnknownJob,
    )
    from headgate.producer.results.read import Listed
    from headgate.shared.errors import (
        CatalogError,
        HeadgateError,
        InvalidRequest,
        JobFailed,
        SettingError,
        Unreachable,
        WrongUse,
    )
    from headgate.shared.job.request import Request
    from headgate.shared.job.result import Result, Usage

__version__ = "0.1.0"

__all__ = [
    "AsyncClient",
    "AsyncJob",
    "CatalogError",
    "Client",
    "HeadgateError",
    "IdempotencyConflict",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobTimeout",
    "Listed",
    "Request",
    "Result",
    "ResultExpired",
    "SettingError",
    "StreamBroken",
    "SubmitInterrupted",
    "TierLimit",
    "UnknownJob",
    "Unreachable",
    "Usage",
    "WrongUse",
]

_HOMES = (
    "headgate.producer.client.client",
    "headgate.producer.errors",
    "headgate.producer.client.handle",
    "headgate.producer.results.read",
    "headgate.shared.job.request",
    "headgate.shared.job.result",
    "headgate.shared.errors",
)


def __getattr__(name: str) -> Any:
    """Import the name when it is first used, so that a command does not pay for the library."""
    if name in __all__:
        for home in _HOMES:
            if hasattr(module := import_module(home), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
