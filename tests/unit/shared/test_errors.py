"""Errors cross processes: each survives pickle and copy, whole."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from celery.utils.serialization import get_pickleable_exception

import headgate
from headgate.producer.batch.output import OutputFull
from headgate.producer.batch.rows import UnknownBatch
from headgate.producer.callers.refused import KeyRefused
from headgate.producer.client.many.slices import _SliceStopped
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
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.serving.protocol import HeadersRefused
from headgate.producer.local.process import ChildGaveUp
from headgate.shared.admission.tiers import TierSourceFailed
from headgate.shared.broker.include import IncludeError
from headgate.shared.catalog.faults import CatalogErrors
from headgate.shared.database.sqlite_file import FileLost
from headgate.shared.errors import (
    AnswerMismatch,
    CatalogError,
    HeadgateError,
    InvalidRequest,
    JobFailed,
    NewerEnvelope,
    SettingError,
    Unfit,
    Unreachable,
    UnreadableMessage,
    WrongUse,
)
from headgate.shared.job.ids import rfc3339
from headgate.shared.job.result import Result
from headgate.shared.job.waiting_for import WaitingFor
from headgate.shared.servers.embedded import EmbeddedFailed
from headgate.shared.servers.valkey import StartFailed
from headgate.workers.clients.callbacks import BodyUnderWay, NotSent
from headgate.workers.errors import AttemptError, Gate
from headgate.workers.maintenance.webhooks.dial import ForbiddenAddress
from headgate.workers.simulator.request import Invalid
from headgate.workers.stages.cache_entry import TooLargeToCache, Unreadable

CATALOG_ERROR = CatalogError("catalog.toml", "models.x.rpm", -1, "give a number above 0")
BUILT: list[HeadgateError] = [
    HeadgateError("text", 2),
    WrongUse("priority", "urgent", "give interactive, standard or bulk"),
    SettingError("HEADGATE_TIMEOUT_S", "soon", "give a number"),
    CATALOG_ERROR,
    CatalogErrors([CATALOG_ERROR, CatalogError("catalog.toml", "pools", {}, "name one")]),
    InvalidRequest("model", "gpt-4o-minni", "did you mean gpt-4o-mini?", "unknown_model"),
    IdempotencyConflict("key-1", "job-1", ["job-2"]),
    Unreachable("Redis at redis://h", "no route", "check HEADGATE_REDIS_URL"),
    Unfit("Redis at redis://h", "it is a replica", "use its master"),
    SubmitInterrupted("Redis at redis://h", "gone", ["a", "b"], ["c"]),
    SubmitStopped(["a", "b"], ["c"], ZeroDivisionError()),
    UnreadableMessage("no JSON"),
    NewerEnvelope(9, 1_700_000_000_000, 1_700_000_900_000),
    JobFailed("no such key", "authentication", "job-1", "failed", {"code": "authentication"}),
    MapFailed("no such key", "authentication", "job-1", results=[Result("job-1", "failed", "m")]),
    AnswerMismatch("job-1", "River", ["name: give a text"], "length"),
    TierLimit("requests_per_minute of user/ann", 2.5, 3, locked_out=True),
    KeyRefused(429, "rate_limit_exceeded", "slow down", 2.5),
    CallRefused("unsupported_media_type", "send JSON", param="body", retry_after_s=1.0),
    UnknownJob("job-1"),
    JobTimeout("job-1", 3.0),
    JobTimeout("job-1", 3.0, WaitingFor("turn", "headgate.standard.fast", since=rfc3339(0))),
    ResultExpired("job-1", "succeeded", "2026-11-20T09:30:00Z"),
    StreamBroken("job-1"),
    OutputFull(Path("out.jsonl"), "No space left on device", "--resume"),
    UnknownBatch("b-1"),
    ChildGaveUp("worker-1", 2, ["no key", "bye"]),
]


OTHERS: list[Exception] = [
    EmbeddedFailed("no server program", Path("/var/lib/headgate"), "install Valkey"),
    StartFailed("it ended at once", Path("/var/lib/headgate/valkey.log"), "see its log"),
    TierSourceFailed("it raised KeyError"),
    IncludeError("lib/none.lua"),
    Unreadable("it is no JSON"),
    TooLargeToCache(),
    Invalid("no such model", "model", "model_not_found"),
    NotSent("Redis refused a callback"),
    BodyUnderWay(),
    HeadersRefused(),
    FileLost("the SQLite file was deleted or replaced"),
    ForbiddenAddress("the address of its host is not public or not allowed"),
    _SliceStopped(("a",), ("b",)),
]
"""Errors that no caller meets, and so are no HeadgateErrors."""

NOT_IMPORTED = ("headgate.migrations", "headgate.workers.app", "headgate.workers.flower")
"""Alembic loads the first; the others start an application when they are imported."""


def kinds() -> list[type[Exception]]:
    """Every exception that a module of the packages defines."""
    for module in pkgutil.walk_packages(headgate.__path__, "headgate."):
        if not module.name.startswith(NOT_IMPORTED) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found: set[type[Exception]] = set()
    todo: list[type[Exception]] = [Exception]
    while todo:
        kinds = todo.pop().__subclasses__()
        todo += kinds
        found.update(kind for kind in kinds if f"{kind.__module__}.".startswith("headgate."))
    return sorted(found, key=lambda kind: kind.__qualname__)


def built(kind: type[Exception]) -> Exception:
    """An error of this class with real values."""
    if issubclass(kind, AttemptError):
        return kind(
            "HTTP 429: slow down", code="rate_limited", http_status=429, retry_after_ms=2000,
            billed=None, request_id="req_1", headers={"retry-after": "2"}, gate=Gate("limited", 7),
        )  # fmt: skip
    return next(one for one in (*BUILT, *OTHERS) if type(one) is kind)


def facts(error: BaseException) -> object:
    """What must be equal on the other side."""
    fields = {
        name: [facts(one) for one in value] if name == "errors" else value
        for name, value in vars(error).items()
    }
    return type(error), str(error), error.args, fields


WAYS: dict[str, Callable[[Exception], Exception]] = {
    **{
        f"pickle {n}": lambda error, n=n: pickle.loads(pickle.dumps(error, n))  # type: ignore[misc]  # noqa: S301
        for n in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


def test_every_error_survives_pickle_and_copy_with_all_its_facts() -> None:
    found = kinds()
    assert len(found) > 36
    for kind in found:
        error = built(kind)
        error.add_note("seen in a test")
        for way, pass_on in WAYS.items():
            again = pass_on(error)
            assert again is not error, way
            assert facts(again) == facts(error), (way, kind)
            assert facts(pass_on(again)) == facts(error), (way, "twice", kind)


@pytest.mark.parametrize("way", WAYS)
def test_a_cause_comes_with_its_error(way: str) -> None:
    first = redis.ConnectionError("Error 111 connecting to h:6379")
    middle = Unreachable("Redis at redis://h", "no route", "check HEADGATE_REDIS_URL")
    error = SubmitInterrupted("Redis at redis://h", "gone", ["a"])
    middle.__cause__, error.__cause__ = first, middle
    again = WAYS[way](error)
    assert isinstance(again.__cause__, Unreachable)
    assert facts(again.__cause__) == facts(middle)
    assert isinstance(again.__cause__.__cause__, redis.ConnectionError)
    assert str(again.__cause__.__cause__) == "Error 111 connecting to h:6379"
    assert again.__suppress_context__


class Stubborn(Exception):
    """An error of a library that pickle cannot rebuild."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


def test_what_cannot_be_pickled_arrives_as_text() -> None:
    error = InvalidRequest("prompt", lambda: 1, "give a text")
    error.__cause__ = Stubborn(7, "broken")
    again = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(again) == str(error)
    assert again.field == "prompt"
    assert again.value.startswith("<function ")
    assert str(again.__cause__) == "Stubborn: 7: broken"
    assert copy.copy(error).value is error.value, "a copy needs no pickle"


POOLS = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from headgate.producer.errors import JobTimeout, TierLimit
from headgate.shared.errors import InvalidRequest
from headgate.workers.errors import RateLimited

BUILT = {
    "JobTimeout": lambda: JobTimeout("job-1", 3.0),
    "TierLimit": lambda: TierLimit("requests of ann", 2.5, 3, locked_out=True),
    "InvalidRequest": lambda: InvalidRequest("prompt", lambda: 1, "give a text"),
    "RateLimited": lambda: RateLimited("HTTP 429", retry_after_ms=2000, request_id="req_1"),
}

def fail(name):
    raise BUILT[name]()

def told(ask):
    try:
        ask()
    except Exception as error:
        fields = {k: v for k, v in vars(error).items() if k != "value"}
        print(type(error).__name__, str(error).partition(":")[0], fields, flush=True)

fork = multiprocessing.get_context("fork")
with fork.Pool(1) as pool:
    for name in BUILT:
        told(lambda: pool.apply_async(fail, (name,)).get(timeout=60))
    pool.close()
    pool.join()
with ProcessPoolExecutor(1, mp_context=fork) as executor:
    told(lambda: executor.submit(fail, "JobTimeout").result(timeout=60))
"""


def test_a_pool_of_processes_hands_over_the_error_itself() -> None:
    """multiprocessing.Pool hangs for ever where an error cannot be rebuilt."""
    done = subprocess.run(
        [sys.executable, "-c", POOLS], capture_output=True, text=True, timeout=200, check=True
    )
    timeout = (
        "JobTimeout job job-1 has not ended after 3 s; it goes on "
        "{'job_id': 'job-1', 'timeout_s': 3.0, 'waiting_for': None, 'job_ids': ('job-1',)}"
    )
    assert done.stdout.splitlines() == [
        timeout,
        "TierLimit requests[3] {'limit': 'requests of ann', 'retry_after_s': 2.5, 'index': 3, "
        "'locked_out': True}",
        "InvalidRequest prompt {'field': 'prompt', 'remedy': 'give a text', "
        "'code': 'invalid_request'}",
        "RateLimited HTTP 429 {'message': 'HTTP 429', 'http_status': None, "
        "'retry_after_ms': 2000, 'retry_after_note': '', 'billed': False, 'request_id': 'req_1', "
        "'headers': {}, 'gate': None}",
        timeout,
    ]


def test_celery_passes_on_every_error_from_a_prefork_child() -> None:
    """Celery replaces an error that it cannot pickle by the nearest base class that it can."""
    for kind in kinds():
        error = built(kind)
        assert get_pickleable_exception(error) is error, kind
