"""How many tokens a request will take, told offline from its characters, a little too high.

Buckets take this much before the call and are settled with the vendor's own count after it, so a
rough figure is enough; a low one would let too much through. Weights were fitted with the o200k
vocabulary. Estimate / true count, both with the marks of one message: 1.09 in the middle of 4,000
prompts of all kinds (0.96 at the fifth percentile, 1.24 at the 95th, 0.76 at least, 1.10 over
all), 1.4 for Python, 1.15 for Markdown, 1.18 for JSON. Other vendors' vocabularies differ: what is
held is corrected by the ratio that answers have shown (`workers/maintenance/estimates.py`).

With the extra `bpe` installed (`pip install .[bpe]`) texts for OpenAI's models are counted by their
vocabulary instead. That costs 75 MB on disk, 130 MB and 0.8 s once in each process that counts, and
7 us for a prompt of 150 characters in place of 0.8 us (measured with bpe-openai 0.1.4). Attachments
and the marks around tools stay estimates.
"""

from __future__ import annotations

import json
import math
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any, Protocol

from headgate.shared.catalog.schema import Model

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
    """The part of a request that makes its input; `headgate.shared.job.request.Request` fits."""

    @property
    def prompt(self) -> str | None: ...
    @property
    def messages(self) -> Sequence[Mapping[str, Any]] | None: ...
    @property
    def input(self) -> str | Sequence[str] | None: ...
    @property
    def params(self) -> Mapping[str, Any]: ...


def input_tokens(request: Prompted, model: Model | None = None) -> int:
    """The input of the request in tokens, estimated; at least 1.

    Counted with the vocabulary of `model` where that is known and installed.
    """
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
        total = sum(count(text) for text in request.input)
    if request.params:
        for key in ("tools", "functions", "response_format", "system"):
            if key in request.params:
                total += _json(request.params[key], count)
    return max(1, math.ceil(total)) if exact else int(total) + 1


#: What a message may hold beside its role and content.
_BESIDE = ("name", "tool_calls")

EXACT_CHARACTERS = 50_000
"""Longer texts are estimated: bpe-openai refuses more than 200,000 tokens, and a character has at
most four. Counting takes 1 ms for this much prose and 18 ms for emojis, and the loop waits."""


def vocabulary(model: Model) -> str:
    """The name of the model's vocabulary; empty where its vendor does not tell it.

    As in tiktoken's table of models; for newer ones the latest that OpenAI has published.
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
    """Counts the tokens of a text in this vocabulary; None where it is not installed."""
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
    """Counting for these models takes no time of its own any more; once, for a thread of its own.

    The first one takes 0.8 s, in which other threads go on. Nothing happens without the extra.
    """
    for name in sorted({vocabulary(model) for model in models}):
        _counter(name)


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


def _content(content: object, count: Callable[[str], float]) -> float:
    """A message's content: a text, or parts of which only texts and tool results hold text."""
    if isinstance(content, str):
        return count(content)
    if not isinstance(content, list):
        return 0.0
    total = 0.0
    for part in content:
        if not isinstance(part, dict):
            total += _json(part, count)
        elif isinstance(part.get("text"), str):
            total += count(part["text"])
        elif part.get("type") == "tool_result":
            total += _content(part.get("content"), count)
        elif part.get("type") in _ATTACHED:
            total += IMAGE_TOKENS
        else:
            total += _json(part, count)
    return total


#: Parts whose bytes are not read as text, in the words of both vendors.
_ATTACHED = frozenset({"image_url", "image", "input_image", "input_audio", "file", "document"})


def _json(value: object, count: Callable[[str], float]) -> float:
    """What is sent as JSON, such as a tool's schema."""
    try:
        return count(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except (TypeError, ValueError):
        return count(repr(value))
