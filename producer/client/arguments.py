"""Check the arguments of the clients' methods, so that a mistake is refused by name."""

from __future__ import annotations

from typing import Literal

from headgate.producer.submit.fields import RequestFields
from headgate.shared import redis_url
from headgate.shared.errors import InvalidRequest, WrongUse
from headgate.shared.settings import Settings, load, masked

UsageKey = Literal["tenant", "user", "model", "template", "batch", "day", "month"]
"""What `usage` can group by."""

NOT_PICKLED = (
    "{} cannot be pickled or copied, because it holds connections: make one in each process, "
    "and give it ids of jobs"
)


def checked_settings(given: object) -> Settings | None:
    """Return the settings of a client; raise WrongUse for anything but Settings, a URL or None.

    The URL of a Redis stands for the settings of the environment with this Redis.
    """
    if given is None or isinstance(given, Settings):
        return given
    remedy = "give Settings(redis_url=..., database_url=...), or set HEADGATE_REDIS_URL and "
    remedy += "HEADGATE_DATABASE_URL and give nothing"
    if not isinstance(given, str) or "://" not in given:
        raise WrongUse("settings", given, remedy)
    if given.partition("://")[0].lower() not in redis_url.SCHEMES:
        raise WrongUse("settings", masked(given), f"this is not the URL of a Redis; {remedy}")
    return load(redis_url=given)


def with_prompt(prompt: str | None, fields: RequestFields) -> RequestFields:
    """Return the fields with the prompt among them; raise InvalidRequest if it is given twice."""
    if prompt is None:
        return fields
    if "prompt" in fields:
        raise InvalidRequest("prompt", fields["prompt"], "is given twice; give it once")
    return {"prompt": prompt, **fields}


def timeout_of(timeout_s: float | None, timeout: float | None) -> float | None:
    """Return the timeout in seconds by either of its names; raise InvalidRequest for both."""
    if timeout is None:
        return timeout_s
    if timeout_s is not None:
        raise InvalidRequest("timeout", timeout, "is timeout_s by Celery's name; give one of them")
    require_seconds("timeout", timeout)
    return timeout


def require_job_id(job_id: object) -> None:
    """Raise InvalidRequest if this is no text, such as a Job instead of its id."""
    if not isinstance(job_id, str):
        raise InvalidRequest("job_id", job_id, "give the id of a job as text, such as job.id")


def require_seconds(field: str, seconds: object, *, may_be_none: bool = True) -> None:
    """Raise InvalidRequest if this is neither None nor a number of seconds from 0."""
    if seconds is None and may_be_none:
        return
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not seconds >= 0:  # type: ignore[operator]  # NaN is refused, too
        remedy = "give a number of seconds from 0" + (", or None" if may_be_none else "")
        raise InvalidRequest(field, seconds, remedy)
