"""Requests as they travel to a gateway: checked here as the library checks them, then as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from headgate.producer.submit.fields import RequestForm, Requests
from headgate.producer.submit.prepare import checked_samples, refuse_samples
from headgate.shared.errors import InvalidRequest
from headgate.shared.job.encoding import json_bytes, refuse_oversize
from headgate.shared.job.request import Request, request_from

MOST_JOBS = 10_000
"""Jobs of one call, each sample counted; a gateway takes no more."""

MOST_BYTES = 8 * 1024 * 1024
"""Bytes of one call; a gateway takes 10 MB unless HEADGATE_GATEWAY_BODY_MB says otherwise."""


class Slice(NamedTuple):
    """The requests of one call: the place of the first one among all, and each as JSON."""

    first: int
    requests: list[bytes]

    def body(self, samples: int) -> bytes:
        """Return the body of the call."""
        head = b'{"all_or_none":true,"samples":%d,"jobs":[' % samples
        return head + b",".join(self.requests) + b"]}"


def encoded(given: RequestForm | Mapping[str, Any]) -> bytes:
    """Return one request as JSON; raise InvalidRequest as the library does."""
    return _encoded(_request_of(given))


def sliced(requests: Requests, samples: int) -> list[Slice]:
    """Return the requests in parts that a gateway takes in one call.

    Raises InvalidRequest that names the field at fault as `requests[i].field`.
    """
    if isinstance(requests, str | bytes | Mapping | Request) or not isinstance(requests, Iterable):
        raise InvalidRequest("requests", requests, "give a list of requests")
    most = max(1, MOST_JOBS // checked_samples(samples))
    parts: list[Slice] = []
    part: list[bytes] = []
    size = first = 0
    for place, given in enumerate(requests):
        one = _placed(given, place, samples)
        if part and (len(part) >= most or size + len(one) > MOST_BYTES):
            parts.append(Slice(first, part))
            part, size, first = [], 0, place
        part.append(one)
        size += len(one) + 1
    return [*parts, Slice(first, part)] if part else parts


def _placed(given: object, place: int, samples: int) -> bytes:
    if not isinstance(given, str | Mapping | Request):
        raise InvalidRequest(f"requests[{place}]", given, "give a text, a dict or a Request")
    try:
        request = _request_of(given)
        refuse_samples(samples, request.embeds)
        return _encoded(request)
    except InvalidRequest as error:
        field = f"requests[{place}].{error.field}"
        raise InvalidRequest(field, error.value, error.remedy, error.code) from None


def _request_of(given: RequestForm | Mapping[str, Any]) -> Request:
    if isinstance(given, Request):
        return given
    return request_from({"prompt": given} if isinstance(given, str) else dict(given))


def _encoded(request: Request) -> bytes:
    data = json_bytes(request.model_dump(exclude_unset=True))
    refuse_oversize(data)
    return data


def renamed(error: InvalidRequest, first: int) -> InvalidRequest:
    """Return the error with its request named as the caller knows it.

    A gateway says `jobs[i].field`, counted from the first request of the call.
    """
    head, bracket, rest = error.field.partition("[")
    number, end, field = rest.partition("]")
    if head != "jobs" or not bracket or not number.isdigit():
        return error
    name = f"requests[{int(number) + first}{end}{field}"
    return InvalidRequest(name, error.value, error.remedy, error.code)
