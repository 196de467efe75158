"""Puts jobs in, takes results out: what other programs import.

from producer import Client
job = Client().submit("Summarise ...", model="gpt-4o-mini")
print(job.result(timeout_s=30).content)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import AsyncClient, Client
    from producer.errors import (
        IdempotencyConflict,
        ResultExpired,
        StreamBroken,
        SubmitInterrupted,
    )
    from producer.job import AsyncJob, Job
    from producer.results import Listed
    from shared.envelope import Request, Result, Usage
    from shared.errors import (
        CatalogError,
        HeadgateError,
        InvalidRequest,
        JobFailed,
        JobTimeout,
        SettingError,
        TierLimit,
        UnknownJob,
        Unreachable,
        WrongUse,
    )

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
    "producer.client",
    "producer.errors",
    "producer.job",
    "producer.results",
    "shared.envelope",
    "shared.errors",
)


def __getattr__(name: str) -> Any:
    """What `__all__` names, imported when asked for: a command must not pay for the library."""
    if name in __all__:
        for home in _HOMES:
            if hasattr(module := import_module(home), name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
