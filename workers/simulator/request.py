"""A request in one form for both vendors, and what is wrong with one that cannot be answered."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Json = dict[str, Any]

# Fields that say how an answer is sent or whom it is billed to. Two requests that differ only in
# these get the same answer.
TRAVEL_FIELDS = frozenset(
    {
        "stream",
        "stream_options",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "encoding_format",
    }
)
MAX_CHOICES = 128

PARALLEL, THINK = "[[parallel]]", "[[think]]"
"""A prompt with the first has all its tools called at once; one with the other shows reasoning."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error of a vendor; `type` and `code` are the vendor's own."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: str | None = None
    retry_after_ms: str | None = None


class Invalid(Exception):
    """The body breaks a rule of the vendor. Each vendor has a form of its own for this."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers. `schema` is the JSON schema of its arguments."""

    name: str
    schema: Json


@dataclass(frozen=True, slots=True)
class CacheMark:
    """A `cache_control` mark after `chars` characters of the prompt, with their digest."""

    chars: int
    digest: bytes
    ttl: Literal["5m", "1h"]


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """One request for one answer, for `choices` answers, or for a vector or verdict per input.

    `more_tools`: those that the answer calls besides `tool`. `thinks`: the answer shows its
    reasoning. `body`: what was asked, where the answer repeats it.
    """

    model: str
    text: str
    last: str
    chars: int
    digest: bytes
    max_tokens: int | None = None
    choices: int = 1
    stream: bool = False
    include_usage: bool = False
    wants_json: bool = False
    schema: Json | None = None
    tool: Tool | None = None
    more_tools: tuple[Tool, ...] = ()
    stop: tuple[str, ...] = ()
    reasons: bool = False
    thinks: bool = False
    marks: tuple[CacheMark, ...] = ()
    inputs: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    dimensions: int = 0
    base64: bool = False
    flex: bool = False
    body: Json | None = None


def digest_of(body: Json) -> bytes:
    """Return the 16 bytes that identify a request; equal for requests that ask the same."""
    asked = {name: part for name, part in body.items() if name not in TRAVEL_FIELDS}
    return hashlib.blake2b(
        orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=16
    ).digest()


def tokens_of(chars: int, chars_per_token: float) -> int:
    """Return `chars` as tokens: divided and rounded up, at least 1."""
    return max(1, int(-(-chars // chars_per_token)))


def text_field(body: Json, name: str) -> str:
    """Return the non-empty string under `name`; raises Invalid if there is none."""
    found = body.get(name)
    if not isinstance(found, str) or not found:
        raise Invalid(f"you must provide a {name} parameter", param=name)
    return found


def count_field(body: Json, name: str, most: int | None = None) -> int | None:
    """Return the whole number above 0 under `name`, None if absent; raises Invalid."""
    found = body.get(name)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise Invalid(
            f"Invalid type for '{name}': expected an integer.", param=name, code="invalid_type"
        )
    if found < 1 or (most is not None and found > most):
        wanted = "a value >= 1" if most is None else f"a value between 1 and {most}"
        raise Invalid(
            f"Invalid '{name}': {found}. Expected {wanted}.",
            param=name,
            code="integer_below_min_value" if found < 1 else "integer_above_max_value",
        )
    return found


def number_field(body: Json, name: str, most: float) -> None:
    """Raise Invalid unless `name` is absent or a number from 0 to `most`."""
    found = body.get(name)
    if found is None:
        return
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= most:
        raise Invalid(f"Invalid '{name}': expected a number from 0 to {most:g}.", param=name)


def flag_field(body: Json, name: str) -> bool:
    """Return the boolean under `name`, False if absent or null; raises Invalid."""
    found = body.get(name)
    if found is None:
        return False
    if not isinstance(found, bool):
        raise Invalid(f"Invalid type for '{name}': expected a boolean.", param=name)
    return found


def messages_field(body: Json) -> list[Json]:
    """Return the non-empty list of message objects; raises Invalid."""
    found = body.get("messages")
    if not isinstance(found, list) or not found:
        raise Invalid("Invalid 'messages': expected a non-empty array.", param="messages")
    for position, message in enumerate(found):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Invalid(
                f"Invalid 'messages[{position}]': expected an object with a role.",
                param=f"messages[{position}]",
            )
    return found


def stop_words(found: object, name: str) -> tuple[str, ...]:
    """Return the texts at which an answer ends, from a string, a list of strings or nothing."""
    if found is None:
        return ()
    if isinstance(found, str):
        return (found,) if found else ()
    if isinstance(found, list) and all(isinstance(word, str) for word in found):
        return tuple(word for word in found if word)
    raise Invalid(f"Invalid '{name}': expected a string or an array of strings.", param=name)


def tool_to_call(
    tools: list[Tool], must: bool, named: str | None, last: str, digest: bytes
) -> Tool | None:
    """Return the tool that the answer calls: the named one, one in the prompt, or any if `must`."""
    if not tools:
        return None
    if named is not None:
        for tool in tools:
            if tool.name == named:
                return tool
        raise Invalid(f"Tool choice '{named}' is not among the tools.", param="tool_choice")
    for tool in tools:
        if tool.name in last:
            return tool
    return tools[digest[0] % len(tools)] if must else None


def more_tools(tools: list[Tool], called: Tool | None, last: str) -> tuple[Tool, ...]:
    """Return the tools that the answer calls besides the first, because the prompt says so."""
    if called is None or PARALLEL not in last:
        return ()
    return tuple(tool for tool in tools if tool is not called)
