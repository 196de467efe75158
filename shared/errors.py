"""Every error that Headgate raises on purpose.

HeadgateError
|-- WrongUse                  the caller can fix it: names the field, the value, the remedy
|   |-- SettingError          an environment variable
|   |-- CatalogError          a key of a catalog file
|   +-- InvalidRequest        a field of a request (code: invalid_request, unknown_model, ...)
|-- Unreachable               Redis, the database or the embedded server does not answer
|   `-- Unfit                 it answers, but cannot be used, and waiting will not change that
|-- TierLimit                 a limit of the caller is reached, and the request says `refuse`
|-- UnreadableMessage         a message on the broker that is not a job
|   +-- NewerEnvelope         a job in the form of the next release
|-- UnknownJob                the database has no job of that id
|-- JobTimeout                the job has not ended within the time that the caller waits
|-- JobFailed                 the job ended without an answer; carries the error of the result
|-- AnswerMismatch            the answer is not what `response_format` describes
+-- AttemptError              one request to one model failed: see workers/errors.py
"""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

ErrorCode = Literal[
    "invalid_request", "unknown_model", "context_length", "content_filtered", "authentication",
    "permission", "provider_quota", "rate_limited", "overloaded", "timeout", "connection",
    "provider_error", "breaker_open", "invalid_output", "budget_exceeded", "tier_limit",
    "deadline", "expired", "cancelled", "unreadable", "response_too_large", "internal",
]  # fmt: skip


def shown(value: object, limit: int = 80) -> str:
    """Return the value as an error shows it: its repr, cut to `limit` characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = f"a {type(value).__name__} nested too deep"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def place_of(error: BaseException) -> str:
    """Return the error's type and its place in the code.

    Logs show this instead of the error's text, which may quote a prompt.
    """
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


class HeadgateError(Exception):
    """The base class of every error that Headgate raises on purpose.

    Errors survive pickle and copy with their type, text, fields and cause, so that process pools
    can pass them on. A field that cannot be pickled arrives as its text.
    """

    def __reduce__(self) -> tuple[Callable[..., HeadgateError], tuple[object, ...]]:
        """Return what pickle stores; a new error is not built by its constructor."""
        args = tuple(map(_portable, self.args))
        fields = {name: _portable(value) for name, value in vars(self).items()}
        cause = self.__cause__
        if cause is not None and not isinstance(cause, HeadgateError):
            cause = _portable_cause(cause)
        return _rebuilt, (type(self), args, fields, cause, self.__suppress_context__)

    def __copy__(self) -> Self:
        """Return an error with the same fields and cause."""
        fields, cause = vars(self), self.__cause__
        return _rebuilt(type(self), self.args, fields, cause, self.__suppress_context__)

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        """Return an error with copies of the fields, and the same cause."""
        fields = copy.deepcopy(vars(self), memo)
        args, cause = copy.deepcopy(self.args, memo), self.__cause__
        return _rebuilt(type(self), args, fields, cause, self.__suppress_context__)


Error = TypeVar("Error", bound="HeadgateError")


def _rebuilt(
    kind: type[Error],
    args: tuple[object, ...],
    fields: dict[str, object],
    cause: BaseException | None,
    suppress_context: bool,
) -> Error:
    error = kind.__new__(kind, *args)
    vars(error).update(fields)
    error.__cause__ = cause
    error.__suppress_context__ = suppress_context
    return error


def _survives(value: object, is_equal: Callable[[Any], bool] = lambda again: True) -> bool:
    """Return whether the value comes out of pickle again, in the type that it had."""
    try:
        again = pickle.loads(pickle.dumps(value))  # noqa: S301  our own bytes
        return type(again) is type(value) and is_equal(again)
    except Exception:  # classes of others raise what they like
        return False


def _portable(value: object) -> object:
    return value if _survives(value) else shown(value)


def _portable_cause(cause: BaseException) -> BaseException:
    """Return the cause, or a plain exception with its type and text if it cannot be pickled.

    pickle rebuilds a foreign exception by calling its class; some do that with another text.
    """
    if _survives(cause, lambda again: str(again) == str(cause)):
        return cause
    return Exception(f"{type(cause).__name__}: {cause}")


class WrongUse(HeadgateError):
    """A value that the caller gave is wrong; `remedy` says what to do."""

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(f"{field}: {shown(value)}: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class SettingError(WrongUse):
    """An environment variable has a wrong value; `field` is its name."""


class CatalogError(WrongUse):
    """A key of a catalog file is wrong; `field` is the dotted key."""

    def __init__(self, file: str, key: str, value: object, remedy: str) -> None:
        super().__init__(key, value, remedy)
        self.args = (f"{file}: {key}: {shown(value)}: {remedy}",)
        self.file = file
        self.key = key


class InvalidRequest(WrongUse):
    """A field of a request is wrong. Nothing was queued and nothing was spent."""

    def __init__(
        self, field: str, value: object, remedy: str, code: ErrorCode = "invalid_request"
    ) -> None:
        super().__init__(field, value, remedy)
        self.code: ErrorCode = code


class Unreachable(HeadgateError):
    """A server does not answer; `server` is its name, without a password."""

    def __init__(self, server: str, reason: str, remedy: str) -> None:
        super().__init__(f"{server} cannot be reached: {reason}; {remedy}")
        self.server = server
        self.reason = reason
        self.remedy = remedy


class Unfit(Unreachable):
    """A server answers but cannot be used, and waiting will not change that."""

    def __init__(self, server: str, reason: str, remedy: str) -> None:
        super().__init__(server, reason, remedy)
        self.args = (f"{server} cannot be used: {reason}; {remedy}",)


class UnreadableMessage(HeadgateError):
    """A message on the broker is not a job; `reason` says why, and does not quote it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class NewerEnvelope(UnreadableMessage):
    """A job in the form of the next release. Only workers of that release can run it.

    Times are in Unix ms.
    """

    def __init__(self, version: int, submitted_at_ms: int, deadline_at_ms: int) -> None:
        super().__init__(f"envelope version {version} is the next release's")
        self.version = version
        self.submitted_at_ms = submitted_at_ms
        self.deadline_at_ms = deadline_at_ms


class JobFailed(HeadgateError):
    """The job ended without an answer; `status` is failed, cancelled or expired.

    All arguments have defaults and are plain JSON values, because Celery rebuilds this error from
    the values in its result backend.
    """

    __module__ = "headgate"  # as Celery stores it: programs that import headgate get this class

    def __init__(
        self,
        message: str = "",
        code: str = "internal",
        job_id: str = "",
        status: str = "failed",
        error: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code, job_id, status, error)
        self.message = message
        self.code = code
        self.job_id = job_id
        self.status = status
        self.error = error or {}

    def __str__(self) -> str:
        return f"job {self.job_id} {self.status}: {self.code}: {self.message}"


class AnswerMismatch(HeadgateError):
    """The answer of a job is not what its `response_format` describes.

    `response_format`: the name of the model. `faults`: what is wrong, without quoting the answer.
    `finish_reason`: why the answer ended; after "length" it is most likely cut.
    """

    def __init__(
        self, job_id: str, response_format: str, faults: list[str], finish_reason: str | None
    ) -> None:
        found = "; ".join(faults[:3]) + ("; ..." if len(faults) > 3 else "")
        cut = "; it ended at max_tokens: allow more" if finish_reason == "length" else ""
        super().__init__(f"the answer of job {job_id} is no {response_format}: {found}{cut}")
        self.job_id = job_id
        self.response_format = response_format
        self.faults = faults
        self.finish_reason = finish_reason
