"""A request: what a caller may ask for, and the checks of each field."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeGuard, get_args

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from headgate.shared.errors import InvalidRequest

MAX_REQUEST_BYTES = 10 * 1024 * 1024
MAX_DEADLINE_S = 365 * 86_400
DEFAULT_DEADLINE_S = 86_400

Priority = Literal["interactive", "standard", "bulk"]
PRIORITIES: tuple[Priority, ...] = get_args(Priority)

#: Fields of the contract whose part does not stand yet: refused by name, never ignored.
NOT_YET = frozenset({"webhook_url"})


def _without_nul(text: str) -> str:
    if "\x00" in text:  # PostgreSQL's text cannot hold it
        raise ValueError("leave out the NUL character")
    return text


Name = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_without_nul)]

NO_NUL = r"^[^\x00]*$"
Short = Annotated[str, Field(min_length=1, max_length=128, pattern=NO_NUL)]
"""What a column of the tables holds; in the form that pydantic checks without calling Python."""

DEEPEST = 100
"""How deep `metadata` may be nested. orjson writes 254 levels, and what holds it takes some."""


CallerKey = Annotated[str, Field(min_length=1, max_length=255, pattern=NO_NUL)]

USD = re.compile(r"[0-9]{1,9}(\.[0-9]{1,12})?", re.ASCII)


def _decimal_text(value: object) -> object:
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return format(Decimal(str(value)), "f")
    return value


def _is_usd(text: str) -> str:
    if USD.fullmatch(text) is None:
        raise ValueError('give USD as a decimal text such as "0.25", at most 12 decimals')
    return text


Usd = Annotated[str, BeforeValidator(_decimal_text), AfterValidator(_is_usd)]
"""Money of a caller: a decimal text; a number is taken as it is written."""

Kind = Literal[
    "chat", "reasoning", "code", "research", "creative", "analysis", "summary", "translation",
    "vision",
]  # fmt: skip
"""What a request is about, as routing sees it."""


class CacheWish(BaseModel):
    """How the caller wants the cache: `exact` or `off`; `ttl_s` seconds to keep.

    Without a mode the rules of `shared/cache/ttl.py` decide; `exact` asks for it in any case.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    mode: Literal["off", "exact"] | None = None
    ttl_s: Annotated[int, Field(ge=1, le=30 * 86_400)] | None = None


class Request(BaseModel):
    """What a caller wants: exactly one of `prompt`, `messages` (OpenAI's form) and `input`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    prompt: Annotated[str, Field(min_length=1)] | None = None
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)] | None = None
    input: str | list[str] | None = None
    model: Name | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    priority: Priority = "standard"
    tenant: Name = "default"
    user: Name | None = None
    tier: Name | None = None
    deadline_s: Annotated[float, Field(gt=0, le=MAX_DEADLINE_S)] = DEFAULT_DEADLINE_S
    cache: CacheWish = CacheWish()
    fallback: bool | list[Name] = True
    same_provider: bool = False
    share: bool = True
    stream: bool = False
    task: Kind | None = None
    prefer: Literal["speed", "quality", "cost"] = "cost"
    max_usd_per_million: Usd | None = None
    max_cost_usd: Usd | None = None
    template: Name | None = None
    variables: dict[str, str | int | float | bool] = Field(default_factory=dict)
    idempotency_key: CallerKey | None = None
    on_limit: Literal["wait", "refuse"] = "wait"
    on_unknown: Literal["retry", "fail"] = "retry"
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("deadline_s", mode="before")
    @classmethod
    def _whole_seconds_are_seconds(cls, value: object) -> object:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("metadata")
    @classmethod
    def _can_be_written(cls, metadata: dict[str, Any]) -> dict[str, Any]:
        if metadata and _is_deeper(metadata, DEEPEST):
            remedy = f"nest it no deeper than {DEEPEST} levels"
            raise InvalidRequest("metadata", "nested too deep", remedy)
        return metadata

    @model_validator(mode="after")
    def _one_of_three(self) -> Request:
        given = [n for n in ("prompt", "messages", "input") if getattr(self, n) is not None]
        # A template makes one of them when it is expanded (shared/catalog/templates.py).
        if len(given) != 1 and (given or self.template is None):
            named = " and ".join(given) or "none"
            raise InvalidRequest("prompt", named, "give exactly one of prompt, messages and input")
        if self.messages is not None:
            check_messages(self.messages)
        if self.input is not None and not self.input:
            raise InvalidRequest("input", self.input, "give a text or a list of texts")
        if self.stream and self.input is not None:
            raise InvalidRequest("stream", True, "an embedding has no text to stream; leave it out")
        if self.params:
            check_params(self.params)
        return self

    @property
    def embeds(self) -> bool:
        """True for an embedding job."""
        return self.input is not None

    def chat(self) -> list[dict[str, Any]]:
        """The messages in OpenAI's form, also where the caller gave a prompt."""
        if self.messages is not None:
            return self.messages
        return [{"role": "user", "content": self.prompt}]


def _is_deeper(value: object, levels: int) -> bool:
    """Whether lists and dicts are nested in the value more than `levels` deep, or in a circle."""
    level: dict[int, Any] = {id(value): value}
    for _ in range(levels):
        inner: dict[int, Any] = {}
        for item in level.values():
            children = item.values() if isinstance(item, dict) else item
            inner.update((id(c), c) for c in children if isinstance(c, dict | list | tuple))
        if not inner:
            return False
        level = inner
    return True


_ROLES = frozenset({"system", "developer", "user", "assistant", "tool"})


def check_messages(messages: list[dict[str, Any]]) -> None:
    """Every message has a known role and a content of text or parts; InvalidRequest if not."""
    for i, message in enumerate(messages):
        role = message.get("role")
        if role not in _ROLES:
            raise InvalidRequest(f"messages[{i}].role", role, f"use one of {sorted(_ROLES)}")
        content = message.get("content")
        if content is None and (message.get("tool_calls") or role == "assistant"):
            continue
        if not isinstance(content, str) and not (
            isinstance(content, list) and all(isinstance(part, dict) for part in content)
        ):
            raise InvalidRequest(
                f"messages[{i}].content", content, "give a text or a list of parts"
            )


#: Params that both vendors read, with the span in which a number makes sense to any of them.
_NUMBERS: dict[str, tuple[float, float, bool]] = {
    "max_tokens": (1, 10_000_000, True),
    "max_completion_tokens": (1, 10_000_000, True),
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "top_k": (0, 1_000_000, True),
    "n": (1, 1, True),
    "frequency_penalty": (-2, 2, False),
    "presence_penalty": (-2, 2, False),
    "dimensions": (1, 1_000_000, True),
    "seed": (-(2**63), 2**63 - 1, True),
}


def check_params(params: dict[str, Any]) -> None:
    """The numbers that every vendor reads are numbers in range; InvalidRequest if not.

    Other params are the vendor's own and pass through. `stream` and `model` are not params:
    whether an attempt streams is Headgate's choice, and the model has a field of its own.
    """
    for name, (low, high, whole) in _NUMBERS.items():
        value = params.get(name)
        if value is None:
            continue
        right = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not right or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            span = f"{int(low)} to {int(high)}"
            raise InvalidRequest(f"params.{name}", value, f"give {kind} from {span}")
    for name in ("model", "messages", "stream", "stream_options", "input", "prompt"):
        if name in params:
            raise InvalidRequest(f"params.{name}", params[name], "is no param; leave it out")
    stop = params.get("stop")
    if not (stop is None or isinstance(stop, str) or _texts(stop)):
        raise InvalidRequest("params.stop", stop, "give a text or a list of texts")


def _texts(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_PARAMS = frozenset({*_NUMBERS, "stop", "tools", "tool_choice", "response_format"})

_REQUEST_FIELDS = frozenset(Request.model_fields)


def request_from(fields: dict[str, Any]) -> Request:
    """A checked Request from a caller's fields; raises InvalidRequest naming the first fault."""
    for name in fields:
        if name not in _REQUEST_FIELDS:
            if name in NOT_YET:
                raise InvalidRequest(
                    name, fields[name], "this field is not supported yet; leave it out"
                )
            if name in _PARAMS:
                raise InvalidRequest(name, fields[name], f"give it as params.{name}")
            raise InvalidRequest(
                str(name),
                fields[name],
                f"unknown field; known: {', '.join(sorted(_REQUEST_FIELDS))}",
            )
    wish = fields.get("cache")
    if isinstance(wish, dict) and wish.get("mode") == "semantic":
        raise InvalidRequest("cache.mode", "semantic", "not supported yet; use exact or off")
    try:
        return Request.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidRequest(where, first.get("input"), first["msg"]) from None


def refuse_oversize(encoded: bytes) -> None:
    """InvalidRequest for a request over the limit."""
    if len(encoded) > MAX_REQUEST_BYTES:
        raise InvalidRequest(
            "request", f"{len(encoded)} bytes", f"the limit is {MAX_REQUEST_BYTES} bytes (10 MB)"
        )


def json_bytes(value: object) -> bytes:
    """The value as JSON in UTF-8; InvalidRequest for NaN, infinities and lone surrogates."""
    try:
        data = orjson.dumps(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequest("request", None, f"cannot be written as JSON: {error}") from None
    if b"null" in data and not _finite(value):
        raise InvalidRequest("request", "NaN", "JSON has no NaN and no infinity; give a number")
    return data


def _finite(value: object) -> bool:
    match value:
        case float():
            return math.isfinite(value)
        case dict():
            return all(map(_finite, value.values()))
        case list() | tuple():
            return all(map(_finite, value))
        case _:
            return True


AUTO = "auto"
