"""Goes on with an earlier response: at the vendor that has it, or with its items as input."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from headgate.producer.callers.allowed import narrowed
from headgate.producer.callers.caller import Caller
from headgate.producer.client.operations import Operations
from headgate.producer.dialects.fields import Fields, fields_of, text_of
from headgate.producer.dialects.responses.body import PREVIOUS, as_input, request_items
from headgate.producer.dialects.responses.items import is_response, items_of
from headgate.producer.gateway.calls.call import GatewayCall
from headgate.producer.gateway.calls.faults import CallRefused
from headgate.producer.gateway.calls.find_response import FoundResponse, find_response
from headgate.producer.submit.fields import RequestFields
from headgate.shared.catalog.catalog import Catalog
from headgate.shared.errors import InvalidRequest

MOST_TURNS = 1000
"""Responses of one conversation that are read back."""

MOST_CHARACTERS = 50_000_000
"""So much of the record of one conversation is read back: far more than any model reads."""

_FIELD = "previous_response_id"


def named_before(params: Fields) -> str | None:
    """Return the response that the params go on with, None without one.

    Raises CallRefused with 404 for a conversation: there are none here.
    """
    if params.get("conversation") is not None:
        words = f"no such conversation here; go on with {_FIELD}, or give the items as input"
        raise CallRefused("not_found", words, param="conversation")
    given = params.get(_FIELD)
    if given is not None and not isinstance(given, str):
        raise InvalidRequest(_FIELD, given, "give the id of a response")
    return given or None


async def continued(operations: Operations, call: GatewayCall) -> GatewayCall:
    """Return the call with the response that it goes on with; one without that as it is.

    Raises CallRefused with 404 if the caller has no such response, and with 400 if that has no
    answer. Of a call that names its tenant or user, only their responses count.
    """
    params: Fields = call.fields.get("params", {})
    given = named_before(params)
    if given is None:
        return call
    at = await asyncio.to_thread(operations.current)
    caller = narrowed(call.caller, call.fields.get("tenant"), call.fields.get("user"))
    before = await _answered(operations, caller, given)
    fields: RequestFields = {**call.fields}
    marks: Any = call.fields.get("metadata", {})
    if isinstance(marks, dict):  # anything else is refused when it is submitted
        fields["metadata"] = {**marks, PREVIOUS: given}
    pin = _pin(before, call.model, at.catalog)
    if pin is not None:
        theirs = text_of(fields_of(before.result.message).get("id"))
        fields["params"] = {**params, _FIELD: theirs}
        fields |= pin
    else:
        earlier = await history(operations, caller, before)
        fields["params"] = {name: one for name, one in params.items() if name != _FIELD}
        items: Any = [*earlier, *_items(fields.get("input"))]
        fields["input"] = items
    return replace(call, fields=fields)


def _items(given: Any) -> list[Fields]:
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}] if given else []
    return given if isinstance(given, list) else [given]  # which is refused as an item


async def _answered(operations: Operations, caller: Caller, given: str) -> FoundResponse:
    """Return the response; raise CallRefused if there is none, or if it has no answer."""
    found = await find_response(operations, caller, given, param=_FIELD)
    if found.result.status != "succeeded":
        words = f"the response {given} has no answer to go on with: it is {found.result.status}"
        raise CallRefused("invalid_request", words, param=_FIELD)
    return found


async def history(operations: Operations, caller: Caller, last: FoundResponse) -> list[Fields]:
    """Return all that was said up to this response and in it, as input items."""
    said = items_of(last.result.as_json())
    return [*await whole_input(operations, caller, last), *as_input(said)]


async def whole_input(operations: Operations, caller: Caller, found: FoundResponse) -> list[Fields]:
    """Return the input of a response, with all that was said before it.

    Raises CallRefused with 404 if an earlier response is gone that only its vendor has.
    """
    turns, size = [request_items(found.request)], found.size
    while found.request.params.get(_FIELD):  # its input does not hold what was said before it
        if len(turns) > MOST_TURNS or size > MOST_CHARACTERS:
            words = "the conversation is too long to be read back; give its items as input"
            raise CallRefused("invalid_request", words, param=_FIELD)
        before = text_of(found.request.metadata.get(PREVIOUS))
        found = await _answered(operations, caller, before)
        size += found.size
        said = items_of(found.result.as_json())
        turns.append([*request_items(found.request), *as_input(said)])
    return [item for turn in reversed(turns) for item in turn]


def _pin(before: FoundResponse, model: str, catalog: Catalog) -> RequestFields | None:
    """Return the fields that bind a job to where an earlier response is; None if it is nowhere.

    The vendor must have stored it, and the model must be of the same provider.
    """
    result, sent = before.result, fields_of(before.result.message)
    if not is_response(sent) or sent.get("store") is False or result.provider_key is None:
        return None
    try:
        chosen = catalog.model(model)
    except InvalidRequest:  # routing may choose any; a name that is none is refused later
        return None
    if chosen.provider != result.provider or not chosen.has_responses:
        return None
    return {
        "pinned": {"provider": chosen.provider, "key": result.provider_key}, "fallback": False,
    }  # fmt: skip
