"""What a stock message carries beside its headers: arguments that make a request, and callbacks."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from headgate.shared.errors import InvalidRequest, UnreadableMessage
from headgate.workers.delivery import message
from headgate.workers.delivery.stock_call import request_fields
from tests.support.rig import stock_message

SYSTEM = {"role": "system", "content": "Shorten."}
RESULT = {"id": "1", "status": "succeeded", "trace_id": "1", "content": "an answer"}


@pytest.mark.parametrize(
    ("args", "kwargs", "fields"),
    [
        ([], {"prompt": "a", "model": "m"}, {"prompt": "a", "model": "m"}),
        ([{"prompt": "a"}], {}, {"prompt": "a"}),
        ([{"prompt": "a"}], {"model": "m"}, {"prompt": "a", "model": "m"}),
        (["a"], {"model": "m"}, {"prompt": "a", "model": "m"}),
        (["a", {"model": "m"}], {}, {"prompt": "a", "model": "m"}),
        ([RESULT], {"model": "m"}, {"prompt": "an answer", "model": "m"}),
        (
            ["a"],
            {"messages": [SYSTEM]},
            {"messages": [SYSTEM, {"role": "user", "content": "a"}]},
        ),
    ],
)
def test_arguments_make_one_request(
    args: list[Any], kwargs: dict[str, Any], fields: dict[str, Any]
) -> None:
    assert request_fields(args, kwargs) == fields


@pytest.mark.parametrize(
    ("args", "kwargs", "field"),
    [
        ([7], {}, "request"),
        ([None], {"prompt": "a"}, "request"),
        ([["a", "b"]], {}, "request"),
        (["a", "b"], {}, "prompt"),
        (["a"], {"prompt": "b"}, "prompt"),
        ([{"model": "m"}], {"model": "n"}, "model"),
        ([RESULT | {"content": None}], {}, "request"),
    ],
)
def test_arguments_that_make_no_request_are_refused_by_name(
    args: list[Any], kwargs: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        request_fields(args, kwargs)
    assert raised.value.field == field


def read(embed: object, **headers: Any) -> dict[str, Any]:
    """The checked headers of a stock message with this `embed`."""
    found = stock_message("job", [[], {"prompt": "a"}, embed])
    found["headers"] |= headers
    found["properties"] |= {"reply_to": "an address", "priority": 3}
    return message.read(orjson.dumps(found)).headers


def test_what_celery_sends_is_kept() -> None:
    callback = {"task": "after", "args": [], "kwargs": {}, "options": {}}
    nothing: dict[str, Any] = {"callbacks": None, "errbacks": [], "chain": None, "chord": None}
    assert "canvas" not in read(nothing, retries=2)
    assert read(nothing, retries=2)["retries"] == 2
    found = read({**nothing, "callbacks": [callback]}, root_id="root", group_index=4)
    expected = {"callbacks": [callback], "group_index": 4, "priority": 3, "root_id": "root"}
    assert found["canvas"] == expected
    chord = {**nothing, "chord": callback}
    assert read(chord, group="a chord")["canvas"]["chord"] == callback


@pytest.mark.parametrize(
    ("embed", "headers", "reason"),
    [
        ({"callbacks": {"task": "t"}}, {}, "embed.callbacks is not a list"),
        ({"chain": "t"}, {}, "embed.chain is not a list"),
        ({"chord": ["t"]}, {}, "embed.chord is not a signature"),
        ({"chord": {"task": "t"}}, {}, "headers.group is not the chord's id"),
        ({"chain": [{"task": "t"}]}, {"group_index": "1"}, "group_index is not a whole number"),
    ],
)
def test_callbacks_of_the_wrong_form_are_refused(
    embed: object, headers: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnreadableMessage, match=reason):
        read(embed, **headers)
