"""Estimates the tokens of a request offline from its characters, a little too high.

Buckets take the estimate before the call, and the vendor's own count settles it afterwards. So a
rough figure is enough, but a low one would let too much through. The weights were fitted with the
o200k vocabulary. On 4,000 prompts of all kinds the estimate was 1.09 times the true count in the
median. It was 0.96 times at the 5th percentile, 1.24 at the 95th, and 0.76 at least. It was 1.4
times for Python, 1.15 for Markdown and 1.18 for JSON. Other vendors' vocabularies differ, so
workers correct the estimate by the ratio that answers have shown
(`workers/maintenance/estimates.py`).

With the extra `bpe` (`pip install .[bpe]`) texts for OpenAI's models are counted by vocabulary.
That takes 75 MB on disk, 130 MB of memory and once 0.8 s in each process that counts. A prompt of
150 characters takes 7 us instead of 0.8 us (measured with bpe-openai 0.1.4). Attachments and the
tokens around tools stay estimates.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from headgate.shared.catalog.schema import Model
from headgate.shared.job.request import Request
from headgate.shared.responses.chat_form import readable

#: Tokens per byte. Lower-case letters and spaces make long tokens; capitals, digits and signs make
#: short ones. Outside ASCII a byte is 0.2 (Russian) to 0.75 (Amharic) of a token, as measured.
_SMALL, _SIGN, _WIDE = 0.22, 0.7, 0.4
_SMALL_BYTES = (string.ascii_lowercase + " ").encode()
_WIDE_BYTES = bytes(range(128, 256))

#: The tokens around a message, and before the answer. OpenAI measured 3 and 3 (cookbook, "How to
#: count tokens with tiktoken"); one more for a message to be safe.
MESSAGE_TOKENS, ANSWER_TOKENS = 4, 3
#: Anthropic scales images down to about 1,600 tokens (vision guide); Gemini takes 1,120 at its
#: default resolution. Files and recordings count the same: their size does not tell their tokens.
IMAGE_TOKENS = 1_600

SLACK = 1.5
"""How many times the window an estimate must be before a prompt is refused without a request."""


def input_tokens(request: Request, model: Model | None = None) -> int:
    """Return the estimated input tokens of the request, at least 1.

    Texts are counted with the vocabulary of `model` if that is known and installed.
    """
    request = readable(request)
    exact = None if model is None else _counter(vocabulary(model))
    count = exact or _text
    total = 0.0
    if request.prompt is not None:
        total = MESSAGE_TOKENS + ANSWER_TOKENS + count(request.prompt)
    elif request.messages is not None:
        total = ANSWER_TOKENS
        for message in request.messages:
            total += MESSAGE_TOKENS + _content(message.get("content"), count)
            if len(message) > 2:  # more than role and content
                total += sum(_json(message[k], count) for k in _BESIDE if k in message)
    elif isinstance(request.input, str):
        total = count(request.input)
    elif request.input is not None:
        if isinstance(request.input[0], int | list):
            return _given_tokens(request.input)
        total = _content([_text_part(one) for one in request.input], count)
    if request.params:
        for key in ("tools", "functions", "response_format", "output_config"):
            if key in request.params:
                total += _json(request.params[key], count)
        if "system" in request.params:
            total += _content(request.params["system"], count)
    return max(1, math.ceil(total)) if exact else int(total) + 1


def text_tokens(text: str, model: Model) -> int:
    """Return the estimated tokens of an answer with this text."""
    return math.ceil((_counter(vocabulary(model)) or _text)(text))


def _text_part(one: Any) -> Any:
    return {"text": one} if isinstance(one, str) else one


def _given_tokens(tokens: Sequence[Any]) -> int:
    """Return how many tokens the caller gave in the place of texts; that count is exact."""
    return sum(1 if isinstance(item, int) else len(item) for item in tokens)


#: What a message may hold beside its role and content.
_BESIDE = ("name", "tool_calls", "function_call")

EXACT_CHARACTERS = 50_000
"""Longer texts are estimated. bpe-openai refuses more than 200,000 tokens, and a character has at
most four. Counting blocks the event loop: 1 ms for 50,000 characters of prose, 18 ms of emojis."""


def vocabulary(model: Model) -> str:
    """Return the name of the model's vocabulary; empty if its vendor does not publish one.

    The names are those of tiktoken's table of models. Newer models get the latest vocabulary that
    OpenAI has published.
    """
    if model.provider != "openai":
        return ""
    name = model.provider_name.removeprefix("ft:")
    old = (
        name.startswith(("gpt-3.5", "gpt-4-", "text-embedding-"))
        or name.partition(":")[0] == "gpt-4"
    )
    return "cl100k_base" if old else "o200k_base"


@cache
def _counter(name: str) -> Callable[[str], float] | None:
    """Return a function that counts tokens by this vocabulary; None if it is not installed."""
    try:
        tokens_of = import_module("bpe_openai").get_encoding(name).encode_ordinary if name else None
    except ImportError:
        return None
    if tokens_of is None:
        return None

    def count(text: str) -> float:
        return len(tokens_of(text)) if len(text) <= EXACT_CHARACTERS else _text(text)

    return count


def load_vocabularies(models: Iterable[Model]) -> None:
    """Load the vocabularies of these models, so that the first count does not wait for them.

    Call it once, in its own thread: it takes 0.8 s, during which other threads go on. Without the
    extra `bpe` it does nothing.
    """
    for name in sorted({vocabulary(model) for model in models}):
        _counter(name)


def output_ceiling(asked_tokens: int | None, model: Model) -> int:
    """Return the most tokens that one answer can have; `asked_tokens`: as the request limits it."""
    ceiling = model.max_output_tokens
    return min(asked_tokens, ceiling) if asked_tokens and asked_tokens > 0 else ceiling


def answers(params: Mapping[str, Any]) -> int:
    """Return how many answers the request asks for in one call: its `n`, or 1."""
    asked = params.get("n")
    return asked if isinstance(asked, int) and asked > 1 else 1


def exceeds_window(input_tokens: int, model: Model, reserved_tokens: int = 0) -> bool:
    """Return whether a prompt of this estimate is surely too long for the model's window.

    `reserved_tokens` are left for the answer. An estimate is 1.1 times the true count in the median
    and 1.4 times for source code, so up to SLACK the vendor decides. Vendors count exactly and do
    not bill a refusal.
    """
    return input_tokens > SLACK * max(0, model.context_tokens - reserved_tokens)


def _text(text: str) -> float:
    # bytes.translate is one pass in C: 0.5 us for a short prompt.
    raw = text.encode("utf-8", "surrogatepass")
    rest = raw.translate(None, _SMALL_BYTES)
    if text.isascii():
        return _SMALL * (len(raw) - len(rest)) + _SIGN * len(rest)
    signs = len(rest.translate(None, _WIDE_BYTES))
    return _SMALL * (len(raw) - len(rest)) + _SIGN * signs + _WIDE * (len(rest) - signs)


def _content(content: object, count: Callable[[str], float]) -> float:
    """Return the tokens of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return count(content)
    if not isinstance(content, list):
        return 0.0
    return sum((_part(part, count) for part in content), 0.0)


def _part(part: object, count: Callable[[str], float]) -> float:
    """Return the tokens of a part of OpenAI's form or a block of Anthropic's."""
    match part:
        case {"text": str(text)}:
            return count(text)
        case {"type": "tool_result", **result}:
            return _content(result.get("content"), count)
        case {"type": "thinking", "thinking": str(text)}:  # its long signature is no prompt
            return count(text)
        case {"type": "document", "source": {"type": "text", "data": content}} | {
            "type": "document",
            "source": {"type": "content", "content": content},
        }:
            return _content(content, count)
        case {"type": str(kind)} if kind in _ATTACHED:
            return IMAGE_TOKENS
    return _json(part, count)


#: Types of parts, of both vendors, whose bytes are not text.
_ATTACHED = frozenset({"image_url", "image", "input_image", "input_audio", "file", "document"})


def _json(value: object, count: Callable[[str], float]) -> float:
    """Return the tokens of a value that is sent as JSON, such as a tool's schema."""
    try:
        return count(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except (TypeError, ValueError):
        return count(repr(value))
