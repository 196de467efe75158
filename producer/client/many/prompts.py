"""The requests of `map`, and what became of them: a list in, a list out, in the same order."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from itertools import count

from headgate.producer.client.response_format import ResponseFormat, with_response_format
from headgate.producer.errors import MapFailed, answer_of
from headgate.producer.submit.fields import RequestFields, RequestForm
from headgate.shared.errors import InvalidRequest, JobFailed
from headgate.shared.job.request import Request
from headgate.shared.job.result import Result

PROMPTS_REMEDY = "give a list of prompts; each is a text or a dict of a request's fields"


def combined(
    prompts: Iterable[RequestForm], fields: RequestFields, wanted: ResponseFormat | None
) -> Iterator[RequestForm]:
    """Return a request for each of the prompts, with these fields where it has none of its own.

    `wanted`: the form of the answers. With an idempotency key each request gets one of its own: the
    key and its place.
    """
    if isinstance(prompts, str | bytes | Mapping | Request) or not isinstance(prompts, Iterable):
        raise InvalidRequest("prompts", prompts, PROMPTS_REMEDY)
    return (_with_fields(given, fields, wanted, place) for place, given in enumerate(prompts))


def combined_async(
    prompts: Iterable[RequestForm] | AsyncIterable[RequestForm],
    fields: RequestFields,
    wanted: ResponseFormat | None,
) -> Iterator[RequestForm] | AsyncIterator[RequestForm]:
    """Return the requests as `combined` does, also of an asynchronous iterable."""
    if not isinstance(prompts, AsyncIterable):
        return combined(prompts, fields, wanted)

    async def requests() -> AsyncIterator[RequestForm]:
        places = count()
        async for given in prompts:
            yield _with_fields(given, fields, wanted, next(places))

    return requests()


def _with_fields(
    given: RequestForm, fields: RequestFields, wanted: ResponseFormat | None, place: int
) -> RequestForm:
    own: RequestFields
    match given:
        case str():
            own = {"prompt": given}
        case Request():
            if not fields and wanted is None:
                return given
            field, remedy = f"prompts[{place}]", "is a Request; give a dict to add fields to it"
            raise InvalidRequest(field, given.prompt, remedy)
        case _:
            own = given
    if not isinstance(own, Mapping):
        raise InvalidRequest(f"prompts[{place}]", own, "give a text or a dict of fields")
    made: RequestFields = {**fields, **own}
    if "params" in fields and isinstance(own.get("params"), Mapping):
        made["params"] = {**fields["params"], **own["params"]}
    if (key := fields.get("idempotency_key")) and "idempotency_key" not in own:
        made["idempotency_key"] = f"{key}:{place}"
    return with_response_format(made, wanted)


def answers_of(results: Sequence[Result]) -> list[Result]:
    """Return the results if all jobs succeeded; raise MapFailed with all of them if one did not."""
    for result in results:
        try:
            answer_of(result)
        except JobFailed as failed:
            raise MapFailed(
                failed.message, failed.code, failed.job_id, failed.status, failed.error,
                list(results),
            ) from None  # fmt: skip
    return list(results)
