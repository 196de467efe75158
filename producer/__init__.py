"""Puts jobs in, takes results out: what other programs import.

from producer import Client
job = Client().submit("Summarise ...", model="gpt-4o-mini")
print(job.result(timeout_s=30).content)
"""

from producer.client import AsyncClient, AsyncJob, Client, Job
from producer.errors import ResultExpired, SubmitInterrupted
from producer.results import Listed
from shared.envelope import Request, Result, Usage
from shared.errors import (
    CatalogError,
    HeadgateError,
    InvalidRequest,
    JobFailed,
    JobTimeout,
    SettingError,
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
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobTimeout",
    "Listed",
    "Request",
    "Result",
    "ResultExpired",
    "SettingError",
    "SubmitInterrupted",
    "UnknownJob",
    "Unreachable",
    "Usage",
    "WrongUse",
]
