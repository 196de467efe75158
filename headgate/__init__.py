"""Run LLM jobs through a queue, as fast as your rate limits allow.

    from headgate import Client

    with Client() as client:
        job = client.submit("Summarise ...", model="gpt-4o-mini")
        print(job.result(timeout_s=30).content)

`AsyncClient` has the same methods as coroutines. `RequestFields` explains the fields of a request.
Every error that Headgate raises on purpose is a `HeadgateError`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headgate.producer.admin.budgets import BudgetRow
    from headgate.producer.admin.cache import CacheStats
    from headgate.producer.admin.health import HealthReport
    from headgate.producer.admin.limits_rows import LimitsReport
    from headgate.producer.callers.refused import KeyRefused
    from headgate.producer.client.async_client import AsyncClient
    from headgate.producer.client.client import Client
    from headgate.producer.client.handle import AsyncJob, Job
    from headgate.producer.client.many.slices import SubmitProgress
    from headgate.producer.client.pieces import TextPiece
    from headgate.producer.errors import (
        IdempotencyConflict,
        JobTimeout,
        MapFailed,
        ResultExpired,
        StreamBroken,
        SubmitInterrupted,
        SubmitStopped,
        TierLimit,
        UnknownJob,
    )
    from headgate.producer.results.listing import JobFilters, Listed
    from headgate.producer.submit.admission_check import AdmissionCheck
    from headgate.producer.submit.fields import CacheFields, RequestFields
    from headgate.producer.usage.report import UsageQuery, UsageReport, UsageRow
    from headgate.shared.errors import (
        AnswerMismatch,
        CatalogError,
        ErrorCode,
        HeadgateError,
        InvalidRequest,
        JobFailed,
        SettingError,
        Unfit,
        Unreachable,
        WrongUse,
    )
    from headgate.shared.job.request import Priority, Request
    from headgate.shared.job.result import ErrorReport, FailedAttempt, Result, Status, Usage
    from headgate.shared.job.waiting_for import WaitingFor
    from headgate.shared.routing.router import Route, RouteOption
    from headgate.shared.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AdmissionCheck",
    "AnswerMismatch",
    "AsyncClient",
    "AsyncJob",
    "BudgetRow",
    "CacheFields",
    "CacheStats",
    "CatalogError",
    "Client",
    "ErrorCode",
    "ErrorReport",
    "FailedAttempt",
    "HeadgateError",
    "HealthReport",
    "IdempotencyConflict",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobFilters",
    "JobTimeout",
    "KeyRefused",
    "LimitsReport",
    "Listed",
    "MapFailed",
    "Priority",
    "Request",
    "RequestFields",
    "Result",
    "ResultExpired",
    "Route",
    "RouteOption",
    "SettingError",
    "Settings",
    "Status",
    "StreamBroken",
    "SubmitInterrupted",
    "SubmitProgress",
    "SubmitStopped",
    "TextPiece",
    "TierLimit",
    "Unfit",
    "UnknownJob",
    "Unreachable",
    "Usage",
    "UsageQuery",
    "UsageReport",
    "UsageRow",
    "WaitingFor",
    "WrongUse",
]

_MODULES = (
    "headgate.shared.errors",
    "headgate.shared.job.request",
    "headgate.shared.job.result",
    "headgate.shared.job.waiting_for",
    "headgate.shared.settings",
    "headgate.producer.errors",
    "headgate.producer.callers.refused",
    "headgate.producer.submit.fields",
    "headgate.producer.results.listing",
    "headgate.producer.usage.report",
    "headgate.shared.routing.router",
    "headgate.producer.admin.budgets",
    "headgate.producer.admin.cache",
    "headgate.producer.admin.limits_rows",
    "headgate.producer.admin.health",
    "headgate.producer.submit.admission_check",
    "headgate.producer.client.pieces",
    "headgate.producer.client.many.slices",
    "headgate.producer.client.handle",
    "headgate.producer.client.client",
    "headgate.producer.client.async_client",
)
"""Where the names are, those that are quick to import first."""


def __getattr__(name: str) -> Any:
    """Import the name when it is first used, so that a command does not wait for the library."""
    if name in __all__:
        for module in map(import_module, _MODULES):
            if hasattr(module, name):
                globals()[name] = found = getattr(module, name)
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names only."""
    return [*__all__, "__version__"]
