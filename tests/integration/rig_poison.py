"""Messages that are no jobs: the 35 kinds of section 6 of the Celery reference, each by name."""

import base64
import json
from typing import Any

from shared import queues
from tests.integration.rig import stock_message


def _changed(part: str, **changes: Any) -> bytes:
    message = stock_message("bad")
    message[part] = {**message[part], **changes}
    return json.dumps(message).encode()


def _without(part: str, *names: str) -> bytes:
    message = stock_message("bad")
    message[part] = {k: v for k, v in message[part].items() if k not in names}
    return json.dumps(message).encode()


def _whole(**changes: Any) -> bytes:
    kept = {k: v for k, v in stock_message("bad", **changes).items() if v is not ...}
    return json.dumps(kept).encode()


def _body(raw: bytes) -> bytes:
    return _whole(body=base64.b64encode(raw).decode())


DEAD: dict[str, bytes] = {
    "not JSON": b"this is not json",
    "a JSON string": b'"text"',
    "a JSON list": b"[1, 2]",
    "JSON null": b"null",
    "an empty object": b"{}",
    "a body not in base64": _whole(body="%%% not base64 %%%"),
    "a body of one number": _body(b"[1]"),
    "a body of null": _body(b"null"),
    "a body that is not JSON": _body(b"\xff\xfe nothing"),
    "a body of a huge integer": _body(b"[[" + b"9" * 10_000 + b"],{},{}]"),
    "a body nested 100,000 deep": _body(b"[" * 100_000 + b"]" * 100_000),
    "a body with NaN": _body(b'[[{"prompt": NaN}],{},{}]'),
    "kwargs that are a list": _body(b"[[],[],{}]"),
    "args that are a text": _body(b'["text",{},{}]'),
    "an embed that is a list": _body(b"[[],{},[1]]"),
    "no properties": _whole(properties=...),
    "headers null": _whole(headers=None),
    "headers missing": _whole(headers=...),
    "headers without task": _without("headers", "task"),
    "headers without id": _without("headers", "id"),
    "an id that is an integer": _changed("headers", id=7),
    "a task that is a list": _changed("headers", task=["headgate.run"]),
    "an unknown task": _changed("headers", task="os.system"),
    "a time limit that is no pair": _changed("headers", timelimit=5),
    "a time limit in words": _changed("headers", timelimit=["soon", "later"]),
    "an eta that is no moment": _changed("headers", eta="tomorrow"),
    "an expiry that is no moment": _changed("headers", expires="never"),
    "retries in words": _changed("headers", retries="many"),
    "bad gzip": _changed("headers", compression="application/x-gzip"),
    "pickle": _whole(**{"content-type": "application/x-python-serialize"}),
    "an unknown content type": _whole(**{"content-type": "text/klingon"}),
    "over 24 MB": _body(b'[[{"prompt":"' + b"x" * (20 * 1024 * 1024) + b'"}],{},{}]'),
}
"""Messages that end in the dead list."""

HARMLESS: dict[str, bytes] = {
    "no delivery_tag": _without("properties", "delivery_tag"),
    "no delivery_info": _without("properties", "delivery_info"),
    "a priority in words": _changed("properties", priority="urgent"),
}
"""Messages that stock Celery stumbles over, and that are jobs all the same."""

assert len(DEAD) + len(HARMLESS) == 35
assert queues.TASK == "headgate.run"
