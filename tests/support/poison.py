"""Messages that are no jobs: 35 kinds, each by name."""

import base64
import json
import random
from collections.abc import Iterator
from typing import Any

from headgate.shared.broker import queues
from tests.support.rig import envelope, stock_message


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


MODELS = {
    "fast": "gpt-4o-mini",
    "smart": "gpt-4o",
    "reasoning": "claude-opus-4-8",
    "embedding": "text-embedding-3-small",
}


def good_request(queue: str, words: str) -> dict[str, Any]:
    """A request that waits in this queue and can be answered."""
    _, priority, model_class = queue.split(".")
    asked = "input" if model_class == "embedding" else "prompt"
    return {asked: words, "priority": priority, "model": MODELS[model_class]}


def mutated(count: int, secret: bytes, seed: int) -> Iterator[bytes]:
    """Random bytes, and good messages in which something is another; each holds the secret."""
    chance = random.Random(seed)  # noqa: S311  # nothing secret
    for n in range(count):
        job = envelope(prompt=f"{secret.decode()} {n}")
        whole = bytearray(queues.message(job, job.encode()))
        match n % 4:
            case 0:
                yield chance.randbytes(chance.randrange(200)) + secret
            case 1:  # some bytes are others
                for _ in range(chance.randrange(1, 6)):
                    whole[chance.randrange(len(whole))] = chance.randrange(256)
                yield bytes(whole)
            case 2:  # a piece is missing
                first = chance.randrange(len(whole))
                del whole[first : first + chance.randrange(1, 80)]
                yield bytes(whole)
            case _:  # a field of the envelope is something else
                fields = json.loads(job.encode())
                place = fields if chance.random() < 0.5 else fields["request"]
                place[chance.choice([*place, *ODD_NAMES])] = chance.choice(ODD_VALUES)
                yield stock(job.id, [[fields], {}, {}])


ODD_NAMES = (
    "metadata", "params", "messages", "deadline_s", "priority", "tenant", "user", "cache", "v",
    "fallback", "batch_id", "batch_line", "custom_id", "forgiven_fence", "on_unknown", "model",
)  # fmt: skip
ODD_VALUES: list[Any] = [
    None, True, -1, 0, 10**18, -(10**18), 1e308, "", "x" * 5000, "\x1b[2J\x07\n", "\u0000", [],
    {}, [[]], {"a": {"b": []}}, "bulk", ["gpt-4o", 7], {"ttl_s": 10**18}, {"max_tokens": -5},
]  # fmt: skip


def stock(job_id: str, body: object, **headers: Any) -> bytes:
    """A message in the form of stock Celery around this body."""
    message = stock_message(job_id, body)
    message["headers"] |= headers
    return json.dumps(message).encode()


def hostile(secret: bytes) -> list[bytes]:
    """Messages that are well-formed, and meant to harm."""
    words = secret.decode()
    job = envelope(prompt=words)
    fields = json.loads(job.encode())
    deep: Any = words
    for _ in range(900):
        deep = [deep]

    def with_request(**changes: Any) -> bytes:
        other = envelope(prompt=words)
        changed = json.loads(other.encode())
        changed["request"] |= changes
        return stock(other.id, [[changed], {}, {}])

    def with_field(**changes: Any) -> bytes:
        other = envelope(prompt=words)
        return stock(other.id, [[json.loads(other.encode()) | changes], {}, {}])

    twice = queues.message(job, job.encode())
    return [
        twice,
        stock(job.id, [[{**fields, "request": {"prompt": f"{words}, another"}}], {}, {}]),
        with_request(deadline_s=-5),
        with_request(deadline_s=10**18),
        with_request(priority="interactive"),
        with_request(metadata={"deep": deep}),
        with_request(messages=[{"role": "user", "content": [{"deep": deep}]}], prompt=None),
        with_request(prompt=words + "x" * 10_000_000),
        with_request(prompt=words + "x" * 11_000_000),
        with_request(tenant="x" * 129),
        with_field(model="no-such-model"),
        with_field(model="\x1b]0;owned\x07" * 30),
        with_field(model_class="y" * 65),
        with_field(submitted_at_ms=-1),
        with_field(submitted_at_ms=10**18),
        with_field(batch_line=2**40, batch_id="b"),
        with_field(custom_id="a\u0000b"),
        with_field(id="another"),
        stock("evil\x1b[2J\nid", [[{"prompt": words}], {}, {}]),
        stock("self", [[], {"self": 1, "prompt": words}, {}]),
        stock("shadow", [[{"prompt": words}], {}, {}], shadow=words, origin={"a": words}),
        stock("limits", [[{"prompt": words}], {}, {}], timelimit=[10**300, -1]),
        stock("far", [[{"prompt": words}], {}, {}], expires="9999-12-31T23:59:59-23:59"),
        stock("stamps", [[{"prompt": words}], {}, {}], stamps=[words], group=[words], retries=-1),
        stock("contents", [[{"messages": [{"role": "user", "content": [{"d": deep}]}]}], {}, {}]),
        stock("params", [[{"prompt": words, "params": {"deep": deep}}], {}, {}]),
        with_request(params={"deep": deep}),
        stock("nested", [[{"prompt": words, "metadata": {"deep": deep}}], {}, {}]),
        json.dumps({"hg": job.id} | stock_message("not-" + job.id)).encode(),
        b"\x1b]0;" + secret + b"\x07" * 50,
    ]
