"""How many tokens a request will take, told offline from its characters, a little too high.

Buckets take this much before the call and are settled with the vendor's own count after it, so a
rough figure is enough; a low one would let too much through. Weights were fitted with the o200k
vocabulary. Estimate / true count, both with the marks of one message: 1.09 in the middle of 4,000
prompts of all kinds (0.96 at the fifth percentile, 1.24 at the 95th, 0.76 at least, 1.10 over
all), 1.4 for Python, 1.15 for Markdown, 1.18 for JSON. Other vendors' vocabularies differ.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from shared.catalog_form import Model

#: Tokens a byte, by kind of byte: small letters and spaces make long tokens, capitals, digits and
#: signs short ones; outside ASCII a byte is 0.2 (Russian) to 0.75 (Amharic) of a token.
_SMALL, _SIGN, _WIDE = 0.22, 0.7, 0.4
_SMALL_BYTES = (string.ascii_lowercase + " ").encode()
_WIDE_BYTES = bytes(range(128, 256))

#: A message's role and its marks; the start of the answer. Measured by OpenAI at 3 and 3
#: (cookbook, "How to count tokens with tiktoken"), one more to be safe.
MESSAGE_TOKENS, ANSWER_TOKENS = 4, 3
#: Anthropic's vision guide: images of more than about 1,600 tokens are scaled down first; Gemini
#: takes 1,120 at its default resolution. A file or a recording counts the same: no better figure
#: can be told from the outside.
IMAGE_TOKENS = 1_600


SLACK = 1.5
"""How far over the window an estimate must be before a prompt is refused without asking."""


class Prompted(Protocol):
    """The part of a request that makes its input; `shared.envelope.Request` fits."""

    @property
    def prompt(self) -> str | None: ...
    @property
    def messages(self) -> Sequence[Mapping[str, Any]] | None: ...
    @property
    def input(self) -> str | Sequence[str] | None: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


def input_tokens(request: Prompted) -> int:
    """The input of the request in tokens, estimated; at least 1."""
    total = 0.0
    if request.prompt is not None:
        total = MESSAGE_TOKENS + ANSWER_TOKENS + _text(request.prompt)
    elif request.messages is not None:
        total = ANSWER_TOKENS
        for message in request.messages:
            total += MESSAGE_TOKENS + _content(message.get("content"))
            if len(message) > 2:  # more than role and content
                total += sum(_json(message[k]) for k in ("name", "tool_calls") if k in message)
    elif isinstance(request.input, str):
        total = _text(request.input)
    elif request.input is not None:
        total = sum(_text(text) for text in request.input)
    if request.params:
        for key in ("tools", "functions", "response_format", "system"):
            if key in request.params:
                total += _json(request.params[key])
    return int(total) + 1


def output_ceiling(params: Mapping[str, Any], model: Model) -> int:
    """The most tokens that the answer can take: what was asked for, or what the model can give."""
    asked = params.get("max_completion_tokens") or params.get("max_tokens")
    most = model.max_output_tokens
    return min(asked, most) if isinstance(asked, int) and asked > 0 else most


def exceeds_window(input_tokens: int, model: Model, reserved_tokens: int = 0) -> bool:
    """True when a prompt of this estimate does not fit beside `reserved_tokens` of answer.

    An estimate may be half as much again as the truth (median 1.1, on source code 1.4): a prompt
    that only seems to be too long is left to the vendor, who counts exactly and bills no refusal.
    """
    return input_tokens > SLACK * max(0, model.context_tokens - reserved_tokens)


def _text(text: str) -> float:
    # Bytes, because bytes.translate is one pass in C: 0.5 us for a short prompt.
    raw = text.encode("utf-8", "surrogatepass")
    rest = raw.translate(None, _SMALL_BYTES)
    if text.isascii():
        return _SMALL * (len(raw) - len(rest)) + _SIGN * len(rest)
    signs = len(rest.translate(None, _WIDE_BYTES))
    return _SMALL * (len(raw) - len(rest)) + _SIGN * signs + _WIDE * (len(rest) - signs)


def _content(content: object) -> float:
    """A message's content: a text, or parts of which only texts and tool results hold text."""
    if isinstance(content, str):
        return _text(content)
    if not isinstance(content, list):
        return 0.0
    total = 0.0
    for part in content:
        if not isinstance(part, dict):
            total += _json(part)
        elif isinstance(part.get("text"), str):
            total += _text(part["text"])
        elif part.get("type") == "tool_result":
            total += _content(part.get("content"))
        elif part.get("type") in _ATTACHED:
            total += IMAGE_TOKENS
        else:
            total += _json(part)
    return total


#: Parts whose bytes are not read as text, in the words of both vendors.
_ATTACHED = frozenset({"image_url", "image", "input_image", "input_audio", "file", "document"})


def _json(value: object) -> float:
    """What is sent as JSON, such as a tool's schema."""
    try:
        return _text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except (TypeError, ValueError):
        return _text(repr(value))
