"""What a client asked, in one form for both vendors, and what is wrong when nobody can answer."""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import orjson

Json = dict[str, Any]

# Fields that say how an answer travels or whom it is billed to, not what is asked: two requests
# that differ only in these get the same answer.
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


@dataclass(frozen=True, slots=True)
class Problem:
    """An error as a vendor tells it; `type` and `code` are the vendor's own words."""

    status: int
    type: str
    message: str
    code: str | None = None
    param: str | None = None
    retry_after_s: str | None = None
    retry_after_ms: str | None = None


class Invalid(Exception):
    """The body breaks a rule of the vendor; each vendor puts it into a shape of its own."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the caller offers; `schema` is the JSON schema of its arguments."""

    name: str
    schema: Json


@dataclass(frozen=True, slots=True)
class CacheMark:
    """A `cache_control` mark: the prompt up to `chars`, with the digest of that prefix."""

    chars: int
    digest: bytes
    ttl: Literal["5m", "1h"]


@dataclass(frozen=True, slots=True)
class SimulatedRequest:
    """One request for one answer (or `choices` of them, or one vector per input)."""

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
    stop: tuple[str, ...] = ()
    reasons: bool = False
    marks: tuple[CacheMark, ...] = ()
    inputs: tuple[str, ...] = ()
    dimensions: int = 0
    base64: bool = False
    flex: bool = False


def digest_of(body: Json) -> bytes:
    """The 16 bytes that name a request; equal for requests that ask the same."""
    asked = {name: part for name, part in body.items() if name not in TRAVEL_FIELDS}
    return hashlib.blake2b(
        orjson.dumps(asked, option=orjson.OPT_SORT_KEYS), digest_size=16
    ).digest()


def tokens_of(chars: int, chars_per_token: float) -> int:
    """Tokens counted the cheap way, never below 1: `chars` divided and rounded up."""
    return max(1, int(-(-chars // chars_per_token)))


def text_field(body: Json, name: str) -> str:
    """The non-empty string under `name`; Invalid when it is absent or something else."""
    found = body.get(name)
    if not isinstance(found, str) or not found:
        raise Invalid(f"you must provide a {name} parameter", param=name)
    return found


def count_field(body: Json, name: str, most: int | None = None) -> int | None:
    """The whole number above 0 under `name`, None when absent."""
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
    """True afterwards: `name` is absent or a number from 0 to `most`."""
    found = body.get(name)
    if found is None:
        return
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found <= most:
        raise Invalid(f"Invalid '{name}': expected a number from 0 to {most:g}.", param=name)


def flag_field(body: Json, name: str) -> bool:
    """The boolean under `name`, False when absent or null."""
    found = body.get(name)
    if found is None:
        return False
    if not isinstance(found, bool):
        raise Invalid(f"Invalid type for '{name}': expected a boolean.", param=name)
    return found


def messages_field(body: Json) -> list[Json]:
    """The non-empty list of message objects."""
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
    """The texts at which an answer ends, from a string, a list of strings or nothing."""
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
    """The tool this answer calls: the named one, any when it must, one the prompt mentions."""
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
