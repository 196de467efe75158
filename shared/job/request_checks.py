"""Checks of the parts of a request whose form is the vendor's: messages, params, metadata."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Literal

from headgate.shared.errors import InvalidRequest
from headgate.shared.job.numbers import whole
from headgate.shared.job.responses_checks import check_responses_params

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
ANTHROPIC_ROLES = frozenset({"system", "user", "assistant"})

Form = Literal["openai", "anthropic", "responses"]
"""Whose form messages and params have. Responses is OpenAI's second form, after chat completions.
"""

AnyForm = Form | Literal["moderations"]
"""The form of a request. Moderations are OpenAI's, and have no messages and no events."""

INPUT_REMEDY = "give a text, a list of texts, a list of tokens or a list of token lists"

MAX_TOKEN = 2**31 - 1
"""The highest number that can stand for a token; vocabularies have about 200,000."""


def check_messages(messages: list[dict[str, Any]], form: Form = "openai") -> None:
    """Raise InvalidRequest unless each message has a known role and a text or parts as content."""
    is_openais = form == "openai"
    roles = ROLES if is_openais else ANTHROPIC_ROLES
    for i, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str) or role not in roles:
            raise InvalidRequest(f"messages[{i}].role", role, f"use one of {sorted(roles)}")
        content = message.get("content")
        if is_openais and content is None and (message.get("tool_calls") or role == "assistant"):
            continue
        if not isinstance(content, str) and not (
            isinstance(content, list) and all(isinstance(part, dict) for part in content)
        ):
            raise InvalidRequest(
                f"messages[{i}].content", content, "give a text or a list of parts"
            )


def check_input(value: Any) -> None:
    """Raise InvalidRequest for no input, for an empty token list, and for what is no token."""
    if not value or (isinstance(value, list) and isinstance(value[0], dict)):
        raise InvalidRequest("input", value, INPUT_REMEDY)
    if isinstance(value, str) or isinstance(value[0], str):
        return
    if isinstance(value[0], int):
        _check_tokens("input", value)
        return
    if isinstance(value[0], dict):
        remedy = 'items belong to dialect="responses"; name it, or give texts to embed'
        raise InvalidRequest("input", "a list of items", remedy)
    for i, tokens in enumerate(value):
        _check_tokens(f"input[{i}]", tokens)


def check_moderated(value: Any) -> None:
    """Raise InvalidRequest for what is no text, no list of texts and no list of typed parts."""
    if not value or not (isinstance(value, str) or _is_list_of(value, str, dict)):
        raise InvalidRequest("input", value, "give a text, a list of texts or a list of parts")
    for i, part in enumerate(value):
        if isinstance(part, dict) and not isinstance(part.get("type"), str):
            raise InvalidRequest(f"input[{i}].type", part.get("type"), "use text or image_url")


def _is_list_of(value: object, *kinds: type) -> bool:
    return isinstance(value, list) and any(
        all(isinstance(one, kind) for one in value) for kind in kinds
    )


def _check_tokens(field: str, tokens: Any) -> None:
    if not tokens:
        raise InvalidRequest(field, tokens, "give at least one token")
    if min(tokens) < 0 or max(tokens) > MAX_TOKEN:
        raise InvalidRequest(field, "a list of tokens", f"a token is 0 to {MAX_TOKEN}")


#: Params that both vendors read: the least, the greatest, and whether it is a whole number.
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "max_tokens": (1, 10_000_000, True),
    "max_completion_tokens": (1, 10_000_000, True),
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "top_k": (0, 1_000_000, True),
    "n": (1, 128, True),
    "frequency_penalty": (-2, 2, False),
    "presence_penalty": (-2, 2, False),
    "dimensions": (1, 1_000_000, True),
    "seed": (-(2**63), 2**63 - 1, True),
}

#: At Anthropic 0 tokens only fill the prompt cache, and temperatures end at 1.
ANTHROPIC_NUMBERS = {**NUMBERS, "max_tokens": (0, 10_000_000, True), "temperature": (0, 1, False)}

#: Of OpenAI's Responses; other names are the vendor's business.
RESPONSES_NUMBERS: dict[str, tuple[float, float, bool]] = {
    "max_output_tokens": (1, 10_000_000, True),
    "temperature": (0, 2, False),
    "top_p": (0, 1, False),
    "top_logprobs": (0, 20, True),
    "max_tool_calls": (1, 1_000_000, True),
}

_BOUNDS: dict[Form, dict[str, tuple[float, float, bool]]] = {
    "openai": NUMBERS, "anthropic": ANTHROPIC_NUMBERS, "responses": RESPONSES_NUMBERS,
}  # fmt: skip

BETAS = "anthropic_beta"
"""The param with the names of Anthropic's beta features, which are sent as a header."""

VERSION = "anthropic_version"
"""The param with the version of Anthropic's API, which is sent as a header."""

_VERSION = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_BETA_NAME = re.compile(r"[A-Za-z0-9][\w.:-]{0,127}", re.ASCII)

_WHOLE = frozenset(
    name for name, (*_, is_whole) in {**NUMBERS, **RESPONSES_NUMBERS}.items() if is_whole
)

#: Names that belong into `params`, for the remedy when a caller gives one beside it.
PARAMS = frozenset({*NUMBERS, "stop", "tools", "tool_choice", "response_format"})

#: Long names of params that vendors read, by which a misspelt one is recognised.
_KNOWN = (
    *NUMBERS, "tool_choice", "response_format", "logit_bias", "parallel_tool_calls", "top_logprobs",
    "reasoning_effort", "service_tier", "metadata", "modalities", "prediction", "stop_sequences",
    "max_output_tokens", "max_tokens_to_sample", "verbosity", "thinking", "safety_identifier",
    "prompt_cache_key", "prompt_logprobs", "stop_token_ids", "min_tokens", "max_new_tokens",
    "repetition_penalty", "logprobs", "functions", "function_call", "web_search_options",
)  # fmt: skip

_SHORTEST = 8
"""Shorter names are often one letter away from another vendor's param, such as top_p and top_a."""


@lru_cache(maxsize=1024)
def misspelt_param(name: str) -> str | None:
    """Return the param that is meant by this name, if it is surely a slip.

    It differs in case, `_` and `-` only, or is one letter away from a long name. All other names
    may be a vendor's own.
    """
    if name in _KNOWN or name in PARAMS:
        return None
    bare = _bare(name)
    for known in _KNOWN:
        if bare == _bare(known):
            return known
    long = [known for known in _KNOWN if len(known) >= _SHORTEST]
    if len(name) < _SHORTEST:
        return None
    return next((known for known in long if _is_one_away(name, known)), None)


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _is_one_away(one: str, other: str) -> bool:
    """Return whether one letter is added, missing, another, or swapped with the next."""
    if len(one) > len(other):
        one, other = other, one
    if len(other) - len(one) > 1:
        return False
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(one))
    rest, rest_of_other = one[at:], other[at:]
    if len(one) < len(other):
        return rest == rest_of_other[1:]
    return rest[1:] == rest_of_other[1:] or (
        rest[2:] == rest_of_other[2:] and rest[:2] == rest_of_other[:2][::-1]
    )


#: Fields of the vendors' bodies that Headgate sets itself: it chooses model and streaming.
_NOT_PARAMS = ("model", "messages", "stream", "stream_options", "input", "prompt")


def check_params(params: dict[str, Any], form: Form = "openai") -> None:
    """Raise InvalidRequest unless the params that every vendor reads are of type and in range.

    Other params are the vendor's own and pass through unchecked.
    """
    bounds = _BOUNDS[form]
    for name in bounds:
        if params.get(name) is not None:
            _check_number(name, params[name], bounds[name])
    if form == "responses":
        check_responses_params(params)
        return
    for name in _NOT_PARAMS:
        if name in params:
            remedy = "this is not a param; leave it out"
            raise InvalidRequest(f"params.{name}", params[name], remedy)
    stop = params.get("stop")
    if not (stop is None or isinstance(stop, str) or _is_list_of_texts(stop)):
        raise InvalidRequest("params.stop", stop, "give a text or a list of texts")
    if form == "anthropic":
        _check_betas(params)
        _check_version(params.get(VERSION))


def _check_betas(params: dict[str, Any]) -> None:
    """Raise InvalidRequest for names of beta features that a header cannot hold."""
    if "betas" in params:
        remedy = f"give the names as params.{BETAS}; they are sent as a header"
        raise InvalidRequest("params.betas", params["betas"], remedy)
    names = params.get(BETAS)
    if names is not None and not (
        _is_list_of_texts(names) and all(map(_BETA_NAME.fullmatch, names))
    ):
        raise InvalidRequest(f"params.{BETAS}", names, "give a list of the names of beta features")


def _check_version(version: object) -> None:
    """Raise InvalidRequest for a version of Anthropic's API that is no date."""
    if version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        remedy = "give the version as a date, such as 2023-06-01"
        raise InvalidRequest(f"params.{VERSION}", version, remedy)


def with_whole_numbers(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with params such as `max_tokens: 50.0`, as pandas has them, as 50."""
    params = fields.get("params")
    if not isinstance(params, dict):
        return fields
    made = {n: whole(v) for n, v in params.items() if isinstance(v, float) and n in _WHOLE}
    return {**fields, "params": {**params, **made}} if made else fields


def _check_number(name: str, value: object, bounds: tuple[float, float, bool]) -> None:
    low, high, whole = bounds
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not (whole and isinstance(value, float))
        and low <= value <= high
    ):
        return
    kind = "a whole number" if whole else "a number"
    raise InvalidRequest(f"params.{name}", value, f"give {kind} from {int(low)} to {int(high)}")


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def is_deeper(value: object, levels: int) -> bool:
    """Return whether lists and dicts are nested more than `levels` deep, or in a circle."""
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
